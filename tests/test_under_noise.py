"""Detectors for images that carry noise: what is measured under it, and at which level."""

import math

import pytest
import torch
from toys import good, names, tiny

from advrad.detectors import AdvRAD, Autoencoder, Run
from advrad.diffusion import Linear
from advrad.diffusion.reconstruct import missing
from advrad.errors import UsageError
from advrad.noise import AROUND, PerImage

TRAIN, TEST = good(10), good(3, seed=1)
SIGMA = 0.02  # so small that noisy images stay in [0, 1]


@pytest.fixture(scope="module")
def fitted() -> AdvRAD:
    return tiny().fit(TRAIN, Run(seed=4))


def noisy(sigma: float, seed: int) -> torch.Tensor:
    """The training images under the noise with which they are measured."""
    noise = PerImage(seed, [f"good-{i}" for i in range(len(TRAIN))])
    return TRAIN + sigma * noise(TRAIN, AROUND)


@pytest.mark.parametrize("scoring", AdvRAD.SCORINGS)
def test_what_is_measured_under_noise_is_what_noisy_images_show(
    fitted: AdvRAD, scoring: str
) -> None:
    found = fitted.under_noise(TRAIN, Run(seed=4), sigma=SIGMA, scoring=scoring)
    settings = {"depth": found.depths, "draws": 1, "carried": found.settings.carried}
    other = fitted.variant(**settings, score=found.settings.score)
    other.measure(noisy(SIGMA, 4), Run(seed=4))
    assert found.typical is not None
    torch.testing.assert_close(found.typical, other.typical)
    torch.testing.assert_close(found.spread, other.spread)
    torch.testing.assert_close(found.papers, other.papers)
    clean = fitted.variant(**settings, score=found.settings.score).measure(TRAIN, Run(seed=4))
    assert not torch.allclose(found.typical, clean.typical)


def test_matched_takes_the_level_whose_noise_the_images_carry(fitted: AdvRAD) -> None:
    """In [-1, 1] the noise is 2 sigma; sqrt((1 - a) / a) of no other level is nearer."""
    schedule = Linear()
    for sigma in (0.001, 0.02, 0.06, 0.12, 0.25):
        found = fitted.under_noise(TRAIN, sigma=sigma, scoring="matched")
        [level] = found.depths
        gaps = [abs(schedule.sigma(t) - 2 * sigma) for t in range(1, 1001)]
        assert gaps[level - 1] == min(gaps)
        assert found.settings.carried == schedule.sigma(level) / 2
        assert (found.settings.draws, found.settings.shots) == (1, 1)
        assert missing(schedule, level, 2 * found.settings.carried) == 0.0
    assert fitted.settings.carried == 0.0  # it stays as it is
    assert fitted.depths == [50]


def test_matched_puts_nothing_in_so_that_its_score_is_one_of_the_noisy_image_alone(
    fitted: AdvRAD,
) -> None:
    for scoring, same in (("matched", True), ("coarse", True), ("deep", False), ("plain", False)):
        found = fitted.under_noise(TRAIN, sigma=0.12, scoring=scoring)
        first, second = (found(TEST, PerImage(seed, names(3))).score for seed in (1, 2))
        assert torch.equal(first, second) is same


def test_coarse_looks_at_all_scales_but_the_finest(fitted: AdvRAD) -> None:
    found = fitted.under_noise(TRAIN, sigma=SIGMA, scoring="coarse")
    assert found.settings.score == "coarse"
    with torch.no_grad():
        flat = found.error(TEST, found.depths, PerImage(0, names(3)), 1)[0]
        full = fitted.under_noise(TRAIN, sigma=SIGMA, scoring="matched")
        fine = full.error(TEST, full.depths, PerImage(0, names(3)), 1)[0]
    assert float(flat.mean()) < float(fine.mean())


def test_deep_goes_to_thrice_the_noise_and_puts_in_what_is_missing(fitted: AdvRAD) -> None:
    """In [-1, 1] to 6 sigma; no further than the levels of the training, nor less far than what
    the images carry already."""
    schedule = Linear()
    wide = fitted.variant(levels=[1, 400])
    for sigma in (0.02, 0.06, 0.12, 0.25):
        found = wide.under_noise(TRAIN, sigma=sigma, scoring="deep")
        [level] = found.depths
        gaps = [abs(schedule.sigma(t) - 6 * sigma) for t in range(1, 1001)]
        assert gaps[level - 1] == min(gaps)
        assert (found.settings.carried, found.settings.score) == (sigma, "coarse")
        own = missing(schedule, level, 2 * sigma) / math.sqrt(schedule.alpha_bar(level))
        assert math.isclose(math.hypot(own, 2 * sigma), schedule.sigma(level), rel_tol=1e-9)
    assert wide.under_noise(TRAIN, sigma=0.4, scoring="deep").depths == [400]
    assert wide.under_noise(TRAIN, sigma=1.5, scoring="deep").depths == [schedule.level(3.0)]
    most = wide.largest_sigma("deep")
    assert wide.under_noise(TRAIN, sigma=most, scoring="deep").depths == [400]
    assert math.isclose(2 * most, schedule.sigma(400))


def test_plain_keeps_the_last_depth(fitted: AdvRAD) -> None:
    ladder = fitted.variant(depth=[50, 120]).measure(TRAIN)
    found = ladder.under_noise(TRAIN, sigma=SIGMA, scoring="plain")
    assert (found.depths, found.settings.carried) == ([120], 0.0)


def test_a_denoiser_s_gradient_passes_through_noise_that_is_carried(fitted: AdvRAD) -> None:
    found = fitted.under_noise(TRAIN, sigma=0.12, scoring="matched")
    x = TEST.clone().requires_grad_()
    found(x, PerImage(0, names(3))).score.sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    assert (x.grad.flatten(1).norm(dim=1) > 0).all()


def test_noise_that_no_depth_covers_is_told() -> None:
    with pytest.raises(UsageError, match=r"depth=50 with carried=0\.25: expected \d+ or deeper"):
        tiny(carried=0.25)
    with pytest.raises(UsageError, match="carried"):
        tiny(carried=-0.1)
    with pytest.raises(UsageError, match="this schedule ends at"):
        tiny(carried=1e6)
    assert math.isclose(tiny(carried=0.05).settings.carried, 0.05)


def test_an_autoencoder_is_measured_anew_with_the_same_network() -> None:
    fitted = Autoencoder(size=16, channels=1, widths=[8, 16], latent=8, steps=4, batch=4)
    fitted.fit(TRAIN, Run(seed=4))
    found = fitted.under_noise(TRAIN, Run(seed=4), sigma=SIGMA)
    other = Autoencoder(**fitted.params)
    other.network.load_state_dict(fitted.network.state_dict())
    other.eval().measure(noisy(SIGMA, 4), Run(seed=4))
    assert found.typical is not None
    torch.testing.assert_close(found.typical, other.typical)
    assert not torch.equal(found.typical, fitted.typical)
    for name, value in fitted.network.state_dict().items():
        assert torch.equal(value, found.network.state_dict()[name])
