"""Purifiers as small as they get, each ready to be used; a new one adds its line to `READY`."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from toys import tiny

from advrad.diffusion import EpsDenoiser
from advrad.networks.wgan import Generator
from advrad.purifiers import ALL, Purifier

SIDE = 16


def network(seed: int = 0) -> EpsDenoiser:
    """A small U-Net whose last layer is not zero."""
    torch.manual_seed(seed)
    denoiser = tiny().denoiser.eval()
    for parameter in denoiser.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return denoiser.requires_grad_(False)


def uncentred(denoiser: EpsDenoiser) -> EpsDenoiser:
    """The same network for images in [0, 1], as DiffDefense's program has it."""
    return EpsDenoiser(denoiser.network, denoiser.schedule, centred=False)


def classifier(seed: int = 0, classes: int = 4) -> nn.Module:
    """Images (B, 1, SIDE, SIDE) in [0, 1] -> logits; smooth, and frozen."""
    torch.manual_seed(seed)
    layers = nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.Tanh(), nn.Flatten(),
        nn.Linear(4 * (SIDE // 2) ** 2, 8), nn.Tanh(), nn.Linear(8, classes),
    )  # fmt: skip
    return layers.eval().requires_grad_(False)


def images(count: int = 3) -> Tensor:
    """(count, 1, SIDE, SIDE) in [0, 1]."""
    return torch.rand(count, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(7))


def ready(name: str, double: bool = False) -> Purifier:
    """The purifier of that name; `double` in float64, for images in it."""
    denoiser, phi = network(), classifier()
    return READY[name](
        ALL[name], *((in_double(denoiser), phi.double()) if double else (denoiser, phi))
    )


def in_double(denoiser: EpsDenoiser) -> EpsDenoiser:
    """The same network in float64; it makes its embedding of the level in float32."""
    embed = denoiser.network.embed
    embed.register_forward_pre_hook(lambda layer, given: (given[0].double(),))
    return denoiser.double()


def generator(like: EpsDenoiser) -> Generator:
    """An untrained one, frozen, of the same precision."""
    torch.manual_seed(3)
    made = Generator(1, SIDE, latent=6, width=2).requires_grad_(False)
    return made.to(next(like.parameters()).dtype)


READY: dict[str, Callable[[Any, Any, nn.Module], Purifier]] = {
    "adbm": lambda make, denoiser, phi: make(denoiser, 60, 3, eta=0.5),
    "agdm": lambda make, denoiser, phi: make(denoiser, phi, 60, 3, scale=50.0),
    "defensegan": lambda make, denoiser, phi: make(generator(denoiser), 4, 3, rate=3.0),
    "denoised": lambda make, denoiser, phi: make(denoiser, 0.1),
    "diffdefense": lambda make, denoiser, phi: make(uncentred(denoiser), 3, 2, steps=4),
    "diffpure": lambda make, denoiser, phi: make(denoiser, 60, 3, rounds=2),
    "gdmp": lambda make, denoiser, phi: make(denoiser, 20, 4, rounds=2),
    "ode": lambda make, denoiser, phi: make(denoiser, 0.06, 0.02),
    "sde": lambda make, denoiser, phi: make(denoiser, 0.06, 0.02),
}
