"""Noise schedules: how much of the image is left after t steps.

x_t = sqrt(alpha_bar(t)) x_0 + sqrt(1 - alpha_bar(t)) eps. x_0 is clean and x_t has t steps of
noise, so `alpha_bar(0) == 1` and no index is off by one: "k steps of noise" is t = k.
"""

import abc
import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Schedule(abc.ABC):
    """A schedule of `steps` levels of noise, above level 0 which has none."""

    steps: int = 1000

    @abc.abstractmethod
    def betas(self) -> Tensor:
        """The variances beta_1 ... beta_T, with shape (steps,), float64."""

    @cached_property
    def alpha_bars(self) -> Tensor:
        """alpha_bar(0) ... alpha_bar(T), with shape (steps + 1,), float64."""
        return torch.cat([torch.ones(1, dtype=torch.float64), (1 - self.betas()).cumprod(0)])

    def alpha_bar(self, t: int) -> float:
        """The product of 1 - beta_s over 1 <= s <= t."""
        if not 0 <= t <= self.steps:
            raise ValueError(f"level {t} is outside this schedule: expected 0 to {self.steps}")
        return float(self.alpha_bars[t])

    def at(self, t: Tensor, like: Tensor) -> Tensor:
        """alpha_bar of each image's own level: (B,) integers -> (B, 1, 1, 1) as `like`."""
        return self.alpha_bars[t.cpu()].to(like)[:, None, None, None]

    def sigma(self, t: int) -> float:
        """Noise against signal at level t, sqrt((1 - alpha_bar) / alpha_bar), in [-1, 1] units."""
        a_t = self.alpha_bar(t)
        return math.sqrt((1 - a_t) / a_t)

    def level(self, sigma: float) -> int:
        """The first level with noise of `sigma` or more against the signal, as in `sigma(t)`.

        Raises ValueError where even the last has less.
        """
        found = next((t for t in range(self.steps + 1) if self.sigma(t) >= sigma), None)
        if found is None:
            most = self.sigma(self.steps)
            raise ValueError(f"noise of {sigma:g}: this schedule ends at {most:.4g}")
        return found

    def of_time(self, time: float) -> int:
        """The level nearest to a time in the papers' unit, where 1 is the whole schedule: t* = 0.1
        is level 100 of 1000. Times are levels from here on, so that no two of them can differ by
        a rounding."""
        return round(time * self.steps)

    def nearest(self, sigma: float) -> int:
        """The level above 0 whose noise is nearest to `sigma`; raises as `level` does."""
        above = max(1, self.level(sigma))
        below = max(1, above - 1)
        return min(below, above, key=lambda t: abs(self.sigma(t) - sigma))


@dataclass(frozen=True)
class Linear(Schedule):
    """beta grows linearly from 1e-4 to 0.02 at 1000 steps (Ho et al., 2020, Section 4).

    Other numbers of steps scale both ends by 1000 / steps, as improved-diffusion does.
    https://arxiv.org/abs/2006.11239
    """

    def betas(self) -> Tensor:
        scale = 1000 / self.steps
        return torch.linspace(1e-4 * scale, 0.02 * scale, self.steps, dtype=torch.float64)


@dataclass(frozen=True)
class Cosine(Schedule):
    """alpha_bar(t) = f(t) / f(0), f(t) = cos^2((t / T + s) / (1 + s) pi / 2), s = 0.008.

    Each beta is capped at 0.999 (Nichol and Dhariwal, 2021, Eq. 17,
    https://arxiv.org/abs/2102.09672).
    """

    def betas(self) -> Tensor:
        t = torch.arange(self.steps + 1, dtype=torch.float64) / self.steps
        f = torch.cos((t + 0.008) / 1.008 * math.pi / 2).square()
        return (1 - f[1:] / f[:-1]).clamp(max=0.999)


@dataclass(frozen=True)
class VP(Schedule):
    """The variance-preserving SDE dx = -beta x / 2 dt + sqrt(beta) dw at `steps` even times of
    [0, 1], beta(t) = low + t (high - low).

    alpha_bar(t) = exp(-low t - (high - low) t^2 / 2), exact at every level, whatever their number
    (Song et al., 2021, Appendix C, https://arxiv.org/abs/2011.13456). `Linear` has the same
    betas as sums where this has an integral.
    """

    low: float = 0.1
    high: float = 20.0

    def betas(self) -> Tensor:
        t = torch.arange(self.steps + 1, dtype=torch.float64) / self.steps
        integral = self.low * t + (self.high - self.low) * t.square() / 2
        return -torch.expm1(-integral.diff())


ALL: dict[str, type[Schedule]] = {"linear": Linear, "cosine": Cosine, "vp": VP}
