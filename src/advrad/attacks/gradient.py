"""The objective's value and gradient, or a refusal where the attacker cannot see."""

from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import BlindAttackError, UsageError
from ._ball import Ball
from .objective import Aim, Objective, checked


class Seen(NamedTuple):
    """One look at a batch: what is climbed (B,), what ranks (B,), the gradient (B, C, H, W)."""

    climb: Tensor
    rank: Tensor
    gradient: Tensor


def value_and_gradient(objective: Objective, x: Tensor, *, first: bool = True) -> Seen:
    """One forward and one backward pass.

    Where single numbers of the gradient are not finite they are taken as zero, so that the rest
    of the batch can be attacked; the health checks say how many there were. Raises
    BlindAttackError where there is no gradient at all, and at the `first` look of an attack where
    no number in it is finite: later ones may stray to such a place from where the attack could
    see, and then what was found so far stands.
    """
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        value = checked(objective(x), x)
        gradient = gradient_of(value.climb, x, first=first)
    return Seen(value.climb.detach(), value.rank.detach(), gradient)


def gradient_of(climb: Tensor, x: Tensor, *, first: bool = True, again: bool = False) -> Tensor:
    """The gradient (B, C, H, W) of values (B,), as `value_and_gradient` takes and refuses it.

    With `again` the graph is kept, for another backward pass through it.
    """
    if not climb.requires_grad:
        raise BlindAttackError(
            "the objective does not depend on the image by any gradient: something in "
            "what is attacked cuts it (no_grad, detach, item, numpy). Attack it with `square`, or "
            "through a smooth substitute (bpda)"
        )
    (gradient,) = torch.autograd.grad(climb.sum(), x, allow_unused=True, retain_graph=again)
    if gradient is None:
        raise BlindAttackError("the objective's gradient does not reach the image: it is cut")
    finite = gradient.isfinite()
    if first and not bool(finite.any()):
        raise BlindAttackError(
            "no number of the objective's gradient is finite: look for a root or a distance at "
            "zero, a division by zero, or a logarithm of zero in what is attacked"
        )
    return torch.where(finite, gradient, torch.zeros_like(gradient))


@torch.no_grad()
def value_of(objective: Objective, x: Tensor) -> Aim:
    """One forward pass."""
    value = checked(objective(x), x)
    return Aim(value.climb.detach(), value.rank.detach())


class Best:
    """Keeps, image by image, the iterate that ranks highest; one that is no number ranks last.

    With `take` instead, the newest one whose rank is a number.
    """

    def __init__(self, x: Tensor, rank: Tensor | None = None) -> None:
        """x is kept where nothing better comes: than its rank (B,), or than nothing at all."""
        lowest = x.new_full((len(x),), -torch.inf)
        self.x = x.clone()
        self.rank = lowest if rank is None else torch.where(rank.isnan(), lowest.to(rank), rank)

    def see(self, x: Tensor, rank: Tensor) -> Tensor:
        """Takes another iterate in; returns which images it is better for, (B,) bool."""
        won = rank > self.rank
        self._keep(won, x, rank)
        return won

    def take(self, x: Tensor, rank: Tensor) -> None:
        """The newer iterate, whether it is better or not, unless its rank is no number."""
        self._keep(~rank.isnan(), x, rank)

    def _keep(self, chosen: Tensor, x: Tensor, rank: Tensor) -> None:
        self.x = torch.where(chosen[:, None, None, None], x, self.x)
        self.rank = torch.where(chosen, rank, self.rank)


def images(x: Tensor) -> Tensor:
    """The batch without gradient; raises UsageError unless it is (B, C, H, W) in [0, 1]."""
    if x.ndim != 4 or not x.is_floating_point() or not len(x):
        raise UsageError(
            f"{x.dtype} of shape {tuple(x.shape)}: expected floats (B, C, H, W) in [0, 1]"
        )
    x = x.detach()
    low, high = float(x.min()), float(x.max())
    if not (low >= 0 and high <= 1):
        raise UsageError(f"images from {low:g} to {high:g}: an attack expects them in [0, 1]")
    return x


def ready(x: Tensor, ball: Ball) -> Tensor:
    """The batch without gradient; raises UsageError where it or the ball is not as expected."""
    x = images(x)
    if not isinstance(ball, Ball):
        raise UsageError(
            f"the ball {ball!r}: expected a threat model around the images, for example "
            "Linf(2 / 255) or L2(0.2)"
        )
    eps = torch.as_tensor(ball.check(x.shape[1:]).eps)
    if eps.shape not in ((), (1,), (len(x),)):
        raise UsageError(
            f"eps of shape {tuple(eps.shape)} for {len(x)} images: expected one number, or one "
            "for each image"
        )
    return x
