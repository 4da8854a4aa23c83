"""One purifier for the value, another for the gradient."""

from torch import Tensor

from ..attacks import bpda
from ..noise import Noise, fresh
from .base import Purifier


def surrogate(exact: Purifier, coarse: Purifier) -> Purifier:
    """The images of `exact`, to the bit, with the gradient of `coarse` under the same noise.

    Lee and Kim, 2023 (https://arxiv.org/abs/2303.09051), attack a chain through one with fewer
    steps. Of one depth, the two start from the same noisy image and draw the same noise at every
    level that both visit, so that nothing but the steps left out tells them apart. An attack
    through `coarse` alone is cheaper still, and ranks its iterates by it.
    """

    def purify(x: Tensor, noise: Noise = fresh) -> Tensor:
        return bpda(lambda x: exact(x, noise), lambda x: coarse(x, noise))(x)

    return purify
