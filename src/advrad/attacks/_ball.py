"""What every ball promises. A module of its own, so that each kind can have one too."""

import abc
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from ..errors import UsageError
from ..noise import Noise, fresh

START = 1 << 40  # the step under which a start asks for noise: no schedule, no redraw gets there
TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class Ball(abc.ABC):
    """Perturbations of images (B, C, H, W), within `eps` of the clean image.

    `eps` is a number, or a tensor (B,).
    """

    eps: float | Tensor

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """As on the command line."""

    @abc.abstractmethod
    def random(self, x: Tensor, noise: Noise = fresh) -> Tensor:
        """A perturbation inside the ball, shaped like x."""

    @abc.abstractmethod
    def steepest(self, gradient: Tensor) -> Tensor:
        """The step of size 1 along which a function with this gradient rises most."""

    @abc.abstractmethod
    def clip(self, delta: Tensor, room: Tensor | None = None) -> Tensor:
        """The perturbation inside the ball nearest to delta (Euclid), in its direction everywhere.

        No value of it is larger than `room`, shaped like delta, where room is given.
        """

    @abc.abstractmethod
    def size(self, delta: Tensor) -> Tensor:
        """How large a perturbation is, in the unit of eps, (B,)."""

    @abc.abstractmethod
    def most(self, shape: Sequence[int]) -> float:
        """The eps that allows everything, for images (C, H, W)."""

    @property
    def radius(self) -> Tensor:
        """The scale of a step, (1 or B, 1, 1, 1)."""
        return column(self.eps)

    def at(self, eps: float | Tensor) -> Self:
        """The same kind of ball with another radius."""
        return replace(self, eps=eps)

    def project(self, adv: Tensor, x: Tensor) -> Tensor:
        """What is nearest to adv in the ball around the clean image x and in [0, 1] at once.

        Cutting to [0, 1] after the ball would leave a part of the radius unused.
        """
        delta = adv - x
        return (x + self.clip(delta, torch.where(delta > 0, 1 - x, x))).clamp(0, 1)

    def check(self, shape: Sequence[int]) -> Self:
        """This ball; raises UsageError where its radius is impossible for images (C, H, W)."""
        most = self.most(shape)
        if not isinstance(self.eps, int | float | Tensor):
            raise UsageError(
                f"eps {self.eps!r} for {self.name}: expected a number as 2 / 255, or a tensor "
                "with one for each image"
            )
        eps = torch.as_tensor(self.eps)
        if not bool(((eps >= 0) & (eps <= most)).all()):
            given = f"{float(eps):g}" if eps.ndim == 0 else str(eps.tolist())
            raise UsageError(
                f"eps {given} for {self.name}: expected a number from 0 to {most:g}, "
                f"what an image of {' x '.join(map(str, shape))} in [0, 1] allows at most"
            )
        return self


def column(value: float | Tensor) -> Tensor:
    """(B,) or a number, to be multiplied with (B, C, H, W)."""
    tensor = value if isinstance(value, Tensor) else torch.tensor(float(value))
    return tensor.reshape(-1, 1, 1, 1)


def limited(delta: Tensor, room: Tensor | None) -> Tensor:
    """Delta, no value of it larger than its room."""
    return delta if room is None else torch.maximum(torch.minimum(delta, room), -room)


def uniform(noise: Noise, like: Tensor, offset: int = 0) -> Tensor:
    """Uniform on [0, 1], made of normal draws, shaped like `like`."""
    return torch.special.ndtr(noise(like, START + offset))
