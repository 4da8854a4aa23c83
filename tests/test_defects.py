"""Injected defects: the mask covers the change exactly, and the noise decides everything."""

import math

import pytest
import torch
from torch import Tensor

from advrad.data import defects, shapes
from advrad.errors import UsageError
from advrad.noise import Fixed, PerImage, fresh

SEEDS = range(12)
SHAPES = [(1, 64, 64), (3, 48, 80), (3, 16, 16), (1, 16, 200)]
kinds = pytest.mark.parametrize("kind", defects.ALL)


def picture(channels: int, height: int, width: int, seed: int = 0) -> Tensor:
    """A textured image that reaches both 0 and 1."""
    noise = Fixed(1000 + seed)
    planes = [shapes.fractal(noise, 10 * c, 6, height, width) for c in range(channels)]
    return (0.5 + torch.stack(planes)).clamp(0, 1)


def broken_rules(x: Tensor, changed: Tensor, mask: Tensor) -> set[str]:
    """Which promises about a mask a defect breaks."""
    moved = (changed != x).any(0)
    rules = {
        "unmarked change": bool((moved & ~mask).any()),
        "empty": not bool(mask.any()),
        "marked where nothing moved": float((moved & mask).sum()) < 0.85 * float(mask.sum()),
        "out of range": bool((changed < 0).any() or (changed > 1).any()),
    }
    return {rule for rule, broken in rules.items() if broken}


@kinds
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_mask_covers_the_change_exactly(kind: str, shape: tuple[int, int, int]) -> None:
    for seed in SEEDS:
        x = 0.1 + 0.8 * picture(*shape, seed=seed)
        before = x.clone()
        changed, mask = defects.ALL[kind](x, Fixed(seed))
        assert mask.dtype == torch.bool
        assert mask.shape == x.shape[1:]
        assert changed.shape == x.shape
        assert broken_rules(x, changed, mask) == set(), f"seed {seed}"
        assert torch.equal(x, before), "the image itself was changed"


def test_planted_bugs_are_found() -> None:
    x = 0.1 + 0.8 * picture(3, 64, 64)
    changed, mask = defects.stain(x, Fixed(1))
    assert broken_rules(x, changed, mask) == set()
    row, column = mask.nonzero()[0].tolist()
    smaller = mask.clone()
    smaller[row, column] = False
    larger = shapes.soft_mask((~mask).double() + torch.rand(64, 64), 1.5 * area(mask), 0.1) > 0
    leaking = changed.clone()
    leaking[:, ~mask] += 1e-6
    assert "unmarked change" in broken_rules(x, changed, smaller)
    assert "unmarked change" in broken_rules(x, leaking, mask)
    assert broken_rules(x, changed, larger) == {"marked where nothing moved"}
    assert broken_rules(x, changed, torch.zeros_like(mask)) == {"empty", "unmarked change"}
    assert "out of range" in broken_rules(x, changed + mask, mask)


def area(mask: Tensor) -> float:
    return float(mask.double().mean())


@kinds
@pytest.mark.parametrize("size", [0.5, 1.0])
def test_areas_stay_within_their_documented_range(kind: str, size: float) -> None:
    x = picture(1, 160, 160)
    least, most = (bound * size**2 for bound in defects.AREAS[kind])
    areas = [area(defects.ALL[kind](x, Fixed(seed), size=size)[1]) for seed in range(40)]
    rounding = 1 / 160**2
    assert least - rounding <= min(areas)
    assert max(areas) <= most + rounding
    assert max(areas) > 2.5 * min(areas), "sizes are not drawn over a range"


@kinds
def test_strength_zero_changes_nothing_and_strength_is_linear(kind: str) -> None:
    x = 0.1 + 0.8 * picture(3, 64, 64)
    for seed in SEEDS:
        whole, mask = defects.ALL[kind](x, Fixed(seed))
        none, same = defects.ALL[kind](x, Fixed(seed), strength=0.0)
        half, _ = defects.ALL[kind](x, Fixed(seed), strength=0.5)
        assert torch.equal(none, x)
        assert torch.equal(mask, same)
        torch.testing.assert_close(half - x, (whole - x) / 2, atol=1e-6, rtol=0)


@kinds
def test_the_noise_decides_and_nothing_else(kind: str) -> None:
    x = picture(3, 40, 56)
    once, mask = defects.ALL[kind](x, Fixed(5))
    torch.manual_seed(7)
    again, same = defects.ALL[kind](x, Fixed(5))
    other, _ = defects.ALL[kind](x, Fixed(6))
    assert torch.equal(once, again)
    assert torch.equal(mask, same)
    assert not torch.equal(once, other)
    assert torch.equal(
        defects.ALL[kind](x, PerImage(3, ["a"]))[0], defects.ALL[kind](x, PerImage(3, ["a"]))[0]
    )
    assert broken_rules(x, *defects.ALL[kind](x, fresh)) <= {"marked where nothing moved"}


@kinds
@pytest.mark.parametrize("level", [0.0, 0.02, 0.5, 0.97, 1.0])
@pytest.mark.parametrize("channels", [1, 3])
def test_it_shows_on_flat_images_even_black_and_white(
    kind: str, level: float, channels: int
) -> None:
    x = torch.full((channels, 64, 64), level)
    for seed in SEEDS:
        changed, mask = defects.ALL[kind](x, Fixed(seed))
        assert float((changed - x).abs().max()) > 0.02, f"seed {seed}"
        assert not (changed != x)[:, ~mask].any()


