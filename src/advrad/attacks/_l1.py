"""The l1 ball.

Projection on the ball alone: Duchi et al., 2008 (https://doi.org/10.1145/1390156.1390191); on ball
and box together, and the sparse step: Croce and Hein, 2021 (https://arxiv.org/abs/2103.01208).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..noise import Noise, fresh
from ._ball import START, TINY, Ball, column, limited, uniform


@dataclass(frozen=True)
class L1(Ball):
    """The changes together sum up to at most eps, in absolute value.

    Its steepest step would be a single value; the `share` of the values with the largest gradient
    (at least one) is stepped at once instead. `share` is a number, or a tensor (B,).
    """

    name = "l1"
    share: float | Tensor = 0.05

    def random(self, x: Tensor, noise: Noise = fresh) -> Tensor:
        # exponential magnitudes are uniform on the simplex; one value more fills the ball
        values = -uniform(noise, x).clamp(TINY, 1).log()
        rest = -uniform(noise, x[:, :1, :1, :1], 1).clamp(TINY, 1).log()
        total = column(values.flatten(1).sum(1)) + rest
        return self.radius.to(x) * noise(x, START + 2).sign() * values / total

    def steepest(self, gradient: Tensor) -> Tensor:
        flat = gradient.flatten(1)
        share = column(self.share).to(flat).view(-1, 1).expand(len(flat), 1)
        count = (share * flat.shape[1]).round().long().clamp(1, flat.shape[1])
        ordered = flat.abs().sort(dim=1, descending=True).values
        step = flat.sign() * (flat.abs() >= ordered.gather(1, count - 1))
        return (step / step.abs().sum(1, keepdim=True).clamp_min(1)).view_as(gradient)

    def clip(self, delta: Tensor, room: Tensor | None = None) -> Tensor:
        """Shrinks every value by one level, and cuts it to its room; the level fills the ball.

        Lowering the level from the top, a value enters at its magnitude and is stopped at its
        magnitude minus its room: between these turns the sum grows linearly.
        """
        size = delta.flatten(1).abs().double()
        turns = size if room is None else torch.cat([size, size - room.flatten(1)], 1)
        turns, order = turns.sort(dim=1, descending=True)
        growth = torch.where(order < size.shape[1], 1.0, -1.0).to(turns).cumsum(1)
        total = torch.zeros_like(turns)
        total[:, 1:] = (growth[:, :-1] * (turns[:, :-1] - turns[:, 1:])).cumsum(1)
        eps = self.radius.to(turns).view(-1, 1)
        last = (total <= eps).sum(1, keepdim=True).clamp_min(1) - 1
        slack = (eps - total.gather(1, last)) / growth.gather(1, last).clamp_min(1)
        level = (turns.gather(1, last) - slack).clamp_min(0)
        kept = (size - level).clamp_min(0).to(delta).view_as(delta)
        return limited(delta.sign() * kept, room)

    def size(self, delta: Tensor) -> Tensor:
        return delta.flatten(1).abs().sum(1)

    def most(self, shape: Sequence[int]) -> float:
        return float(math.prod(shape))
