"""Threat models: what the attacker may do to an image in [0, 1].

A ball is a set of perturbations around each image of a batch. It knows how to start inside, which
unit step raises a linear function most, and how to come back. Radii are in the [0, 1] scale of the
image tensor; a radius may be one number, or one for each image.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..noise import Noise, fresh
from ._ball import START, TINY, Ball, column, limited, uniform
from ._l1 import L1
from ._patch import Patch

__all__ = [
    "BALLS",
    "L1",
    "L2",
    "START",
    "TINY",
    "Ball",
    "Linf",
    "Patch",
    "along",
    "column",
    "uniform",
]

ROUNDS = 10  # of filling the l2 ball up; values cut by the box are rarely found in more than five


@dataclass(frozen=True)
class Linf(Ball):
    """Every value may change by eps."""

    name = "linf"

    def random(self, x: Tensor, noise: Noise = fresh) -> Tensor:
        return self.radius.to(x) * (2 * uniform(noise, x) - 1)

    def steepest(self, gradient: Tensor) -> Tensor:
        return gradient.sign()

    def clip(self, delta: Tensor, room: Tensor | None = None) -> Tensor:
        return limited(limited(delta, self.radius.to(delta)), room)

    def size(self, delta: Tensor) -> Tensor:
        return delta.flatten(1).abs().amax(1)

    def most(self, shape: Sequence[int]) -> float:
        return 1.0


@dataclass(frozen=True)
class L2(Ball):
    """The Euclidean length of all changes together is at most eps."""

    name = "l2"

    def random(self, x: Tensor, noise: Noise = fresh) -> Tensor:
        # the share of a ball within radius r grows with the power of its dimension
        share = uniform(noise, x[:, :1, :1, :1], 1) ** (1 / x[0].numel())
        return self.radius.to(x) * share * self.steepest(noise(x, START))

    def steepest(self, gradient: Tensor) -> Tensor:
        scaled = gradient / _largest(gradient)
        return scaled / column(scaled.flatten(1).norm(dim=1)).clamp_min(1)

    def clip(self, delta: Tensor, room: Tensor | None = None) -> Tensor:
        """One factor for all values, as if those had never been that meet their room.

        The factor rises from below to the one that fills the ball, so that it is never too large.
        """
        squares = delta.flatten(1).square()
        radius = self.radius.to(delta).view(-1, 1).square()
        factor = _factor(radius, squares.sum(1, keepdim=True))
        for _ in range(0 if room is None else ROUNDS):
            assert room is not None
            full = delta.abs() * column(factor) > room
            used = torch.where(full, room, 0).flatten(1).square().sum(1, keepdim=True)
            free = torch.where(full.flatten(1), 0, squares).sum(1, keepdim=True)
            last, factor = factor, _factor(radius - used, free)
            if torch.equal(last, factor):
                break
        return limited(delta * column(factor), room)

    def size(self, delta: Tensor) -> Tensor:
        # a sum of squares of tiny numbers would be zero in float32
        scale = _largest(delta)
        return scale.flatten() * (delta / scale).flatten(1).norm(dim=1)

    def most(self, shape: Sequence[int]) -> float:
        return math.sqrt(math.prod(shape))


BALLS: dict[str, type[Ball]] = {"linf": Linf, "l2": L2, "l1": L1, "patch": Patch}


def along(ball: Ball, gradient: Tensor) -> Tensor:
    """The direction of one of many steps, (B, C, H, W): in general the steepest.

    In l1 the best point has few values changed, and each step's steepest direction others. Steps
    of length 1 along the gradient itself, cut back by the projection, find which these are; steps
    of equal size on several values never choose among them.
    """
    return (L2(1.0) if isinstance(ball, L1) else ball).steepest(gradient)


def _largest(values: Tensor) -> Tensor:
    """The largest magnitude of each image, 1 where all are zero, (B, 1, 1, 1)."""
    most = values.flatten(1).abs().amax(1)
    return column(torch.where(most > 0, most, 1))


def _factor(left: Tensor, squares: Tensor) -> Tensor:
    """What scales a sum of squares down to what is left of it, at most 1."""
    fits = squares <= left
    return torch.where(fits, 1, left.clamp_min(0) / torch.where(fits, 1, squares)).sqrt()
