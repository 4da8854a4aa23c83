"""What `square` tries next, move by move, against the papers' words."""

import pytest
import torch
from torch import Tensor

from advrad.attacks import L2, Linf, Patch
from advrad.attacks._moves import (
    _hump,
    _unit,
    humps,
    moves,
    restuck,
    squares,
    standing,
    sticker,
    stripes,
    tiles,
)
from advrad.errors import UsageError


def drawn(seed: int = 0):
    source = torch.Generator().manual_seed(seed)
    return lambda number: torch.rand(1, number, generator=source)


@pytest.mark.parametrize("side", [1, 2, 3, 6, 7])
@pytest.mark.parametrize("power", [1, 2])
def test_a_hump_is_the_published_one(side: int, power: int) -> None:
    """Frames laid on each other as the paper's Eq. 2 does, one by one."""

    def frames(height: int, width: int) -> Tensor:
        total = torch.zeros(height, width)
        for k in range(max(height // 2, width // 2) + 1):
            top, left = height // 2 - k, width // 2 - k
            total[max(top, 0) : top + 2 * k + 1, max(left, 0) : left + 2 * k + 1] += (k + 1) ** (
                -4 / power
            )
        return total / (total**power).sum() ** (1 / power)

    upper, lower = frames(side // 2, side), frames(side - side // 2, side)
    whole = torch.cat([upper, -lower])
    expected = whole / (whole.abs() ** power).sum() ** (1 / power)
    torch.testing.assert_close(_hump(side, power), expected)


@pytest.mark.parametrize("eps", [0.3, 3.0])
def test_tiles_fill_the_l2_ball_and_stripes_the_linf_ball(eps: float) -> None:
    """25 tiles share the square of eps; a stripe is one colour of + or - eps."""
    x = torch.full((1, 2, 21, 22), 0.5)
    change = (tiles(x, L2(eps), drawn()).x - x)[0, :, :20, 1:21]
    masses = change.square().unflatten(2, (5, 4)).unflatten(1, (5, 4)).sum((2, 4))
    torch.testing.assert_close(masses, torch.full((2, 5, 5), eps**2 / 50))
    change = (stripes(x, Linf(0.1 * eps), drawn()).x - x)[0]
    torch.testing.assert_close(change.abs(), torch.full_like(change, 0.1 * eps))
    assert torch.equal(change, change[:, :1].expand_as(change))
    assert len(change[:, 0].sign().unique(dim=1).T) == 4


def test_a_square_is_full_and_may_be_anywhere() -> None:
    x, draw = torch.full((1, 3, 6, 6), 0.5), drawn()
    touched = torch.zeros(6, 6)
    for _ in range(200):
        change = squares(x, standing(x), Linf(0.1), 4 / 36, draw).x - x
        places = change[0].ne(0).all(0)
        assert places.sum() == 4
        torch.testing.assert_close(change[0][:, places].abs(), torch.full((3, 4), 0.1))
        assert (change[0][:, places].std(1) < 1e-6).all()
        touched += places
    assert (touched > 0).all()


def test_humps_use_the_whole_l2_ball_and_leave_the_rest_in_proportion() -> None:
    source = torch.Generator().manual_seed(0)
    x = torch.full((1, 2, 16, 16), 0.5)
    delta = 0.3 * _unit(torch.randn(x.shape, generator=source), 2) / 2**0.5
    at, draw, emptied = standing(x + delta), drawn(), []
    for _ in range(20):
        change = humps(x, at, L2(0.3), 9 / 256, draw).x - x
        torch.testing.assert_close(change.norm(), torch.tensor(0.3))
        ratio = (change / delta).flatten(1)
        same = (ratio - ratio.median()).abs() < 1e-3
        assert same.sum() >= 2 * (256 - 2 * 9)
        emptied.append(int((change == 0).sum()))
    assert max(emptied) == 2 * 9


def test_a_sticker_is_moved_or_painted() -> None:
    x, draw = torch.full((1, 1, 8, 8), 0.5), drawn()
    at = sticker(x, Patch(4), draw)
    corners, ends, along = set(), set(), 0
    for _ in range(400):
        then = restuck(x, at, Patch(4), 1 / 16, draw)
        top, left = then.corner[0].tolist()
        outside = (then.x != x)[0, 0].clone()
        outside[top : top + 4, left : left + 4] = False
        assert not outside.any()
        if torch.equal(then.corner, at.corner):
            assert (then.x != at.x).sum() <= 1
        else:
            corners.add((top - int(at.corner[0, 0]), left - int(at.corner[0, 1])))
            old, new = (
                each.x[0, 0, row : row + 4, column : column + 4]
                for each in (at, then)
                for row, column in [each.corner[0].tolist()]
            )
            along += torch.equal(old, new)
            covered = (at.x == then.x)[0, 0, top : top + 4, left : left + 4]
            assert torch.equal(old, new) or ((new == 0) | (new == 1) | covered).all()
        at = then
        ends.add((top, left))
    assert 50 < along < 200
    assert {(1, 0), (0, 1), (-1, 0), (0, -1), (1, 1)} <= corners
    assert {place for end in ends for place in end} == {0, 1, 2, 3, 4}


def test_a_ball_without_moves_is_refused() -> None:
    class Other:
        name = "other"

    with pytest.raises(UsageError, match="other: expected one of linf, l2, l1, patch"):
        moves(Other())
