"""SPADE against sklearn's neighbours, brute force, and cases by hand."""

import pytest
import torch
from toys import good

from advrad.detectors import SPADE, Run
from advrad.errors import UsageError
from advrad.networks.features import stacked
from advrad.noise import AROUND, PerImage

SETTINGS = {"size": 16, "channels": 1, "backbone": "untrained", "strides": [4, 8]}


def made(**settings: object) -> SPADE:
    base = {"memory": 100, "neighbours": 3, "compared": 3, "blur": 0.0}
    return SPADE(**SETTINGS | base | settings)  # type: ignore[arg-type]


def features(fitted: SPADE, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of whole images (B, E), and of their patches (B, n, D), put together by hand."""
    four, eight, last = fitted.features(x)
    return last.mean((2, 3)), stacked([four, eight]).flatten(2).transpose(1, 2)


def gallery(fitted: SPADE) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    assert fitted.wholes is not None
    assert fitted.parts is not None
    assert fitted.scale is not None
    return fitted.wholes, fitted.parts, fitted.scale


def test_the_score_is_the_mean_distance_to_the_nearest_good_images() -> None:
    train, test = good(12), good(5, seed=1)
    fitted = made(neighbours=4).fit(train)
    (wholes, _), (seen, _) = features(fitted, train), features(fitted, test)
    expected = torch.cdist(seen.double(), wholes.double()).sort(1).values[:, :4].mean(1)
    torch.testing.assert_close(fitted(test).score.double(), expected, rtol=1e-4, atol=0)


@pytest.mark.interop
def test_the_score_is_sklearn_s() -> None:
    neighbors = pytest.importorskip("sklearn.neighbors")
    train, test = good(12), good(5, seed=1)
    fitted = made(neighbours=4).fit(train)
    model = neighbors.NearestNeighbors(n_neighbors=4).fit(features(fitted, train)[0].numpy())
    expected, _ = model.kneighbors(features(fitted, test)[0].numpy())
    found = fitted(test).score
    torch.testing.assert_close(
        found, torch.from_numpy(expected).float().mean(1), rtol=1e-4, atol=0
    )


@pytest.mark.parametrize("compared", [1, 2, 3])
def test_the_map_is_the_distance_to_any_patch_of_the_nearest_images(compared: int) -> None:
    train, test = good(10), good(4, seed=1)
    fitted = made(compared=compared).fit(train)
    (wholes, parts), (seen, rows) = features(fitted, train), features(fitted, test)
    scale = gallery(fitted)[2]
    where = fitted(test).map
    for i in range(4):
        near = (wholes - seen[i]).norm(dim=1).argsort()[:compared]
        every = parts[near].flatten(0, 1)
        expected = torch.stack([(row - every).norm(dim=1).min() for row in rows[i]])
        corners = scale * expected.unflatten(0, (4, 4))[[0, 0, 3, 3], [0, 3, 0, 3]]
        found = where[i, [0, 0, 15, 15], [0, 15, 0, 15]]
        torch.testing.assert_close(found, corners, rtol=1e-3, atol=1e-5)


def test_of_fewer_images_than_neighbours_all_count() -> None:
    train, test = good(4), good(3, seed=1)
    fitted = made(neighbours=50, compared=50).fit(train)
    (wholes, _), (seen, _) = features(fitted, train), features(fitted, test)
    expected = torch.cdist(seen.double(), wholes.double()).mean(1)
    torch.testing.assert_close(fitted(test).score.double(), expected, rtol=1e-4, atol=0)


def test_a_training_image_lies_on_its_own_patches_and_has_finite_slopes() -> None:
    train = good(5)
    x = train[:1].clone().requires_grad_()
    score, where = made(neighbours=1).fit(train)(x)
    assert float(score.detach()) < 1e-5
    assert float(where.detach().max()) < 1e-5
    (score.sum() + where.sum()).backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("neighbours", [3, 8, 50])
def test_map_and_score_are_on_one_scale(neighbours: int) -> None:
    """Over the good images themselves, each held against the rest: largest value and score."""
    train = good(9)
    fitted = made(neighbours=neighbours).fit(train)
    wholes, parts, scale = gallery(fitted)
    scores, largest = [], []
    for i in range(9):
        rest = [j for j in range(9) if j != i]
        near = (wholes[rest] - wholes[i]).norm(dim=1).sort()
        scores.append(near.values[:neighbours].mean())
        every = parts[rest][near.indices[:3]].flatten(0, 1)
        largest.append(torch.cdist(parts[i], every).amin(1).max())
    expected = torch.stack(scores).mean() / torch.stack(largest).mean()
    torch.testing.assert_close(scale, expected, rtol=1e-3, atol=0)


@pytest.mark.parametrize("train", [good(1), torch.full((4, 1, 16, 16), 0.5)])
def test_without_a_rest_the_map_keeps_its_scale(train: torch.Tensor) -> None:
    assert float(gallery(made().fit(train))[2]) == 1


def test_the_gallery_is_bounded_and_drawn_by_the_seed() -> None:
    train = good(30)
    one, again, other = (made(memory=7).fit(train, Run(seed=s)) for s in (1, 1, 2))
    wholes, parts, _ = gallery(one)
    assert (len(wholes), len(parts)) == (7, 7)
    assert torch.equal(wholes, gallery(again)[0])
    assert not torch.equal(wholes, gallery(other)[0])
    every, patches = features(one, train)
    for whole, part in zip(wholes, parts, strict=True):  # a row of each belongs together
        place = int((every - whole).norm(dim=1).argmin())
        torch.testing.assert_close(every[place], whole)
        torch.testing.assert_close(patches[place], part)


def test_the_coarsest_stride_may_be_compared_at_too() -> None:
    fitted = made(size=32, strides=[8, 32]).fit(good(4))
    assert fitted.features.strides == (8, 32)
    assert gallery(fitted)[1].shape == (4, 16, 32 + 64)
    fitted.check()


def test_under_noise_the_gallery_is_of_noisy_images() -> None:
    train = good(30)
    fitted = made().fit(train)
    under = fitted.under_noise(train, Run(seed=5), sigma=0.5)
    around = PerImage(5, [f"good-{i}" for i in range(30)])
    noisy = train + 0.5 * around(train, AROUND)
    for found, expected in zip(gallery(under), features(fitted, noisy), strict=False):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    same = fitted.under_noise(train, Run(seed=0), sigma=0.0)
    assert all(torch.equal(a, b) for a, b in zip(gallery(same), gallery(fitted), strict=True))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"backbone": "vgg"}, "backbone=vgg: expected one of lite0"),
        ({"strides": []}, "strides"),
        ({"strides": [8, 8]}, "strides"),
        ({"memory": 0}, "memory=0"),
        ({"neighbours": 0}, "neighbours=0"),
        ({"compared": 0}, "compared=0"),
        ({"blur": -1}, "blur=-1"),
    ],
)
def test_impossible_settings_are_told(settings: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        made(**settings)
