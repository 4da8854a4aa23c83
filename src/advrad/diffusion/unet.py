"""The U-Net of denoising diffusion (Ho et al., 2020; Nichol and Dhariwal, 2021).

Residual blocks with the level of noise added in the middle, attention at the coarse scales, skips
from every encoder output to the decoder. With the recipe for 256 px (widths 128, 128, 256, 256,
512, 512; two blocks a level; attention at 16 px; learned variance) it has 113,676,678 parameters.

`patch` folds squares of pixels into channels before the first convolution and unfolds them after
the last: the same network at patch 2 costs a quarter.

https://arxiv.org/abs/2006.11239, https://arxiv.org/abs/2102.09672
"""

import math
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import UsageError

Layer = TypeVar("Layer", bound=nn.Module)
SMALL = 1024  # places of a map below which torch's channels_last normalisation is slow on a CPU


class UNet(nn.Module):
    """(x_t, t) -> (eps, v), both shaped like x_t.

    Arguments:
        channels: image channels.
        widths: channels of each level, from fine to coarse; a level halves the side.
        blocks: residual blocks a level.
        attention: levels (0 is the finest) whose blocks are followed by attention; the middle
            always has one.
        patch: side of the squares of pixels that are folded into channels.
    """

    def __init__(
        self,
        channels: int = 3,
        widths: Sequence[int] = (64, 96, 128, 128),
        blocks: int = 1,
        attention: Sequence[int] = (),
        patch: int = 1,
    ) -> None:
        super().__init__()
        self.patch, self.time = patch, widths[0]
        depth, embed = channels * patch**2, 4 * widths[0]
        self.embed = nn.Sequential(nn.Linear(self.time, embed), nn.SiLU(), nn.Linear(embed, embed))
        self.enter = nn.Conv2d(depth, widths[0], 3, padding=1)
        self.down = nn.ModuleList()
        skips, width = [widths[0]], widths[0]
        for level, next_width in enumerate(widths):
            for _ in range(blocks):
                self.down.append(_Stage(width, next_width, embed, level in attention))
                width = next_width
                skips.append(width)
            if level < len(widths) - 1:
                self.down.append(_Halve(width))
                skips.append(width)
        self.middle = nn.ModuleList(
            [_Stage(width, width, embed, True), _Stage(width, width, embed, False)]
        )
        self.up = nn.ModuleList()
        for level, next_width in reversed(list(enumerate(widths))):
            for block in range(blocks + 1):
                self.up.append(_Stage(width + skips.pop(), next_width, embed, level in attention))
                width = next_width
                if level and block == blocks:
                    self.up.append(_Double(width))
        self.leave = nn.Sequential(
            _norm(width), nn.SiLU(), _zero(nn.Conv2d(width, 2 * depth, 3, padding=1))
        )

    @property
    def multiple(self) -> int:
        """The sides of an image must be multiples of this."""
        halvings = sum(isinstance(layer, _Halve) for layer in self.down)
        return int(self.patch * 2**halvings)

    def forward(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Arguments: x_t: (B, C, H, W) in [-1, 1] scale. t: (B,) levels on the scale 0 to 999.

        Raises UsageError for sides that are no multiples of `multiple`.
        """
        if x_t.shape[-1] % self.multiple or x_t.shape[-2] % self.multiple:
            side = "x".join(map(str, x_t.shape[-2:]))
            raise UsageError(
                f"an image of {side} px: both sides must be multiples of {self.multiple}; "
                "resize or pad it"
            )
        time = self.embed(_sinusoid(t, self.time))
        h = self.enter(_laid_out(F.pixel_unshuffle(x_t, self.patch)))
        skips = [h]
        for layer in self.down:
            h = layer(h, time)
            skips.append(h)
        for layer in self.middle:
            h = layer(h, time)
        for layer in self.up:
            h = (
                layer(h, time)
                if isinstance(layer, _Double)
                else layer(torch.cat([h, skips.pop()], 1), time)
            )
        eps, v = F.pixel_shuffle(self.leave(h), self.patch).chunk(2, 1)
        return eps, v


class _Stage(nn.Module):
    """A residual block, and attention where asked."""

    def __init__(self, width_in: int, width_out: int, embed: int, attention: bool) -> None:
        super().__init__()
        self.first = nn.Sequential(
            _norm(width_in), nn.SiLU(), nn.Conv2d(width_in, width_out, 3, padding=1)
        )
        self.level = nn.Sequential(nn.SiLU(), nn.Linear(embed, width_out))
        self.second = nn.Sequential(
            _norm(width_out), nn.SiLU(), _zero(nn.Conv2d(width_out, width_out, 3, padding=1))
        )
        same = width_in == width_out
        self.skip = nn.Identity() if same else nn.Conv2d(width_in, width_out, 1)
        self.attention = _Attention(width_out) if attention else nn.Identity()

    def forward(self, h: Tensor, time: Tensor) -> Tensor:
        inner = self.first(h) + self.level(time)[:, :, None, None]
        return self.attention(self.skip(h) + self.second(inner))


class _Attention(nn.Module):
    """Self-attention over all places of one image, with one head."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = _norm(width)
        self.qkv = nn.Conv1d(width, 3 * width, 1)
        self.project = _zero(nn.Conv1d(width, width, 1))

    def forward(self, h: Tensor) -> Tensor:
        flat = self.norm(h).flatten(2)
        query, key, value = self.qkv(flat).mT.contiguous().chunk(3, 2)  # (B, HW, width)
        mixed = F.scaled_dot_product_attention(query, key, value).mT
        return h + self.project(mixed).reshape(h.shape)


class _Halve(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, h: Tensor, time: Tensor) -> Tensor:
        return self.convolution(h)


class _Double(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, h: Tensor, time: Tensor) -> Tensor:
        return self.convolution(F.interpolate(h, scale_factor=2.0, mode="nearest"))


def _laid_out(x: Tensor) -> Tensor:
    """Channels last where nobody differentiates: convolutions gain by it, while the gradient of
    group normalisation is many times slower in that layout on a CPU."""
    differentiated = torch.is_grad_enabled()
    layout = torch.contiguous_format if differentiated else torch.channels_last
    return x.contiguous(memory_format=layout)


class _Norm(nn.GroupNorm):
    """Group normalisation that a CPU computes fast for small maps in channels_last too.

    There torch takes a path of many short strides below 1024 places, several times slower than
    the same in the other layout with the way there and back.
    """

    def forward(self, input: Tensor) -> Tensor:
        small = input.ndim == 4 and input.shape[2] * input.shape[3] < SMALL
        if not small or input.is_contiguous() or input.device.type != "cpu":
            return super().forward(input)
        return super().forward(input.contiguous()).contiguous(memory_format=torch.channels_last)


def _norm(width: int) -> nn.GroupNorm:
    """32 groups; fewer in a narrow network, where groups of one would undo the level's shift."""
    groups = math.gcd(32, width)
    return _Norm(groups if groups < width else max(1, width // 4), width)


def _zero(layer: Layer) -> Layer:
    """The layer with all parameters zero, so that its block starts as the identity."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def _sinusoid(t: Tensor, width: int) -> Tensor:
    """[cos(t f_i), sin(t f_i)], f_i = 10000^(-2i / width): (B,) -> (B, width)."""
    half = width // 2
    f = torch.exp(-math.log(10_000) * torch.arange(half, device=t.device) / half)
    angles = t[:, None].float() * f
    return torch.cat([angles.cos(), angles.sin()], 1)
