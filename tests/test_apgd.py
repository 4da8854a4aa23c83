"""APGD against optima on paper, and its rules one by one."""

import pytest
import torch
from oracles import Counted, LinearScore
from torch import Tensor

from advrad.attacks import BALLS, L1, L2, Aim, Linf, apgd, pgd
from advrad.attacks._pace import Halving, Place, Sparse, checkpoints
from advrad.errors import BlindAttackError, UsageError

SHAPE = (1, 8, 8)
GREY = torch.full((3, *SHAPE), 0.5)


@pytest.mark.parametrize("start", ["random", "zero"])
@pytest.mark.parametrize("steps", [20, 50, 100])
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.05), ("l2", 0.4), ("l1", 0.4), ("patch", 3)])
def test_the_optimum_of_a_linear_score_is_reached(
    norm: str, eps: float, steps: int, start: str
) -> None:
    torch.manual_seed(0)
    score = LinearScore(*SHAPE)
    rise = score(apgd(score, GREY, BALLS[norm](eps), steps=steps, start=start)) - score(GREY)
    least = 0.999 if norm != "l1" or steps > 20 else 0.9  # sparsity comes with checkpoints
    assert least <= float(rise.min()) / score.gain(norm, eps)
    assert float(rise.max()) / score.gain(norm, eps) <= 1.0001


def test_checkpoints_are_the_published_ones() -> None:
    assert sorted(checkpoints(100)) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert sorted(checkpoints(1000)) == [220, 410, 570, 700, 800, 870, 930, 990]
    assert sorted(checkpoints(50)) == [11, 21, 29, 35, 40, 44, 47, 50]
    assert sorted(checkpoints(1)) == [1]


def place(x: Tensor, climb: list[float]) -> Place:
    return Place(x, torch.tensor(climb), torch.ones_like(x))


def paced(steps: int = 100) -> Halving:
    return Halving(Linf(0.1), GREY, place(GREY, [0.0, 0.0, 0.0]), steps, 0.75)


def test_steps_are_halved_where_fewer_than_rho_of_the_moves_rose() -> None:
    """22 moves, of which 16, 17 and 22 rose: 16 < 0.75 * 22 <= 17."""
    pace, top = paced(), place(GREY, [1.0, 1.0, 1.0])
    for number in range(1, 23):
        rose = torch.tensor([number > 6, number > 5, True])
        back = pace.back(number, rose, top)
        assert back.tolist() == [number == 22, False, False]
    torch.testing.assert_close(pace.size.flatten(), torch.tensor([0.1, 0.2, 0.2]))


def test_moves_are_counted_from_checkpoint_to_checkpoint() -> None:
    """All of 22 rise, and none of the 19 after them."""
    pace = paced()
    for number in range(1, 42):
        rose = torch.full((3,), number <= 22)
        back = pace.back(number, rose, place(GREY, [float(number)] * 3))
        assert back.tolist() == [number == 41] * 3


def test_steps_are_halved_where_neither_they_nor_the_best_have_changed() -> None:
    pace, rose = paced(), torch.ones(3, dtype=torch.bool)
    heights = {22: [1.0, 1.0, 0.0], 41: [1.0, 2.0, 0.0], 57: [1.0, 2.0, 0.0]}
    backs = {
        number: pace.back(
            number, rose, place(GREY, heights[min(n for n in heights if n >= number)])
        )
        for number in range(1, 58)
    }
    assert backs[22].tolist() == [False, False, True]
    # the third one was halved just now: its best may stay as it is once
    assert backs[41].tolist() == [True, False, False]
    assert backs[57].tolist() == [False, True, True]


def test_a_move_is_a_step_and_a_quarter_of_the_last_move() -> None:
    pace = Halving(Linf(1.0), GREY, place(GREY, [0.0] * 3), 100, 0.75)
    pace.size = torch.full((3, 1, 1, 1), 0.04)
    first = pace.move(place(GREY, [0.0] * 3))
    torch.testing.assert_close(first, GREY + 0.04)
    second = pace.move(place(first, [0.0] * 3))
    torch.testing.assert_close(second, first + 0.75 * 0.04 + 0.25 * 0.04)
    third = pace.move(place(second - 0.1, [0.0] * 3))
    torch.testing.assert_close(third, second - 0.1 + 0.75 * 0.04 + 0.25 * (0.04 - 0.1))


def test_the_first_step_is_two_radii() -> None:
    seen: list[Tensor] = []

    def objective(x: Tensor) -> Tensor:
        seen.append(x.detach().clone())
        return x.flatten(1).sum(1)

    apgd(objective, GREY, L2(torch.tensor([0.1, 0.2, 0.3])), steps=3)
    clean, start, first, *_ = seen
    assert torch.equal(clean, GREY)
    expected = L2(torch.tensor([0.1, 0.2, 0.3])).project(
        start + 2 * torch.tensor([0.1, 0.2, 0.3])[:, None, None, None] / 8, GREY
    )
    torch.testing.assert_close(first, expected)


RISES, FALLS = [float(k) for k in range(101)], [-float(k) for k in range(101)]
WIDE, HALVED = 0.2, 0.1  # step sizes in a ball of 0.1


def iterates(*heights: list[float]) -> list[Tensor]:
    """What APGD looks at where values go as told, image by image, and the way is up and down."""
    seen: list[Tensor] = []

    def objective(x: Tensor) -> Tensor:
        value = torch.tensor([each[len(seen)] for each in heights])
        way = direction(len(seen)) * x.flatten(1).sum(1)
        seen.append(x.detach().clone())
        return value + way - way.detach()

    apgd(objective, GREY[: len(heights)], Linf(0.1), steps=100, start="zero")
    return seen


def direction(number: int) -> int:
    """Of the gradient at an iterate: seldom the same after the move before it."""
    return 1 if number % 3 else -1


