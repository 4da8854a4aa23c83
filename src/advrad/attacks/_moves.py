"""How `square` starts and what it tries next, for each ball.

l_inf and l2 as published: Andriushchenko et al., 2020 (https://arxiv.org/abs/1912.00049), Sections
3.3 and 3.4. l1: the moves of l2 with l1 masses, as in Croce and Hein, 2021
(https://arxiv.org/abs/2103.01208), Section 5. The sticker: Croce et al., 2022, Sparse-RS
(https://arxiv.org/abs/2006.12834), Section 5: its content and its place by turns.

Where the published code leaves out the last row and the last column when it places a square, every
place is drawn here. Each image has its own place and its own colours.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import UsageError
from .ball import L1, L2, Ball, Linf, Patch

Draw = Callable[[int], Tensor]  # how many -> uniform numbers (B, n) in [0, 1)
TINY = torch.finfo(torch.float32).tiny
PLACE_EVERY = 2  # of a sticker's moves, one changes its place


class Point(NamedTuple):
    """Images (B, C, H, W), and the corner (B, 2) of the sticker where the ball is one."""

    x: Tensor
    corner: Tensor


class Moves(NamedTuple):
    """`first(x, ball, draw)`, and `then(x, at, ball, share, draw)` from a point `at` on."""

    first: Callable[[Tensor, Ball, Draw], Point]
    then: Callable[[Tensor, Point, Ball, float, Draw], Point]


def moves(ball: Ball) -> Moves:
    """Those of this kind of ball; raises UsageError where there are none."""
    for kind, found in MOVES.items():
        if isinstance(ball, kind):
            return found
    names = ", ".join(str(kind.name) for kind in MOVES)
    raise UsageError(f"square has no moves for {ball.name}: expected one of {names}")


def keep(won: Tensor, new: Point, old: Point) -> Point:
    """The new point for the images that won, the old one for the others."""
    return Point(
        torch.where(won[:, None, None, None], new.x, old.x),
        torch.where(won[:, None], new.corner, old.corner),
    )


def standing(x: Tensor) -> Point:
    """The clean images."""
    return Point(x, torch.zeros(len(x), 2, dtype=torch.long, device=x.device))


def stripes(x: Tensor, ball: Ball, draw: Draw) -> Point:
    """Vertical stripes one pixel wide, + or - eps in each channel."""
    _, channels, _, width = x.shape
    signs = _signs(draw(channels * width)).view(len(x), channels, 1, width)
    return standing(ball.project(x + ball.radius.to(x) * signs, x))


def squares(x: Tensor, at: Point, ball: Ball, share: float, draw: Draw) -> Point:
    """A square over `share` of the image, + or - eps in each channel."""
    side = min(max(1, round(math.sqrt(share * _area(x)))), *x.shape[-2:])
    numbers = draw(2 + x.shape[1])
    where = _window(x, _corner(numbers[:, :2], _lengths(x) - side), (side, side))
    step = torch.zeros_like(x)
    step[where] = _signs(numbers[:, 2:])[:, :, None, None].expand(-1, -1, side, side)
    return standing(ball.project(at.x + 2 * ball.radius.to(x) * step, x))


def tiles(x: Tensor, ball: Ball, draw: Draw) -> Point:
    """Five by five humps and hollows, of random sign in each channel, of size eps together."""
    batch, channels, height, width = x.shape
    side = max(1, height // 5)
    down, across = height // side, width // side
    numbers = draw((channels + 1) * down * across).view(batch, channels + 1, down, across)
    numbers = numbers.repeat_interleave(side, 2).repeat_interleave(side, 3)
    hump = _hump(side, _power(ball)).to(x)
    upright, lying = hump.repeat(down, across), hump.T.repeat(down, across)
    delta = torch.where(numbers[:, :1] < 0.5, upright, lying) * _signs(numbers[:, 1:])
    top, left = (height - down * side) // 2, (width - across * side) // 2
    edges = (left, width - across * side - left, top, height - down * side - top)
    delta = F.pad(delta, edges)
    if isinstance(ball, L2):
        delta = ball.radius.to(x) * ball.steepest(delta)
    return standing(ball.project(x + delta, x))


def humps(x: Tensor, at: Point, ball: Ball, share: float, draw: Draw) -> Point:
    """The mass of one window moved into another, where a hump and a hollow are added.

    Windows of odd side, 3 at least, over `share` of the image; Algorithm 3 of the paper for l2.
    """
    channels, power = x.shape[1], _power(ball)
    side = max(3, round(math.sqrt(share * _area(x)))) | 1
    size = (min(side, *x.shape[-2:]),) * 2
    numbers = draw(5 + channels)
    one, two = (
        _window(x, _corner(some, _lengths(x) - size[0]), size)
        for some in (numbers[:, :2], numbers[:, 2:4])
    )
    delta = at.x - x
    both = torch.zeros_like(x)
    both[one], both[two] = 1, 1
    free = (ball.radius.to(x) ** power - _mass(delta, power).sum(1, keepdim=True)).clamp_min(0)
    budget = (free / channels + _mass(delta * both, power)) ** (1 / power)
    if power == 1:
        budget = channels * budget  # more than there is: what projects back makes it sparse
    hump = _hump(size[0], power).to(x)
    turned = torch.where(numbers[:, 4, None, None, None] < 0.5, hump, hump.T)
    added = turned * _signs(numbers[:, 5:])[:, :, None, None] + _unit(delta[one], power)
    delta[two] = 0
    delta[one] = _unit(added, power) * budget
    return standing(ball.project(x + delta, x))


def sticker(x: Tensor, ball: Ball, draw: Draw) -> Point:
    """Vertical stripes of black and white in each channel, somewhere."""
    channels, width = x.shape[1], x.shape[-1]
    numbers, sides = draw(2 + channels * width), _sides(x, ball)
    corner = _corner(numbers[:, :2], _room(x, sides))
    colours = (numbers[:, 2:] < 0.5).to(x).view(len(x), channels, 1, width)
    return Point(torch.where(_inside(x, corner, sides), colours, x), corner)


def restuck(x: Tensor, at: Point, ball: Ball, share: float, draw: Draw) -> Point:
    """The sticker moved, or a square of one extreme colour painted into it.

    It moves by up to the fourth root of `share` of the room there is, and takes all its colours
    along, or keeps those that it still covers and is of one extreme colour where it is new: a
    place far away is tried as fairly as one nearby. The square covers `share` of the sticker.
    """
    numbers, sides = draw(6 + x.shape[1]), _sides(x, ball)
    colour = (numbers[:, 6:] < 0.5).to(x)[:, :, None, None]
    reach = (share**0.25 * _room(x, sides)).round().clamp_min(1) + 0.5
    shift = ((2 * numbers[:, :2] - 1) * reach).round().long()
    corner = torch.minimum((at.corner + shift).clamp_min(0), _room(x, sides))
    kept = torch.where(_inside(x, at.corner, sides), at.x, colour)
    along = (numbers[:, 5] < 0.5)[:, None, None, None]
    content = torch.where(along, _shifted(at.x, corner - at.corner), kept)
    moved = torch.where(_inside(x, corner, sides), content, x)
    brush = torch.minimum((math.sqrt(share) * sides).round().long().clamp_min(1), sides)
    inner = at.corner + _corner(numbers[:, 2:4], sides - brush)
    painted = torch.where(_inside(x, inner, brush), colour, at.x)
    now = numbers[:, 4] * PLACE_EVERY < 1
    return keep(now, Point(moved, corner), Point(painted, at.corner))


MOVES: dict[type[Ball], Moves] = {
    Linf: Moves(stripes, squares),
    L2: Moves(tiles, humps),
    L1: Moves(tiles, humps),
    Patch: Moves(sticker, restuck),
}


def _sides(x: Tensor, ball: Ball) -> Tensor:
    """The sticker's height and width, cut to the image's, (B, 2)."""
    sides = torch.as_tensor(ball.eps, device=x.device).long().reshape(-1, 1)
    return torch.minimum(sides.expand(len(x), 2), _lengths(x))


def _lengths(x: Tensor) -> Tensor:
    return torch.tensor(x.shape[-2:], device=x.device)


def _room(x: Tensor, sides: Tensor) -> Tensor:
    """How far a corner may be from the top left, (B, 2)."""
    return _lengths(x) - sides


def _inside(x: Tensor, corner: Tensor, sides: Tensor) -> Tensor:
    """Whether a pixel is in the image's rectangle, (B, 1, H, W)."""
    rows, columns = (
        (places >= corner[:, axis, None]) & (places < (corner + sides)[:, axis, None])
        for axis, length in enumerate(x.shape[-2:])
        for places in [torch.arange(length, device=x.device)]
    )
    return (rows[:, :, None] & columns[:, None, :])[:, None]


