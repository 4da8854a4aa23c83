"""What detectors share that learn the density of frozen features with a flow.

A flow of maximum likelihood counts every scale it applies, but not those that its features were
brought to before it. So they are brought to mean 0 and standard deviation 1 by what good images
show, once and for all: a scale that is learnt there, as published implementations do it, could
shrink the features, and with them the loss, for nothing.
"""

import abc
import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Generator, Tensor, nn

from ..diffusion.batches import Batches
from ..diffusion.learning import drawn, learn, short
from ..networks import Features
from ..scoring import enlarge
from ._backbone import filled
from ._moments import measured
from .base import PLAIN, Detector, Fitting, Images, Run

MEASURED = 100  # good images at most
FLOOR = 0.01  # of the mean spread of a map's channels


class Flowing(Detector):
    """A deterministic detector: noise and draws change nothing.

    A subclass has the settings named here and in `TRAINED`, the features, and flows of them.
    """

    TRAINED: ClassVar[tuple[str, ...]]  # settings that the flows depend on
    LOCAL: ClassVar[bool] = False  # whether good images have a mean at each place
    steps: int
    batch: int
    rate: float
    features: Features
    flows: nn.ModuleList  # one a stride
    mean: Tensor | None  # of what is seen of good images, all strides in a row
    spread: Tensor | None  # (C_1 + C_2 + ...,) the standard deviation of each channel about it

    def __init__(self) -> None:
        super().__init__()
        self.spent: dict[str, float] = {}
        self.register_buffer("mean", None)
        self.register_buffer("spread", None)

    @abc.abstractmethod
    def _flows(self) -> nn.ModuleList:
        """New flows."""

    @abc.abstractmethod
    def _maps(self, x: Tensor) -> list[Tensor]:
        """What is looked at of images of the detector's size, a map (B, C, h, w) a stride."""

    @abc.abstractmethod
    def _loss(self, maps: list[Tensor], source: Generator) -> Tensor:
        """Of a batch whose maps are in units of what good images vary by, ()."""

    def fit(self, images: Images, run: Run = PLAIN) -> Self:
        """Measures the features of good images and trains the flows on them. It chooses nothing,
        so that `run.tune` is not looked at."""
        images = Fitting(images, self.channels, self.input_size)
        self.features = filled(self, run.device)
        self.flows = drawn(run.seed, self._flows).to(run.device)
        self.mean, self.spread = statistics(images, run, self._maps, self.LOCAL)
        self.train()
        self._learn(images, run)
        return self.eval()

    def cost(self) -> dict[str, Any]:
        return super().cost() | self.spent

    def _seen(self, x: Tensor) -> list[Tensor]:
        """The maps of images, each channel in units of what good images vary by."""
        if self.mean is None or self.spread is None:
            raise ValueError("this detector is not fitted: call fit, or load a fitted one")
        return standardised(self._maps(x), self.mean, self.spread, self.LOCAL)

    def _learn(self, images: Images, run: Run) -> None:
        batches = Batches(images, self.batch, (), run.seed, run.device)

        def loss(number: int) -> Tensor:
            x, source = batches.draw(number)
            with torch.no_grad():  # what is frozen need not be differentiated to be trained on
                maps = self._seen(x)
            return self._loss(maps, source)

        trained = {name: getattr(self, name) for name in self.TRAINED}
        self.spent = learn(self.flows, loss, short(self.steps, self.rate), run, trained)


def statistics(
    images: Images, run: Run, maps: Callable[[Tensor], list[Tensor]], local: bool = False
) -> tuple[Tensor, Tensor]:
    """What good images show at each stride: the mean of each channel, at each place if local, and
    the standard deviation of each channel about it; all strides in a row, flat.

    A channel that hardly varies is not blown up.
    """
    with torch.no_grad():
        count = min(len(images), MEASURED)
        found = measured(images, count, run, lambda x, noise: maps(x))
    means, spreads = [], []
    for moments in found:
        here, apart = moments.mean(), moments.spread().square()  # (C, h, w)
        mean = here if local else here.mean((1, 2), keepdim=True)
        means.append(mean.flatten())
        spreads.append(_floored((apart + (here - mean).square()).mean((1, 2)).sqrt()))
    return torch.cat(means).to(run.device), torch.cat(spreads).to(run.device)


def _floored(spread: Tensor) -> Tensor:
    floor = FLOOR * spread.mean()
    return spread.clamp_min(floor) if floor > 0 else torch.ones_like(spread)


def standardised(
    maps: Sequence[Tensor], mean: Tensor, spread: Tensor, local: bool = False
) -> list[Tensor]:
    """Each channel in units of what good images vary by."""
    sides = [m.shape[-2:] if local else (1, 1) for m in maps]
    shapes = [(m.shape[1], *side) for m, side in zip(maps, sides, strict=True)]
    means = mean.split([math.prod(shape) for shape in shapes])
    spreads = spread.split([m.shape[1] for m in maps])
    return [
        (m - centre.view(shape)) / unit[:, None, None]
        for m, centre, unit, shape in zip(maps, means, spreads, shapes, strict=True)
    ]


def averaged(found: Sequence[Tensor], side: int) -> Tensor:
    """The mean over strides of their maps (B, h, w), enlarged: (B, side, side)."""
    return torch.stack([enlarge(m[:, None], [side] * 2)[:, 0] for m in found]).mean(0)


def check_moments(mean: Tensor | None, spread: Tensor | None, shapes: tuple[int, int]) -> None:
    """Raises ValueError where what was loaded does not have as many numbers as expected."""
    given = [None if m is None else tuple(m.shape) for m in (mean, spread)]
    expected = [(count,) for count in shapes]
    if given not in ([None] * 2, expected):
        raise ValueError(f"learnt shapes {given}, expected {expected}")
