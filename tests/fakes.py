"""Detectors whose robustness is known: honest ones, and ones that only look robust."""

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from advrad.detectors.base import PLAIN, Anomaly, Detector, Images, Run
from advrad.noise import Noise, fresh

SIDE = 16


class Fake(Detector):
    """A detector with the score that `values` makes of a map: nothing is fitted."""

    def __init__(self, values: Callable[[Tensor], Tensor], draws: int = 0) -> None:
        super().__init__()
        self.size, self.channels, self.values, self.taken = SIDE, 1, values, draws

    @property
    def params(self) -> dict[str, Any]:
        return {}

    @property
    def draws_taken(self) -> int:
        return self.taken

    def fit(self, images: Images, run: Run = PLAIN) -> Self:
        return self

    def forward(self, x: Tensor, noise: Noise = fresh, draws: int | None = None) -> Anomaly:
        values = self.values(x)
        return Anomaly(values.flatten(1).amax(1), values)


def bright(x: Tensor) -> Tensor:
    """How far a place is from the grey of good images, smoothed: honest, and easily attacked."""
    return F.avg_pool2d((x - 0.3).square(), 3, 1, 1)[:, 0]


def without_gradient(x: Tensor) -> Tensor:
    with torch.no_grad():
        return bright(x)


def half_detached(x: Tensor) -> Tensor:
    """The score has a gradient, of something that does not matter."""
    return bright(x.detach()) + 0 * x.sum()


def detached(x: Tensor) -> Tensor:
    return bright(x.detach()).requires_grad_()


def not_a_number(x: Tensor) -> Tensor:
    """The root of zero has an infinite slope, times zero."""
    return bright(x) + (0 * (x - 0.1).clamp_min(0).amax((1, 2, 3))).sqrt()[:, None, None]


def rounded(x: Tensor) -> Tensor:
    return bright((255 * x).round() / 255)


def saturated(x: Tensor) -> Tensor:
    return torch.sigmoid(1e4 * bright(x) + 30)


def shattered(x: Tensor) -> Tensor:
    """A fine ripple whose slope drowns the score's own."""
    return bright(x) + 0.002 * torch.sin(2e4 * x).mean(1)


def random_steps(x: Tensor) -> Tensor:
    """The image is rounded to random levels, with the gradient of another random field."""
    levels = torch.rand_like(x)
    steps = ((16 * x + levels).floor() / 16).detach()
    return bright(steps + 0.1 * (torch.randn_like(x) * (x - x.detach())))


def drawing(x: Tensor) -> Tensor:
    """Random, and does not say so."""
    return bright(x + 0.05 * torch.randn_like(x))


def batch_mates(x: Tensor) -> Tensor:
    return bright(x) - bright(x).mean(0, keepdim=True)


LIARS: dict[str, Callable[[Tensor], Tensor]] = {
    f.__name__: f
    for f in (
        without_gradient,
        half_detached,
        detached,
        not_a_number,
        rounded,
        saturated,
        shattered,
        random_steps,
        drawing,
        batch_mates,
    )
}


def pictures(count: int, seed: int = 0) -> tuple[Tensor, list[bool], list[str]]:
    """Grey grain and, every other one, a brighter spot: (N, 1, 16, 16), which are defects, ids."""
    source = torch.Generator().manual_seed(seed)
    x = 0.3 + 0.1 * (torch.rand(count, 1, SIDE, SIDE, generator=source) - 0.5)
    defect = [bool(i % 2) for i in range(count)]
    for i in range(1, count, 2):
        row, column = torch.randint(2, SIDE - 5, (2,), generator=source).tolist()
        x[i, :, row : row + 3, column : column + 3] += 0.12
    return x, defect, [f"picture-{seed}-{i}" for i in range(count)]
