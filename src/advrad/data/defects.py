"""Synthetic defects with exact masks, injected into good images.

They stand in for real ones where a setting must be chosen without test labels, and where a pixel
metric is wanted but nobody has drawn masks. Each kind is `(x, noise) -> (x', mask)` with

    x' = x + strength * soft * (texture - x)        inside the mask, and x itself outside,

where `soft` in (0, 1] fades out towards the mask's border, so that `strength` runs from no defect
at 0 to the drawn one at 1, and beyond 1 exaggerates it. Colours are drawn relative to the image: a
contrast is a number of standard deviations of the pictured thing, added to the colour found where
the defect lies. `size` scales lengths, hence areas by its square. All of it runs on the CPU, where
images are read.

Every draw comes from the noise, one step per quantity (the constants below), and means the same
defect at every image size. Cut-and-paste follows CutPaste (Li et al., 2021,
https://arxiv.org/abs/2104.04015), the Perlin-masked texture DRAEM (Zavrtanik et al., 2021,
https://arxiv.org/abs/2108.07610); the texture here is the image's own, or noise.
"""

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from advrad.data import shapes
from advrad.errors import UsageError
from advrad.noise import Noise

KIND, PLACE, AREA, SHAPE, COLOUR, HUE, SOURCE, BENDS = range(8)  # the steps asked of the noise
FIELD, SURFACE = 8, 16  # and the first of three steps of two noise fields

AREAS = {  # shares of the image at size 1, drawn uniformly in the logarithm
    "scratch": (0.001, 0.02),  # the bounds; it follows from the length and the width
    "stain": (0.003, 0.06),
    "spot": (0.001, 0.02),
    "hole": (0.001, 0.02),
    "cut_paste": (0.004, 0.06),
    "perlin": (0.008, 0.08),
}
CONTRASTS = (0.6, 3.0)  # in standard deviations, drawn uniformly in the logarithm ...
LEAST, MOST = 0.08, 0.45  # ... and kept within these differences of intensity


class Defect(Protocol):
    """One kind: the image with the defect (C, H, W) and where it was changed (H, W) as bool."""

    def __call__(
        self, x: Tensor, noise: Noise, strength: float = ..., size: float = ...
    ) -> tuple[Tensor, Tensor]: ...


def scratch(
    x: Tensor, noise: Noise, strength: float = 1.0, size: float = 1.0
) -> tuple[Tensor, Tensor]:
    """A thin line, straight or bent, that tapers and fades: 15 to 70 % of the side long."""
    down, right = _around(x, noise)
    angle, length, width, bend = shapes.uniforms(noise, SHAPE, 4)
    wander = noise(torch.empty(1, 24), BENDS)[0].cpu()
    bends = 0.05 * (2 * bend - 1) ** 3 + 0.12 * bend * wander
    line = shapes.curve(bends, math.tau * angle, size * _between(0.15, 0.7, length))
    distance, along = shapes.distance_to(line, down, right)
    uneven = 1 + 0.6 * shapes.fractal(noise, FIELD, 12, *x.shape[1:])
    field = distance / ((0.4 + 0.6 * torch.sin(math.pi * along)) * uneven.clamp_min(0.3))
    pixel = 1 / math.sqrt(down.numel())
    inside = field < max(size * _between(0.003, 0.008, width), 0.6 * pixel)
    least, most = AREAS["scratch"]
    area = min(max(float(inside.float().mean()), least * size**2), most * size**2)
    soft = shapes.soft_mask(field, area, edge=0.6)
    fading = 1 + 0.8 * shapes.fractal(noise, SURFACE, 6, *x.shape[1:])
    return _blend(x, soft * fading.clamp(0.3, 1), _dyed(x, soft, noise, keep=0.3), strength)


def stain(
    x: Tensor, noise: Noise, strength: float = 1.0, size: float = 1.0
) -> tuple[Tensor, Tensor]:
    """A translucent, coloured patch with an irregular border, sometimes in splashes."""
    down, right = _around(x, noise)
    angle, stretch, roughness, edge = shapes.uniforms(noise, SHAPE, 4)
    border = shapes.fractal(noise, FIELD, 6, *x.shape[1:])
    oval = shapes.ellipse(down, right, math.pi * angle, 1 + 0.6 * stretch)
    field = (0.02 * size + oval) * torch.exp((0.5 + 1.3 * roughness) * border)
    soft = shapes.soft_mask(field, _area("stain", noise, size), edge=0.15 + 0.45 * edge)
    density = 1 + 0.5 * shapes.fractal(noise, SURFACE, 8, *x.shape[1:])
    texture = _dyed(x, soft, noise, keep=0.7, tint=0.9)
    return _blend(x, soft * density.clamp(0.5, 1), texture, strength)


