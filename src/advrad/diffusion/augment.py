"""Other views of good images, as many as the network should see.

Each is a setting, since what is harmless depends on the part: a busbar that stands upright is a
defect, a hazelnut has no upright. All take a generator, so that the view of step n is the same
whether the training was interrupted or not.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

View = Callable[[Tensor, Generator], Tensor]  # (B, C, H, W) -> (B, C, H, W), image by image


def flips(x: Tensor, source: Generator) -> Tensor:
    """Each image mirrored left to right or not, top to bottom or not."""
    across, down = torch.rand(2, len(x), 1, 1, 1, generator=source).lt(0.5).to(x.device)
    x = torch.where(across, x.flip(-1), x)
    return torch.where(down, x.flip(-2), x)


def mirrors(x: Tensor, source: Generator) -> Tensor:
    """Each image mirrored left to right or not, as a photograph of an object may be."""
    across = torch.rand(len(x), 1, 1, 1, generator=source).lt(0.5).to(x.device)
    return torch.where(across, x.flip(-1), x)


def shifts(x: Tensor, source: Generator) -> Tensor:
    """Each image moved by whole pixels, an eighth of its side at most, black coming in."""
    height, width = x.shape[-2:]
    down, right = height // 8, width // 8
    padded = F.pad(x, (right, right, down, down))
    tops = torch.randint(2 * down + 1, (len(x),), generator=source).tolist()
    lefts = torch.randint(2 * right + 1, (len(x),), generator=source).tolist()
    return torch.stack(
        [
            image[:, top : top + height, left : left + width]
            for image, top, left in zip(padded, tops, lefts, strict=True)
        ]
    )


def quarters(x: Tensor, source: Generator) -> Tensor:
    """Each image turned by 0, 90, 180 or 270 degrees; sides must be equal."""
    turns = torch.randint(4, (len(x),), generator=source).tolist()
    return torch.stack([image.rot90(k, (1, 2)) for image, k in zip(x, turns, strict=True)])


def rotations(x: Tensor, source: Generator) -> Tensor:
    """Each image turned by any angle about its centre, mirrored beyond its border."""
    angle = 2 * math.pi * torch.rand(len(x), generator=source)
    return _warp(x, angle, torch.ones(len(x)), torch.zeros(len(x), 2))


def crops(x: Tensor, source: Generator) -> Tensor:
    """A square of 80 to 100 % of each image's side, anywhere in it, enlarged to the full size."""
    side = 0.8 + 0.2 * torch.rand(len(x), generator=source)
    shift = (2 * torch.rand(len(x), 2, generator=source) - 1) * (1 - side)[:, None]
    return _warp(x, torch.zeros(len(x)), side, shift)


ALL: dict[str, View] = {
    "flips": flips,
    "mirrors": mirrors,
    "shifts": shifts,
    "quarters": quarters,
    "rotations": rotations,
    "crops": crops,
}


def augment(x: Tensor, names: Sequence[str], source: Generator) -> Tensor:
    """The named views of each image, one after the other."""
    for name in names:
        x = ALL[name](x, source)
    return x


def _warp(x: Tensor, angle: Tensor, side: Tensor, shift: Tensor) -> Tensor:
    """Samples each image on a turned, scaled and shifted grid, in [-1, 1] coordinates."""
    cos, sin = side * angle.cos(), side * angle.sin()
    rows = [torch.stack([cos, -sin, shift[:, 0]], 1), torch.stack([sin, cos, shift[:, 1]], 1)]
    grid = F.affine_grid(torch.stack(rows, 1).to(x), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
