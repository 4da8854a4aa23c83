"""Mean and standard deviation of many maps, which are never held at once."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from ..diffusion.flop import told
from ..noise import AROUND, Noise, PerImage
from ..tune import evenly
from .base import Images, Run

STEP = 16  # images at once while good images are measured


class Moments:
    """Sums in float64, so that the order and the size of the batches do not show."""

    def __init__(self) -> None:
        self.count = 0
        self.total = self.squares = torch.zeros((), dtype=torch.float64)

    def add(self, batch: Tensor) -> None:
        """Takes (B, ...) in."""
        values = batch.double().cpu()
        self.count += len(values)
        self.total = self.total + values.sum(0)
        self.squares = self.squares + values.square().sum(0)

    def mean(self) -> Tensor:
        """(...) in float32."""
        return (self.total / self.count).float()

    def spread(self) -> Tensor:
        """The standard deviation, (...) in float32; 0 of a single map."""
        mean = self.total / self.count
        return (self.squares / self.count - mean.square()).clamp_min(0).sqrt().float()


def measured(
    images: Images,
    count: int,
    run: Run,
    maps: Callable[[Tensor, Noise], Sequence[Tensor]],
    sigma: float = 0.0,
) -> list[Moments]:
    """The moments of each of the maps (B, ...) over `count` of the good images, evenly chosen,
    each under one draw of Gaussian noise with standard deviation sigma."""
    found: list[Moments] = []
    report, chosen = run.stage("measuring good images"), evenly(len(images), count)
    for start in range(0, count, STEP):
        report(start, count)
        places = chosen[start : start + STEP]
        x = torch.stack([images[i] for i in places]).to(run.device)
        noise = PerImage(run.seed, [f"good-{i}" for i in places])
        x = x + sigma * noise(x, AROUND) if sigma else x
        seen = partial(maps, x, noise)
        batches = seen() if start else told(run, seen, count / len(x))
        found = found or [Moments() for _ in batches]
        for moments, batch in zip(found, batches, strict=True):
            moments.add(batch)
    return found
