"""Whether the gradient that an attack follows through a defence is the defence's own.

A backward pass may leave out a part of what the forward pass does, and a purifier may answer
otherwise where nobody differentiates. What is left of such a gradient still leads up, as steeply
as it promises, so that following it reveals nothing. Random directions do: along them the rise of
the logits, by differences and without any gradient, is g.r, and what the gradient promises is
h.r; in the mean of the squares they are as far apart as g and h.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ..attacks.classification import likeliest
from ..noise import Noise
from .defence_modes import Logits
from .health import FAILED, NOT_RUN, PASSED, Check

SIZES = (2 / 255, 1 / 510, 1 / 4080)  # of steps: short ones drown in rounding, long ones bend
DIRECTIONS = 4
EDGE = 2 / 255  # as far as images are drawn away from 0 and 1, for room on both sides
APART = 0.25  # how far a gradient may be from the true one, in units of that
FEW = 0.5  # share of images that may be further off: a search may end elsewhere after a step
ULPS = 1024  # of the logits, or of 1, above which a rise is well clear of rounding
COST = 2 + 2 * len(SIZES) * DIRECTIONS  # images that pass, for each one looked at


def true_gradient(
    logits: Logits,
    x: Tensor,
    labels: Tensor,
    noise: Noise,
    *,
    directions: Noise,
    tell: Callable[[int], None] = lambda count: None,
) -> Check:
    """Compares the gradient with differences of the logits, all under one draw.

    What is differentiated is the likeliest wrong class's logit minus the right one's, which no
    softmax flattens. Of each image the step counts at which the two are nearest.

    Arguments:
        logits: the defence.
        x, labels: clean images (B, C, H, W) in [0, 1] and their classes (B,).
        noise: of the defence.
        directions: the signs of its steps 0, 1, ... are those in which the images are moved.
        tell: told of how many images pass.
    """
    x = x.clamp(EDGE, 1 - EDGE)
    count = len(x)
    with torch.no_grad():
        plain = logits(x, noise)
    rival = likeliest(plain, labels, 1)[:, 0]

    def height(values: Tensor) -> Tensor:
        pair = values.gather(1, torch.stack([rival, labels], 1)).double()
        return pair[:, 0] - pair[:, 1]

    leaf = x.clone().requires_grad_()
    with torch.enable_grad():
        seen = logits(leaf, noise)
        (gradient,) = torch.autograd.grad(height(seen).sum(), leaf)
    tell(2 * count)
    if not _same(plain, seen.detach()):
        return Check(FAILED, "other logits where a gradient is asked for than where none is")
    unit = ULPS * torch.finfo(plain.dtype).eps * plain.abs().amax(1).clamp_min(1).double()
    nearest, counted = torch.full_like(unit, torch.inf), torch.zeros_like(unit, dtype=torch.bool)
    for size in SIZES:
        steps = [size * directions(x, number).sign() for number in range(DIRECTIONS)]
        rises = torch.stack([_rise(logits, height, x, step, noise) for step in steps])
        promised = torch.stack([(gradient * step).double().flatten(1).sum(1) for step in steps])
        tell(2 * count * DIRECTIONS)
        off = (rises - promised).square().mean(0).sqrt() / rises.square().mean(0).sqrt()
        told = torch.maximum(rises.abs(), promised.abs()).amax(0) >= unit
        nearest = torch.where(told, torch.minimum(nearest, off.nan_to_num(torch.inf)), nearest)
        counted |= told
    return _judged(nearest[counted], count)


def _judged(nearest: Tensor, count: int) -> Check:
    if not len(nearest):
        return Check(NOT_RUN, "what the images change in the logits is lost in rounding")
    wrong = int((nearest > APART).sum())
    words = (
        f"{float(nearest.median()):.2g} of its length away from differences of the logits, in "
        f"the median of {len(nearest)} of {count} images; more than {APART:g} for {wrong}, "
        f"expected: for at most {FEW:.0%}"
    )
    return Check(PASSED if wrong <= FEW * len(nearest) else FAILED, words)


@torch.no_grad()
def _rise(
    logits: Logits, height: Callable[[Tensor], Tensor], x: Tensor, step: Tensor, noise: Noise
) -> Tensor:
    """Half the difference between a step ahead and a step back, (B,)."""
    ahead, back = (height(logits(x + way * step, noise)) for way in (1, -1))
    return (ahead - back) / 2


def _same(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, rtol=1e-3, atol=1e-3, equal_nan=True)
