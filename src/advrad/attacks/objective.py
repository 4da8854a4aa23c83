"""What the attacker wants: functions (B, C, H, W) -> (B,) to be made large.

A detector's score, or minus it, is an objective as it stands: this room knows no detector. What
is climbed need not be what counts: the largest pixel of a map gives a gradient from one small
window, so a smooth surrogate is climbed, and the true score ranks the iterates. An objective that
returns an `Aim` says both from one pass.

Expectation over randomness and backward-pass approximation are not attacks. They change the
objective or the function inside it, and so go with every attack.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import UsageError
from ..noise import Noise, fresh


class Aim(NamedTuple):
    """What is climbed and what iterates are ranked by, both (B,)."""

    climb: Tensor
    rank: Tensor


Objective = Callable[[Tensor], "Tensor | Aim"]
Drawn = Callable[[Tensor, Noise], "Tensor | Aim"]  # an objective under a given noise
Noises = Callable[[int], Noise]  # the noise of draw number 0, 1, 2, ...
ROWS = 16  # images times draws that pass at once


def aim(value: "Tensor | Aim") -> Aim:
    """The value as an Aim: what is climbed also ranks, unless something else is said to."""
    return value if isinstance(value, Aim) else Aim(value, value.detach())


def checked(value: "Tensor | Aim", x: Tensor) -> Aim:
    """The value as an Aim; raises UsageError unless it is one number for each image of x."""
    for each in value if isinstance(value, Aim) else [value]:
        if not isinstance(each, Tensor):
            raise UsageError(
                f"the objective returned a {type(each).__name__}: expected a tensor {(len(x),)}, "
                "one number an image, computed from the image in torch"
            )
    both = aim(value)
    if any(each.shape != (len(x),) for each in both):
        shapes = " and ".join(str(tuple(each.shape)) for each in both)
        raise UsageError(
            f"the objective returned {shapes}: expected one number an image, {(len(x),)}"
        )
    return both


def log_sum_exp(values: Tensor, share: float = 0.05) -> Tensor:
    """A smooth maximum of a map, (B, H, W) -> (B,).

    tau log mean exp(map / tau), with tau the `share` of how far the map's maximum is above its
    mean, taken as a constant: near the maximum it follows every pixel that is nearly as high. The
    value lies between the map's mean and its maximum.
    """
    flat = values.flatten(1)
    top = flat.amax(1, keepdim=True).detach()
    spread = top[:, 0] - flat.mean(1).detach()
    tau = (share * spread).clamp_min(torch.finfo(flat.dtype).tiny)
    below = ((flat - top) / tau[:, None]).logsumexp(1) - math.log(flat.shape[1])
    return top[:, 0] + tau * below


def top_mean(values: Tensor, share: float = 0.01) -> Tensor:
    """The mean of the largest share of a map, (B, H, W) -> (B,)."""
    flat = values.flatten(1)
    return flat.topk(max(1, round(share * flat.shape[1])), dim=1).values.mean(1)


def masked_sum(values: Tensor, mask: Tensor) -> Tensor:
    """The sum of a map inside a mask (B, H, W) of zeros and ones, (B,)."""
    return (values * mask).flatten(1).sum(1)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """The classifier's loss, (B, K) and (B,) -> (B,): large where the label is wrong."""
    return F.cross_entropy(logits, labels, reduction="none")


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """The best wrong logit minus the right one, (B,): positive where the class is wrong.

    Carlini and Wagner, 2017 (https://arxiv.org/abs/1608.04644).
    """
    right = logits.gather(1, labels[:, None])[:, 0]
    wrong = logits.scatter(1, labels[:, None], -torch.inf).amax(1)
    return wrong - right


def dlr(logits: Tensor, labels: Tensor) -> Tensor:
    """The difference of logits ratio, (B, K >= 3) -> (B,), in units of first minus third logit.

    Croce and Hein, 2020 (https://arxiv.org/abs/2003.01690), Eq. 6. Raises ValueError below three
    classes, where the ratio does not exist.
    """
    if logits.shape[1] < 3:
        raise ValueError(f"{logits.shape[1]} logits: the ratio needs three or more")
    ordered = logits.sort(1, descending=True).values
    return margin(logits, labels) / (ordered[:, 0] - ordered[:, 2] + 1e-12)


