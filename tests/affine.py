"""Classifiers whose boundaries are planes, and one that is bent."""

import torch
from torch import Tensor, nn

SHAPE = (1, 6, 6)


def planes(count: int = 5, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Weights (K, C, H, W) and offsets (K,) of an affine classifier's margins."""
    source = torch.Generator().manual_seed(seed)
    return torch.randn(count, *SHAPE, generator=source), torch.randn(count, generator=source)


def pictures(low: float = 0.0, high: float = 1.0, count: int = 8) -> Tensor:
    x = torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(3))
    return (low + (high - low) * x).clamp(0, 1)


def margins(x: Tensor) -> Tensor:
    """Every column below zero at first: at the clean image the class is right."""
    weights, offsets = planes()
    at = pictures(0.3, 0.7)
    start = torch.einsum("kchw,bchw->bk", weights, at).amax(0) + 0.5 + offsets.abs()
    return torch.einsum("kchw,bchw->bk", weights.to(x), x) - start.to(x)


def small_net() -> nn.Module:
    """Six classes, bent; the same at every call."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(288, 6)
        ).requires_grad_(False)
    for layer in (net[0], net[3]):
        layer.weight *= 3
    return net.eval()
