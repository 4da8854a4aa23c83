"""Defense-GAN: the image is what a generator of clean images makes that is nearest to it.

Samangouei et al., 2018 (https://arxiv.org/abs/1805.06605). From R random latents, L steps of
gradient descent with momentum 0.7 lower the squared error between the generated image and the one
to be defended; the nearest of the R is the answer. As published: L = 200, R = 10, latents started
from N(0, 1 / latent), a rate of 10 * 0.1^(k / ceil(0.8 L)) at step k for the error of images in
[-1, 1], mean over pixels. Errors are told in [0, 1] scale.

The attacker's gradient is the exact one, of second order through every step of the search.
"""

import math
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from ..errors import UsageError
from ..networks.wgan import Generator
from ..noise import Noise, fresh
from ._search import Found, State, again, check_search, found, remade, squared_error, starts
from ._slope import slope

MOMENTUM = 0.7
SCALE = 4  # from the squared error in [0, 1] to that in [-1, 1]


def rate_at(k: int, iterations: int, rate: float = 10.0) -> float:
    """The learning rate of step k = 0, 1, ..."""
    return rate * 0.1 ** (k / math.ceil(0.8 * iterations))


@dataclass(frozen=True)
class DefenseGAN:
    """The purifier; `search` tells more than it. See `defensegan` for the arguments."""

    generator: Generator
    iterations: int
    restarts: int
    rate: float

    def __call__(self, x: Tensor, noise: Noise = fresh) -> Tensor:
        """The nearest of the restarts' images, (B, C, H, W) in [0, 1]."""
        return self.search(x, noise).best()

    def look(self, x: Tensor, noise: Noise = fresh) -> tuple[Tensor, Tensor]:
        """The purified images, and the published score of an attack: the error of the best
        restart, (B,)."""
        end = self.search(x, noise)
        return end.best(), end.errors.amin(0)

    def search(self, x: Tensor, noise: Noise = fresh) -> Found:
        """What each restart makes after the last step, and its error.

        Raises UsageError for images that are not of the generator's shape.
        """
        self._refuse_others(x)
        like = x.new_empty(len(x), self.generator.latent)
        z = starts(like, self.restarts, noise) / math.sqrt(self.generator.latent)
        target, velocity = again(x, self.restarts), z.new_zeros(z.shape)
        for k in range(self.iterations):
            z, velocity = remade(partial(self._moved, k=k), z, velocity, target)
        return found(self.generator(z), x)

    def _refuse_others(self, x: Tensor) -> None:
        if tuple(x.shape[1:]) != tuple(self.generator.shape):
            given, own = (" x ".join(map(str, s)) for s in (x.shape[1:], self.generator.shape))
            raise UsageError(
                f"images of {given}, and the generator makes {own}: give it those, or train one "
                "on images like these"
            )

    def _moved(self, z: Tensor, velocity: Tensor, target: Tensor, *, k: int) -> State:
        """One step of descent with momentum, differentiable."""
        g = slope(lambda z: SCALE * squared_error(self.generator(z), target), z, target)
        velocity = MOMENTUM * velocity + g
        return z - rate_at(k, self.iterations, self.rate) * velocity, velocity


def defensegan(
    generator: Generator, iterations: int = 200, restarts: int = 10, *, rate: float = 10.0
) -> DefenseGAN:
    """A purifier that searches for the latent of an image.

    Arguments:
        iterations: steps of the search (L).
        restarts: latents that are searched from at once (R).
        rate: of the first step.

    Raises UsageError where one of them is impossible.
    """
    check_search(iterations, restarts, rate=rate)
    return DefenseGAN(generator, iterations, restarts, rate)
