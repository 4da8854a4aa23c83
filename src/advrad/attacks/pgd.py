"""PGD: steps along the gradient, each brought back to the ball.

Madry et al., 2018 (https://arxiv.org/abs/1706.06083), without its limits: any objective, any ball,
and of all iterates the one that ranks highest. With momentum (Dong et al., 2018,
https://arxiv.org/abs/1710.06081, Algorithm 1) and steps that become smaller it averages over the
draws of a random objective along the way, which serves it better than many draws at each place.
"""

import torch
from torch import Tensor

from ..errors import UsageError
from ..noise import Noise, fresh
from ._start import begin, positive
from .ball import Ball, along, column
from .gradient import Best, ready, value_and_gradient, value_of
from .objective import Objective

REACH = 5.0  # radii that all steps cover together; after 2.5, random starts in l2 end 1.5 % short


def pgd(
    objective: Objective,
    x: Tensor,
    ball: Ball,
    *,
    steps: int = 40,
    size: float | Tensor | None = None,
    start: str = "random",
    keep: str = "best",
    momentum: float = 0.0,
    decay: bool = False,
    restarts: int = 1,
    noise: Noise = fresh,
) -> Tensor:
    """The images (B, C, H, W) that rank highest of all iterates.

    Costs `steps` evaluations with a gradient a restart, and one without, for the last iterate. One
    more without is for the clean images, unless they are the start or keep is `last`. An image
    that strays to where there is no number keeps what it had.

    Arguments:
        steps: from the start to the last iterate.
        size: of a step, in the unit of eps, one for all or (B,); 5 radii / steps if left out. In
            l1 a step goes along the gradient itself, and the size is its Euclidean length.
        start: `random` in the ball, or `zero`.
        keep: `best` of all iterates, the clean image included, or `last` (of several restarts,
            the best last one).
        momentum: the share of the steps' direction so far that is kept; each gradient is first
            divided by its mean absolute value.
        decay: whether the step size falls linearly, from `size` at the first step towards 0.
        restarts: runs, each with a draw of its own.

    Raises BlindAttackError where there is no gradient, UsageError for impossible settings.
    """
    x = ready(x, ball)
    positive(steps=steps, restarts=restarts)
    if not 0 <= momentum < 1:
        raise UsageError(f"momentum {momentum:g}: expected a share from 0 up to, not including, 1")
    if keep not in ("best", "last"):
        raise UsageError(f"keep {keep!r}: expected best or last")
    step = (ball.radius * REACH / steps if size is None else column(size)).to(x)
    best = Best(x)
    if keep == "best" and start != "zero":
        best.see(x, value_of(objective, x).rank)
    for restart in range(restarts):
        adv, direction = begin(x, ball, start, noise, restart), torch.zeros_like(x)
        last = Best(x)
        for number in range(steps):
            seen = value_and_gradient(objective, adv, first=restart + number == 0)
            last.take(adv, seen.rank)
            if keep == "best":
                best.see(adv, seen.rank)
            direction = momentum * direction + scaled(seen.gradient)
            now = step * (1 - number / steps if decay else 1)
            adv = ball.project(adv + now * along(ball, direction), x)
        last.take(adv, value_of(objective, adv).rank)
        best.see(last.x, last.rank)
    return best.x


def scaled(gradient: Tensor) -> Tensor:
    """The gradient of each image in units of its mean absolute value; zero where it is zero."""
    mean = gradient.abs().flatten(1).mean(1).clamp_min(torch.finfo(gradient.dtype).tiny)
    return gradient / column(mean).to(gradient)
