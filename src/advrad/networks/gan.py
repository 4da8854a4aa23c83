"""What an adversarial training needs beside a generator: a discriminator, and its losses.

The shape is DCGAN's (Radford et al., 2016, https://arxiv.org/abs/1511.06434): strided convolutions
down to one vector. Nothing is normalised over a batch and the verdict is not squashed, so that it
serves as a critic of Wasserstein distances as well (Gulrajani et al., 2017,
https://arxiv.org/abs/1704.00028, Section 4), whose loss is the mean of the verdicts itself.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

SLOPE = 0.2  # of the activations below zero


class Discriminator(nn.Module):
    """(B, C, size, size) in [0, 1] -> its verdict (B,), higher for real, and features (B, latent).

    Arguments:
        channels: of the images.
        size: their side, a multiple of 2 ** len(widths).
        widths: channels of each level, from fine to coarse; a level halves the side.
        latent: numbers among the features, of which the verdict is a linear function.
    """

    def __init__(self, channels: int, size: int, widths: Sequence[int], latent: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for a, b in pairwise([channels, *widths]):
            layers += [started(nn.Conv2d(a, b, 4, stride=2, padding=1)), nn.LeakyReLU(SLOPE)]
        last = started(nn.Conv2d(widths[-1], latent, size >> len(widths)))
        self.layers = nn.Sequential(*layers, last, nn.Flatten())
        self.verdict = nn.Linear(latent, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.layers(2 * x - 1)
        return self.verdict(features)[:, 0], features


def taken_for_real(verdict: Tensor) -> Tensor:
    """The loss -log D of verdicts log D / (1 - D), mean over the batch (Goodfellow et al., 2014,
    Section 3): of a discriminator about real images, and of a generator about its own."""
    return F.softplus(-verdict).mean()


def taken_for_made(verdict: Tensor) -> Tensor:
    """The loss -log(1 - D), mean over the batch: of a discriminator about images that are made."""
    return F.softplus(verdict).mean()


def held(module: nn.Module, x: Tensor) -> Any:
    """What a discriminator or critic says, with gradients to x and none to its own parameters.

    So the losses of both players add up to one that one optimiser can follow.
    """
    parameters = {name: p.detach() for name, p in module.named_parameters()}
    return functional_call(module, parameters, (x,))


def started(layer: nn.Conv2d | nn.ConvTranspose2d) -> nn.Module:
    """The layer with weights as He et al. draw them (2015, https://arxiv.org/abs/1502.01852), for
    signals that keep their size without any normalisation."""
    taps = layer.kernel_size[0] ** 2
    if isinstance(layer, nn.ConvTranspose2d):
        taps //= layer.stride[0] ** 2  # as many reach one pixel
    nn.init.normal_(layer.weight, std=(2 / (1 + SLOPE**2) / (layer.in_channels * taps)) ** 0.5)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
