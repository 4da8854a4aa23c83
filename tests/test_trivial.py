"""The trivial scores: sums by hand, units, and slopes."""

import pytest
import torch
from toys import good

from advrad.detectors import Run, Trivial
from advrad.detectors.trivial import FLOOR, SCORES
from advrad.errors import UsageError
from advrad.noise import AROUND, PerImage

TRAIN, TEST = good(12, channels=3), good(4, channels=3, seed=1)


def made(score: str, channels: int = 3) -> Trivial:
    return Trivial(size=16, channels=channels, score=score)


@pytest.fixture(params=SCORES)
def score(request: pytest.FixtureRequest) -> str:
    return request.param


def test_brightness_is_the_mean_in_standard_deviations_of_good_images() -> None:
    means = TRAIN.mean((1, 2, 3))
    expected = (TEST.mean((1, 2, 3)) - means.mean()).abs() / means.std(correction=0)
    found = made("brightness").fit(TRAIN)(TEST).score
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_contrast_is_the_deviation_in_standard_deviations_of_good_images() -> None:
    own = lambda x: x.mean(1).flatten(1).std(1, correction=0)
    known = own(TRAIN)
    expected = (own(TEST) - known.mean()).abs() / known.std(correction=0)
    found = made("contrast").fit(TRAIN)(TEST).score
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_the_distance_to_the_mean_image_is_one_on_average_over_good_images() -> None:
    gap = TEST - TRAIN.mean(0)
    unit = (TRAIN - TRAIN.mean(0)).square().mean().sqrt()
    fitted = made("mean_image").fit(TRAIN)
    found, where = fitted(TEST)
    torch.testing.assert_close(found, gap.square().mean((1, 2, 3)).sqrt() / unit)
    torch.testing.assert_close(where, gap.square().mean(1).sqrt() / unit)
    assert float(fitted(TRAIN).score.square().mean()) == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize("name", ["brightness", "contrast"])
def test_the_map_says_what_each_pixel_adds(name: str) -> None:
    fitted = made(name).fit(TRAIN)
    for x in (TEST, 0.3 * TEST, 1 - TEST):
        found, where = fitted(x)
        torch.testing.assert_close(where.mean((1, 2)), found, rtol=1e-4, atol=1e-4)


def test_a_bright_spot_on_a_bright_image_is_bright_in_the_map() -> None:
    fitted, x = made("brightness").fit(TRAIN), TEST.clone()
    x[:, :, 2:5, 2:5] = 1.0
    x = (x + 0.2).clamp(0, 1)
    where = fitted(x).map
    assert (where[:, 2:5, 2:5].mean((1, 2)) > 2 * where.mean((1, 2))).all()


def test_both_directions_count_alike() -> None:
    fitted = made("brightness", 1)
    fitted.typical, fitted.unit = torch.tensor(0.5), torch.tensor(0.1)
    x = torch.tensor([0.3, 0.7, 0.5])[:, None, None, None].expand(3, 1, 16, 16)
    torch.testing.assert_close(fitted(x).score, torch.tensor([2.0, 2.0, 0.0]))
    assert (fitted(x).map[:2] > 0).all()


def test_good_images_that_do_not_vary_are_taken_to_vary_by_one_grey_level(score: str) -> None:
    fitted = made(score).fit(TRAIN[:1])
    assert fitted.unit is not None
    assert float(fitted.unit) == pytest.approx(FLOOR)
    assert float(fitted(TRAIN[:1]).score.detach()) < 1e-2
    assert torch.isfinite(fitted(TEST).score).all()


def test_every_score_is_within_its_map_and_has_finite_slopes(score: str) -> None:
    fitted = made(score).fit(TRAIN)
    constant = torch.full((2, 3, 16, 16), 0.5)
    x = torch.cat([TEST, 1 - TEST, constant]).requires_grad_()
    found, where = fitted(x)
    assert (found <= where.amax((1, 2)) * 1.0001).all()
    assert (found >= where.amin((1, 2)) - 1e-4).all()
    (slope,) = torch.autograd.grad(found.sum() + where.sum(), x)
    assert torch.isfinite(slope).all()
    (slope,) = torch.autograd.grad(fitted(x).score.sum(), x)
    alive = slope.flatten(1).abs().amax(1) > 0
    assert alive[:8].all()
    assert alive[8:].all() == (score != "contrast")  # a constant image has the least of it


def test_the_score_is_that_of_the_image_in_any_size_and_of_grey(score: str) -> None:
    fitted = made(score, 1).fit(good(12))
    x = good(3, seed=1)
    large = x.repeat_interleave(3, 2).repeat_interleave(3, 3)
    assert fitted(large).map.shape == (3, 48, 48)
    if score == "brightness":  # a resize keeps the mean, and little else of a grain
        torch.testing.assert_close(fitted(large).score, fitted(x).score, rtol=0.01, atol=0)
    assert torch.isfinite(fitted(good(1, size=7, channels=3)).score).all()


def test_under_noise_the_noise_is_what_good_images_show(score: str) -> None:
    fitted = made(score).fit(TRAIN)
    under = fitted.under_noise(TRAIN, Run(seed=5), sigma=0.5)
    around = PerImage(5, [f"good-{i}" for i in range(12)])
    views = SCORES[score].view(TRAIN + 0.5 * around(TRAIN, AROUND))
    assert under.typical is not None
    torch.testing.assert_close(under.typical, views.mean(0), rtol=1e-4, atol=1e-5)
    same = fitted.under_noise(TRAIN, Run(seed=5), sigma=0.0)
    assert torch.equal(same(TEST).score, fitted(TEST).score)


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"score": "size"}, "score=size"), ({"channels": 2}, "channels=2"), ({"size": 0}, "size=0")],
)
def test_impossible_settings_are_told(settings: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Trivial(**settings)  # type: ignore[arg-type]
