"""Classifiers of small images: DiffDefense's A and B, and wide residual networks.

A is what DiffDefense defends and B the substitute that a black-box attacker trains (Silva et al.,
2023, https://arxiv.org/abs/2309.03702); the shapes are those of Defense-GAN. They take [0, 1] as
it is. Wide residual networks (Zagoruyko and Komodakis, 2016, https://arxiv.org/abs/1605.07146,
Table 1) normalise their images first. All of them take [0, 1] and return logits, so that an attack
and a purifier before them speak of one scale.
"""

import abc
import inspect
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import UsageError

Layer = tuple[int, int, int]  # a convolution's kernel, stride and padding


class Classifier(nn.Module, abc.ABC):
    """Images (B, C, H, W) in [0, 1] -> logits (B, classes).

    The constructor stores plain values under their own names; a model's folder rests on that.
    """

    def __init__(self, shape: Sequence[int], classes: int) -> None:
        super().__init__()
        if len(shape) != 3 or min(shape) < 1:
            raise UsageError(f"shape={list(shape)}: expected channels, height, width")
        if classes < 2:
            raise UsageError(f"classes={classes}: expected 2 or more")
        self.shape: tuple[int, int, int] = (shape[0], shape[1], shape[2])
        self.classes = classes

    @abc.abstractmethod
    def logits(self, x: Tensor) -> Tensor:
        """Logits (B, classes) of images of the right shape."""

    def forward(self, x: Tensor) -> Tensor:
        """Logits, (B, classes). Raises UsageError for images of another shape."""
        if x.ndim != 4 or tuple(x.shape[1:]) != self.shape:
            expected = " x ".join(map(str, self.shape))
            raise UsageError(
                f"images of shape {tuple(x.shape)}: this classifier expects a batch of {expected} "
                "(channels x height x width); give it those it was trained for, or train another"
            )
        return self.logits(x)

    @property
    def params(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}


class ClassifierA(Classifier):
    """DiffDefense's A: two convolutions, two linear layers; 924,746 parameters for MNIST."""

    def __init__(self, shape: Sequence[int] = (1, 28, 28), classes: int = 10) -> None:
        super().__init__(shape, classes)
        self.layers = nn.Sequential(
            nn.Conv2d(self.shape[0], 64, 5),
            nn.ReLU(),
            nn.Conv2d(64, 64, 5, stride=2),
            nn.ReLU(),
            nn.Dropout(0.25),
            nn.Flatten(),
            nn.Linear(64 * _area(self.shape, [(5, 1, 0), (5, 2, 0)]), 128),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(128, classes),
        )

    def logits(self, x: Tensor) -> Tensor:
        return self.layers(x)


class ClassifierB(Classifier):
    """DiffDefense's B: three convolutions, one linear layer; 710,218 parameters for MNIST."""

    def __init__(self, shape: Sequence[int] = (1, 28, 28), classes: int = 10) -> None:
        super().__init__(shape, classes)
        self.layers = nn.Sequential(
            nn.Dropout(0.2),
            nn.Conv2d(self.shape[0], 64, 8, stride=2),
            nn.ReLU(),
            nn.Conv2d(64, 128, 6, stride=2),
            nn.ReLU(),
            nn.Conv2d(128, 128, 5, padding=1),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Flatten(),
            nn.Linear(128 * _area(self.shape, [(8, 2, 0), (6, 2, 0), (5, 1, 1)]), classes),
        )

    def logits(self, x: Tensor) -> Tensor:
        return self.layers(x)


class WideResNet(Classifier):
    """A wide residual network, WRN-depth-width; its last layers average over all places.

    Arguments:
        shape: of the images, (channels, height, width).
        classes: number of logits.
        depth: number of convolutions and linear layers, 6 n + 4: n blocks a group, three groups.
        width: channels of the groups, against 16, 32, 64.
        mean, deviation: of the training images, channel by channel, in the [0, 1] scale; 0.5 if
            left out.
    """

    middle: Tensor
    scale: Tensor

    def __init__(
        self,
        shape: Sequence[int] = (3, 32, 32),
        classes: int = 10,
        depth: int = 16,
        width: int = 2,
        mean: Sequence[float] | None = None,
        deviation: Sequence[float] | None = None,
    ) -> None:
        super().__init__(shape, classes)
        if depth < 10 or (depth - 4) % 6:
            raise UsageError(f"depth={depth}: expected 10, 16, 22, 28, ... (6 n + 4)")
        if width < 1:
            raise UsageError(f"width={width}: expected 1 or more")
        self.depth, self.width = depth, width
        self.mean = _each("mean", mean, self.shape[0])
        self.deviation = _each("deviation", deviation, self.shape[0])
        if min(self.deviation) <= 0:
            raise UsageError(f"deviation={self.deviation}: expected numbers above 0")
        self.register_buffer("middle", torch.tensor(self.mean)[:, None, None], persistent=False)
        self.register_buffer(
            "scale", torch.tensor(self.deviation)[:, None, None], persistent=False
        )
        widths = [16, 16 * width, 32 * width, 64 * width]
        self.first = nn.Conv2d(self.shape[0], widths[0], 3, padding=1, bias=False)
        blocks: list[nn.Module] = []
        for (before, after), stride in zip(pairwise(widths), (1, 2, 2), strict=True):
            blocks.append(_Block(before, after, stride))
            blocks += [_Block(after, after, 1) for _ in range((depth - 4) // 6 - 1)]
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm2d(widths[-1])
        self.last = nn.Linear(widths[-1], classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.last.bias)

    def logits(self, x: Tensor) -> Tensor:
        found = self.blocks(self.first((x - self.middle) / self.scale))
        return self.last(F.relu(self.norm(found)).mean((2, 3)))


class _Block(nn.Module):
    """A residual of two 3 x 3 convolutions, each after its normalisation, and a 1 x 1 convolution
    beside it where the shape changes (He et al., 2016, https://arxiv.org/abs/1603.05027)."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(before), nn.BatchNorm2d(after)
        self.conv1 = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        same = stride == 1 and before == after
        self.beside = None if same else nn.Conv2d(before, after, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.norm1(x))
        residual = self.conv2(F.relu(self.norm2(self.conv1(active))))
        return residual + (x if self.beside is None else self.beside(active))


def _area(shape: Sequence[int], layers: Sequence[Layer]) -> int:
    """Places of the map that the convolutions leave. Raises UsageError where there are none."""
    sides = list(shape[1:])
    for kernel, stride, padding in layers:
        sides = [(side + 2 * padding - kernel) // stride + 1 for side in sides]
    if min(sides) < 1:
        raise UsageError(
            f"images of {shape[1]} x {shape[2]} pixels are too small for this classifier: its "
            "convolutions leave nothing of them"
        )
    return sides[0] * sides[1]


def _each(name: str, values: Sequence[float] | None, channels: int) -> list[float]:
    """One number a channel, 0.5 if left out. Raises UsageError for another count."""
    found = [0.5] * channels if values is None else [float(value) for value in values]
    if len(found) != channels:
        raise UsageError(f"{name}={found}: expected {channels}, one for each channel")
    return found
