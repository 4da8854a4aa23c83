"""Denoisers: estimates of the clean image, whatever the network behind them predicts."""

import math
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from .schedule import Schedule


class Denoiser(Protocol):
    """(x_t, t) -> estimate of x_0, for the noise of its schedule; images in [-1, 1]."""

    @property
    def schedule(self) -> Schedule: ...

    def __call__(self, x_t: Tensor, t: int) -> Tensor: ...


class Prediction(NamedTuple):
    """What a network with learned variance says of x_t, all shaped like x_t, float32."""

    eps: Tensor
    log_variance: Tensor  # of x_{t-1} given x_t


class EpsDenoiser(nn.Module):
    """A denoiser from a network that predicts the noise (Ho et al., 2020, Eq. 15).

    The network is `(x_t, t) -> (eps, v)`; v in [-1, 1] interpolates the log variance between its
    two bounds, log beta~_t and log beta_t (Nichol and Dhariwal, 2021, Eq. 15). Under
    `precision="bfloat16"` the network runs in mixed precision; its outputs are float32. Clean
    images are in [-1, 1] where it is `centred`, else in [0, 1].
    """

    def __init__(
        self,
        network: nn.Module,
        schedule: Schedule,
        precision: str = "float32",
        centred: bool = True,
    ) -> None:
        super().__init__()
        self.network, self.schedule, self.precision = network, schedule, precision
        self.centred = centred

    def forward(self, x_t: Tensor, t: int) -> Tensor:
        """x_0 = (x_t - sqrt(1 - alpha_bar) eps) / sqrt(alpha_bar), not clipped: (B, C, H, W)."""
        a_t = self.schedule.alpha_bar(t)
        eps, _ = self.run(x_t, torch.full((len(x_t),), t))
        return (x_t - math.sqrt(1 - a_t) * eps) / math.sqrt(a_t)

    def predict(self, x_t: Tensor, t: Tensor) -> Prediction:
        """The noise and the log variance at each image's own level, (B,) integers >= 1."""
        eps, v = self.run(x_t, t)
        low, high = self._log_variance_bounds(t, x_t)
        share = (v + 1) / 2
        return Prediction(eps, share * high + (1 - share) * low)

    def run(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The network's raw outputs (eps, v), float32. Its own index counts from 0 to 999."""
        index = (t - 1).float() * (1000 / self.schedule.steps)
        with self._autocast(x_t.device.type):
            eps, v = self.network(x_t, index.to(x_t.device))
        return eps.to(x_t.dtype), v.to(x_t.dtype)

    def _autocast(self, device: str) -> Any:
        return torch.autocast(device, torch.bfloat16, enabled=self.precision == "bfloat16")

    def _log_variance_bounds(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """log beta~_t and log beta_t; beta~_1 = 0 is replaced by beta~_2."""
        bars = self.schedule.alpha_bars
        beta = 1 - bars[1:] / bars[:-1]
        posterior = (1 - bars[:-1]) / (1 - bars[1:]) * beta
        posterior[0] = posterior[1]
        index = t.cpu() - 1
        low, high = posterior[index].log(), beta[index].log()
        return low.to(like)[:, None, None, None], high.to(like)[:, None, None, None]