def spot(
    x: Tensor, noise: Noise, strength: float = 1.0, size: float = 1.0
) -> tuple[Tensor, Tensor]:
    """A round speck with a soft edge."""
    down, right = _around(x, noise)
    angle, stretch, edge = shapes.uniforms(noise, SHAPE, 3)
    border = shapes.fractal(noise, FIELD, 8, *x.shape[1:])
    oval = shapes.ellipse(down, right, math.pi * angle, 1 + 0.2 * stretch)
    field = oval * torch.exp(0.15 * border)
    soft = shapes.soft_mask(field, _area("spot", noise, size), edge=0.4 + 0.5 * edge)
    return _blend(x, soft, _dyed(x, soft, noise, keep=0.5, tint=0.3), strength)


def hole(
    x: Tensor, noise: Noise, strength: float = 1.0, size: float = 1.0
) -> tuple[Tensor, Tensor]:
    """A deep pit with a rim that catches the light on one side; bright where all is dark."""
    down, right = _around(x, noise)
    angle, stretch, light = shapes.uniforms(noise, SHAPE, 3)
    border = shapes.fractal(noise, FIELD, 6, *x.shape[1:])
    oval = shapes.ellipse(down, right, math.pi * angle, 1 + 0.3 * stretch)
    field = oval * torch.exp(0.35 * border)
    area = _area("hole", noise, size)
    soft = shapes.soft_mask(field, area, edge=0.3)
    core = shapes.soft_mask(field, 0.6 * area, edge=0.4)
    local, contrast, sign = _contrast(x, soft, noise, dark=1.0)
    toward, _ = shapes.turn(down, right, math.tau * light)
    lit = toward / torch.hypot(down, right).clamp_min(1e-6)
    rim = x - sign * (0.4 + 0.5 * lit) * contrast
    depth = (contrast + 0.25).clamp(max=0.75) * (1 + 0.15 * lit)
    pit = local + 0.15 * (x - local) + sign * depth
    return _blend(x, soft, torch.lerp(rim, pit, core), strength)


def cut_paste(
    x: Tensor, noise: Noise, strength: float = 1.0, size: float = 1.0
) -> tuple[Tensor, Tensor]:
    """A rectangle of the same image from elsewhere, turned, with its colours shifted."""
    down, right = _around(x, noise)
    angle, stretch, turned = shapes.uniforms(noise, SHAPE, 3)
    along, across = shapes.turn(down, right, math.pi * angle)
    ratio = 1 + stretch
    field = torch.maximum(along.abs() * ratio, across.abs() / ratio)
    soft = shapes.soft_mask(field, _area("cut_paste", noise, size), edge=0.12)
    pasted = _elsewhere(x, noise, turn=math.tau * turned, zoom=1.0)
    _, contrast, sign = _contrast(x, soft, noise)
    return _blend(x, soft, pasted + 0.5 * sign * contrast, strength)


def perlin(
    x: Tensor, noise: Noise, strength: float = 1.0, size: float = 1.0
) -> tuple[Tensor, Tensor]:
    """A texture in the shape of thresholded Perlin noise: the image's own, distorted, or noise."""
    down, right = _around(x, noise)
    cells, spread, turned, zoom, own, opacity = shapes.uniforms(noise, SHAPE, 6)
    lattice = round(_between(4, 12, cells))
    clouds = shapes.perlin(noise, FIELD, lattice, *x.shape[1:])
    field = (1 + 3 * spread) * torch.hypot(down, right) / size - clouds
    soft = shapes.soft_mask(field, _area("perlin", noise, size), edge=0.25)
    _, contrast, sign = _contrast(x, soft, noise)
    if own < 0.5:
        crop = _elsewhere(x, noise, turn=math.tau * turned, zoom=_between(0.25, 2.0, zoom))
        middle = crop.mean((1, 2), keepdim=True)
        texture = middle + 1.6 * (crop.flip(0) - middle.flip(0)) + sign * contrast
    else:
        grain = shapes.fractal(noise, SURFACE, round(_between(6, 24, zoom)), *x.shape[1:])
        texture = x.mean((1, 2), keepdim=True) + (sign + 2 * grain) * contrast
    return _blend(x, (0.4 + 0.6 * opacity) * soft, texture, strength)


ALL: dict[str, Defect] = {
    "scratch": scratch,
    "stain": stain,
    "spot": spot,
    "hole": hole,
    "cut_paste": cut_paste,
    "perlin": perlin,
}