def onward(at: Tensor, number: int, size: float, before: Tensor) -> Tensor:
    """The move from iterate `number`, by Algorithm 1."""
    there = (at + size * direction(number)).clamp(0.4, 0.6)
    return (at + 0.75 * (there - at) + 0.25 * (at - before)).clamp(0.4, 0.6)


def test_an_image_goes_back_to_its_best_iterate_alone() -> None:
    """The second image's value falls with every move: at the checkpoint it is at its start."""
    seen = iterates(RISES, FALLS)
    torch.testing.assert_close(seen[23][0], onward(seen[22][0], 22, WIDE, seen[21][0]))
    torch.testing.assert_close(seen[23][1], onward(GREY[1], 0, HALVED, seen[21][1]))


def test_a_move_rises_where_it_is_higher_than_the_last_one_not_than_all() -> None:
    """Up, far down, and then up again all the way: one of 22 is no record, 21 of 22 rise."""
    seen = iterates([0.0, 1000.0, *RISES])
    torch.testing.assert_close(seen[23][0], onward(seen[22][0], 22, WIDE, seen[21][0]))


def test_a_start_whose_value_is_no_number_is_not_the_best() -> None:
    seen = iterates([float("nan"), 5.0, *FALLS])
    torch.testing.assert_close(seen[23][0], onward(seen[1][0], 1, HALVED, seen[21][0]))


@pytest.mark.parametrize("restarts", [1, 2])
@pytest.mark.parametrize("steps", [1, 2, 30])
@pytest.mark.parametrize("norm", ["linf", "l1"])
@pytest.mark.parametrize(("start", "clean"), [("random", 1), ("zero", 0)])
def test_it_costs_what_it_says(
    norm: str, start: str, clean: int, steps: int, restarts: int
) -> None:
    counted = Counted(LinearScore(*SHAPE))
    apgd(counted, GREY, BALLS[norm](0.1), steps=steps, restarts=restarts, start=start)
    assert counted.gradients == steps * restarts
    assert counted.forwards == restarts + clean


def valley(x: Tensor) -> Tensor:
    """A curved score with curvatures a thousand apart; its maximum, 0, is inside the ball."""
    curvature = torch.logspace(0, 3, 64).view(SHAPE)
    return -(curvature * (x - 0.52).square()).flatten(1).sum(1)


def test_steps_that_are_found_beat_steps_that_are_fixed_on_a_curved_score() -> None:
    torch.manual_seed(0)
    found = {attack: attack(valley, GREY, Linf(0.1), steps=100) for attack in (apgd, pgd)}
    apart = {attack: float(-valley(adv).mean()) for attack, adv in found.items()}
    assert apart[apgd] < 0.5 * apart[pgd]


def test_what_is_returned_ranks_highest_and_what_is_climbed_leads() -> None:
    score, heights = LinearScore(*SHAPE), []

    def objective(x: Tensor) -> Aim:
        value = score(x) - score(GREY)
        rank = -(value - 1).abs().detach()
        heights.append(rank)
        return Aim(value, rank)

    adv = apgd(objective, GREY, L2(0.4), steps=50)
    found = objective(adv).rank
    assert torch.equal(found, torch.stack(heights).amax(0))


def test_a_value_that_is_no_number_is_left_behind() -> None:
    score = LinearScore(*SHAPE)

    def objective(x: Tensor) -> Tensor:
        value = score(x) - score(GREY)
        return torch.where(value > 1, torch.nan, value)

    rise = score(apgd(objective, GREY, L2(0.4), start="zero")) - score(GREY)
    assert (rise > 0.8).all()
    assert (rise <= 1).all()


def test_sparse_steps_follow_what_the_best_perturbation_needs() -> None:
    pace = Sparse(L1(0.9), GREY, 100)
    start = place(GREY, [0.0] * 3)
    assert ((pace.move(start) != GREY).flatten(1).sum(1) == 64).all()  # equal gradients: no share
    best = GREY.clone()
    best[0, 0, :2], best[1, 0, 0, :6], best[2] = 0.6, 0.6, 0.6
    rose = torch.ones(3, dtype=torch.bool)
    assert not pace.back(3, rose, place(best, [0.0] * 3)).any()
    assert pace.back(4, rose, place(best, [0.0] * 3)).tolist() == [True, True, False]
    counts = torch.tensor([16, 6, 64])
    torch.testing.assert_close(pace.ball.share, counts / 64 / 1.5)
    torch.testing.assert_close(pace.size.flatten(), torch.tensor([0.9, 0.9, 0.6]))
    for number in range(8, 100, 4):
        pace.back(number, rose, place(best, [0.0] * 3))
    torch.testing.assert_close(pace.size.flatten(), torch.full((3,), 0.09))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps 0"),
        ({"restarts": -1}, "restarts -1"),
        ({"start": ""}, "start ''"),
        ({"rho": 1.5}, "rho 1.5: expected a share"),
    ],
)
def test_impossible_settings_are_refused(settings, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        apgd(LinearScore(*SHAPE), GREY, Linf(0.1), **settings)


def test_an_image_that_strays_to_where_there_is_no_number_keeps_what_it_had() -> None:
    """Of root(0.5 - rise), made small, all images walk over the edge at once."""
    x = torch.full((2, 1, 4, 4), 0.5)
    rise = lambda y: (y - x).flatten(1).sum(1)
    objective = lambda y: -(0.5 - rise(y)).sqrt()
    found = apgd(objective, x, Linf(0.2), steps=10, start="zero")
    assert (rise(found) > 0).all()
    assert objective(found).isfinite().all()
    with pytest.raises(BlindAttackError):
        apgd(lambda y: objective(y) * torch.nan, x, Linf(0.2), steps=3)
