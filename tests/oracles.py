"""Cases whose right answer is known on paper."""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from advrad.diffusion import EpsDenoiser, Linear, Schedule


class GaussianDenoiser:
    """The exact denoiser of pixels drawn from N(mean, std^2), each by itself."""

    def __init__(self, schedule: Schedule, mean: float = 0.3, std: float = 0.5) -> None:
        self.schedule, self.mean, self.std = schedule, mean, std

    def gain(self, t: int) -> float:
        """How far E[x_0 | x_t] moves with x_t."""
        a_t = self.schedule.alpha_bar(t)
        return math.sqrt(a_t) * self.std**2 / (a_t * self.std**2 + 1 - a_t)

    def __call__(self, x_t: Tensor, t: int) -> Tensor:
        a_t = self.schedule.alpha_bar(t)
        return self.mean + self.gain(t) * (x_t - math.sqrt(a_t) * self.mean)

    def descent(self, levels: list[int], mean: float, variance: float) -> tuple[float, float]:
        """Mean and variance of x at the end of a ladder, from those at its top.

        Follows Ho et al., 2020, Eq. 7 between neighbouring levels, with the betas of the ladder.
        """
        for t, s in pairwise(levels):
            a_t, a_s = self.schedule.alpha_bar(t), self.schedule.alpha_bar(s)
            beta = 1 - a_t / a_s
            of_x_0 = math.sqrt(a_s) * beta / (1 - a_t)
            of_x_t = math.sqrt(1 - beta) * (1 - a_s) / (1 - a_t)
            offset = self.mean * (1 - self.gain(t) * math.sqrt(a_t))
            slope = of_x_t + of_x_0 * self.gain(t)
            mean = slope * mean + of_x_0 * offset
            variance = slope**2 * variance + (1 - a_s) / (1 - a_t) * beta
        return mean, variance


class KnownImage:
    """A denoiser that knows x_0."""

    def __init__(self, schedule: Schedule, x_0: Tensor) -> None:
        self.schedule, self.x_0 = schedule, x_0

    def __call__(self, x_t: Tensor, t: int) -> Tensor:
        return self.x_0


class KnowsEps(nn.Module):
    """A network that knows the clean image and so the noise in x_t, and says a constant v."""

    def __init__(self, schedule: Schedule, x_0: Tensor, v: float = 0.0) -> None:
        super().__init__()
        self.schedule, self.x_0, self.v = schedule, x_0, v
        self.indices: list[float] = []

    def forward(self, x_t: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        self.indices += index.tolist()
        t = (index * self.schedule.steps / 1000).round().long() + 1
        a_t = self.schedule.alpha_bars[t].to(x_t)[:, None, None, None]
        eps = (x_t - a_t.sqrt() * self.x_0) / (1 - a_t).sqrt()
        return eps, torch.full_like(eps, self.v)


class Says(nn.Module):
    """A network of two learnt numbers, whatever it is asked: eps and v."""

    def __init__(self, eps: float = 0.0, v: float = 0.0) -> None:
        super().__init__()
        self.eps, self.v = nn.Parameter(torch.tensor(eps)), nn.Parameter(torch.tensor(v))

    def forward(self, x_t: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        return self.eps.expand_as(x_t), self.v.expand_as(x_t)


def saying(eps: float = 0.0, v: float = 0.0, steps: int = 1000) -> EpsDenoiser:
    """A denoiser over a network that says the same whatever it is asked."""
    return EpsDenoiser(Says(eps, v), Linear(steps))


class Drawn:
    """A noise that draws in the order of the calls, and remembers for which steps."""

    def __init__(self, seed: int) -> None:
        self.source = torch.Generator().manual_seed(seed)
        self.steps: list[int] = []

    def __call__(self, like: Tensor, step: int) -> Tensor:
        self.steps.append(step)
        return torch.randn(like.shape, generator=self.source)


def ones(like: Tensor, step: int) -> Tensor:
    """A draw that shows a formula's factor before the noise."""
    return torch.ones_like(like)


class LinearScore:
    """The score <w, x> of an image, one weight for every value; its best attacks are known."""

    def __init__(self, *shape: int, seed: int = 0) -> None:
        self.weight = torch.randn(shape, generator=torch.Generator().manual_seed(seed))

    def __call__(self, x: Tensor) -> Tensor:
        return (x * self.weight.to(x)).flatten(1).sum(1)

    def gain(self, norm: str, eps: float, room: float = 0.5) -> float:
        """The most it rises in a ball; `room` is that of every value in the box (for `patch`)."""
        size = self.weight.abs()
        if norm == "patch":
            height, width = self.weight.shape[-2:]
            side = int(eps)
            places = [
                size[:, top : top + side, left : left + side].sum()
                for top in range(height - side + 1)
                for left in range(width - side + 1)
            ]
            return room * float(torch.stack(places).max())
        dual = {"linf": size.sum(), "l2": size.norm(), "l1": size.max()}
        return eps * float(dual[norm])


class Counted:
    """An objective that counts its evaluations, those with a gradient apart."""

    def __init__(self, objective) -> None:
        self.objective, self.gradients, self.forwards = objective, 0, 0

    def __call__(self, x: Tensor):
        seen = x.requires_grad and torch.is_grad_enabled()
        self.gradients += seen
        self.forwards += not seen
        return self.objective(x)
