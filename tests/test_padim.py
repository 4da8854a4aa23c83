"""PaDiM against scipy, closed forms, and sums taken otherwise."""

import logging

import pytest
import torch
from scipy.spatial.distance import mahalanobis as scipy_s
from toys import good

from advrad.detectors import PaDiM, Run
from advrad.detectors import _patches as patches
from advrad.detectors.padim import RIDGE, gaussians, mahalanobis, whitening
from advrad.errors import UsageError
from advrad.networks.features import stacked
from advrad.noise import AROUND, PerImage

SETTINGS = {"size": 16, "channels": 1, "backbone": "untrained", "strides": [4, 8]}


def made(**settings: object) -> PaDiM:
    return PaDiM(**SETTINGS | {"dims": 6, "blur": 0.0} | settings)  # type: ignore[arg-type]


def learnt(fitted: PaDiM) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    assert fitted.picked is not None
    assert fitted.typical is not None
    assert fitted.whitening is not None
    return fitted.picked, fitted.typical, fitted.whitening


def test_mean_and_covariance_are_torch_s_with_the_ridge() -> None:
    rows = torch.randn(9, 4, 3, dtype=torch.float64) + 5  # images, places, channels
    products = torch.einsum("bni,bnj->nij", rows, rows)
    mean, covariance = gaussians(9, rows.sum(0), products)
    torch.testing.assert_close(mean, rows.mean(0))
    for place in range(4):
        expected = torch.cov(rows[:, place].T) + RIDGE * torch.eye(3, dtype=torch.float64)
        torch.testing.assert_close(covariance[place], expected)


def test_of_a_single_vector_the_covariance_is_the_ridge() -> None:
    x = torch.tensor([1.0, -3.0], dtype=torch.float64)
    mean, covariance = gaussians(1, x, x[:, None] * x)
    torch.testing.assert_close(mean, x)
    torch.testing.assert_close(covariance, RIDGE * torch.eye(2, dtype=torch.float64))


def test_the_whitening_is_the_inverse_s_root() -> None:
    a = torch.randn(5, 7, 7, dtype=torch.float64)
    covariance = a @ a.mT + torch.eye(7)
    white = whitening(covariance)
    torch.testing.assert_close(white.mT @ white, torch.linalg.inv(covariance))
    assert not white.triu(1).any()


def test_distances_are_scipy_s() -> None:
    a, mean = torch.randn(4, 3, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    covariance, rows = a @ a.mT + torch.eye(3), torch.randn(2, 4, 3, dtype=torch.float64)
    found = mahalanobis(rows, mean, whitening(covariance))
    for i in range(2):
        for n in range(4):
            inverse = torch.linalg.inv(covariance[n]).numpy()
            expected = scipy_s(rows[i, n].numpy(), mean[n].numpy(), inverse)
            assert float(found[i, n]) == pytest.approx(expected, rel=1e-9)


def test_a_single_good_image_leaves_ten_times_the_euclidean_distance() -> None:
    """Its covariance is 0.01 I: d = |x - x_0| / 0.1."""
    train, test = good(1), good(3, seed=1)
    fitted = made().fit(train)
    picked, _, _ = learnt(fitted)
    rows = patches.rows(stacked(fitted.features(torch.cat([train, test])))[:, picked])
    expected = 10 * (rows[1:] - rows[0]).norm(dim=2)
    score, where = fitted(test)
    torch.testing.assert_close(score, expected.amax(1), rtol=1e-4, atol=0)
    torch.testing.assert_close(where[:, 0, 0], expected[:, 0], rtol=1e-4, atol=0)


def test_the_gaussians_are_those_of_all_images_at_once() -> None:
    """Of more than one batch of the walk, held against what numpy makes of them together."""
    train, test = good(21), good(4, seed=1)
    fitted = made().fit(train)
    picked, typical, _ = learnt(fitted)
    look = lambda x: patches.rows(stacked(fitted.features(x))[:, picked]).double()
    rows, seen = look(train), look(test)
    torch.testing.assert_close(typical.double(), rows.mean(0), rtol=1e-5, atol=1e-6)
    gap = seen - rows.mean(0)
    expected = []
    for n in range(rows.shape[1]):
        inverse = torch.linalg.inv(torch.cov(rows[:, n].T) + RIDGE * torch.eye(6).double())
        expected.append(torch.einsum("bi,ij,bj->b", gap[:, n], inverse, gap[:, n]).sqrt())
    torch.testing.assert_close(
        fitted(test).score.double(), torch.stack(expected).amax(0), rtol=1e-3, atol=0
    )


def test_what_stands_elsewhere_than_ever_is_found_there() -> None:
    """Each place has its own Gaussian: a patch that is good in the middle is none in a corner."""
    x = good(1, seed=3)
    moved = x.clone()
    moved[..., :8, :8] = x[..., 4:12, 4:12]
    fitted = made(strides=[4], dims=16).fit(good(60))
    before, after = fitted(x).map[0], fitted(moved).map[0]
    assert float(after[:8, :8].max()) > 1.3 * float(before[:8, :8].max())
    torch.testing.assert_close(after[14:, 14:], before[14:, 14:])


def test_the_channels_are_drawn_by_the_seed_and_kept_in_order() -> None:
    train = good(4)
    one, again, other = (learnt(made().fit(train, Run(seed=s)))[0] for s in (1, 1, 2))
    assert one.tolist() == again.tolist() == sorted(set(one.tolist()))
    assert one.tolist() != other.tolist()
    every = learnt(made(dims=1000).fit(train))[0]
    assert every.tolist() == list(range(16 + 32))


def test_too_few_images_are_told_and_taken(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="advrad"):
        made(dims=6).fit(good(7))
        assert not caplog.records
        made(dims=6).fit(good(6))
    assert "6 good images for the covariance of 6 channels" in caplog.text
    assert "better are 7 images" in caplog.text


def test_under_noise_the_gaussians_are_those_of_noisy_images() -> None:
    """One draw for each, by its place and the seed; the channels stay those that were drawn."""
    train = good(40)
    fitted = made().fit(train, Run(seed=3))
    under = fitted.under_noise(train, Run(seed=5), sigma=0.5)
    before, after = learnt(fitted), learnt(under)
    assert torch.equal(before[0], after[0])
    around = PerImage(5, [f"good-{i}" for i in range(40)])
    noisy = train + 0.5 * around(train, AROUND)
    rows = patches.rows(stacked(fitted.features(noisy))[:, before[0]])
    torch.testing.assert_close(after[1], rows.mean(0), rtol=1e-4, atol=1e-5)
    assert not torch.equal(before[2], after[2])
    same = fitted.under_noise(train, Run(seed=5), sigma=0.0)
    assert all(torch.equal(a, b) for a, b in zip(learnt(same), before, strict=True))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"backbone": "vgg"}, "backbone=vgg: expected one of lite0"),
        ({"strides": []}, "strides"),
        ({"dims": 0}, "dims=0"),
        ({"blur": -1}, "blur=-1"),
        ({"channels": 2}, "channels=2"),
    ],
)
def test_impossible_settings_are_told(settings: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        made(**settings)


def test_a_size_of_other_places_does_not_fit_what_was_learnt() -> None:
    fitted = made().fit(good(3))
    other = made(size=32)
    for name in ("picked", "typical", "whitening"):
        setattr(other, name, getattr(fitted, name))
    with pytest.raises(ValueError, match=r"learnt shapes .*expected"):
        other.check()
