"""Views that must be exact are; the others stay inside the image and its values."""

import math

import pytest
import torch
from torch import Generator, Tensor

from advrad.diffusion.augment import (
    ALL,
    _warp,
    augment,
    crops,
    flips,
    mirrors,
    quarters,
    rotations,
    shifts,
)

X = torch.rand(1, 3, 8, 8, generator=Generator().manual_seed(1)) * 2 - 1


def source(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def among(views: Tensor, allowed: list[Tensor]) -> list[int]:
    """Which of the allowed images each view is; fails where it is none of them."""
    found = []
    for view in views:
        matches = [i for i, image in enumerate(allowed) if torch.equal(view, image)]
        assert len(matches) == 1
        found += matches
    return found


def test_flips_are_the_four_mirror_images_equally_often() -> None:
    x = X[0]
    allowed = [x, x.flip(-1), x.flip(-2), x.flip(-1, -2)]
    found = among(flips(X.expand(800, -1, -1, -1), source()), allowed)
    assert all(abs(found.count(i) - 200) < 5 * 12.3 for i in range(4))


def test_mirrors_are_the_image_and_its_mirror_image_equally_often() -> None:
    found = among(mirrors(X.expand(800, -1, -1, -1), source()), [X[0], X[0].flip(-1)])
    assert abs(found.count(1) - 400) < 5 * 14.2


def test_shifts_are_moves_by_up_to_an_eighth_each_equally_often() -> None:
    """Nine places for an image of 8 pixels; what comes in is black."""
    wide = torch.zeros(3, 10, 10)
    wide[:, 1:9, 1:9] = X[0]
    allowed = [wide[:, i : i + 8, j : j + 8] for i in range(3) for j in range(3)]
    found = among(shifts(X.expand(900, -1, -1, -1), source()), allowed)
    assert all(abs(found.count(i) - 100) < 5 * 9.5 for i in range(9))


def test_quarters_are_the_four_turned_images_equally_often() -> None:
    allowed = [X[0].rot90(k, (1, 2)) for k in range(4)]
    found = among(quarters(X.expand(800, -1, -1, -1), source()), allowed)
    assert all(abs(found.count(i) - 200) < 5 * 12.3 for i in range(4))


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_a_rotation_by_a_quarter_turn_is_exact(turns: int) -> None:
    angle = torch.tensor([turns * math.pi / 2])
    got = _warp(X, angle, torch.ones(1), torch.zeros(1, 2))
    options = [X.rot90(k, (2, 3)) for k in (turns, -turns)]
    assert min((got - option).abs().max().item() for option in options) < 1e-5


def test_rotations_turn_by_every_angle_and_keep_the_middle() -> None:
    """A ring about the centre is the same after any rotation."""
    line = torch.linspace(-1, 1, 65)
    radius = (line[:, None].square() + line.square()).sqrt()
    ring = torch.cos(3 * radius)[None, None]
    turned = rotations(ring.expand(20, -1, -1, -1), source())
    inside = radius < 0.9
    gap = (turned - ring)[:, 0, inside].abs().max()
    assert gap < 0.02
    slope = line[None, None, None].expand(200, 1, 65, 65)
    heard = rotations(slope, source())
    angles = torch.atan2(
        heard[:, 0, 48, 32] - heard[:, 0, 16, 32], heard[:, 0, 32, 48] - heard[:, 0, 32, 16]
    )
    counts = torch.histc(angles, 8, -math.pi, math.pi)
    assert (counts > 8).all()


def test_crops_are_squares_of_80_to_100_percent_inside_the_image() -> None:
    """On a picture of its own coordinates a crop shows where it was taken."""
    line = (torch.arange(64) + 0.5) / 32 - 1
    places = torch.stack([line.expand(64, 64), line[:, None].expand(64, 64)])
    views = crops(places.expand(300, -1, -1, -1), source())
    for axis, view in enumerate((views[:, 0, 32], views[:, 1, :, 32])):
        side = (view[:, -1] - view[:, 0]) / (line[-1] - line[0])
        middle = (view[:, -1] + view[:, 0]) / 2
        assert side.min() == pytest.approx(0.8, abs=0.02), axis
        assert side.max() == pytest.approx(1, abs=0.02), axis
        assert (middle.abs() + side <= 1.001).all()
        assert middle.min() < -0.1
        assert middle.max() > 0.1
    across, down = views[:, 0, 0, -1] - views[:, 0, 0, 0], views[:, 1, -1, 0] - views[:, 1, 0, 0]
    assert (across - down).abs().max() < 0.01


@pytest.mark.parametrize("name", ALL)
def test_views_keep_shape_range_and_type(name: str) -> None:
    x = torch.rand(5, 3, 16, 16, generator=source(2)) * 2 - 1
    got = augment(x, [name], source())
    assert got.shape == x.shape
    assert got.dtype == x.dtype
    assert got.min() >= -1 - 1e-6
    assert got.max() <= 1 + 1e-6


@pytest.mark.parametrize("name", ALL)
def test_views_repeat_with_the_source_alone(name: str) -> None:
    x = torch.rand(5, 3, 16, 16, generator=source(2))
    kept = x.clone()
    first = augment(x, [name], source(3))
    torch.manual_seed(77)
    assert torch.equal(augment(x, [name], source(3)), first)
    assert not torch.equal(augment(x, [name], source(4)), first)
    assert torch.equal(x, kept)


def test_views_follow_one_another() -> None:
    stream = source(1)
    expected = quarters(flips(X, stream), stream)
    assert torch.equal(augment(X, ["flips", "quarters"], source(1)), expected)
    assert torch.equal(augment(X, [], source()), X)
