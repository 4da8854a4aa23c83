"""Denoisers that are guided: an energy of x_t pulls the estimate of x_0.

Guidance is an addition to the score (Dhariwal and Nichol, 2021, Algorithm 2,
https://arxiv.org/abs/2105.05233): score - s(t) grad E(x_t) belongs to the estimate
x_0 - s(t) (1 - a_t) / sqrt(a_t) grad E(x_t). So a guided denoiser is a denoiser, for every
sampler. In a step of one level it moves the mean by -s beta / sqrt(1 - beta) grad E, which is
their Algorithm 1 with Sigma = beta, to first order in beta.

The gradient inside is part of the function: whoever differentiates the result differentiates it
too, to second order. An attack that is not shown it attacks another defence (Kassis et al., 2025,
Section 3.2, https://arxiv.org/abs/2411.16598).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..noise import Noise
from .denoise import Denoiser
from .recompute import recomputed
from .schedule import Schedule

Energy = Callable[[Tensor, Tensor], Tensor]  # (x_t, the reference at level t) -> (B,), to fall


@dataclass(frozen=True)
class Guided:
    """A denoiser whose results are drawn to a reference image.

    The reference is diffused anew to each level that is asked for, as sqrt(a_t) r +
    sqrt(1 - a_t) e, so that the energy compares two images with the same amount of noise.

    Arguments:
        denoiser: the one that is guided.
        energy: what shall be small, of x_t and the reference at its level; it draws nothing.
        scale: s(t), of each level.
        reference: an image for each of the batch, in [-1, 1].
        noise: asked for step t at level t; another than the one that x_t comes from, or the two
            would be the same.
    """

    denoiser: Denoiser
    energy: Energy
    scale: Callable[[int], float]
    reference: Tensor
    noise: Noise

    @property
    def schedule(self) -> Schedule:
        return self.denoiser.schedule

    def __call__(self, x_t: Tensor, t: int) -> Tensor:
        """x_0, (B, C, H, W). Differentiable to x_t and to the reference."""
        a_t = self.schedule.alpha_bar(t)
        there = math.sqrt(a_t) * self.reference
        there = there + math.sqrt(1 - a_t) * self.noise(self.reference, t)
        pull = self.scale(t) * (1 - a_t) / math.sqrt(a_t)
        return self.denoiser(x_t, t) - pull * slope(self.energy, x_t, there)


def slope(energy: Energy, x_t: Tensor, there: Tensor) -> Tensor:
    """The gradient of the energy to x_t alone, (B, C, H, W), with a graph of its own wherever
    x_t or the reference has one; the graph is computed again on the way back."""
    if torch.is_grad_enabled() and (x_t.requires_grad or there.requires_grad):
        return recomputed(_slope, energy, x_t, there, True)
    return _slope(energy, x_t.detach(), there.detach(), False)


def _slope(energy: Energy, x_t: Tensor, there: Tensor, further: bool) -> Tensor:
    with torch.enable_grad():
        # A tensor of its own: where the reference is computed from x_t, that way does not count.
        x = x_t.view_as(x_t).requires_grad_()
        (found,) = torch.autograd.grad(energy(x, there).sum(), x, create_graph=further)
    return found
