"""Whether a gradient is that of the function, and how steady the mean of many is.

For any function of images; nothing here knows how a purifier is made.
"""

from collections.abc import Callable

import torch
from torch import Tensor

EXACT = 1e-6  # of float64 and differences of 1e-6: a right gradient is three digits better


def disagreement(function: Callable[[Tensor], Tensor], x: Tensor, directions: int = 4) -> float:
    """How far autograd's slopes are from those of central differences, relative to these.

    A weighted sum of the function's values is differentiated along random directions, for x in
    float64. 0 where the gradient is right; of the order of 1 where a path is missing.
    """
    source, step = torch.Generator().manual_seed(1), 1e-6
    x = x.detach().double().requires_grad_()
    value = function(x)
    weight = torch.randn(value.shape, generator=source).double()
    (slope,) = torch.autograd.grad((weight * value).sum(), x)
    usual, worst = float(slope.norm()) / slope.numel() ** 0.5, 0.0
    for _ in range(directions):
        direction = torch.randn(x.shape, generator=source).double()
        direction = direction / direction.norm()
        with torch.no_grad():
            ahead, behind = (function(x + s * direction) for s in (step, -step))
            true = float((weight * (ahead - behind)).sum() / (2 * step))
            told = float((slope * direction).sum())
        worst = max(worst, abs(told - true) / max(abs(true), usual, 1e-12))
    return worst


def unsteadiness(gradient: Callable[[], Tensor], calls: int) -> float:
    """The mean squared distance of a random gradient from its mean, over so many calls."""
    drawn = torch.stack([gradient() for _ in range(calls)])
    return float((drawn - drawn.mean(0)).square().sum() / (calls - 1))
