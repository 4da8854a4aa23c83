"""APGD: PGD that finds its own step sizes.

Croce and Hein, 2020 (https://arxiv.org/abs/2003.01690), Algorithm 1; in the l1 ball its sparse
form, Croce and Hein, 2021 (https://arxiv.org/abs/2103.01208), Algorithm 1. Every image has its own
step size and its own best iterate, and goes back to it by itself.

What is climbed steers the steps; what ranks chooses the result. Of a random objective both are
estimates: a lucky draw may pass for the best iterate, and halve a step too early, and the value of
the result has to be taken again, with draws that did not choose it.
"""

import torch
from torch import Tensor

from ..errors import UsageError
from ..noise import Noise, fresh
from ._pace import Halving, Place, Sparse
from ._start import begin, positive
from .ball import L1, Ball
from .gradient import Best, ready, value_and_gradient, value_of
from .objective import Objective


def apgd(
    objective: Objective,
    x: Tensor,
    ball: Ball,
    *,
    steps: int = 100,
    rho: float = 0.75,
    start: str = "random",
    restarts: int = 1,
    noise: Noise = fresh,
) -> Tensor:
    """The images (B, C, H, W) that rank highest of all iterates, the clean ones included.

    Costs `steps` evaluations with a gradient a restart, and one without, for the last iterate. One
    more without is for the clean images, unless they are the start. An image that strays to where
    there is no number keeps its best.

    Arguments:
        steps: from the start to the last iterate.
        rho: the share of steps that have to climb; below it the step size is halved.
        start: `random` in the ball, or `zero`.
        restarts: runs, each with a draw of its own.

    Raises BlindAttackError where there is no gradient, UsageError for impossible settings.
    """
    x = ready(x, ball)
    positive(steps=steps, restarts=restarts)
    if not 0 <= rho <= 1:
        raise UsageError(f"rho {rho:g}: expected a share of the steps, from 0 to 1")
    best = Best(x)
    if start != "zero":
        best.see(x, value_of(objective, x).rank)
    for restart in range(restarts):
        first = _look(objective, begin(x, ball, start, noise, restart), best, first=not restart)
        last = _climb(objective, first, _pace(ball, x, first, steps, rho), steps, best)
        best.see(last, value_of(objective, last).rank)
    return best.x


def _pace(ball: Ball, x: Tensor, first: Place, steps: int, rho: float) -> Halving | Sparse:
    if isinstance(ball, L1):
        return Sparse(ball, x, steps)
    return Halving(ball, x, first, steps, rho)


def _climb(
    objective: Objective, first: Place, pace: Halving | Sparse, steps: int, best: Best
) -> Tensor:
    """The last iterate; all before it are shown to `best`."""
    at = top = first
    for number in range(1, steps):
        now = _look(objective, pace.move(at), best)
        rose = now.climb > at.climb
        top = now.where(now.climb > top.climb, top)
        at = top.where(pace.back(number, rose, top), now)
    return pace.move(at)


def _look(objective: Objective, adv: Tensor, best: Best, *, first: bool = False) -> Place:
    """One evaluation with a gradient; a height that is no number is the lowest."""
    seen = value_and_gradient(objective, adv, first=first)
    best.see(adv, seen.rank)
    return Place(adv, torch.where(seen.climb.isnan(), -torch.inf, seen.climb), seen.gradient)
