"""The smallest perturbation that lifts an image over a threshold.

FMN, Pintor et al., 2021 (https://arxiv.org/abs/2102.12827): steps along the gradient as in PGD, in
a ball that shrinks a little wherever the image has crossed, and grows a little where it has not.
Each image has its own radius, and 100 steps tell it about as well as a bisection that attacks at
every radius anew. What is found is then shortened on its way from the clean image.

A sticker has whole sides, and few of them: there a bisection it is.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import UsageError
from ..noise import Noise, fresh
from ._start import positive
from .ball import L1, Ball, Patch, along, column
from .gradient import ready, value_and_gradient, value_of
from .objective import Objective
from .pgd import pgd, scaled

SHRINK = (5.0, 0.01)  # over all steps, what a radius shrinks or grows by, at the first rate and
# at the last: of 100 steps, the published shares 0.05 and 1e-4
GROW = 10.0  # the same for an image that has not crossed yet: half the steps reach the largest
STRIDE = (1.0, 0.01)  # the size of a step in radii, first and last
BEGIN = 0.01  # of the largest radius, where the search starts: a clean image may be a flat place


class Smallest(NamedTuple):
    """Images (B, C, H, W) over the threshold, and how far they are from the clean ones, (B,).

    0 where the clean image is over it already, and inf, with the clean image, where nothing was
    found.
    """

    x: Tensor
    eps: Tensor


def minimal(
    objective: Objective,
    x: Tensor,
    ball: Ball,
    *,
    threshold: float | Tensor,
    steps: int = 100,
    halvings: int = 10,
    momentum: float = 0.0,
    noise: Noise = fresh,
) -> Smallest:
    """The nearest images whose rank is at least the threshold, up to the ball's eps.

    Costs `steps` evaluations with a gradient and 2 + halvings forward ones; in a `Patch` ball with
    sides up to s it is PGD of so many steps at about log2(s) + 1 sides (`looks` counts them). Of
    an objective whose rank draws the luckiest iterate would count: give it the same draws at every
    call. What is climbed may draw, and then momentum averages over the draws along the way.

    Arguments:
        ball: the kind, and the largest eps to look at.
        threshold: to be reached, one or (B,).
        halvings: of the way from the clean image to the one found.
        momentum: the share of the steps' direction so far that is kept, as in `pgd`.

    Raises BlindAttackError where there is no gradient, UsageError for impossible settings.
    """
    x = ready(x, ball)
    positive(steps=steps)
    clean = value_of(objective, x).rank
    goal = reached(threshold, clean)
    nearest = Nearest(x, ball, goal)
    nearest.see(x, clean)
    if isinstance(ball, Patch):
        attack = partial(pgd, steps=steps, momentum=momentum, noise=noise)
        _bisect(objective, x, ball, nearest, attack)
    else:
        start = ball.project(x + BEGIN * ball.random(x, noise), x)
        _search(objective, start, ball, nearest, steps, momentum)
        shorten(objective, x, nearest, halvings)
    return Smallest(nearest.x, nearest.eps)


def looks(ball: Ball, steps: int = 100, halvings: int = 10) -> tuple[int, int]:
    """What `minimal` costs: evaluations with a gradient, and forward ones."""
    if not isinstance(ball, Patch):
        return steps, 2 + halvings
    return steps * _sides(ball), 1 + 3 * _sides(ball)


def reached(threshold: float | Tensor, clean: Tensor) -> Tensor:
    """The threshold as a tensor like the clean values (B,).

    Raises UsageError unless it is one number, or one for each image, and a number at all.
    """
    goal = torch.as_tensor(threshold).to(clean)
    if goal.shape not in ((), (1,), clean.shape):
        raise UsageError(
            f"a threshold of shape {tuple(goal.shape)} for {len(clean)} images: expected one "
            "number, or one for each image"
        )
    if bool(goal.isnan().any()):
        raise UsageError("a threshold that is not a number: expected the score to be reached")
    return goal


class Nearest:
    """Keeps, image by image, the one over the threshold that is nearest to the clean one."""

    def __init__(self, x: Tensor, ball: Ball, goal: Tensor) -> None:
        self.clean, self.ball, self.goal = x, ball, goal
        self.x, self.eps = x.clone(), torch.full_like(x[:, 0, 0, 0], torch.inf)

    def see(self, x: Tensor, rank: Tensor) -> Tensor:
        """Takes another one in; returns which images have crossed, (B,) bool."""
        crossed = rank >= self.goal
        eps = self.ball.size(x - self.clean)
        won = crossed & (eps < self.eps)
        self.x = torch.where(column(won), x, self.x)
        self.eps = torch.where(won, eps, self.eps)
        return crossed

    def within(self, limit: Tensor) -> Smallest:
        """What was found, and nothing where that is further away than the limit, (B,) or (1,)."""
        far = self.eps > limit
        return Smallest(
            torch.where(column(far), self.clean, self.x), torch.where(far, torch.inf, self.eps)
        )


def _search(
    objective: Objective, adv: Tensor, ball: Ball, nearest: Nearest, steps: int, momentum: float
) -> None:
    """Algorithm 1 of the paper, with each ball's own steepest step, from the start `adv` on.

    What ranks may rise more slowly than what is climbed, and then the slope promises too much.
    """
    x, way = nearest.clean, torch.zeros_like(adv)
    limit = ball.radius.to(x).flatten().expand(len(x))
    eps = BEGIN * limit
    for step in range(steps):
        seen = value_and_gradient(objective, adv, first=step == 0)
        crossed = nearest.see(adv, seen.rank)
        way = momentum * way + scaled(seen.gradient) if momentum else seen.gradient
        (direction, _), slope = _steepest(ball, way), _steepest(ball, seen.gradient)[1]
        needed = ball.size(adv - x) + (nearest.goal - seen.rank) / slope
        gamma, stride = _cosine(SHRINK, step / steps) / steps, _cosine(STRIDE, step / steps)
        sought = torch.maximum(needed.nan_to_num(0), eps * (1 + GROW / steps))
        grown = torch.where(nearest.eps.isinf(), sought, eps * (1 + gamma))
        shrunk = torch.minimum(eps / (1 + gamma), nearest.eps)
        eps = torch.minimum(torch.where(crossed, shrunk, grown), limit)
        adv = ball.at(eps).project(adv + stride * column(eps) * direction, x)
    nearest.see(adv, value_of(objective, adv).rank)


def _steepest(ball: Ball, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """The direction of a step (B, C, H, W), and how fast the ball's best one rises (B,)."""
    direction = along(ball, gradient)
    if isinstance(ball, L1):
        return direction, gradient.flatten(1).abs().amax(1)
    return direction, (gradient * direction).flatten(1).sum(1)


