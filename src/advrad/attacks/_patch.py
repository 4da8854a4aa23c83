"""The sticker: any content, inside one square, anywhere."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import UsageError
from ..noise import Noise, fresh
from ._ball import START, Ball, limited, uniform

FAINT = 1 / 255


@dataclass(frozen=True)
class Patch(Ball):
    """Anything within one square of `eps` pixels a side, anywhere (l0)."""

    name = "patch"

    @property
    def radius(self) -> Tensor:
        """1: inside the square every value may change as much as it likes."""
        return torch.ones(1, 1, 1, 1)

    def random(self, x: Tensor, noise: Noise = fresh) -> Tensor:
        """A faint sticker, anywhere: the first step of an attack may still move it."""
        place = self._means(torch.zeros_like(x[:, 0])) + noise(x[:, :1], START + 1)[:, 0]
        return FAINT * (2 * uniform(noise, x) - 1) * self._square(place, x)

    def steepest(self, gradient: Tensor) -> Tensor:
        inside = self._square(self._means(gradient.abs().sum(1)), gradient)
        return gradient.sign() * inside

    def clip(self, delta: Tensor, room: Tensor | None = None) -> Tensor:
        kept = limited(delta, room)
        nearer = delta.square() - (delta - kept).square()
        return kept * self._square(self._means(nearer.sum(1)), delta)

    def size(self, delta: Tensor) -> Tensor:
        """The side of the smallest square that holds all changes, (B,)."""
        changed = (delta != 0).any(1)
        spans = [changed.any(dim) for dim in (2, 1)]
        return torch.stack([_extent(span) for span in spans]).amax(0).to(delta)

    def most(self, shape: Sequence[int]) -> float:
        return float(max(shape[-2:]))

    def check(self, shape: Sequence[int]) -> Self:
        checked = super().check(shape)
        sides = torch.as_tensor(self.eps)
        if not bool((sides == sides.round()).all()):
            raise UsageError(
                f"eps {sides.tolist()} for patch: expected whole pixels, a square's side"
            )
        return checked

    def _sides(self, count: int) -> Tensor:
        return torch.as_tensor(self.eps).long().reshape(-1).expand(count)

    def _means(self, weight: Tensor) -> Tensor:
        """Of the weight (B, H, W) in the square with its corner here; -inf where none fits."""
        sides = self._sides(len(weight)).to(weight.device)
        found = torch.full_like(weight, -torch.inf)
        for side in {int(side) for side in sides}:
            height, width = (min(max(side, 1), length) for length in weight.shape[1:])
            means = F.avg_pool2d(weight[:, None], (height, width), stride=1)[:, 0]
            padded = F.pad(means, (0, width - 1, 0, height - 1), value=-torch.inf)
            found = torch.where((sides == side)[:, None, None], padded, found)
        return found

    def _square(self, weight: Tensor, like: Tensor) -> Tensor:
        """Ones in the square with its corner where `weight` (B, H, W) is largest, (B, 1, H, W)."""
        best = weight.flatten(1).argmax(1)
        corners = best // weight.shape[2], best % weight.shape[2]
        sides = self._sides(len(weight)).to(like.device)[:, None]
        rows, columns = (
            (places >= 0) & (places < sides)
            for corner, length in zip(corners, weight.shape[1:], strict=True)
            for places in [torch.arange(length, device=like.device) - corner[:, None]]
        )
        return (rows[:, :, None] & columns[:, None, :])[:, None].to(like)


def _extent(span: Tensor) -> Tensor:
    """From the first to the last True of each row, (B, N) -> (B,)."""
    places = torch.arange(1, span.shape[1] + 1, device=span.device)
    last = (places * span).amax(1)
    first = torch.where(span, places, span.shape[1] + 1).amin(1)
    return (last - first + 1).clamp_min(0)