def _shifted(x: Tensor, shift: Tensor) -> Tensor:
    """Each image moved down and to the right by its own shift (B, 2), edges repeated."""
    images, channels, rows, columns = _window(x, -shift, (x.shape[-2], x.shape[-1]))
    return x[images, channels, rows.clamp(0, x.shape[-2] - 1), columns.clamp(0, x.shape[-1] - 1)]


def _power(ball: Ball) -> int:
    return 1 if isinstance(ball, L1) else 2


def _area(x: Tensor) -> int:
    return x.shape[-2] * x.shape[-1]


def _signs(numbers: Tensor) -> Tensor:
    return torch.where(numbers < 0.5, -1.0, 1.0).to(numbers)


def _corner(numbers: Tensor, room: Tensor) -> Tensor:
    """Uniform over the places from the top left to `room`, (B, 2)."""
    return (numbers * (room + 1)).long()


def _window(x: Tensor, corner: Tensor, size: tuple[int, int]) -> tuple[Tensor, ...]:
    """Indices of a window of each image, at its own corner: x[...] is (B, C, *size)."""
    images = torch.arange(len(x), device=x.device)[:, None, None, None]
    channels = torch.arange(x.shape[1], device=x.device)[None, :, None, None]
    rows = corner[:, :1] + torch.arange(size[0], device=x.device)
    columns = corner[:, 1:] + torch.arange(size[1], device=x.device)
    return images, channels, rows[:, None, :, None], columns[:, None, None, :]


