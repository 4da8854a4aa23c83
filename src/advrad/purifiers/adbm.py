"""ADBM: a diffusion that starts at the attacked image and leads back to the clean one.

Li et al., 2024 (https://arxiv.org/abs/2408.00315), Adversarial Diffusion Bridge Model. Let gap be
what an attack has added to the clean image x_0 and T the level to which the attacked image is
diffused. The bridge is at T what that image becomes, at 0 the clean one:

    x_t = sqrt(a_t) x_0 + k_in(t) gap + sqrt(1 - a_t) eps,    a_t = alpha_bar(t),
    k_in(t) = a_T (1 - a_t) / ((1 - a_T) sqrt(a_t)),

and a network that predicts

    eps + k_out(t) gap,    k_out(t) = a_T sqrt(1 - a_t) / ((1 - a_T) sqrt(a_t)),

has x_0 for its estimate of the clean image, to the letter. The posterior mean of DDPM carries
k_in(t) to k_in(s) exactly, so that the usual sampler stays on the bridge and need not know the gap
(eta 1). The deterministic one, which the authors use, carries sqrt(1 - a_s) k_out(t), which is
more of the gap than the bridge has at s (eta 0, the default here as there).

The attack in training: from a random place of an l_inf ball of 8/255, three steps as long as the
ball's radius along the sign of the gradient of the classifier's loss about the estimate of x_0, at
the same T, t and eps as the training step itself.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..diffusion import EpsDenoiser
from ..diffusion.denoise import Denoiser
from ..diffusion.loss import diffuse, simple
from ..diffusion.steps import ddim
from ..errors import UsageError
from ..noise import Noise
from ._chain import published
from ._guide import doubt
from ._slope import slope
from .base import Purifier
from .diffpure import diffpure

FURTHEST = 0.2  # of the schedule: from where the longest bridges of the training start
EPS, START = 0, 1  # the steps under which a training step's two noises are asked


def k_in(a_t: Tensor, a_top: Tensor) -> Tensor:
    """How much of the gap the bridge from alpha_bar a_top holds at a_t."""
    return a_top * (1 - a_t) / ((1 - a_top) * a_t.sqrt())


def k_out(a_t: Tensor, a_top: Tensor) -> Tensor:
    """How much of the gap the prediction holds beside eps; k_in = sqrt(1 - a_t) k_out."""
    return a_top * (1 - a_t).sqrt() / ((1 - a_top) * a_t.sqrt())


@dataclass(frozen=True)
class ADBM:
    """What a training step of ADBM needs of an image.

    Arguments:
        denoiser: what is fine-tuned.
        classifier: images in [0, 1] to logits; it does not change.
        eps: radius of the attack, in the [0, 1] scale.
        rounds: of the attack.
    """

    denoiser: EpsDenoiser
    classifier: nn.Module
    eps: float = 8 / 255
    rounds: int = 3

    def error(self, x: Tensor, labels: Tensor, t: Tensor, top: Tensor, noise: Noise) -> Tensor:
        """The mean squared error of the prediction, (B,).

        Arguments:
            x: images in [-1, 1], (B, C, H, W).
            labels: their classes, (B,).
            t: their levels, 1 <= t <= top, (B,).
            top: the levels to which the attacked images are diffused (T), (B,).
            noise: asked once for eps, once for the start of the attack.
        """
        eps, start = noise(x, EPS), noise(x, START)
        gap = self.gap(x, labels, t, top, eps=eps, start=start)
        predicted = self.denoiser.predict(self.bridge(x, gap, t, top, eps), t).eps
        return simple(self.target(gap, t, top, eps), predicted)

    @torch.no_grad()
    def gap(
        self, x: Tensor, labels: Tensor, t: Tensor, top: Tensor, *, eps: Tensor, start: Tensor
    ) -> Tensor:
        """What the attack adds, in [-1, 1] scale: shaped like x, and x + gap is an image.

        The arguments are those of `error`, with the eps of the training step and the standard
        normal numbers that the start is made of, both shaped like x.
        """
        reach = 2 * self.eps
        even = 2 * torch.special.ndtr(start) - 1  # uniform on [-1, 1]
        gap = _held(x, reach * even, reach)
        misled = lambda gap: doubt(
            self.denoiser, self.classifier, self.bridge(x, gap, t, top, eps), t=t, labels=labels
        )
        for _ in range(self.rounds):
            gap = _held(x, gap + reach * slope(misled, gap).sign(), reach)
        return gap

    def bridge(self, x: Tensor, gap: Tensor, t: Tensor, top: Tensor, eps: Tensor) -> Tensor:
        """x_t of the bridge, shaped like x."""
        schedule = self.denoiser.schedule
        k = k_in(schedule.at(t, x), schedule.at(top, x))
        return diffuse(schedule, x, t, eps) + k * gap

    def target(self, gap: Tensor, t: Tensor, top: Tensor, eps: Tensor) -> Tensor:
        """What the network is to predict, shaped like eps."""
        schedule = self.denoiser.schedule
        return eps + k_out(schedule.at(t, eps), schedule.at(top, eps)) * gap


def adbm(
    denoiser: Denoiser, depth: int | None = None, shots: int = 5, *, eta: float = 0.0
) -> Purifier:
    """DiffPure with a denoiser that was trained with `ADBM`, down its bridge.

    Arguments:
        denoiser: so trained.
        depth: the level of the diffused image (T), within what was trained: 100 to 200 of 1000,
            as shares of any other schedule; 100 of 1000 where None.
        shots: jumps that lead back, 1 to depth.
        eta: 1 for the ancestral sampler, which stays on the bridge; 0 for the authors'.

    Raises UsageError where depth, shots or eta are out of range.
    """
    levels = denoiser.schedule.steps
    depth = published("adbm", denoiser.schedule) if depth is None else depth
    if depth > 1 and depth > FURTHEST * levels:
        raise UsageError(
            f"depth {depth} of {levels}: expected at most {max(1, int(FURTHEST * levels))}, from "
            "where the longest bridges start in training"
        )
    return diffpure(denoiser, depth, shots, step=ddim(eta))


def _held(x: Tensor, gap: Tensor, reach: float) -> Tensor:
    """The gap within the ball, and then within what an image can show."""
    return (x + gap.clamp(-reach, reach)).clamp(-1, 1) - x
