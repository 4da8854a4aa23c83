"""An objective seen from one place as planes, and the way to a plane that keeps to the box.

The nearest point of a plane inside a box, in l_inf, l2 and l1: Croce and Hein, 2020
(https://arxiv.org/abs/1907.02044), Section 2.2. In l_inf and l2 all values rise together and stop
at the box one by one, so one sort finds the level; in l1 the values whose weights are largest go
first, each as far as the box allows.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import UsageError
from ._ball import Ball
from ._l1 import L1
from .ball import L2, Linf
from .gradient import gradient_of
from .objective import Aim, Objective, checked


class Slopes(NamedTuple):
    """What is climbed (B, K), what ranks (B,), and the gradients (B, K, C, H, W)."""

    climb: Tensor
    rank: Tensor
    gradients: Tensor


class Plane(NamedTuple):
    """Where a linear model reaches its goal: weights (B, C, H, W), and what is missing, (B,)."""

    weights: Tensor
    gap: Tensor


def columns(value: "Tensor | Aim", x: Tensor) -> Aim:
    """What is climbed as (B, K), and what ranks, (B,): of several columns the largest.

    An objective (B,) is one column. Raises UsageError for any other shape.
    """
    climb = value.climb if isinstance(value, Aim) else value
    several = isinstance(climb, Tensor) and climb.ndim == 2 and climb.shape[1] > 0
    if not several or len(climb) != len(x):
        both = checked(value, x)
        return Aim(both.climb[:, None], both.rank)
    rank = value.rank if isinstance(value, Aim) else climb.detach().amax(1)
    return Aim(climb, checked(rank, x).rank)


@torch.no_grad()
def rank_of(objective: Objective, x: Tensor) -> Tensor:
    """One forward pass: what ranks, (B,)."""
    return columns(objective(x), x).rank.detach()


def slopes(objective: Objective, x: Tensor, *, first: bool = True) -> Slopes:
    """One forward pass and a backward pass for each column; refuses as `value_and_gradient`."""
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        climb, rank = columns(objective(x), x)
        count = climb.shape[1]
        gradients = [
            gradient_of(climb[:, k], x, first=first, again=k + 1 < count) for k in range(count)
        ]
    return Slopes(climb.detach(), rank.detach(), torch.stack(gradients, 1))


def nearest_plane(ball: Ball, seen: Slopes, goal: Tensor) -> Plane:
    """Of each image's columns the one whose linear model reaches the goal in the shortest way.

    The distance of a plane is what is missing over the dual norm of the weights. A column without
    slope is out of reach; where all are, the weights that come out are zero.
    """
    gap = (goal.reshape(-1, 1) - seen.climb).nan_to_num(0)
    slope = torch.linalg.vector_norm(seen.gradients.flatten(2), of(ball).dual, dim=2)
    distance = torch.where(slope > 0, gap.abs() / slope, torch.inf)
    image, best = torch.arange(len(gap), device=gap.device), distance.argmin(1)
    return Plane(seen.gradients[image, best], gap[image, best])


def to_plane(ball: Ball, x: Tensor, plane: Plane) -> Tensor:
    """The smallest d (B, C, H, W) with <weights, d> = gap and x + d in [0, 1].

    Where the plane misses the box, d leads to a corner of the box that is nearest to it.
    """
    sign = (plane.weights * plane.gap.sign()[:, None, None, None]).sign()
    weights = plane.weights.flatten(1).abs().double()
    room = torch.where(sign > 0, 1 - x, x).flatten(1).double()
    moved = of(ball).fill(weights, room, plane.gap.abs().double()[:, None])
    return sign * moved.to(x).view_as(x)


def _together(weights: Tensor, room: Tensor, wanted: Tensor) -> Tensor:
    """All values rise to one level, as far as each has room: l_inf."""
    return torch.minimum(_level(weights, room, wanted), room)


def _in_proportion(weights: Tensor, room: Tensor, wanted: Tensor) -> Tensor:
    """All values rise in proportion to their weights, as far as each has room: l2."""
    limit = torch.where(weights > 0, room / weights, 0)
    return weights * torch.minimum(_level(weights.square(), limit, wanted), limit)


def _heaviest_first(weights: Tensor, room: Tensor, wanted: Tensor) -> Tensor:
    """One value after the other rises to the end of its room, the largest weight first: l1."""
    ordered, order = weights.sort(dim=1, descending=True)
    space = room.gather(1, order)
    worth = ordered * space
    left = (wanted - (worth.cumsum(1) - worth)).clamp_min(0)
    used = torch.where(ordered > 0, torch.minimum(left / ordered, space), 0)
    return torch.zeros_like(room).scatter(1, order, used)


def _level(weights: Tensor, limits: Tensor, wanted: Tensor) -> Tensor:
    """The level l (B, 1) with sum of weights * min(l, limits) = wanted, the largest limit at most.

    The sum grows linearly between one limit and the next.
    """
    limits, order = limits.sort(dim=1)
    weights = weights.gather(1, order)
    stopped = (weights * limits).cumsum(1)
    rising = weights.flip(1).cumsum(1).flip(1)  # of this value and all after it
    total = stopped + limits * (rising - weights)
    place = (total < wanted).sum(1, keepdim=True).clamp_max(limits.shape[1] - 1)
    before = stopped.gather(1, place) - (weights * limits).gather(1, place)
    slope = rising.gather(1, place)
    most = limits[:, -1:]
    return torch.minimum(torch.where(slope > 0, (wanted - before) / slope, most), most)


class Norm(NamedTuple):
    """The order of the dual norm, and the way to a plane: (weights, room, wanted) -> sizes."""

    dual: float
    fill: Callable[[Tensor, Tensor, Tensor], Tensor]


NORMS: dict[type[Ball], Norm] = {
    Linf: Norm(1, _together),
    L2: Norm(2, _in_proportion),
    L1: Norm(math.inf, _heaviest_first),
}


def of(ball: Ball) -> Norm:
    """The ball's; raises UsageError where the way to a plane is not known."""
    for kind, norm in NORMS.items():
        if isinstance(ball, kind):
            return norm
    names = ", ".join(str(kind.name) for kind in NORMS)
    raise UsageError(f"no way to a plane is known for {ball.name}: expected one of {names}")
