"""Where randomness comes from.

Nothing else in the library draws noise for an image by itself. Whoever calls decides: fresh draws
to attack or certify, fixed draws to reproduce a score, draws that belong to an image wherever it
stands in a batch, or draws shared with an attacker.

A noise is asked for a *step*. Steps t >= 0 are noise put in on the way to level t; steps below
zero are noise put in on the way out, `out(s)` for the jump that arrives at level s. `redraw`
shifts both by whole strides, which gives any noise as many independent draws as wanted.

The counter-based generator is Philox (Salmon et al., 2011, https://doi.org/10.1145/2063384.2063405).
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

Noise = Callable[[Tensor, int], Tensor]  # (like, step) -> standard normal, shaped like `like`

STRIDE = 1 << 16  # more steps than any schedule has
AROUND = STRIDE // 2  # the step of noise around an image, apart from what a detector puts in


def fresh(like: Tensor, step: int) -> Tensor:
    """An independent draw at every call, on the device of `like`."""
    return torch.randn_like(like)


@dataclass(frozen=True)
class Fixed:
    """One draw per step, shared by all images of a batch."""

    seed: int

    def __call__(self, like: Tensor, step: int) -> Tensor:
        return _philox(self.seed, "", step, like.shape[1:]).to(like).expand_as(like)


@dataclass(frozen=True)
class PerImage:
    """A draw for each (seed, image, step), whatever its batch, its order or its device.

    `ids` name the images of the batch, row by row; the library uses the sha256 of the file.
    """

    seed: int
    ids: Sequence[str]

    def __call__(self, like: Tensor, step: int) -> Tensor:
        if len(self.ids) != len(like):
            raise ValueError(f"{len(like)} images in the batch, but {len(self.ids)} ids")
        rows = [_philox(self.seed, name, step, like.shape[1:]) for name in self.ids]
        return torch.stack(rows).to(like)


@dataclass(frozen=True)
class Draws:
    """One `PerImage` after another: draw number k of each image, for as many as are asked for."""

    seed: int
    ids: Sequence[str]

    def __call__(self, k: int) -> Noise:
        key = hashlib.sha256(f"draws/{self.seed}/{k}".encode()).digest()[:8]
        return PerImage(int.from_bytes(key, "little"), self.ids)


@dataclass(frozen=True)
class Split:
    """One source for the noise put in, another for the noise of the steps out."""

    forward: Noise
    reverse: Noise

    def __call__(self, like: Tensor, step: int) -> Tensor:
        return (self.forward if step >= 0 else self.reverse)(like, step)


def out(s: int) -> int:
    """The step under which a noise is asked on the way out, for the jump to level s."""
    return -1 - s


def redraw(noise: Noise, draw: int) -> Noise:
    """The noise's independent draw number `draw`; number 0 is the noise itself."""
    shift = draw * STRIDE
    return lambda like, step: noise(like, step + shift if step >= 0 else step - shift)


def _philox(seed: int, name: str, step: int, shape: torch.Size) -> Tensor:
    key = hashlib.sha256(f"{seed}/{name}/{step}".encode()).digest()[:16]
    source = np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))
    return torch.from_numpy(source.standard_normal(tuple(shape), dtype=np.float32))
