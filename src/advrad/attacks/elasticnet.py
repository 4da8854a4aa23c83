"""Elastic-Net attack: few values changed, by as little as it takes.

EAD, Chen et al., 2018 (https://arxiv.org/abs/1709.04114): what is left of an attack by Carlini and
Wagner when the l1 norm joins the squared l2 norm. Each step goes down the smooth part, Eq. 7, and
then shrinks the perturbation, Eq. 5; FISTA carries it on along its way. How much the crossing
weighs against the norms, c, is searched for each image by itself.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import UsageError
from ..noise import Noise, fresh
from ._start import positive
from .ball import L1, L2, Ball, Linf, column
from .gradient import ready, value_and_gradient, value_of
from .minimal import Smallest, reached
from .objective import Objective

RULES = ("elastic-net", "l1")


class Box(NamedTuple):
    """Where an image may be: the lowest and the highest of each value, (B, C, H, W)."""

    low: Tensor
    high: Tensor


def elasticnet(
    objective: Objective,
    x: Tensor,
    ball: Ball,
    *,
    threshold: float | Tensor = 0.0,
    kappa: float = 0.0,
    beta: float = 1e-3,
    c: float = 1e-3,
    searches: int = 9,
    steps: int = 100,
    rate: float = 1e-2,
    rule: str = "elastic-net",
    noise: Noise = fresh,
) -> Smallest:
    """The images found that are over the threshold, smallest by the rule, and how far away.

    Costs searches * steps evaluations with a gradient, and one more without than that. `noise` is
    there because every attack has one; nothing is drawn.

    Arguments:
        ball: what counts; an l_inf ball also bounds every iterate, one of l2 or l1 only the
            choice at the end.
        threshold: to be reached, one or (B,); 0 for a margin.
        kappa: by how much more than that.
        beta: the weight of the l1 norm, and by how much a step shrinks every value.
        c: the first weight of the crossing: ten times as much after each search in vain, and
            between the largest in vain and the smallest that did once one has.
        searches: values of c that are tried.
        steps: of one search.
        rate: of the first step; it falls with the root of the share of steps left.
        rule: `elastic-net`, beta ||d||_1 + ||d||_2^2, or `l1`, the first alone.

    Raises BlindAttackError where there is no gradient, UsageError for impossible settings.
    """
    x = ready(x, ball)
    positive(searches=searches, steps=steps)
    if not isinstance(ball, Linf | L2 | L1):
        raise UsageError(
            f"elasticnet has no measure for {ball.name}: expected one of linf, l2, l1"
        )
    if rule not in RULES:
        raise UsageError(f"rule {rule!r}: expected one of {', '.join(RULES)}")
    if min(kappa, beta) < 0 or min(c, rate) <= 0:
        raise UsageError(
            f"kappa {kappa:g}, beta {beta:g}, c {c:g}, rate {rate:g}: expected the first two to "
            "be 0 or more, and c and rate to be above 0"
        )
    clean = value_of(objective, x).rank
    goal = reached(threshold, clean) + kappa
    kept = Kept(x, ball, goal, beta if rule == "elastic-net" else None)
    kept.see(x, clean)
    reach = ball.radius.to(x) if isinstance(ball, Linf) else 1
    box = Box((x - reach).clamp_min(0), (x + reach).clamp_max(1))
    weight = torch.full_like(clean, c)
    vain, did = torch.zeros_like(weight), torch.full_like(weight, torch.inf)
    for number in range(searches):
        crossed = _search(objective, kept, weight, box, (beta, steps, rate), number)
        did, vain = torch.where(crossed, weight, did), torch.where(crossed, vain, weight)
        weight = torch.where(did.isinf(), 10 * weight, (vain + did) / 2)
    return Smallest(kept.x, kept.eps)


def shrunk(z: Tensor, x: Tensor, beta: float, box: Box) -> Tensor:
    """Every value of z nearer to x by beta, not past it, and in the box: Eq. 5."""
    change = z - x
    return (x + change.sign() * (change.abs() - beta).clamp_min(0)).clamp(box.low, box.high)


class Kept:
    """The smallest by a rule of the images that have crossed and lie in the ball."""

    def __init__(self, x: Tensor, ball: Ball, goal: Tensor, beta: float | None) -> None:
        """The rule: beta ||d||_1 + ||d||_2^2, or ||d||_1 alone where beta is None."""
        self.clean, self.ball, self.goal, self.beta = x, ball, goal, beta
        self.x = x.clone()
        self.measure = self.eps = torch.full_like(x[:, 0, 0, 0], torch.inf)

    def see(self, x: Tensor, rank: Tensor) -> Tensor:
        """Takes another one in; returns which images have crossed, (B,) bool."""
        change = x - self.clean
        measure = change.flatten(1).abs().sum(1)
        if self.beta is not None:
            measure = self.beta * measure + change.flatten(1).square().sum(1)
        eps, crossed = self.ball.size(change), rank >= self.goal
        inside = eps <= self.ball.radius.to(x).flatten() * (1 + ROUNDING)
        won = crossed & inside & (measure < self.measure)
        self.x = torch.where(column(won), x, self.x)
        self.measure = torch.where(won, measure, self.measure)
        self.eps = torch.where(won, eps, self.eps)
        return crossed


ROUNDING = 1e-6  # by which a float at the edge of an l_inf ball may be outside


def _search(
    objective: Objective,
    kept: Kept,
    weight: Tensor,
    box: Box,
    settings: tuple[float, int, float],
    number: int,
) -> Tensor:
    """One search at one weight c (B,); returns which images have crossed, (B,) bool."""
    beta, steps, rate = settings
    x = kept.clean
    now = ahead = x
    found = torch.zeros_like(weight, dtype=torch.bool)
    for step in range(steps):
        seen = value_and_gradient(objective, ahead, first=number + step == 0)
        pull = torch.where(seen.climb < kept.goal, weight, 0)
        downhill = 2 * (ahead - x) - column(pull) * seen.gradient
        pace = rate * (1 - step / steps) ** 0.5
        before, now = now, shrunk(ahead - pace * downhill, x, beta, box)
        ahead = now + step / (step + 3) * (now - before)
        found = found | kept.see(now, value_of(objective, now).rank)
    return found
