"""Denoised smoothing: images under Gaussian noise, made clean in one step, can be classified by
any network, and certified.

Carlini et al., 2023 (https://arxiv.org/abs/2206.10550), Algorithm 1. Smoothing has put noise
around the image already; to a diffusion model that is an image on its way in, up to a factor, so
that no other noise is needed than what is missing to the next level. One denoising, not a chain:
it is the posterior's mean, and what a classifier needs.
"""

from torch import Tensor

from ..diffusion import Denoiser, Schedule, reconstruct
from ..errors import UsageError
from ..noise import Noise, fresh
from ._range import refuse_uncentred
from .base import Purifier


def denoised(denoiser: Denoiser, sigma: float) -> Purifier:
    """A purifier of images that carry Gaussian noise of `sigma`, in the unit of [0, 1].

    They are taken to the first level with as much noise, sqrt((1 - a_t) / a_t) >= 2 sigma (2, as
    the model's images are in [-1, 1]): multiplied by sqrt(a_t), with the noise that is missing
    there. The result is clipped to [0, 1]; what comes in must not be.

    Raises UsageError where sigma is not above 0, or more than the schedule has.
    """
    refuse_uncentred(denoiser, "denoised smoothing")
    depth = _level(denoiser.schedule, sigma)

    def purify(x: Tensor, noise: Noise = fresh) -> Tensor:
        y = reconstruct(denoiser, 2 * x - 1, depth, 1, noise, carried=2 * sigma)
        return ((y + 1) / 2).clamp(0, 1)

    return purify


def _level(schedule: Schedule, sigma: float) -> int:
    most = schedule.sigma(schedule.steps) / 2
    if not 0 < sigma <= most:
        raise UsageError(
            f"noise of {sigma:g} for images in [0, 1]: expected above 0, and at most {most:.3g}, "
            "with which the schedule ends"
        )
    return schedule.level(2 * sigma)
