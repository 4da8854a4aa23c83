"""Classifiers and purifiers of a few lines, about which everything is known."""

from typing import Any

import torch
from torch import Tensor, nn

from advrad.evaluate.defence_modes import Defence
from advrad.evaluate.defence_trial import Examples, Trial
from advrad.noise import Noise, out
from advrad.purifiers import Purifier

SIDE, PIXELS = 8, 64
REVERSE = out(2)  # a step of the noise on the way out


class Plane(nn.Module):
    """Two classes: the logit of the second minus that of the first is w.x - b."""

    shape, classes = (1, SIDE, SIDE), 2

    def __init__(self, weight: Tensor, bound: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.flatten())
        self.bound = bound

    def forward(self, x: Tensor) -> Tensor:
        height = (x.flatten(1) @ self.weight - self.bound) / 2
        return torch.stack([-height, height], 1)


def plane(seed: int = 0) -> Plane:
    """Through the middle of the images."""
    weight = torch.randn(PIXELS, generator=torch.Generator().manual_seed(seed))
    return Plane(weight, 0.5 * float(weight.sum()))


def images(classifier: nn.Module, count: int = 12, seed: int = 1) -> Examples:
    """Images in [0.3, 0.7], each of the class that the classifier sees."""
    x = 0.3 + 0.4 * torch.rand(count, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        labels = classifier(x).argmax(1)
    return Examples(x, labels, [f"image-{i}" for i in range(count)], "toys")


def noisy(size: float = 0.05) -> Purifier:
    """Noise put in and noise on the way out, and nothing taken away."""
    return lambda x, noise: x + size * noise(x, 3) + size * noise(x, REVERSE)


def rounding(levels: int = 8, slope: float = 0.0) -> Purifier:
    """Steps with a gradient of zero; with a slope, one that points up and down at random."""

    def purify(x: Tensor, noise: Noise) -> Tensor:
        return (levels * x).round() / levels + slope * torch.sin(1e5 * x)

    return purify


def cut(x: Tensor, noise: Noise) -> Tensor:
    """No gradient at all."""
    return x.detach()


def lock(step: int, gain: float = 10.0) -> Purifier:
    """A defence that only who knows its noise can open.

    The first pixel becomes 0.5 + gain times the mean of (x - 0.5) n, with n the noise of a step:
    a change along n opens it, and any other change nearly never does.
    """

    def purify(x: Tensor, noise: Noise) -> Tensor:
        found = gain * ((x - 0.5) * noise(x, step)).mean((1, 2, 3))
        first = torch.zeros_like(x)
        first[:, 0, 0, 0] = 1
        return 0.5 * (1 - first) + first * (0.5 + found)[:, None, None, None]

    return purify


def both(purify: Purifier, step: int) -> Purifier:
    """The same, which asks for the noise of another step as well and hardly uses it."""
    return lambda x, noise: purify(x, noise) + 1e-6 * noise(x, step)


def keyhole() -> tuple[Plane, Examples]:
    """A classifier that looks at the first pixel, and grey images that it finds closed."""
    weight = torch.zeros(PIXELS)
    weight[0] = 1
    grey = torch.full((12, 1, SIDE, SIDE), 0.5)
    labels = torch.zeros(12, dtype=torch.long)
    return Plane(weight, 0.9), Examples(grey, labels, [f"grey-{i}" for i in range(12)], "grey")


def coin(chance: float) -> Purifier:
    """Right with this chance, whatever the image is; for `keyhole`'s classifier."""
    bound = float(torch.special.ndtri(torch.tensor(chance, dtype=torch.double)))

    def purify(x: Tensor, noise: Noise) -> Tensor:
        tossed = (noise(x, 3)[:, :1, :1, :1] > bound).to(x)
        return 0.5 + tossed + 1e-6 * (x - 0.5)

    return purify


def trial(**asked: Any) -> Trial:
    """A short one."""
    return Trial(**{"draws": 3, "eot": 2, "steps": 4, "resubmit": 5, "health": False} | asked)


def defended(purify: Purifier | None, classifier: nn.Module, **more: Any) -> dict[str, Defence]:
    return {"toy": Defence(classifier, purify, **more)}
