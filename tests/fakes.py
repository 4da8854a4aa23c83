"""Detectors whose robustness is known: honest ones, and ones that only look robust."""

from collections.abc import Callable
from functools import partial
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


def level(x: Tensor) -> Tensor:
    """The mean, as a map that is the same everywhere: honest, and as easily attacked."""
    return (10 * x.mean((1, 2, 3)))[:, None, None].expand(-1, SIDE, SIDE)


def with_gradient_of(values: Tensor, other: Tensor) -> Tensor:
    return values.detach() + (other - other.detach())


def wrong_sign(x: Tensor) -> Tensor:
    """Who follows the gradient goes the wrong way."""
    return with_gradient_of(bright(x), -bright(x))


def level_wrong_sign(x: Tensor) -> Tensor:
    return with_gradient_of(level(x), -level(x))


DECOY = torch.randn(1, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(8))


def pattern(x: Tensor) -> Tensor:
    """How much there is of a pattern that has nothing to do with anything."""
    return (DECOY * x).mean((1, 2, 3))[:, None, None].expand(-1, SIDE, SIDE)


def decoy_gradient(x: Tensor) -> Tensor:
    return with_gradient_of(bright(x), pattern(x))


def level_decoy_gradient(x: Tensor) -> Tensor:
    return with_gradient_of(level(x), 10 * pattern(x))


def faint_gradient(x: Tensor) -> Tensor:
    """The direction is right, the length is not: lost in a sum with anything else."""
    return with_gradient_of(bright(x), 1e-3 * bright(x))


def vanishing_gradient(x: Tensor) -> Tensor:
    return with_gradient_of(bright(x), 1e-30 * bright(x))


class DecoyMap(Fake):
    """What is climbed, the map, has little to do with what counts, the score."""

    def __init__(self, values: Callable[[Tensor], Tensor], other: Callable[[Tensor], Tensor]):
        super().__init__(values)
        self.other = other

    def forward(self, x: Tensor, noise: Noise = fresh, draws: int | None = None) -> Anomaly:
        return Anomaly(super().forward(x, noise, draws).score, self.other(x))


class Cache(Fake):
    """Remembers what it was asked, and tells whoever asks about nearly the same image the same."""

    def __init__(self, values: Callable[[Tensor], Tensor], near: float = 0.06) -> None:
        super().__init__(values)
        self.near = near
        self.seen: list[tuple[Tensor, Tensor]] = []

    def forward(self, x: Tensor, noise: Noise = fresh, draws: int | None = None) -> Anomaly:
        score, values = super().forward(x, noise, draws)
        told = []
        for image, own in zip(x.detach(), score, strict=True):
            known = [s for y, s in self.seen if float((image - y).abs().max()) <= self.near]
            told.append(known[0] + own - own.detach() if known else own)
            if not known:
                self.seen.append((image.clone(), own.detach()))
        return Anomaly(torch.stack(told), values)


class Tired(Fake):
    """After so many questions it tells half the truth, whatever it is asked."""

    def __init__(self, values: Callable[[Tensor], Tensor], patience: int = 20) -> None:
        super().__init__(values)
        self.patience, self.asked = patience, 0

    def forward(self, x: Tensor, noise: Noise = fresh, draws: int | None = None) -> Anomaly:
        score, values = super().forward(x, noise, draws)
        self.asked += 1
        return Anomaly(score if self.asked <= self.patience else score / 2, values)


class Scaled(Fake):
    """Another detector, its scores and maps times a factor plus an offset."""

    def __init__(self, detector: Fake, factor: float = 1.0, offset: float = 0.0) -> None:
        super().__init__(detector.values, detector.taken)
        self.detector, self.factor, self.offset = detector, factor, offset

    def forward(self, x: Tensor, noise: Noise = fresh, draws: int | None = None) -> Anomaly:
        told = self.detector(x, noise, draws)
        return Anomaly(*(self.factor * each + self.offset for each in told))


VALUES = (
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
    wrong_sign,
    level_wrong_sign,
    decoy_gradient,
    level_decoy_gradient,
    faint_gradient,
    vanishing_gradient,
)
LIARS: dict[str, Callable[[], Fake]] = {f.__name__: partial(Fake, f) for f in VALUES} | {
    "decoy_map": partial(DecoyMap, bright, pattern),
    "cache": partial(Cache, bright),
    "tired": partial(Tired, bright),
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
