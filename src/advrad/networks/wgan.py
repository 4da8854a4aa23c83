"""WGAN-GP: a generator, a critic, and the losses that each of them lowers.

Gulrajani et al., 2017 (https://arxiv.org/abs/1704.00028), with the networks of their program for
MNIST, which Defense-GAN takes over: three strided 5 x 5 convolutions each way, 4, 2 and 1 times
`width` channels wide, nothing normalised. The critic's values estimate a Wasserstein distance
where its slope is 1, and the penalty (Eq. 3) pulls the slope there, on the lines between real and
made images.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .gan import SLOPE, held, started

LEVELS = 3


class Generator(nn.Module):
    """Latents (B, latent), standard normal in training -> images (B, C, H, W) in [0, 1].

    Arguments:
        channels: of the images.
        size: their side.
        latent: numbers of a latent.
        width: channels of the finest level; each coarser one has twice as many.
    """

    def __init__(
        self, channels: int = 1, size: int = 28, latent: int = 128, width: int = 64
    ) -> None:
        super().__init__()
        self.latent, self.shape = latent, (channels, size, size)
        self.sides = [-(-size // 2**level) for level in range(LEVELS, -1, -1)]
        widths = [width * 2**level for level in range(LEVELS - 1, -1, -1)]
        self.first = (widths[0], self.sides[0], self.sides[0])
        self.enter = nn.Linear(latent, widths[0] * self.sides[0] ** 2)
        self.up = nn.ModuleList(
            started(nn.ConvTranspose2d(a, b, 5, stride=2, padding=2, output_padding=1))
            for a, b in pairwise([*widths, channels])
        )

    def forward(self, z: Tensor) -> Tensor:
        h = self.enter(z).unflatten(1, self.first)
        for layer, side in zip(self.up, self.sides[1:], strict=True):
            h = layer(F.relu(h))[..., :side, :side]
        return torch.sigmoid(h)


class Critic(nn.Module):
    """Images (B, C, size, size) in [0, 1] -> values (B,), higher for real; arguments as above."""

    def __init__(self, channels: int = 1, size: int = 28, width: int = 64) -> None:
        super().__init__()
        widths = [channels, *(width * 2**level for level in range(LEVELS))]
        layers: list[nn.Module] = []
        for a, b in pairwise(widths):
            layers += [started(nn.Conv2d(a, b, 5, stride=2, padding=2)), nn.LeakyReLU(SLOPE)]
        self.layers = nn.Sequential(*layers, nn.Flatten())
        self.value = nn.Linear(widths[-1] * (-(-size // 2**LEVELS)) ** 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.value(self.layers(x))[:, 0]


class Players(nn.Module):
    """Generator and critic as one module, so that one training holds both."""

    def __init__(self, generator: Generator, critic: Critic) -> None:
        super().__init__()
        self.generator, self.critic = generator, critic

    def critic_loss(self, x: Tensor, z: Tensor, share: Tensor, weight: float = 10.0) -> Tensor:
        """Mean value of made images minus that of real ones, plus the penalty, ().

        Arguments:
            x: real images, (B, C, H, W) in [0, 1].
            z: as many latents.
            share: of the real image on each line, in [0, 1], (B,).
            weight: of the penalty.
        """
        with torch.no_grad():
            made = self.generator(z)
        gap = self.critic(made).mean() - self.critic(x).mean()
        return gap + weight * penalty(self.critic, x, made, share)

    def generator_loss(self, z: Tensor) -> Tensor:
        """Minus the mean value of made images, (); the critic gets no gradient."""
        return -held(self.critic, self.generator(z)).mean()


def penalty(critic: nn.Module, x: Tensor, made: Tensor, share: Tensor) -> Tensor:
    """The mean of (||grad critic|| - 1)^2 at share * x + (1 - share) * made, (); Eq. 3."""
    weight = share[:, None, None, None]
    between = (weight * x + (1 - weight) * made).detach().requires_grad_()
    (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    return (slope.flatten(1).norm(dim=1) - 1).square().mean()