def shorten(objective: Objective, x: Tensor, nearest: Nearest, halvings: int) -> None:
    """Bisects the straight way from the clean image to the nearest one, `halvings` times."""
    way = nearest.x - x
    low, high = torch.zeros_like(nearest.eps), torch.ones_like(nearest.eps)
    for _ in range(halvings):
        middle = (low + high) / 2
        adv = x + column(middle) * way
        crossed = nearest.see(adv, value_of(objective, adv).rank)
        low, high = torch.where(crossed, low, middle), torch.where(crossed, middle, high)


def _bisect(
    objective: Objective,
    x: Tensor,
    ball: Patch,
    nearest: Nearest,
    attack: Callable[[Objective, Tensor, Ball], Tensor],
) -> None:
    """Attacks at the largest side, and then between one that did not cross and one that did."""
    high = torch.as_tensor(ball.eps, device=x.device).long().expand(len(x))
    low, side = torch.zeros_like(high), high
    for _ in range(_sides(ball)):
        adv = attack(objective, x, ball.at(side))
        crossed = nearest.see(adv, value_of(objective, adv).rank)
        low, high = torch.where(crossed, low, side), torch.where(crossed, side, high)
        side = (low + high + 1) // 2


def _sides(ball: Patch) -> int:
    """How many sides are tried."""
    return (int(torch.as_tensor(ball.eps).max()) - 1).bit_length() + 1


def _cosine(ends: tuple[float, float], done: float) -> float:
    first, last = ends
    return last + (first - last) * (1 + math.cos(math.pi * done)) / 2
