"""What a defence by search shares with another: restarts, recomputation, and who is best.

The defence looks for the latent from which a generator makes the image it is given, from several
starts at once, and answers with what the best of them makes. An attacker who differentiates it
needs the gradient through every update of that search. One update is held at a time: its graph is
thrown away and built again on the way back (Chen et al., 2016, https://arxiv.org/abs/1604.06174),
so that a search of any length needs the memory of one update and of its latents.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..errors import UsageError
from ..noise import STRIDE, Noise

State = tuple[Tensor, ...]


class Found(NamedTuple):
    """Where a search has ended: what each restart makes, (R, B, C, H, W) in [0, 1], and the mean
    squared error of it, (R, B)."""

    images: Tensor
    errors: Tensor

    def best(self) -> Tensor:
        """Of each image the restart with the least error, (B, C, H, W)."""
        chosen = self.errors.argmin(0)
        return self.images[chosen, torch.arange(len(chosen), device=chosen.device)]


def found(made: Tensor, x: Tensor) -> Found:
    """The end of a search for x, (B, C, H, W), of whose restarts all rows are (R B, C, H, W)."""
    errors = squared_error(made, again(x, len(made) // len(x))).unflatten(0, (-1, len(x)))
    return Found(made.clamp(0, 1).unflatten(0, (-1, len(x))), errors)


def squared_error(made: Tensor, x: Tensor) -> Tensor:
    """The mean over an image's values, (B, C, H, W) twice -> (B,)."""
    return (made - x).square().flatten(1).mean(1)


def again(x: Tensor, restarts: int) -> Tensor:
    """The images once for each restart, (R B, C, H, W)."""
    return x.repeat(restarts, 1, 1, 1)


def starts(like: Tensor, restarts: int, noise: Noise) -> Tensor:
    """Standard normal latents shaped like `like` for each restart, (R B, ...): noise put in."""
    return torch.cat([noise(like, restart) for restart in range(restarts)])


def remade(step: Callable[..., State], *tensors: Tensor) -> State:
    """step(*tensors), differentiable once to the tensors and to nothing else.

    The step must draw no noise of its own, so that its second run is the first.
    """
    if not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)):
        return step(*tensors)
    return _Remade.apply(step, *tensors)


class _Remade(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, step: Callable[..., State], *tensors: Tensor) -> State:
        ctx.step = step
        ctx.save_for_backward(*tensors)
        with torch.no_grad():
            return step(*tensors)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        tensors = [tensor.detach().requires_grad_() for tensor in ctx.saved_tensors]
        with torch.enable_grad():
            made = ctx.step(*tensors)
            return None, *torch.autograd.grad(made, tensors, outer, allow_unused=True)


def check_search(iterations: int, restarts: int, draws: int = 1, *, rate: float) -> None:
    """Raises UsageError where a search is impossible.

    Arguments:
        draws: of one iteration of one restart; all of them must have a step of their own.
        rate: of the largest update but the first.
    """
    if iterations < 1 or restarts < 1:
        raise UsageError(
            f"a search of {iterations} iterations from {restarts} starts: expected 1 or more each"
        )
    if not 0 < rate < math.inf:
        raise UsageError(f"rate={rate}: expected a number above 0, and not infinity")
    if iterations * restarts * draws > STRIDE:
        raise UsageError(
            f"a search of {iterations} iterations from {restarts} starts takes "
            f"{iterations * restarts * draws} draws of noise: at most {STRIDE}; take fewer"
        )
