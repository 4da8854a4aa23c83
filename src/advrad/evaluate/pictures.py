"""Maps and masks as something to look at.

The colours of a heat map mean the same in every picture: the caller gives the two ends of the
scale, once for a whole report. A map stretched to its own minimum and maximum would make every
good part look defective.

Colours: inferno (Smith and van der Walt, 2015, CC0), whose lightness rises evenly from black to
pale yellow, so that it also reads in print and with any colour vision.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import interpolate, max_pool2d

from ..errors import UsageError
from ..images import png_bytes

SIDE = 256  # no picture of a report is larger
OUTLINE = (0.0, 0.9, 1.0)
INFERNO = (
    (0, 0, 4), (11, 7, 36), (33, 12, 74), (61, 9, 101), (87, 16, 110), (113, 25, 110),
    (138, 34, 106), (163, 44, 97), (188, 55, 84), (210, 70, 68), (228, 90, 49), (241, 115, 29),
    (249, 142, 9), (252, 172, 17), (249, 203, 53), (242, 234, 105), (252, 255, 164),
)  # fmt: skip


def heat(anomaly: Tensor, low: float, high: float) -> Tensor:
    """The map (H, W) in colours, (3, H, W): `low` and below black, `high` and above pale yellow.

    A pixel that is not a number takes the top colour.
    """
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UsageError(f"a colour scale from {low} to {high}: expected two numbers, low < high")
    share = (anomaly.detach().float().cpu() - low) / (high - low)
    table = torch.tensor(INFERNO) / 255
    place = share.nan_to_num(nan=1.0).clamp(0, 1) * (len(table) - 1)
    left = place.long().clamp(max=len(table) - 2)
    return torch.lerp(table[left], table[left + 1], (place - left)[..., None]).movedim(-1, 0)


def overlay(
    image: Tensor, anomaly: Tensor, low: float, high: float, *, opacity: float = 0.65
) -> Tensor:
    """The heat map (H, W) over the image (C, H, W) in grey, (3, H, W)."""
    grey = image.detach().float().cpu().mean(0, keepdim=True)
    return torch.lerp(grey.expand(3, -1, -1), heat(anomaly, low, high), opacity)


def outline(image: Tensor, mask: Tensor) -> Tensor:
    """The image (C, H, W) with a line around the mask (H, W), just outside of it: (3, H, W)."""
    inside = mask.detach().cpu().float()[None]
    edge = max_pool2d(inside, 3, stride=1, padding=1) > inside
    colour = torch.tensor(OUTLINE)[:, None, None]
    return torch.where(edge, colour, image.detach().float().cpu().expand(3, -1, -1))


def colour_bar(width: int = SIDE, height: int = 12) -> bytes:
    """The scale from its low end (left) to its high end, as PNG."""
    return png_bytes(heat(torch.linspace(0, 1, width).expand(height, width), 0.0, 1.0))


def thumbnail(image: Tensor, side: int = SIDE) -> bytes:
    """The image (C, H, W) as PNG, its longer side at most `side` pixels; never enlarged."""
    image = image.detach().float().cpu()
    height, width = image.shape[-2:]
    if (scale := side / max(height, width)) < 1:
        size = [max(1, round(height * scale)), max(1, round(width * scale))]
        image = interpolate(image[None], size, mode="bilinear", antialias=True)[0]
    return png_bytes(image.clamp(0, 1))