def inject(
    x: Tensor,
    noise: Noise,
    kinds: Sequence[str] | None = None,
    strength: float = 1.0,
    size: float = 1.0,
) -> tuple[Tensor, Tensor, str]:
    """The image with one defect, its mask, and its kind, which the noise picks among `kinds`."""
    names = list(ALL) if kinds is None else list(kinds)
    if not names or not set(names) <= set(ALL):
        raise UsageError(f"defect kinds {names}: expected some of {', '.join(ALL)}")
    kind = names[min(int(shapes.uniforms(noise, KIND, 1)[0] * len(names)), len(names) - 1)]
    changed, mask = ALL[kind](x, noise, strength=strength, size=size)
    return changed, mask, kind


def _around(x: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
    """Coordinates (H, W) down and right of the defect's place, a pixel of the pictured thing."""
    height, width = x.shape[-2:]
    if x.ndim != 3 or min(height, width) < shapes.MIN_SIDE:
        raise UsageError(
            f"image of shape {tuple(x.shape)}: a defect needs (C, H, W), "
            f"{shapes.MIN_SIDE} pixels or more each way"
        )
    down, right = shapes.grid(height, width)
    place = _pick(x, noise, PLACE)
    return down - down[place], right - right[place]


def _pick(x: Tensor, noise: Noise, step: int) -> tuple[int, int]:
    """A pixel of the pictured thing: its row first, so that it stays put at every image size."""
    vertical, horizontal = shapes.uniforms(noise, step, 2)
    thing = shapes.object_of(x)
    row = int(_nth(thing.nonzero()[:, 0], vertical))
    return row, int(_nth(thing[row].nonzero()[:, 0], horizontal))


def _nth(values: Tensor, u: float) -> Tensor:
    return values[min(int(u * len(values)), len(values) - 1)]


def _elsewhere(x: Tensor, noise: Noise, *, turn: float, zoom: float) -> Tensor:
    """The image seen so that another of its places lies at the defect's place."""
    height, width = x.shape[-2:]
    side = math.sqrt(height * width)
    right, down = shapes.turn(*_around(x, noise), turn)
    row, column = _pick(x, noise, SOURCE)
    y = (row + 0.5 + zoom * down * side) * 2 / height - 1
    x_right = (column + 0.5 + zoom * right * side) * 2 / width - 1
    where = torch.stack([x_right, y], -1)[None]
    return grid_sample(x[None], where, padding_mode="reflection", align_corners=False)[0]


def _contrast(
    x: Tensor, soft: Tensor, noise: Noise, *, dark: float = 0.65
) -> tuple[Tensor, Tensor, float]:
    """The colour under the mask and the contrast drawn, both (C, 1, 1), and its sign.

    The share `dark` of the defects is darker; where there is no room for that, it is lighter, and
    the other way round.
    """
    amount, side = shapes.uniforms(noise, COLOUR, 2)
    local = x[:, soft > 0].mean(1)[:, None, None]
    spread = float(x[:, shapes.object_of(x)].std(1).mean())
    contrast = min(max(spread * _between(*CONTRASTS, amount), LEAST), MOST)
    level = float(local.mean())
    sign = -1.0 if side < dark else 1.0
    room = level if sign < 0 else 1 - level
    return local, torch.full_like(local, contrast), sign if room >= contrast else -sign


def _dyed(x: Tensor, soft: Tensor, noise: Noise, *, keep: float, tint: float = 0.1) -> Tensor:
    """The image in another colour under the mask, with the share `keep` of its own texture.

    On colour images `tint` sets how differently the channels may be shifted.
    """
    local, contrast, sign = _contrast(x, soft, noise)
    hue = torch.tensor(shapes.uniforms(noise, HUE, len(x)))[:, None, None]
    weight = 1 + tint * (2 * hue - 1) if len(x) > 1 else torch.ones(1, 1, 1)
    return local + keep * (x - local) + sign * contrast * weight


def _blend(x: Tensor, soft: Tensor, texture: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    mask = soft > 0
    changed = x + strength * soft * (texture.clamp(0, 1) - x)
    return torch.where(mask, changed.clamp(0, 1), x), mask


def _area(kind: str, noise: Noise, size: float) -> float:
    return _between(*AREAS[kind], shapes.uniforms(noise, AREA, 1)[0]) * size**2


def _between(low: float, high: float, u: float) -> float:
    """Uniform in the logarithm: `low` at u = 0, `high` at u = 1."""
    return low * (high / low) ** u
