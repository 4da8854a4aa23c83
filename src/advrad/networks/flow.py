"""Coupling flows: invertible networks whose Jacobian determinant is known.

A block changes one half of the channels by an affine map that the other half decides on (Dinh et
al., 2017, https://arxiv.org/abs/1605.08803, Eq. 7), then scales, shifts and mixes all of them
(Kingma and Dhariwal, 2018, https://arxiv.org/abs/1807.03039, Table 1); the logarithm of the
coupling's scale is softly clamped. It is the block that FastFlow and CFlow were published with,
FrEIA's (Ardizzone et al., 2018) AllInOneBlock.

zuko's couplings see vectors, one at a time: they have no place for FastFlow's convolutions, nor
for fixed rotations and learned scales between the couplings. One block serves vectors and maps
here, and zuko is what its numbers are tested against.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

Subnet = Callable[[int, int], nn.Module]  # channels in, channels out


def convolutions(kernel: int, ratio: float) -> Subnet:
    """Two convolutions of an odd kernel, with ratio * channels between them: for maps."""
    return lambda inputs, outputs: nn.Sequential(
        nn.Conv2d(inputs, hidden := max(1, int(ratio * inputs)), kernel, padding=kernel // 2),
        nn.ReLU(),
        nn.Conv2d(hidden, outputs, kernel, padding=kernel // 2),
    )


def perceptron(ratio: float) -> Subnet:
    """Two linear layers with ratio * channels between them: for vectors."""
    return lambda inputs, outputs: nn.Sequential(
        nn.Linear(inputs, hidden := max(1, int(ratio * inputs))),
        nn.ReLU(),
        nn.Linear(hidden, outputs),
    )


def permutation(channels: int) -> Tensor:
    """A drawn order of the channels, as a matrix."""
    return torch.eye(channels)[torch.randperm(channels)]


def rotation(channels: int) -> Tensor:
    """A drawn orthogonal matrix."""
    return nn.init.orthogonal_(torch.empty(channels, channels))


class Coupling(nn.Module):
    """One block: vectors (B, C) or maps (B, C, h, w), C at least 2, to the same shape.

        s, t = 0.1 subnet(x_1, context), x_2 <- x_2 exp(clamp tanh s) + t,
        z = mixing ((x_1, x_2) exp(log_scale) + offset)

    Arguments:
        subnet: makes the network of s and t, which may be anything that keeps places.
        mixing: an orthogonal matrix (C, C), which is not learnt.
        context: channels of the condition; 0 for none.
        clamp: the largest logarithm of a coupling's scale.
    """

    mixing: Tensor

    def __init__(
        self, subnet: Subnet, mixing: Tensor, *, context: int = 0, clamp: float = 2.0
    ) -> None:
        super().__init__()
        channels = len(mixing)
        self.clamp, self.halves = clamp, [channels - channels // 2, channels // 2]
        self.subnet = subnet(self.halves[0] + context, 2 * self.halves[1])
        self.log_scale = nn.Parameter(torch.zeros(channels))
        self.offset = nn.Parameter(torch.zeros(channels))
        self.register_buffer("mixing", mixing)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """z, and what each place adds to log |det dz / dx|: (B,), or (B, h, w) for maps."""
        one, two = x.split(self.halves, 1)
        s, t = self._decided(one, context)
        z = torch.cat([one, two * s.exp() + t], 1)
        z = z * self._along(self.log_scale, x).exp() + self._along(self.offset, x)
        return torch.einsum("ij,bj...->bi...", self.mixing, z), s.sum(1) + self.log_scale.sum()

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """The x that forward makes z of."""
        x = torch.einsum("ji,bj...->bi...", self.mixing, z)
        x = (x - self._along(self.offset, x)) * (-self._along(self.log_scale, x)).exp()
        one, two = x.split(self.halves, 1)
        s, t = self._decided(one, context)
        return torch.cat([one, (two - t) * (-s).exp()], 1)

    def _decided(self, one: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        given = one if context is None else torch.cat([one, context], 1)
        s, t = (0.1 * self.subnet(given)).chunk(2, 1)
        return self.clamp * s.tanh(), t

    @staticmethod
    def _along(values: Tensor, x: Tensor) -> Tensor:
        """(C,) to be broadcast over x's places."""
        return values.view(-1, *[1] * (x.ndim - 2))


class Flow(nn.Module):
    """Blocks one after the other. A block's arguments are those of `Coupling`."""

    def __init__(self, blocks: Sequence[Coupling]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """z, and what each place adds to log |det dz / dx|."""
        total = x.new_zeros(())
        for block in self.blocks:
            x, log_det = block(x, context)
            total = total + log_det
        return x, total

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """The x that forward makes z of."""
        for block in reversed(self.blocks):
            z = block.inverse(z, context)  # type: ignore[operator]
        return z


def log_density(z: Tensor, log_det: Tensor) -> Tensor:
    """log p(x) = log N(z; 0, 1) + log |det dz / dx|, at each place, in nats per channel.

    Over the places of a map they add up, times the channels, to the density of the whole map.
    """
    return (log_det / z.shape[1]) - 0.5 * (z.square().mean(1) + math.log(2 * math.pi))