@pytest.mark.parametrize("kind", [kind for kind in defects.ALL if kind != "scratch"])
def test_a_draw_means_the_same_defect_at_every_size(kind: str) -> None:
    """The mask of an image of twice the side, shrunk, is the mask of the small one."""
    small, large = torch.full((1, 96, 96), 0.5), torch.full((1, 192, 192), 0.5)
    for seed in range(6):
        mask = defects.ALL[kind](small, Fixed(seed))[1]
        fine = defects.ALL[kind](large, Fixed(seed))[1].float()
        if kind == "perlin" or area(mask) < 0.01:
            continue  # islands and specks: the border is most of them
        shrunk = fine.reshape(96, 2, 96, 2).mean((1, 3)) > 0.5
        both = float((mask & shrunk).sum()) / float((mask | shrunk).sum())
        assert both > 0.8, f"seed {seed}: {both:.2f}"


def test_contrast_follows_the_image() -> None:
    """The same draw changes an image of ten times the contrast more."""
    faint, bold = (0.5 + spread * (picture(1, 64, 64) - 0.5) for spread in (0.06, 0.6))
    for seed in SEEDS:
        weak, mask = defects.spot(faint, Fixed(seed))
        strong, _ = defects.spot(bold, Fixed(seed))
        assert (weak - faint).abs().max() <= (strong - bold).abs().max() + 0.02
        assert mask.any()


def test_defects_lie_on_the_thing_where_the_ground_is_plain() -> None:
    x = torch.full((3, 64, 64), 0.9)
    x[:, 20:44, 16:40] = 0.3 + 0.1 * torch.rand(3, 24, 24)
    thing = shapes.object_of(x)
    expected = torch.zeros(64, 64, dtype=torch.bool)
    expected[20:44, 16:40] = True
    assert torch.equal(thing, expected)
    for seed in SEEDS:
        assert defects.spot(x, Fixed(seed))[1][expected].any()


def test_a_texture_is_a_thing_everywhere() -> None:
    assert shapes.object_of(picture(1, 64, 64)).all()
    assert shapes.object_of(torch.full((3, 32, 32), 0.4)).all()


def test_inject_picks_every_kind_by_the_noise() -> None:
    x = picture(3, 32, 32)
    picked = [defects.inject(x, Fixed(seed))[2] for seed in range(60)]
    assert set(picked) == set(defects.ALL)
    changed, mask, kind = defects.inject(x, Fixed(3), kinds=["hole"], strength=0.5, size=0.8)
    expected = defects.hole(x, Fixed(3), strength=0.5, size=0.8)
    assert kind == "hole"
    assert torch.equal(changed, expected[0])
    assert torch.equal(mask, expected[1])


def test_unknown_kinds_and_unusable_images_are_refused() -> None:
    x = picture(1, 32, 32)
    for named in (["dent"], []):
        with pytest.raises(UsageError, match="expected some of scratch"):
            defects.inject(x, Fixed(0), kinds=named)
    for image in (x[:, :15], x[None], x[0]):
        with pytest.raises(UsageError, match="16 pixels or more"):
            defects.stain(image, Fixed(0))


def test_soft_mask_keeps_the_lowest_share_of_the_field() -> None:
    field = torch.arange(100.0).flip(0).reshape(10, 10)
    soft = shapes.soft_mask(field, 0.2, edge=0.5)
    assert torch.equal(soft > 0, field < 20)
    assert torch.equal(soft[field < 10], torch.ones(10))
    fading = soft.flatten().flip(0)[10:20]
    assert (fading.diff() < 0).all()
    assert fading.min() >= shapes.EDGE
    assert int((shapes.soft_mask(field, 1e-9, 0.1) > 0).sum()) == shapes.MIN_PIXELS
    assert (shapes.soft_mask(torch.zeros(8, 8), 0.1, 0.5) > 0).any(), "all pixels alike"


def test_uniforms_are_uniform() -> None:
    u = torch.tensor(shapes.uniforms(Fixed(0), 3, 4000)).sort().values
    steps = (torch.arange(4000) + 0.5) / 4000
    assert float((u - steps).abs().max()) < 1.63 / math.sqrt(4000)  # Kolmogorov-Smirnov at 1 %


def test_perlin_noise_is_zero_on_its_lattice_and_bounded() -> None:
    field = shapes.perlin(Fixed(1), 0, 7, 63, 63)  # 9 pixels a cell: the lattice is at 9 k - 0.5
    inner = [torch.tensor(range(start, 62, 9)) for start in (8, 9)]
    around = [field[rows][:, columns] for rows in inner for columns in inner]
    assert float(torch.stack(around[:1]).abs().max()) < 0.15, "a lattice point is half a pixel off"
    assert float(torch.stack([a[:6, :6] for a in around]).mean(0).abs().max()) < 0.02
    assert 0.3 < float(field.abs().max()) <= 1.0 + 1e-6


def test_distance_to_a_straight_line_is_the_textbook_one() -> None:
    y, x = shapes.grid(20, 20)
    points = shapes.curve(torch.zeros(24), 0.0, 0.5) + 0.5
    distance, along = shapes.distance_to(points, y, x)
    beyond = ((x - 0.5).abs() - 0.25).clamp_min(0)
    torch.testing.assert_close(distance, torch.hypot(beyond, y - 0.5), atol=1e-6, rtol=0)
    torch.testing.assert_close(along, ((x - 0.25) / 0.5).clamp(0, 1), atol=1e-5, rtol=0)
