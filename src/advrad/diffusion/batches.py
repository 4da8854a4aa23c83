"""The batch of a training step, drawn from good images, and AdvRAD's loss of it.

Which images, which views of them, which levels and which noise belong to step n depends on the
seed and n alone, not on what was drawn before: a training can go on anywhere.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Generator, Tensor

from ..noise import Noise
from .augment import augment
from .denoise import EpsDenoiser
from .loss import hybrid


class Images(Protocol):
    """Images to be read one by one: `images[i]` is (C, H, W) in [0, 1]."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Tensor: ...


@dataclass(frozen=True)
class Batches:
    """What step number n = 1, 2, ... is trained on.

    Arguments:
        images: good images in [0, 1]; every epoch visits all of them in a new order.
        size: images a step.
        views: names of `augment.ALL`.
        seed: of everything drawn.
        device: where the tensors live.
    """

    images: Images
    size: int
    views: Sequence[str] = ()
    seed: int = 0
    device: str = "cpu"

    def draw(self, number: int) -> tuple[Tensor, Generator]:
        """Views of the images of step `number`, (B, C, H, W) in [0, 1], and the source of what
        else the step draws."""
        source = Generator().manual_seed(_mixed(self.seed, number))
        x = torch.stack([self.images[i] for i in self.members(number)]).to(self.device)
        return augment(x, self.views, source), source

    def members(self, number: int) -> list[int]:
        """The images of step `number`: the next `size` of an endless row of shuffled epochs."""
        count = len(self.images)
        places = range((number - 1) * self.size, number * self.size)
        orders = {
            epoch: np.random.default_rng((self.seed, epoch)).permutation(count)
            for epoch in {place // count for place in places}
        }
        return [int(orders[place // count][place % count]) for place in places]


@dataclass(frozen=True)
class DrawnLoss:
    """The loss of step number n = 1, 2, ..., L_hybrid by default: the mean over a batch, ().

    Arguments:
        denoiser: what is trained.
        images, batch, views, seed, device: of the `Batches`.
        levels: range of the levels of noise, drawn evenly, both ends included.
        loss: of each image, as `hybrid` is.
        coloured: makes the noise that is put in of standard normal one.
    """

    denoiser: EpsDenoiser
    images: Images
    batch: int
    levels: tuple[int, int]
    views: Sequence[str] = ()
    seed: int = 0
    device: str = "cpu"
    loss: Callable[[EpsDenoiser, Tensor, Tensor, Tensor], Tensor] = hybrid
    coloured: Callable[[Noise], Noise] = lambda white: white

    def __call__(self, number: int) -> Tensor:
        x, source = self._batches.draw(number)
        low, high = self.levels
        t = torch.randint(low, high + 1, (len(x),), generator=source)

        def white(like: Tensor, step: int) -> Tensor:
            return torch.randn(like.shape, generator=source).to(self.device)

        eps = self.coloured(white)(x, 0)
        seen = 2 * x - 1 if self.denoiser.centred else x
        return self.loss(self.denoiser, seen, t, eps).mean()

    def members(self, number: int) -> list[int]:
        """The images of step `number`."""
        return self._batches.members(number)

    @property
    def _batches(self) -> Batches:
        return Batches(self.images, self.batch, self.views, self.seed, self.device)


def _mixed(seed: int, number: int) -> int:
    """One seed from two."""
    return int(np.random.SeedSequence((seed, number)).generate_state(1, np.uint64)[0] >> 1)
