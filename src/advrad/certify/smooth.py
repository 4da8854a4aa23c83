"""Draws of a score under Gaussian noise, the same whatever the batch, the order or the device.

Each draw has noise of its own, which belongs to (seed, image, number of the draw): the image gets
the step `AROUND` of it, and the score, if it takes any, the others. A run that was stopped goes on
with the very draws that it would have made.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import UsageError
from ..noise import AROUND, Noise, PerImage

Score = Callable[[Tensor, Noise], Tensor]  # (B, C, H, W) -> (B, ...)


@dataclass(frozen=True)
class Smoothing:
    """Gaussian noise around an image.

    Arguments:
        sigma: its standard deviation, for images in [0, 1].
        samples: draws, n.
        seed: of all draws; who attacks must not know it beforehand.
        batch: draws at once; it does not change them.

    Raises UsageError where sigma is not above zero, or there are no samples.
    """

    sigma: float
    samples: int = 1000
    seed: int = 0
    batch: int = 64

    def __post_init__(self) -> None:
        if not 0 < self.sigma < float("inf"):
            raise UsageError(f"sigma {self.sigma:g}: expected a finite number above 0")
        if self.samples < 1 or self.batch < 1:
            raise UsageError(
                f"{self.samples} samples in batches of {self.batch}: expected 1 or more of each"
            )

    def noisy(self, x: Tensor, name: str, start: int, stop: int) -> tuple[Tensor, Noise]:
        """Copies `start` to `stop` of an image (C, H, W) under noise, and the noise of its score.

        Nothing is cut back to [0, 1]: the theorem is about x + sigma z.
        """
        numbers = range(start, stop)
        noise = PerImage(self.seed, [f"{name}/{number}" for number in numbers])
        copies = x.expand(len(numbers), *x.shape)
        return copies + self.sigma * noise(copies, AROUND), noise

    @torch.no_grad()
    def batches(self, score: Score, x: Tensor, name: str) -> Iterator[Tensor]:
        """n draws of the score of one image (C, H, W) around it, batch by batch: (b, ...), on the
        CPU. `name` stands for the image: the same name has the same draws."""
        for start in range(0, self.samples, self.batch):
            stop = min(start + self.batch, self.samples)
            batch, inner = self.noisy(x, name, start, stop)
            yield score(batch, inner).float().cpu()

    def draws(self, score: Score, x: Tensor, name: str) -> Tensor:
        """All of them, (n, ...)."""
        return torch.cat(list(self.batches(score, x, name)))
