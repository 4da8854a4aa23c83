"""PatchCore and its parts against brute force, scipy, and cases by hand."""

import math

import pytest
import torch
from scipy import ndimage
from torch import Tensor
from toys import good

from advrad.detectors import PatchCore, Run
from advrad.detectors import _patches as patches
from advrad.errors import DataError, UsageError
from advrad.noise import AROUND, PerImage

SETTINGS = {"size": 16, "channels": 1, "backbone": "untrained", "strides": [4, 8]}
quiet = lambda done, total: None


def made(**settings: object) -> PatchCore:
    base = {"memory": 1000, "pool": 1000, "neighbours": 1, "blur": 0.0}
    return PatchCore(**SETTINGS | base | settings)  # type: ignore[arg-type]


def brute(x: Tensor, memory: Tensor) -> Tensor:
    """(B, n, D) -> (B, n), one distance after the other."""
    return torch.stack(
        [torch.stack([(row - memory).norm(dim=1).min() for row in image]) for image in x]
    )


def test_without_a_coreset_the_score_is_the_largest_distance_to_any_good_patch() -> None:
    train, test = good(5), good(3, seed=1)
    fitted = made().fit(train)
    every = patches.rows(patches.embedded(fitted.features, train)).flatten(0, 1)
    assert fitted.memorised is not None
    assert len(fitted.memorised) == len(every) == 5 * 16
    found = brute(patches.rows(patches.embedded(fitted.features, test)), every)
    score, where = fitted(test)
    torch.testing.assert_close(score, found.amax(1), rtol=1e-3, atol=1e-4)
    corner = found.unflatten(1, (4, 4))[:, 0, 0]
    torch.testing.assert_close(where[:, 0, 0], corner, rtol=1e-3, atol=1e-3)


def test_a_training_image_has_the_score_0_and_no_infinite_slope() -> None:
    train = good(3)
    x = train[:1].clone().requires_grad_()
    score, _ = made().fit(train)(x)
    assert float(score.detach()) < 0.02  # float32 leaves the root of its rounding
    score.sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


def test_a_memory_of_one_patch_has_no_neighbourhood_to_weigh_by() -> None:
    fitted = made(memory=1, neighbours=9).fit(good(2))
    alone = made(memory=1, neighbours=1).fit(good(2))
    x = good(2, seed=1).requires_grad_()
    score, _ = fitted(x)
    torch.testing.assert_close(score, alone(x)[0])
    (slope,) = torch.autograd.grad(score.sum(), x)
    assert slope.flatten(1).abs().amax(1).min() > 0


def test_a_score_is_weighed_as_the_paper_says() -> None:
    """Eq. 6 and 7 by hand: 3 from m* at (0, 0); 3, 4 and the root of 13 from its b = 3 nearest."""
    fitted = made(neighbours=3)
    fitted.memorised = torch.tensor([[0.0, 0.0], [-1.0, 0.0], [0.0, -2.0], [50.0, 50.0]])
    rows = torch.tensor([[[3.0, 0.0], [0.0, 0.0]]])
    nearest, place = patches.distances(rows, fitted.memorised).min(2)
    found = fitted._weighed(rows, nearest, place)
    apart = [3.0, 4.0, math.hypot(3, 2)]
    weight = 1 - math.exp(3.0) / sum(map(math.exp, apart))
    assert float(found) == pytest.approx(weight * 3.0, rel=1e-5)


def test_the_coreset_covers_as_well_as_the_greedy_one_by_hand() -> None:
    """On a line 0, 1, ..., 9 from any start: each next one is the farthest from those chosen."""
    line = torch.arange(10.0)[:, None]
    found = patches.coreset(line, 4, 0, quiet).tolist()
    chosen = found[:1]
    for place in found[1:]:
        gaps = [min(abs(i - j) for j in chosen) for i in range(10)]
        assert gaps[place] == max(gaps)
        chosen.append(place)
    assert len(set(found)) == 4
    assert patches.coreset(line, 10, 0, quiet).tolist() == list(range(10))


def test_the_coreset_is_within_twice_the_best_cover_and_far_better_than_chance() -> None:
    """Ten clusters: ten centres find one of each, whatever their sizes (k-centre)."""
    source = torch.Generator().manual_seed(0)
    centres = 20 * torch.randn(10, 200, generator=source)
    sizes = [400, *[5] * 9]
    rows = torch.cat(
        [
            c + 0.1 * torch.randn(n, 200, generator=source)
            for c, n in zip(centres, sizes, strict=True)
        ]
    )
    found = rows[patches.coreset(rows, 10, 3, quiet)]
    near = torch.cdist(found, centres).argmin(1)
    assert sorted(near.tolist()) == list(range(10))


