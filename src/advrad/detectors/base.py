"""What every detector promises.

A detector is a module whose constructor stores plain values under their own names; what `fit`
learns are parameters and buffers. Saving, loading, the command line and the server rest on that
alone. Good images come as a sequence that is read one by one, so that a hundred thousand of them
need no more memory than a few.
"""

import abc
import inspect
import math
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

from torch import Tensor, nn

from .. import scoring, store
from ..diffusion.batches import Images
from ..diffusion.run import PLAIN, Progress, Run
from ..errors import DataError, UsageError
from ..images import resize, to_channels
from ..noise import Noise, fresh

__all__ = ["PLAIN", "Anomaly", "Detector", "Fitting", "Images", "Progress", "Run", "judged"]


class Anomaly(NamedTuple):
    """The raw verdict on a batch: unbounded, higher means more anomalous."""

    score: Tensor  # (B,)
    map: Tensor  # (B, H, W), on the same scale


def judged(found: Tensor, top: float, x: Tensor) -> Anomaly:
    """The anomaly of a map (B, h, w): the mean of its largest share, 0 for the maximum, and the
    map as large as the images x, (B, C, H, W)."""
    return Anomaly(scoring.aggregate(found, top), as_large(found, x))


def as_large(found: Tensor, x: Tensor) -> Tensor:
    """A map (B, h, w) as large as the images x, (B, C, H, W)."""
    if found.shape[-2:] == x.shape[-2:]:
        return found
    return scoring.enlarge(found[:, None], x.shape[-2:])[:, 0]


ROUNDING = 1e-3  # what a resize of one's own may leave outside [0, 1]


class Fitting:
    """Good images as a detector sees them: of its channels and its size, whatever they were.

    Raises DataError where there are none, or where one is no float tensor (C, H, W) in [0, 1].
    """

    def __init__(self, images: Images, channels: int, size: int) -> None:
        self.images, self.channels, self.size = images, channels, size
        if not len(images):
            raise DataError("no good images to learn from: expected at least one")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int, /) -> Tensor:
        x = self.images[index]
        if not (isinstance(x, Tensor) and x.is_floating_point() and x.ndim == 3):
            given = f"{x.dtype} {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            raise DataError(
                f"good image {index} is {given}: expected a float tensor (C, H, W) in [0, 1]"
            )
        low, high = float(x.min()), float(x.max())
        if low < -ROUNDING or high > 1 + ROUNDING:
            raise DataError(
                f"good image {index} has values from {low:g} to {high:g}: expected [0, 1]; divide "
                "8 bits by 255"
            )
        return resize(to_channels(x.float(), self.channels), self.size)


class Detector(nn.Module, abc.ABC):
    """An anomaly detector for images in [0, 1], with shape (B, C, H, W).

    Every detector has the settings `size` and `channels`: what `preprocess` delivers to it.
    """

    SCORINGS: ClassVar[tuple[str, ...]] = ("plain",)  # ways to score under noise, best first
    size: int | None
    channels: int

    @abc.abstractmethod
    def fit(self, images: Images, run: Run = PLAIN) -> Self:
        """Learns what good images look like. A second call forgets the first."""

    @abc.abstractmethod
    def forward(self, x: Tensor, noise: Noise = fresh, draws: int | None = None) -> Anomaly:
        """Scores a batch, differentiably with respect to x.

        `draws` overrides how many draws of the noise a stochastic detector averages over: an
        attacker differentiates single draws.
        """

    def examine(self, x: Tensor, noise: Noise) -> tuple[Anomaly, dict[str, Tensor]]:
        """The anomaly, and other scores (B,) that are to be reported beside it, by name."""
        return self(x, noise), {}

    def largest_sigma(self, scoring: str = "plain") -> float:
        """The most noise under which `under_noise` can measure it, in the [0, 1] scale."""
        return math.inf

    def under_noise(
        self, images: Images, run: Run = PLAIN, *, sigma: float, scoring: str = "plain"
    ) -> "Detector":
        """The fitted detector for images under Gaussian noise; this one stays as it is.

        What it has measured on good images is measured again under the noise; one that measures
        nothing is the same.

        Arguments:
            images: good images without noise, those of `fit`.
            sigma: the noise's standard deviation, in the [0, 1] scale.
            scoring: one of `SCORINGS`.
        """
        return self

    def seen(self, x: Tensor) -> Tensor:
        """The batch (B, 1 or 3, H, W) with the detector's own channels and size, differentiably.

        In float32, whatever the floats given. Raises UsageError for any other shape, for an empty
        batch, and for numbers that are no floats.
        """
        if x.ndim != 4 or not x.is_floating_point() or not x.numel():
            raise UsageError(
                f"{x.dtype} of shape {tuple(x.shape)}: expected a batch of floats in [0, 1] with "
                "shape (B, 1 or 3, H, W); one image is x[None]"
            )
        return resize(to_channels(x.float(), self.channels), self.input_size)

    def check(self) -> None:
        """Raises ValueError where what was loaded cannot be what `fit` learns."""

    @property
    def params(self) -> dict[str, Any]:
        """The constructor's arguments, with a preset's values where they were left out: a model
        keeps them, so that it stays what it is when the preset changes."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    @property
    def draws_taken(self) -> int:
        """How many draws of the noise a score averages over by default; 0 without any noise."""
        return 0

    @property
    def input_size(self) -> int:
        """The side of the images that `preprocess` delivers, in pixels."""
        if self.size is None:
            raise ValueError("this detector has no size: set one")
        return self.size

    def resolved(self) -> dict[str, Any]:
        """All settings with the values in use, presets looked up."""
        return self.params

    def chosen(self) -> list[dict[str, Any]]:
        """What `fit` chose without test labels: name, value, table of what was tried."""
        return []

    def cost(self) -> dict[str, Any]:
        """What a training takes: at least `parameters`."""
        return {"parameters": sum(p.numel() for p in self.parameters())}

    def files(self) -> dict[str, bytes]:
        """What makes the detector again: `config.json` and `model.safetensors`."""
        config = {"detector": type(self).__name__, "params": self.params}
        return {
            "config.json": store.dump(config),
            "model.safetensors": store.tensors(self.state_dict()),
        }

    def save(self, folder: str | Path) -> None:
        """Writes the detector as a model folder, whole or not at all."""
        store.replace(Path(folder), self.files())
