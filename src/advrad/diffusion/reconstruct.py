"""Reconstruction: diffuse an image to a depth, then denoise it back.

The same verb detects (the error is the anomaly) and purifies (the result is the defence). It is
the reverse process over any ladder of levels: full-shot visits them all, one-shot jumps from the
depth to 0 at once, and no case differs from another.
"""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from ..noise import Noise, fresh, out
from .denoise import Denoiser
from .schedule import Schedule

Step = Callable[[Denoiser, Tensor, int, int, Noise], Tensor]  # (.., x_t, t, s, ..) -> x_s, s < t


def jump(
    denoiser: Denoiser, x_t: Tensor, t: int, s: int, noise: Noise, eta: float = 1.0
) -> Tensor:
    """A draw of x_s given x_t, s < t, with the estimate of x_0 in the place of x_0.

    `eta` 1 is the posterior of Ho et al., 2020 (Eq. 6-7) for any two levels, 0 is deterministic;
    x_s = sqrt(a_s) x_0 + sqrt(1 - a_s - std^2) eps + std z (Song et al., 2021, Eq. 12 and 16,
    https://arxiv.org/abs/2010.02502). At s = 0 this is x_0.
    """
    a_t, a_s = denoiser.schedule.alpha_bar(t), denoiser.schedule.alpha_bar(s)
    x_0 = denoiser(x_t, t)
    if s == 0:
        return x_0
    std = eta * math.sqrt((1 - a_s) / (1 - a_t) * (1 - a_t / a_s))
    eps = (x_t - math.sqrt(a_t) * x_0) / math.sqrt(1 - a_t)
    mean = math.sqrt(a_s) * x_0 + math.sqrt(max(0.0, 1 - a_s - std**2)) * eps
    return mean + std * noise(x_t, out(s)) if std else mean


def reconstruct(
    denoiser: Denoiser,
    x: Tensor,
    depth: int,
    shots: int = 1,
    noise: Noise = fresh,
    carried: float = 0.0,
    step: Step = jump,
) -> Tensor:
    """x taken through `depth` steps of noise and back, (B, C, H, W) in [-1, 1]. Differentiable.

    Arguments:
        denoiser: estimates x_0 from x_t.
        x: images in [-1, 1], with shape (B, C, H, W).
        depth: how many steps of noise are put in (k), 1 to the schedule's steps.
        shots: how many jumps lead back, 1 to depth. `shots=depth` is full-shot.
        noise: asked for step `depth` on the way in, for `out(s)` at each jump to a level s > 0.
        carried: standard deviation of the Gaussian noise that x has already, in the unit of x;
            only what is missing to the depth is put in, so that x_k is what it would have been.
        step: how a jump is made, see `steps`.

    Raises ValueError where depth or shots are out of range, or the depth has less noise than x.
    """
    _check(denoiser, depth, shots)
    x_k = math.sqrt(denoiser.schedule.alpha_bar(depth)) * x
    own = missing(denoiser.schedule, depth, carried)
    x_k = x_k + own * noise(x, depth) if own else x_k
    return descend(denoiser, x_k, depth, shots, noise, step)


def missing(schedule: Schedule, depth: int, carried: float) -> float:
    """The weight of the noise that takes an image with noise `carried` to the level `depth`:
    sqrt(1 - a_k - a_k carried^2), exactly 0 where they are the same. Raises ValueError where the
    level has less noise than that."""
    if carried == schedule.sigma(depth):
        return 0.0
    if carried > schedule.sigma(depth):
        raise ValueError(
            f"images that carry noise of {carried:g} are past level {depth} "
            f"({schedule.sigma(depth):.3g}): expected {schedule.level(carried)} or deeper"
        )
    a_k = schedule.alpha_bar(depth)
    return math.sqrt(max(0.0, 1 - a_k - a_k * carried**2))


def sample(
    denoiser: Denoiser, like: Tensor, shots: int | None = None, noise: Noise = fresh
) -> Tensor:
    """New images from pure noise, shaped like `like`, in [-1, 1]; every level by default."""
    top = denoiser.schedule.steps
    shots = top if shots is None else shots
    _check(denoiser, top, shots)
    return descend(denoiser, noise(like, top), top, shots, noise)


def descend(
    denoiser: Denoiser, x_t: Tensor, depth: int, shots: int, noise: Noise, step: Step = jump
) -> Tensor:
    """x_t at level `depth` denoised to level 0 in `shots` jumps."""
    for t, s in pairwise(ladder(depth, shots)):
        x_t = step(denoiser, x_t, t, s, noise)
    return x_t


def ladder(depth: int, shots: int) -> list[int]:
    """The levels visited, from `depth` down to 0, as even as integers allow: shots + 1 of them."""
    return torch.linspace(depth, 0, shots + 1, dtype=torch.float64).round().long().tolist()


def _check(denoiser: Denoiser, depth: int, shots: int) -> None:
    top = denoiser.schedule.steps
    if not 1 <= shots <= depth <= top:
        raise ValueError(f"depth {depth} and shots {shots}: expected 1 <= shots <= depth <= {top}")