def _mass(delta: Tensor, power: int) -> Tensor:
    """The sum of |delta|^power of each channel, (B, C, 1, 1)."""
    return (delta.abs() ** power).sum((-2, -1), keepdim=True)


def _unit(delta: Tensor, power: int) -> Tensor:
    return delta / (_mass(delta, power) ** (1 / power)).clamp_min(TINY)


def _hump(side: int, power: int) -> Tensor:
    """A hump above a hollow, (side, side), of size 1: Eq. 2 and 3 of the paper."""
    upper, lower = _pyramid(side // 2, side, power), _pyramid(side - side // 2, side, power)
    whole = torch.cat([upper, -lower])
    return whole / (whole.abs() ** power).sum() ** (1 / power)


def _pyramid(height: int, width: int, power: int) -> Tensor:
    """Frames around the centre, each lower than the one inside it, of size 1."""
    rows = (torch.arange(height) - height // 2).abs()
    columns = (torch.arange(width) - width // 2).abs()
    frames = max(height // 2, width // 2) + 1
    heights = torch.arange(1, frames + 1) ** (-4.0 / power)
    heights = heights.flip(0).cumsum(0).flip(0)
    block = heights[torch.maximum(rows[:, None], columns)]
    return block / (block.abs() ** power).sum() ** (1 / power)
