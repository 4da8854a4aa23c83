"""Modules that cut their gradient inside, opened for whoever differentiates them.

Many detectors run a frozen backbone under `no_grad`, or detach a score, since they never train
it. An attacker must differentiate it all the same: otherwise the gradient is missing, or is that
of half the network, and the detector looks robust because nobody looked. Nothing here changes a
value; the backward pass becomes that of the function which is computed.

Distances are the other trap. The derivative of a root at zero is infinite, and times zero it is
not a number, which a backbone then spreads over the whole image. Zero is taken instead: it is a
subgradient of every norm at its origin.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

ROOTS = {torch.sqrt, Tensor.sqrt}
ROOTS_IN_PLACE = {torch.sqrt_, Tensor.sqrt_}
POWERS = {torch.pow, Tensor.pow, Tensor.__pow__}
DETACHES = {torch.detach, Tensor.detach, Tensor.detach_}
ARRAYS: set[Any] = {Tensor.numpy, Tensor.__array__}


@dataclass
class Found:
    """What was met on the way, counted since the module was opened.

    Arguments:
        cuts: regions under `no_grad`, `set_grad_enabled(False)` or `inference_mode`, and tensors
            of the graph that were to be detached; all opened.
        zero_roots: numbers under a root that were zero in a backward pass: their gradient became
            zero, and would not have been a number.
    """

    cuts: int = 0
    zero_roots: int = 0


class Opened(nn.Module):
    """The same module, whose gradient is not cut inside it; `found` says what was met.

    Without effect where the caller has switched gradients off. Parameters stay as frozen as they
    are. A straight-through estimator, which lives by `detach`, gets its true gradient too: leave
    a module that has one closed, or open only the parts around it. What leaves torch (`numpy`,
    `item`, `data`) stays cut.
    """

    def __init__(self, module: Callable[..., Any]) -> None:
        super().__init__()
        self.module = module
        self.found = Found()

    @property
    def kind(self) -> str:
        """What is opened, for people."""
        return str(getattr(self.module, "kind", type(self.module).__name__))

    def forward(self, *given: Any, **named: Any) -> Any:
        """What the module returns."""
        if not torch.is_grad_enabled():
            return self.module(*given, **named)
        with _Open(self.found):
            return self.module(*given, **named)


class _Open(TorchFunctionMode):
    """Sees every call of torch in this thread, and so whatever would cut the gradient."""

    def __init__(self, found: Found) -> None:
        super().__init__()
        self.found, self.inferring = found, False

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is torch._C._set_grad_enabled:
            self.found.cuts += not args[0]
            return None
        inferring = torch.is_inference_mode_enabled()
        self.found.cuts += inferring and not self.inferring
        self.inferring = inferring
        if not inferring:
            return self._called(func, args, kwargs or {})
        with torch.inference_mode(False), torch.enable_grad():
            return self._called(func, args, kwargs or {})

    def _called(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        x = args[0] if args else None
        if not (isinstance(x, Tensor) and x.requires_grad) or isinstance(x, nn.Parameter):
            return func(*args, **kwargs)
        if func in DETACHES:
            self.found.cuts += 1
            return x.view_as(x)
        if func in ARRAYS:
            return func(x.detach(), *args[1:], **kwargs)
        if (func in ROOTS or _is_root(func, args)) and not kwargs:
            return _Root.apply(x, False, self.found)
        if func in ROOTS_IN_PLACE:
            return _Root.apply(x, True, self.found)
        return func(*args, **kwargs)


class _Root(torch.autograd.Function):
    """sqrt, with derivative 0 at 0."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, in_place: bool, found: Found) -> Tensor:
        root = x.sqrt_() if in_place else x.sqrt()
        if in_place:
            ctx.mark_dirty(root)
        ctx.save_for_backward(root)
        ctx.found = found
        return root

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None, None]:
        (root,) = ctx.saved_tensors
        zero = root == 0
        ctx.found.zero_roots += int(zero.sum())
        slope = 0.5 / torch.where(zero, torch.ones_like(root), root)
        return torch.where(zero, torch.zeros_like(root), outer[0] * slope), None, None


def _is_root(func: Any, args: tuple[Any, ...]) -> bool:
    return func in POWERS and isinstance(args[-1], int | float) and args[-1] == 0.5
