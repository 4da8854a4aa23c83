"""Outlines of synthetic defects: noise fields, curves, and the soft masks cut from them.

A shape is a *field*, a number per pixel that is lower nearer the defect's core. `soft_mask` keeps
the lowest share of it, so that any field gives a mask of the area asked for, and fades it out over
an edge that is itself a share of that area. Lengths are in units of the image's side, the square
root of its area, so that one draw means one shape at every size.

The noise is Perlin's (Perlin, 1985, https://doi.org/10.1145/325165.325247), as in DRAEM (Zavrtanik
et al., 2021, https://arxiv.org/abs/2108.07610), which masks its synthetic defects with it.
"""

import math

import torch
from torch import Tensor

from advrad.noise import Noise

EDGE = 0.15  # a soft mask is at least this inside the mask, so that no masked pixel is untouched
MIN_PIXELS = 4
MIN_SIDE = 16


def uniforms(noise: Noise, step: int, count: int) -> list[float]:
    """`count` independent numbers, uniform in [0, 1], from the noise's draw at `step`."""
    return torch.special.ndtr(noise(torch.empty(1, count), step)[0].double()).tolist()


def grid(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Coordinates y and x of the pixel centres, each (H, W), in sides."""
    side = math.sqrt(height * width)
    y, x = (torch.arange(height) + 0.5) / side, (torch.arange(width) + 0.5) / side
    return y[:, None].expand(height, width), x[None, :].expand(height, width)


def perlin(noise: Noise, step: int, cells: int, height: int, width: int) -> Tensor:
    """Perlin's gradient noise (H, W), about within [-1, 1], with `cells` cells a side."""
    rows, columns = (math.ceil(n / math.sqrt(height * width) * cells) for n in (height, width))
    gradient = noise(torch.empty(1, 2, rows + 1, columns + 1), step)[0].cpu()
    gradient = gradient / gradient.norm(dim=0, keepdim=True).clamp_min(1e-6)
    y, x = (axis * cells for axis in grid(height, width))
    i, j = y.long(), x.long()
    v, u = y - i, x - j

    def corner(down: int, right: int) -> Tensor:
        toward_y, toward_x = gradient[:, i + down, j + right]
        return toward_y * (v - down) + toward_x * (u - right)

    fade_v, fade_u = _fade(v), _fade(u)
    top = torch.lerp(corner(0, 0), corner(0, 1), fade_u)
    bottom = torch.lerp(corner(1, 0), corner(1, 1), fade_u)
    return torch.lerp(top, bottom, fade_v) * math.sqrt(2)


def fractal(noise: Noise, step: int, cells: int, height: int, width: int) -> Tensor:
    """Three octaves of Perlin noise (H, W), each twice as fine and half as strong as the last.

    It asks the noise for the steps `step`, `step + 1` and `step + 2`.
    """
    octaves = [perlin(noise, step + o, cells << o, height, width) / 2**o for o in range(3)]
    return torch.stack(octaves).sum(0)


def ellipse(y: Tensor, x: Tensor, angle: float, stretch: float) -> Tensor:
    """Distance from the origin, measured so that its level lines are turned ellipses."""
    along, across = turn(y, x, angle)
    return torch.hypot(along / stretch, across * stretch)


def turn(y: Tensor, x: Tensor, angle: float) -> tuple[Tensor, Tensor]:
    """The coordinates along and across the direction `angle`."""
    cosine, sine = math.cos(angle), math.sin(angle)
    return x * cosine + y * sine, y * cosine - x * sine


def curve(bends: Tensor, angle: float, length: float) -> Tensor:
    """Points (n + 1, 2) as y, x of a curve through the origin, given its n changes of heading."""
    heading = angle + torch.cumsum(bends, 0)
    moves = torch.stack([torch.sin(heading), torch.cos(heading)], 1) * (length / len(bends))
    points = torch.cat([torch.zeros(1, 2), torch.cumsum(moves, 0)])
    return points - points[len(points) // 2]


def distance_to(points: Tensor, y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Distance of each pixel to a polyline, and where its nearest point lies along it, 0 to 1.

    `points` is (n + 1, 2), `y` and `x` are (H, W); so are both results.
    """
    nearest, where = torch.full_like(y, torch.inf), torch.zeros_like(y)
    count = len(points) - 1
    for k, ((y0, x0), (y1, x1)) in enumerate(
        zip(points[:-1].tolist(), points[1:].tolist(), strict=True)
    ):
        dy, dx = y1 - y0, x1 - x0
        share = (((y - y0) * dy + (x - x0) * dx) / (dy * dy + dx * dx)).clamp(0, 1)
        distance = torch.hypot(y - y0 - share * dy, x - x0 - share * dx)
        closer = distance < nearest
        nearest = torch.where(closer, distance, nearest)
        where = torch.where(closer, (k + share) / count, where)
    return nearest, where


def soft_mask(field: Tensor, area: float, edge: float) -> Tensor:
    """A mask (H, W): 0 outside, EDGE to 1 inside, where the field is lowest.

    `area` is the share of the image inside, at least MIN_PIXELS; `edge` the share of the inside
    over which the mask fades out.
    """
    values = field.flatten().sort().values
    count = min(max(round(area * len(values)), MIN_PIXELS), len(values) - 1)
    inner = values[min(int(count * (1 - edge)), count - 1)]
    ramp = ((values[count] - field) / (values[count] - inner).clamp_min(1e-9)).clamp(0, 1)
    return torch.where(field <= values[count - 1], EDGE + (1 - EDGE) * _smooth(ramp), 0.0)


def object_of(x: Tensor) -> Tensor:
    """Where the pictured thing is (H, W), as bool: everywhere, unless it lies on a plain ground.

    The ground is plain where the frame of the image, 1/16 of its side wide, varies much less than
    the image; the thing is then what differs from the frame's median colour.
    """
    height, width = x.shape[-2:]
    frame = torch.ones(height, width, dtype=torch.bool)
    margin = min(height, width) // 16
    frame[margin:-margin, margin:-margin] = False
    ground = x[:, frame].median(1).values
    difference = (x - ground[:, None, None]).abs().mean(0)
    found = difference > difference.flatten().sort().values[int(0.95 * difference.numel())] / 2
    plain = difference[frame].mean() < 0.4 * difference[~frame].mean()
    return found if bool(plain) else torch.ones_like(frame)


def _fade(t: Tensor) -> Tensor:
    return t**3 * (t * (6 * t - 15) + 10)


def _smooth(t: Tensor) -> Tensor:
    return t * t * (3 - 2 * t)