def eot(
    drawn: Drawn | Sequence[Drawn],
    draws: int,
    noises: Noises = lambda k: fresh,
    rows: int = ROWS,
) -> Objective:
    """The mean of an objective over `draws` fresh draws at every call.

    Expectation over transformation (Athalye et al., 2018, https://arxiv.org/abs/1707.07397). The
    draws of a call pass in batches of at most `rows` images (one draw of the batch at least), and
    each batch's graph is freed before the next one: memory does not grow with `draws`. Call
    number n takes noises n * draws, ..., n * draws + draws - 1. The value has the gradient with
    respect to x and nothing else.

    Of several objectives whose mean is meant, draw number k takes the next one in turn, so that
    each draw costs one of them. Raises UsageError for less than one draw.
    """
    forms = [drawn] if callable(drawn) else list(drawn)
    if draws < 1:
        raise UsageError(f"an expectation over {draws} draws: expected 1 or more")
    calls = count()

    def expectation(x: Tensor) -> Aim:
        first = next(calls) * draws
        numbers = range(first, first + draws)
        parts = [
            _value(form, x, [noises(k) for k in own[some.start : some.stop]])
            for turn, form in enumerate(forms)
            for own in [[k for k in numbers if k % len(forms) == turn]]
            for some in _groups(len(own), max(1, rows // len(x)))
        ]
        climb, rank, gradient = (
            None if any(each is None for each in part) else torch.stack(part).sum(0) / draws
            for part in zip(*parts, strict=True)
        )
        if gradient is not None:
            climb = _Known.apply(x, climb, gradient)
        assert climb is not None
        assert rank is not None
        return Aim(climb, rank)

    return expectation


def bpda(
    exact: Callable[[Tensor], Tensor], smooth: Callable[[Tensor], Tensor]
) -> Callable[[Tensor], Tensor]:
    """Forward as `exact`, to the bit, backward as `smooth`.

    Backward pass differentiable approximation (Athalye et al., 2018,
    https://arxiv.org/abs/1802.00420).
    """

    def surrogate(x: Tensor) -> Tensor:
        with torch.no_grad():
            value = exact(x).detach()
        y = smooth(x)
        return value + (y - y.detach())

    return surrogate


def reconstruction_constant(x: Tensor, rebuilt: Tensor) -> tuple[Tensor, Tensor]:
    """x and its reconstruction as an error sees them, the reconstruction held constant.

    The gradient of ||x - r(x)||^2 becomes 2 (x - r(x)). With the identity for dr/dx instead, as
    BPDA is used for classifiers, it would be exactly zero.
    """
    return x, rebuilt.detach()


def input_constant(x: Tensor, rebuilt: Tensor) -> tuple[Tensor, Tensor]:
    """The other way round: the image is held constant, and r(x) passes its gradient as identity.

    The gradient of ||x - r(x)||^2 becomes -2 (x - r(x)).
    """
    return x.detach(), bpda(lambda _: rebuilt, lambda y: y)(x)


def _groups(total: int, size: int) -> Iterator[range]:
    return (range(start, min(start + size, total)) for start in range(0, total, size))


def _value(drawn: Drawn, x: Tensor, noises: list[Noise]) -> tuple[Tensor, Tensor, Tensor | None]:
    """Sums over some draws: what is climbed, what ranks, and the gradient where there is one."""
    wanted = x.requires_grad and torch.is_grad_enabled()
    again = x.detach().requires_grad_(wanted)
    stacked = again.repeat(len(noises), 1, 1, 1)
    value = checked(drawn(stacked, Stacked(noises)), stacked)
    gradient = None
    if wanted and value.climb.requires_grad:
        (gradient,) = torch.autograd.grad(value.climb.sum(), again, allow_unused=True)
    climb, rank = (each.detach().reshape(len(noises), -1).sum(0) for each in value)
    return climb, rank, gradient


class Stacked:
    """Several noises for a batch that holds the same images once for each of them."""

    def __init__(self, noises: list[Noise]) -> None:
        self.noises = noises

    def __call__(self, like: Tensor, step: int) -> Tensor:
        parts = like.chunk(len(self.noises))
        return torch.cat(
            [noise(part, step) for noise, part in zip(self.noises, parts, strict=True)]
        )


class _Known(torch.autograd.Function):
    """A value whose gradient is known already, image by image."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return outer[0][:, None, None, None] * gradient, None, None
