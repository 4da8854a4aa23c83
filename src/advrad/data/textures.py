"""Textures made from noise, with small defects: categories for benchmarks that need no data.

- `weave`: a plain weave of uneven threads, grey;
- `speckle`: grains of three minerals, colour;
- `ridges`: brushed metal under a slanting light, grey.

Every image is a sample of its own of the texture. Defects are about 2 to 8 % of the side across
(the square root of their area), half of them less than 4 %; those of `brick` reach 28 %.
"""

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from advrad.data import defects, painted, shapes
from advrad.errors import UsageError
from advrad.files import write_text
from advrad.noise import Noise, PerImage

SIDE = 128
TRAIN, GOOD, DEFECTIVE = 60, 30, 30
SIZES = {"spot": 0.55, "hole": 0.55, "stain": 0.32, "scratch": 0.25}  # kinds and their `size`
STRENGTH = 2.0  # twice the contrast drawn: what is this small must stand out to be a defect
SETTINGS, FIRST, SECOND, THIRD, LIGHT = 0, 1, 4, 7, 10  # steps asked of the noise

NOTICE = """\
{name}: a texture made by advrad from noise (seed {seed}), with synthetic defects and masks.
"""


def weave(noise: Noise) -> Tensor:
    """(1, SIDE, SIDE): threads over and under each other, of uneven course and brightness."""
    y, x = shapes.grid(SIDE, SIDE)
    phase_y, phase_x, pitch = shapes.uniforms(noise, SETTINGS, 3)
    threads = 12 + pitch
    u = threads * x + phase_x + 0.2 * shapes.fractal(noise, FIRST, 3, SIDE, SIDE)
    v = threads * y + phase_y + 0.2 * shapes.fractal(noise, SECOND, 3, SIDE, SIDE)
    warp, weft = torch.sin(math.pi * u).abs(), torch.sin(math.pi * v).abs()
    over = 0.5 + 0.5 * torch.tanh(4 * torch.sin(math.pi * u) * torch.sin(math.pi * v))
    cloth = torch.lerp(0.9 * weft * (0.7 + 0.3 * warp), warp * (0.7 + 0.3 * weft), over)
    fibres = _grain(noise, THIRD, lambda down, right: _band(torch.hypot(down, right), 30, 0.6))
    return (0.35 + 0.3 * cloth + 0.02 * fibres)[None].clamp(0, 1)


def speckle(noise: Noise) -> Tensor:
    """(3, SIDE, SIDE): dark, rosy and white grains of several sizes, as in granite."""

    def grains(step: int, cycles: float) -> Tensor:
        return _grain(noise, step, lambda y, x: _band(torch.hypot(y, x), cycles, 0.45))

    dark = torch.sigmoid(4 * (grains(FIRST, 18) - 0.9))
    white = torch.sigmoid(4 * (grains(SECOND, 14) - 0.7))
    fine = grains(THIRD, 35)
    rosy, pale, black = (
        torch.tensor(colour)[:, None, None]
        for colour in ((0.62, 0.52, 0.48), (0.72, 0.67, 0.63), (0.46, 0.38, 0.36))
    )
    stone = torch.lerp(torch.lerp(rosy, pale, white), black, dark)
    return (stone + 0.02 * fine).clamp(0, 1)


def ridges(noise: Noise) -> Tensor:
    """(1, SIDE, SIDE): fine, nearly parallel grooves, brighter where the light falls."""
    tilt, toward, strength = shapes.uniforms(noise, SETTINGS, 3)
    angle = math.radians(4) * (2 * tilt - 1)

    def brushed(down: Tensor, right: Tensor) -> Tensor:
        along, across = shapes.turn(down, right, angle)
        return torch.exp(-((along / 2) ** 2)) * _band(across.abs(), 24, 0.8)

    y, x = shapes.grid(SIDE, SIDE)
    slope, _ = shapes.turn(y - 0.5, x - 0.5, math.tau * toward)
    metal = 0.55 + (0.05 + 0.15 * strength) * slope
    return (metal + 0.07 * _grain(noise, FIRST, brushed))[None].clamp(0, 1)


ALL: dict[str, Callable[[Noise], Tensor]] = {"weave": weave, "speckle": speckle, "ridges": ridges}


def write(name: str, folder: Path, seed: int = 0) -> None:
    """Writes one texture's data set to the folder, in MVTec AD's layout, with a NOTICE.

    60 good images to train; 30 good ones and 30 with a defect to test. UsageError for a name that
    is not in `ALL`.
    """
    if name not in ALL:
        raise UsageError(f"texture {name!r}: expected one of {', '.join(ALL)}")
    for split, count in (("train", TRAIN), ("test", GOOD)):
        for number in range(count):
            x = ALL[name](PerImage(seed, [f"{name}/{split}/{number}"]))
            painted.save_good(folder, split, number, x)
    kinds = list(SIZES)
    for index in range(DEFECTIVE):
        kind, number = kinds[index % len(kinds)], index // len(kinds)
        x = ALL[name](PerImage(seed, [f"{name}/{kind}/{number}"]))
        injected = PerImage(seed, [f"{name}/{kind}/{number}/defect"])
        bad, mask = defects.ALL[kind](x, injected, strength=STRENGTH, size=SIZES[kind])
        painted.save_defect(folder, kind, number, bad, mask)
    write_text(folder / "NOTICE", NOTICE.format(name=name, seed=seed))


def _grain(noise: Noise, step: int, gain: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Noise (SIDE, SIDE) of mean 0 and deviation 1, with `gain` at each frequency (y, x).

    Frequencies are in cycles a side; the field wraps around.
    """
    white = noise(torch.empty(1, SIDE, SIDE), step)[0]
    down = torch.fft.fftfreq(SIDE)[:, None] * SIDE
    right = torch.fft.rfftfreq(SIDE)[None] * SIDE
    field = torch.fft.irfft2(torch.fft.rfft2(white) * gain(down, right), s=(SIDE, SIDE))
    return (field - field.mean()) / field.std()


def _band(frequency: Tensor, centre: float, octaves: float) -> Tensor:
    """A gain of 1 at the centre frequency that falls off on both sides, 0 at frequency 0."""
    return torch.exp(-((torch.log2(frequency.clamp_min(1e-6) / centre) / octaves) ** 2) / 2)