@pytest.mark.parametrize("parts", [1, 3, 40])
def test_a_reservoir_keeps_each_row_with_the_same_chance(parts: int) -> None:
    rows = torch.arange(40.0)[:, None]
    counts = torch.zeros(40)
    for seed in range(600):
        kept = patches.reservoir(iter(rows.chunk(parts)), 10, seed)
        assert kept.shape == (10, 1)
        assert len(kept.unique()) == 10
        counts[kept[:, 0].long()] += 1
    expected = 600 * 10 / 40
    assert float((counts - expected).abs().max()) < 4.5 * math.sqrt(expected)
    assert torch.equal(patches.reservoir(iter(rows.chunk(parts)), 50, 0), rows)


def test_the_memory_is_bounded_and_drawn_by_the_seed() -> None:
    train = good(20)
    first, again, other = (
        made(pool=100, memory=30).fit(train, Run(seed=s)).memorised for s in (1, 1, 2)
    )
    assert first is not None
    assert again is not None
    assert other is not None
    assert first.shape[0] == 30
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("sigma", [0.8, 2.0])
def test_the_blur_is_scipy_s(sigma: float) -> None:
    maps = torch.rand(2, 40, 33, dtype=torch.float64)
    expected = [ndimage.gaussian_filter(m.numpy(), sigma, mode="mirror") for m in maps]
    found = patches.blurred(maps, sigma)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, torch.from_numpy(other), rtol=1e-6, atol=1e-8)


def test_a_blur_wider_than_the_map_keeps_a_constant() -> None:
    maps = torch.full((1, 6, 4), 0.3)
    torch.testing.assert_close(patches.blurred(maps, 4.0), maps)
    assert patches.blurred(maps, 0.0) is maps


def test_distances_are_cdist_s() -> None:
    rows, memory = torch.rand(2, 7, 5, dtype=torch.float64), torch.rand(9, 5, dtype=torch.float64)
    torch.testing.assert_close(patches.distances(rows, memory), torch.cdist(rows, memory))


def test_the_closest_are_those_of_the_distances() -> None:
    rows, memory = torch.randn(2, 7, 5), torch.randn(11, 5)
    apart = torch.cdist(rows, memory)
    place = patches.closest(rows, memory, 3)
    torch.testing.assert_close(place, apart.argsort(2)[..., :3])
    assert not place.is_floating_point()
    gap = patches.behind(rows, memory.expand(2, -1, -1)) + rows.square().sum(2, keepdim=True)
    torch.testing.assert_close(gap, apart.square(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        patches.nearest(rows, memory, 3), apart.square().sort(2).values[..., :3]
    )


def test_under_noise_the_memory_is_of_noisy_images() -> None:
    """One draw for each, by its place and the seed."""
    train = good(10)
    fitted = made().fit(train, Run(seed=3))
    under = fitted.under_noise(train, Run(seed=5), sigma=0.5)
    around = PerImage(5, [f"good-{i}" for i in range(10)])
    noisy = train + 0.5 * around(train, AROUND)
    rows = patches.rows(patches.embedded(fitted.features, noisy)).flatten(0, 1)
    assert under.memorised is not None
    torch.testing.assert_close(under.memorised, rows, rtol=1e-4, atol=1e-6)
    same = fitted.under_noise(train, Run(seed=5), sigma=0.0).memorised
    assert same is not None
    assert fitted.memorised is not None
    assert torch.equal(same, fitted.memorised)


def test_under_noise_the_backbone_is_the_fitted_one_whatever_its_file_holds_now() -> None:
    train = good(4)
    fitted = made().fit(train)
    for weight in fitted.features.parameters():
        weight.mul_(1.5)
    under, own = fitted.under_noise(train, sigma=0.5), fitted.features.state_dict()
    assert all(torch.equal(value, own[key]) for key, value in under.features.state_dict().items())
    assert under.features is not fitted.features  # they move to devices apart


def test_too_few_patches_are_told() -> None:
    with pytest.raises(DataError, match="1 good images have 16 patches: neighbours=17"):
        made(neighbours=17).fit(good(1))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"backbone": "vgg"}, "backbone=vgg: expected one of lite0"),
        ({"strides": [5]}, "strides=5"),
        ({"strides": []}, "strides"),
        ({"memory": 0}, "memory=0"),
        ({"neighbours": 0}, "neighbours=0"),
        ({"blur": -1}, "blur=-1"),
        ({"size": 4}, "size=4"),
        ({"channels": 2}, "channels=2"),
    ],
)
def test_impossible_settings_are_told(settings: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        made(**settings)


def test_weights_are_read_by_fit_alone() -> None:
    """A model is loaded without the file that its backbone came from."""
    with pytest.raises(UsageError, match="needs weights"):
        made(backbone="resnet18").fit(good(2))
    with pytest.raises(DataError, match="no such file"):
        made(backbone="resnet18", weights="gone.pth").fit(good(2))
    made(backbone="resnet18", weights="gone.pth")
