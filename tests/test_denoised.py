"""Denoised smoothing against the posterior's mean, and its certificates against closed forms."""

import math

import pytest
import torch
from oracles import Drawn, GaussianDenoiser
from scipy import special
from torch import Tensor

from advrad.certify import ABSTAIN, Smoothing, certified_class
from advrad.diffusion import Cosine, Linear, Schedule
from advrad.errors import UsageError
from advrad.noise import Noise
from advrad.purifiers import denoised

MEAN, STD = 0.1, 0.3  # of the data, in [-1, 1]
X = 0.4 + 0.2 * torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(1)).double()


def exact(schedule: Schedule) -> GaussianDenoiser:
    return GaussianDenoiser(schedule, MEAN, STD)


@pytest.mark.parametrize("schedule", [Linear(), Cosine(), Linear(250)], ids=repr)
@pytest.mark.parametrize("level", [20, 60, 150])
def test_where_a_level_has_just_that_noise_it_is_the_posterior_s_mean(
    schedule: Schedule, level: int
) -> None:
    """E[x | y] of y = x + 2 sigma z, in which no schedule is left; and no noise is asked for."""
    sigma = schedule.sigma(level) / 2
    noise, y = Drawn(0), 2 * X - 1
    found = denoised(exact(schedule), sigma)(X, noise)
    mean = MEAN + STD**2 / (STD**2 + 4 * sigma**2) * (y - MEAN)
    torch.testing.assert_close(found, (mean + 1) / 2)
    assert not noise.steps


@pytest.mark.parametrize("sigma", [0.05, 0.12, 0.25, 0.5])
def test_the_level_is_the_first_with_as_much_noise_and_what_is_missing_is_put_in(
    sigma: float,
) -> None:
    """What the denoiser is shown has the variance 1 - a_t around sqrt(a_t) x~, exactly."""
    schedule, seen = Linear(), dict[str, object]()

    class Shown:
        def __init__(self) -> None:
            self.schedule = schedule

        def __call__(self, x_t: Tensor, t: int) -> Tensor:
            seen.update(t=t, x_t=x_t)
            return x_t

    many = torch.full((64, 1, 16, 16), 0.7, dtype=torch.float64)
    noisy = many + sigma * Drawn(1)(many, 0)
    denoised(Shown(), sigma)(noisy, Drawn(2))
    t, x_t = seen["t"], seen["x_t"]
    assert isinstance(t, int)
    assert isinstance(x_t, Tensor)
    assert schedule.sigma(t - 1) < 2 * sigma <= schedule.sigma(t)
    a_t = schedule.alpha_bar(t)
    assert x_t.mean().item() == pytest.approx(math.sqrt(a_t) * 0.4, abs=0.02)
    assert x_t.std().item() == pytest.approx(math.sqrt(1 - a_t), rel=0.02)


@pytest.mark.parametrize("sigma", [0.0, -0.1, 1e3, math.nan, math.inf])
def test_noise_that_the_schedule_has_not_is_refused(sigma: float) -> None:
    told = r"for images in \[0, 1\]: expected above 0, and at most 78\.7, with which"
    with pytest.raises(UsageError, match=told):
        denoised(exact(Linear()), sigma)


# --- a linear classifier behind it, for which everything is known ---

WEIGHT = torch.randn(1, 4, 4, generator=torch.Generator().manual_seed(4)).double()
IMAGE = X[0]


def votes_for(offset: float, sigma: float) -> tuple[object, float]:
    """A linear classifier of denoised images, and the share of noise that votes 1 in the mean.

    In [-1, 1] the image seen is MEAN + g (sqrt(a) y - sqrt(a) MEAN + sqrt(1 - a) z) with g the
    denoiser's gain: all noise together has the standard deviation g sqrt(1 - a).
    """
    denoiser = exact(Linear())
    t = Linear().level(2 * sigma)
    a_t, gain = Linear().alpha_bar(t), denoiser.gain(t)
    clean = (MEAN + gain * math.sqrt(a_t) * (2 * IMAGE - 1 - MEAN) + 1) / 2
    spread = gain * math.sqrt(1 - a_t) / 2 * float(WEIGHT.norm())
    threshold = float((WEIGHT * clean).sum()) - offset * spread

    def logits(x: Tensor, noise: Noise) -> Tensor:
        y = denoised(denoiser, sigma)(x.double(), noise)
        above = (WEIGHT * y).flatten(1).sum(1) - threshold
        return torch.stack([-above, above], 1)

    return logits, float(special.ndtr(offset))


@pytest.mark.parametrize("offset", [0.5, 1.0, -1.0])
@pytest.mark.parametrize("sigma", [0.03, Linear().sigma(40) / 2], ids=["between", "at a level"])
def test_a_certificate_of_a_linear_classifier_is_its_closed_form(
    offset: float, sigma: float
) -> None:
    """p = Phi(offset) is the share of the votes; the radius is below sigma |offset|, near it for
    many draws, and no longer than the way to the plane on which half of the votes are lost."""
    logits, share = votes_for(offset, sigma)
    smoothing = Smoothing(sigma, 4000, seed=3, batch=1000)
    vote = certified_class(logits, IMAGE, "a", smoothing, alpha=1e-3)  # type: ignore[arg-type]
    assert vote.label == int(share > 0.5)
    assert 0.85 * sigma * abs(offset) < vote.radius < sigma * abs(offset)
    t = Linear().level(2 * sigma)
    to_the_plane = abs(offset) * Linear().sigma(t) / 2
    assert vote.radius < to_the_plane


def test_on_the_plane_it_abstains() -> None:
    logits, _ = votes_for(0.0, 0.03)
    vote = certified_class(logits, IMAGE, "a", Smoothing(0.03, 1000))  # type: ignore[arg-type]
    assert vote == (ABSTAIN, 0.0)
