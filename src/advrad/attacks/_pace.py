"""How far APGD's next step goes, for each image by itself.

Halving: Croce and Hein, 2020 (https://arxiv.org/abs/2003.01690), Section 3 and Algorithm 1.
Sparse: Croce and Hein, 2021 (https://arxiv.org/abs/2103.01208), Section 4 and Algorithm 1.
"""

import math
from dataclasses import replace
from typing import NamedTuple, Self

import torch
from torch import Tensor

from .ball import L1, Ball, column

ALPHA = 0.75  # the share of the new step in a move; the rest goes on as before


class Place(NamedTuple):
    """An iterate (B, C, H, W), how high it is (B,), and the gradient there."""

    x: Tensor
    climb: Tensor
    gradient: Tensor

    def where(self, chosen: Tensor, other: Self) -> "Place":
        """This place for the images that are chosen, (B,) bool, the other one for the rest."""
        wide = chosen[:, None, None, None]
        return Place(
            torch.where(wide, self.x, other.x),
            torch.where(chosen, self.climb, other.climb),
            torch.where(wide, self.gradient, other.gradient),
        )


class Halving:
    """A step of two radii at first, halved at checkpoints where it has stopped to pay."""

    def __init__(self, ball: Ball, x: Tensor, first: Place, steps: int, rho: float) -> None:
        self.ball, self.x, self.rho = ball, x, rho
        self.size = (2 * ball.radius.to(x)).expand(len(x), 1, 1, 1)
        self.checkpoints = checkpoints(steps)
        self.since = 0
        self.rises = torch.zeros_like(first.climb)
        self.halved = torch.zeros_like(first.climb, dtype=torch.bool)
        self.height = first.climb
        self.before: Tensor | None = None

    def move(self, at: Place) -> Tensor:
        """The next iterate: a step, and a share of the last move."""
        adv = self.ball.project(at.x + self.size * self.ball.steepest(at.gradient), self.x)
        if self.before is not None:
            onward = ALPHA * (adv - at.x) + (1 - ALPHA) * (at.x - self.before)
            adv = self.ball.project(at.x + onward, self.x)
        self.before = at.x
        return adv

    def back(self, number: int, rose: Tensor, top: Place) -> Tensor:
        """Which images go back to their best iterate after move `number`, (B,) bool.

        Those whose step is halved at a checkpoint: too few of the moves since the last one rose
        (Condition 1), or the step is as it was there, and so is the best value (Condition 2).
        """
        self.rises = self.rises + rose
        if number not in self.checkpoints:
            return torch.zeros_like(rose)
        few = self.rises < self.rho * (number - self.since)
        stuck = ~self.halved & (top.climb == self.height)
        self.halved, self.height = few | stuck, top.climb
        self.size = torch.where(column(self.halved), self.size / 2, self.size)
        self.rises, self.since = torch.zeros_like(self.rises), number
        return self.halved


class Sparse:
    """Steps on fewer and fewer values, as many as the best perturbation is found to need."""

    def __init__(self, ball: L1, x: Tensor, steps: int) -> None:
        self.ball, self.x = replace(ball, share=torch.full_like(x[:, 0, 0, 0], 0.2)), x
        self.size = self.radius = ball.radius.to(x).expand(len(x), 1, 1, 1)
        self.every = max(1, int(0.04 * steps))
        self.changed = torch.full_like(x[:, 0, 0, 0], x[0].numel())

    def move(self, at: Place) -> Tensor:
        """The next iterate, without any share of the last move."""
        return self.ball.project(at.x + self.size * self.ball.steepest(at.gradient), self.x)

    def back(self, number: int, rose: Tensor, top: Place) -> Tensor:
        """Which images go back to their best iterate after move `number`, (B,) bool.

        Those that have become sparser, with a step as long as at first; others step shorter.
        """
        if number % self.every:
            return torch.zeros_like(rose)
        changed = (top.x != self.x).flatten(1).sum(1).to(self.changed)
        sparser = changed < 0.95 * self.changed
        self.changed = changed
        self.ball = replace(self.ball, share=changed / self.x[0].numel() / 1.5)
        size = torch.where(column(sparser), self.radius, self.size / 1.5)
        self.size = torch.maximum(size, self.radius / 10)
        return sparser


def checkpoints(steps: int) -> set[int]:
    """The moves after which step sizes are looked at: 22, 41, 57, 70, 80, 87, 93, 99 of 100."""
    found, last, now = set[int](), 0.0, 0.22
    while now <= 1:
        found.add(math.ceil(round(now * steps, 6)))
        last, now = now, now + max(now - last - 0.03, 0.06)
    return found
