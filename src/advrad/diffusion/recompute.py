"""A chain of denoisings whose backward pass needs the memory of one.

The activations of each call are thrown away and computed again on the way back (Chen et al., 2016,
https://arxiv.org/abs/1604.06174): a third more time, and the same gradient. All noise of a chain
is drawn outside its denoiser, so that the second run is the first.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .denoise import Denoiser
from .schedule import Schedule


@dataclass(frozen=True)
class Recomputed:
    """The denoiser, under another account of memory; it must not draw noise of its own."""

    denoiser: Denoiser

    @property
    def schedule(self) -> Schedule:
        return self.denoiser.schedule

    def __call__(self, x_t: Tensor, t: int) -> Tensor:
        """x_0, (B, C, H, W)."""
        return recomputed(self.denoiser, x_t, t)


def recomputed(function: Callable[..., Tensor], *given: Any) -> Tensor:
    """function(*given), of which nothing is kept but what was given. It may take gradients of its
    own and be differentiated twice; it must not draw noise of its own."""
    return checkpoint(function, *given, use_reentrant=False, preserve_rng_state=False)
