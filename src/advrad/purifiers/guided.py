"""Purifiers whose way back is drawn to the image that came in.

GDMP (Wang et al., 2022, https://arxiv.org/abs/2205.14969) draws it to the pixels, by squared error
or structural similarity: with each step the perturbation is drawn back too. AGDM (Lin et al.,
2024, https://arxiv.org/abs/2403.16067) draws it to what a network that was trained adversarially
sees in it.

The guide compares x_t with the image at the same level of noise, freshly diffused at each step.
Its gradient is part of the defence and is differentiated with it, to second order; GDMP's own
program cuts it there, which misleads whoever attacks it.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..diffusion import Denoiser
from ..diffusion.guide import Energy, Guided
from ..diffusion.recompute import Recomputed
from ..diffusion.reconstruct import Step, jump
from ..errors import UsageError
from ..noise import Noise, fresh, redraw
from ..scoring import ssim
from ._chain import ROUND, Chain, published
from ._range import refuse_uncentred
from .base import Purifier

GUIDE = ROUND // 2  # the draw of the guide's own noise, apart from that of x_t
VALUES = 3 * 32 * 32  # of an image for which GDMP's strengths are published


def guided(
    denoiser: Denoiser,
    chain: Chain,
    energy: Callable[[Tensor], Energy],
    scale: Callable[[int], float],
) -> Purifier:
    """A purifier along a chain under a guide.

    Arguments:
        denoiser: of a diffusion model.
        chain: how far and how often.
        energy: what is to fall, given the images that came in, in [0, 1].
        scale: of the guidance, for each level.

    Raises UsageError for a model that was not trained on images in [-1, 1].
    """
    refuse_uncentred(denoiser, "a guided way back")
    used = Recomputed(denoiser)

    def purify(x: Tensor, noise: Noise = fresh) -> Tensor:
        wanted, reference = energy(x), 2 * x - 1

        def steered(own: Noise) -> Denoiser:
            return Guided(used, wanted, scale, reference, redraw(own, GUIDE))

        return chain(steered, x, noise)

    return purify


class Likeness(NamedTuple):
    """A way of comparing pixels, and the strength with which GDMP follows it."""

    energy: Energy
    strength: float


def squared(x_t: Tensor, there: Tensor) -> Tensor:
    """The summed squared error, (B, C, H, W) twice -> (B,)."""
    return (x_t - there).square().flatten(1).sum(1)


def dissimilarity(x_t: Tensor, there: Tensor) -> Tensor:
    """The sum of 1 - SSIM over all places, (B, C, H, W) twice in [-1, 1] -> (B,)."""
    return (1 - ssim((x_t + 1) / 2, (there + 1) / 2)).flatten(1).sum(1)


LIKENESS = {
    "mse": Likeness(squared, 60_000 / VALUES),
    "ssim": Likeness(dissimilarity, 70_000 / VALUES),
}


def gdmp(
    denoiser: Denoiser,
    depth: int | None = None,
    shots: int | None = None,
    *,
    rounds: int = 4,
    likeness: str = "mse",
    strength: float = 1.0,
    eps: float = 8 / 255,
    step: Step = jump,
) -> Purifier:
    """GDMP: guided by the pixels of the image that came in, in every round the same.

    The scale is s(t) = sqrt((1 - a_t) / a_t) 3 S / (2 eps), so that the pull is strong where the
    noise is and where the attack is small (Wang et al., 2022, as in their program).

    Ours, where the program's choice depends on the batch or the image's size: an image's energy is
    a sum over its own values, and the published S = 60,000 (SSIM: 70,000), which belong to a mean
    over 3 x 32 x 32 of them, are divided by their number. SSIM is taken in [0, 1].

    Arguments:
        denoiser: of a diffusion model.
        depth, shots: of a round; without a depth t* is 0.036, level 36 of 1000, and without shots
            each level is one. A jump moves x_t towards the reference by a share of their
            distance, which grows with the jump and must stay below 2: with squared error and the
            linear schedule it does at depth 36 from 3 shots on, at depth 100 from 97 on.
        rounds: how often, each from the result of the one before.
        likeness: `mse` or `ssim`.
        strength: times the published one; 0 is DiffPure.
        eps: of the attack that is expected, l_inf for images in [0, 1].
        step: how a jump is made, see `diffpure`.

    Raises UsageError where an argument is impossible, as `diffpure` does.
    """
    if likeness not in LIKENESS:
        raise UsageError(f"likeness={likeness!r}: expected one of {', '.join(LIKENESS)}")
    if not (0 <= strength < math.inf and 0 < eps < math.inf):
        raise UsageError(
            f"strength {strength:g} and eps {eps:g}: expected 0 or more, above 0, and no infinity"
        )
    compared, weight = LIKENESS[likeness]
    depth = published("gdmp", denoiser.schedule) if depth is None else depth
    factor, schedule = strength * weight * 3 / (2 * eps), denoiser.schedule
    return guided(
        denoiser,
        Chain(schedule, depth, depth if shots is None else shots, step, rounds),
        lambda x: compared,
        lambda t: factor * schedule.sigma(t),
    )


def agdm(
    denoiser: Denoiser,
    classifier: nn.Module,
    depth: int | None = None,
    shots: int | None = None,
    *,
    scale: float = 1.0,
    rounds: int = 1,
    step: Step = jump,
) -> Purifier:
    """AGDM: guided by the features and the prediction of an adversarially trained classifier.

    The energy is MSE(c(x_t), c(x'_t)) - log p(y | x_t), with c the features, x'_t the image at the
    level of x_t and y the classifier's own prediction for the image (Lin et al., 2024; its weight
    is the same for both terms).

    Ours, where the paper leaves it open: c is what the classifier's last linear layer is given;
    the classifier sees x_t itself, as (x_t + 1) / 2; s is one number for all levels, 1 where the
    prediction's term is the score of p(y | x_t), and a setting to be searched on validation
    images; the reference is diffused, not clean. The classifier is meant to come from TRADES with
    beta 6 and the architecture of the one that is defended.

    Arguments:
        denoiser: of a diffusion model.
        classifier: (B, C, H, W) in [0, 1] -> logits (B, K), not in training mode.
        depth, shots, rounds, step: see `diffpure`; without a depth t* is 0.07, level 70 of 1000,
            and without shots each level is one.
        scale: s; 0 is DiffPure.

    Raises UsageError where an argument is impossible, as `diffpure` does.
    """
    if not 0 <= scale < math.inf:
        raise UsageError(f"scale {scale:g}: expected 0 or more, and not infinity")
    seen = latent(classifier)

    def energy(x: Tensor) -> Energy:
        with torch.no_grad():
            labels = seen(x).logits.argmax(1)
        return partial(misread, seen, labels)

    depth = published("agdm", denoiser.schedule) if depth is None else depth
    chain = Chain(denoiser.schedule, depth, depth if shots is None else shots, step, rounds)
    return guided(denoiser, chain, energy, lambda t: scale)


class Seen(NamedTuple):
    """What a classifier makes of images: features (B, D) and logits (B, K)."""

    features: Tensor
    logits: Tensor


def latent(classifier: nn.Module) -> Callable[[Tensor], Seen]:
    """The classifier, with the features that its last linear layer is given.

    Raises UsageError where it has no such layer, or is in training mode.
    """
    layers = [layer for layer in classifier.modules() if isinstance(layer, nn.Linear)]
    if not layers:
        raise UsageError(
            f"{type(classifier).__name__} has no linear layer: a guide needs a classifier with "
            "features before one"
        )
    if classifier.training:
        raise UsageError("the guiding classifier is in training mode: call its eval() first")

    def seen(x: Tensor) -> Seen:
        kept: list[Tensor] = []
        hook = layers[-1].register_forward_pre_hook(lambda layer, given: kept.append(given[0]))
        try:
            logits = classifier(x)
        finally:
            hook.remove()
        return Seen(kept[-1].flatten(1), logits)

    return seen


def misread(seen: Callable[[Tensor], Seen], labels: Tensor, x_t: Tensor, there: Tensor) -> Tensor:
    """MSE of the features minus the log-probability of the labels, (B, C, H, W) twice in
    [-1, 1] -> (B,)."""
    one, other = seen((x_t + 1) / 2), seen((there + 1) / 2)
    apart = (one.features - other.features).square().mean(1)
    return apart + F.cross_entropy(one.logits, labels, reduction="none")
