"""A chain of denoisings whose backward pass needs the memory of one.

The activations of each call are thrown away and computed again on the way back (Chen et al., 2016,
https://arxiv.org/abs/1604.06174): one more forward pass, and the same gradient. All noise of a
chain is drawn outside its denoiser, so that the second run is the first.

torch's own checkpointing watches every tensor of the call, whatever it belongs to. A network whose
weights stand still is a function of the image alone, and needs no watching: it is differentiated
as one step, which is quicker (`benchmarks/chain.py` measures the whole).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .denoise import Denoiser, EpsDenoiser
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
        if not _still(self.denoiser):
            return recomputed(self.denoiser, x_t, t)
        if torch.is_grad_enabled() and x_t.requires_grad:
            found: Tensor = _Once.apply(self.denoiser, x_t, t)
            return found
        return self.denoiser(x_t, t)


def recomputed(function: Callable[..., Tensor], *given: Any) -> Tensor:
    """function(*given), of which nothing is kept but what was given. It may take gradients of its
    own and be differentiated twice; it must not draw noise of its own."""
    return checkpoint(function, *given, use_reentrant=False, preserve_rng_state=False)


def _still(denoiser: Denoiser) -> bool:
    """Whether the image is all that its answer can be differentiated to."""
    return type(denoiser) is EpsDenoiser and not any(
        parameter.requires_grad for parameter in denoiser.parameters()
    )


class _Once(torch.autograd.Function):
    """A denoiser as one step of the graph; on the way back it is run again, with a graph of its
    own that lives as long as its backward pass, or, where that is differentiated too, as the
    result's."""

    @staticmethod
    def forward(ctx: Any, denoiser: Denoiser, x_t: Tensor, t: int) -> Tensor:
        ctx.denoiser, ctx.t = denoiser, t
        ctx.save_for_backward(x_t)
        with torch.enable_grad():  # where none is asked for, other kernels round otherwise
            return denoiser(x_t.detach().requires_grad_(), t).detach()

    @staticmethod
    def backward(ctx: Any, *ahead: Tensor) -> tuple[None, Tensor, None]:
        (x_t,) = ctx.saved_tensors
        further = torch.is_grad_enabled()
        with torch.enable_grad():
            x = x_t.view_as(x_t) if further else x_t.detach().requires_grad_()
            (slope,) = torch.autograd.grad(ctx.denoiser(x, ctx.t), x, ahead, create_graph=further)
        return None, slope, None
