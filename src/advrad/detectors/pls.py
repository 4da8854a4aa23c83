"""PLS (PrincipaLS): the code of an image is reduced to its principal part before it is decoded.

Lo et al., 2022 (https://arxiv.org/abs/2108.11168). The code is a map of vectors, Z (s places, v
channels). Vector-PCA leaves one number of the vector at each place, how much there is of the
first principal vector; spatial PCA leaves the first k_S principal parts of the map of these
numbers; both are then undone:

    Z_V = (Z - mu_V) U_V,   Z_S^T = (Z_V^T - mu_S) U_S,
    Z'_V^T = Z_S^T U_S^T + mu_S,   Z' = Z'_V U_V^T + mu_V.

An attack has no other room left in the code. Means and principal vectors follow those of each
batch as an exponential average, while the network is trained adversarially: every batch is
attacked by PGD on its own error, which is then lowered. In scoring all of them are constants.

Principal vectors have no sign and, when they are equally long, no order. A batch's are therefore
turned onto those so far (Procrustes) before they are averaged, and the average is made orthonormal
again, so that it stays a projection; the span of each is what counts, and turning keeps it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..attacks.ball import Linf
from ..attacks.pgd import pgd
from ..checks import at_least, plain, share
from ..diffusion.batches import Batches
from ..diffusion.learning import learn, noise_of, short
from ..networks import SpatialAutoencoder
from ._rebuilding import Rebuilding, check_rebuilding, l2
from .base import Images, Run

SCORED = ("normalise", "smooth", "top")  # settings on which the weights do not depend


class Axes(NamedTuple):
    """A mean (d,) and the principal vectors (d, k) kept around it."""

    mean: Tensor
    vectors: Tensor

    def forth(self, rows: Tensor) -> Tensor:
        """f(X) = (X - mu) U: (..., d) -> (..., k)."""
        return (rows - self.mean) @ self.vectors

    def back(self, rows: Tensor) -> Tensor:
        """g(X) = X U^T + mu: (..., k) -> (..., d)."""
        return rows @ self.vectors.mT + self.mean


class Principal(NamedTuple):
    """The axes of the vectors, and of the maps of what is left of them."""

    vectors: Axes
    maps: Axes

    def reduced(self, code: Tensor) -> Tensor:
        """Z' of Z, (B, s, v)."""
        maps = self.vectors.forth(code).mT  # (B, k_V, s)
        return self.vectors.back(self.maps.back(self.maps.forth(maps)).mT)


def axes(rows: Tensor, count: int) -> Axes:
    """The mean of rows (n, d), and the `count` eigenvectors of their covariance with the largest
    eigenvalues, from large to small."""
    mean = rows.mean(0)
    gaps = (rows - mean).double()
    _, vectors = torch.linalg.eigh(gaps.mT @ gaps / len(rows))
    return Axes(mean, vectors.flip(1)[:, :count].to(rows))


def principal(code: Tensor, vectors: int, maps: int) -> Principal:
    """The axes of codes (B, s, v): of all their vectors, then of the maps that these leave."""
    found = axes(code.flatten(0, 1), vectors)
    return Principal(found, axes(found.forth(code).mT.flatten(0, 1), maps))


def followed(old: Axes, new: Axes, share: float) -> Axes:
    """The exponential average, in which the new axes have the share given: orthonormal, and the
    span of the new ones where the share is 1."""
    mean = torch.lerp(old.mean, new.mean, share)
    turned = new.vectors @ orthonormal(new.vectors.mT @ old.vectors)
    return Axes(mean, orthonormal(torch.lerp(old.vectors, turned, share)))


def orthonormal(matrix: Tensor) -> Tensor:
    """The matrix (d, k) with orthonormal columns that is nearest: U V^T of U S V^T."""
    u, _, v = torch.linalg.svd(matrix.double(), full_matrices=False)
    return (u @ v).to(matrix)


class PrincipalAutoencoder(nn.Module):
    """(B, C, size, size) in [0, 1] -> the same shape, through the principal part of the code.

    Arguments:
        channels, size: of the images.
        widths: of the `SpatialAutoencoder`.
        vectors, maps: how many of the principal vectors (k_V) and maps (k_S) are kept.
    """

    NAMES = ("vector_mean", "vectors", "map_mean", "maps")

    def __init__(
        self, channels: int, size: int, widths: Sequence[int], vectors: int, maps: int
    ) -> None:
        super().__init__()
        self.whole = SpatialAutoencoder(channels, widths)
        places = (size >> len(widths)) ** 2
        self.counts = min(vectors, widths[-1]), min(maps, places)
        for name, wide, count in zip(
            ("vector", "map"), (widths[-1], places), self.counts, strict=True
        ):
            self.register_buffer(f"{name}_mean", torch.zeros(wide))
            self.register_buffer(f"{name}s", torch.eye(wide)[:, :count].contiguous())

    @property
    def principal(self) -> Principal:
        """What the code is reduced to."""
        one, two, three, four = (self.get_buffer(name) for name in self.NAMES)
        return Principal(Axes(one, two), Axes(three, four))

    @torch.no_grad()
    def take(self, found: Principal) -> None:
        """Reduces the code to these from now on."""
        for name, value in zip(self.NAMES, (*found.vectors, *found.maps), strict=True):
            self.get_buffer(name).copy_(value)

    def forward(self, x: Tensor) -> Tensor:
        return self.rebuilt(x, self.encode(x), self.principal)

    def encode(self, x: Tensor) -> Tensor:
        """The code, (B, s, v) between 0 and 1."""
        return self.whole.encode(x).flatten(2).mT

    def rebuilt(self, x: Tensor, code: Tensor, to: Principal) -> Tensor:
        """The image of a reduced code, as large as x."""
        side = round(code.shape[1] ** 0.5)
        return self.whole.decode(to.reduced(code).mT.unflatten(2, (side, side)))

    @torch.no_grad()
    def following(self, code: Tensor, share: float) -> Principal:
        """The principal part after these codes, (B, s, v), in which they have the share given.

        The maps are those that the new vectors leave.
        """
        vectors = followed(self.principal.vectors, axes(code.flatten(0, 1), self.counts[0]), share)
        maps = axes(vectors.forth(code).mT.flatten(0, 1), self.counts[1])
        return Principal(vectors, followed(self.principal.maps, maps, share))


class PLS(Rebuilding):
    """A deterministic detector: noise and draws change nothing.

    Arguments:
        size: side of the images the network sees, in pixels.
        channels: 1 for grey, 3 for colour.
        vectors: principal vectors of the code that are kept (k_V).
        maps: principal maps of each that are kept (k_S).
        follow: the share of a batch in the exponential average of means and principal vectors.
        eps: radius of the attack in training, in l_inf.
        attack: steps of it; 0 trains on images as they are.
        normalise: whether an error is measured as its deviation from what good images show at the
            same place, in units of what they vary by there; else it is taken as it is.
        smooth: side in pixels of the square over which errors are averaged, odd; 1 leaves them as
            they are.
        top: the share of the map whose mean is the score; 0 takes its maximum, 1 is the paper's.
        widths: channels of each level of the network, from fine to coarse.
        steps, batch, rate: of the training; the rate warms up and falls along half a cosine.
        augment: views of the training images, names of `diffusion.augment.ALL`.

    Raises UsageError where a setting is impossible.
    """

    vectors: int
    maps: int
    follow: float
    eps: float
    attack: int
    widths: list[int]
    steps: int
    batch: int
    rate: float
    augment: list[str]
    network: PrincipalAutoencoder

    def __init__(
        self,
        size: int = 128,
        channels: int = 3,
        vectors: int = 1,
        maps: int = 8,
        follow: float = 0.1,
        eps: float = 2 / 255,
        attack: int = 5,
        normalise: bool = True,
        smooth: int = 1,
        top: float = 0.001,
        widths: Sequence[int] = (16, 32, 64, 64),
        steps: int = 400,
        batch: int = 16,
        rate: float = 2e-3,
        augment: Sequence[str] = ("flips",),
    ) -> None:
        given = {k: plain(v) for k, v in locals().items() if k not in ("self", "__class__")}
        super().__init__()
        check_rebuilding(given)
        _check(given)
        for name, value in given.items():
            setattr(self, name, value)
        self.network = self._network()

    def _network(self) -> PrincipalAutoencoder:
        return PrincipalAutoencoder(
            self.channels, self.input_size, self.widths, self.vectors, self.maps
        )

    def _learn(self, images: Images, run: Run) -> dict[str, float]:
        network, ball = self.network, Linf(self.eps)
        batches = Batches(images, self.batch, self.augment, run.seed, run.device)
        ahead: list[Principal] = []

        def own(x: Tensor) -> Tensor:
            return l2(x, network(x)).mean((1, 2))

        def loss(number: int) -> Tensor:
            x, source = batches.draw(number)
            if number == 1:
                network.take(principal(network.encode(x).detach(), *network.counts))
            if self.attack:
                noise = noise_of(source)
                x = pgd(own, x.clamp(0, 1), ball, steps=self.attack, keep="last", noise=noise)
            code = network.encode(x)
            ahead[:] = [network.following(code.detach(), self.follow)]
            return l2(x, network.rebuilt(x, code, ahead[0])).mean()

        trained = {k: v for k, v in self.params.items() if k not in SCORED}
        recipe = replace(short(self.steps, self.rate), average=0.0)  # axes are of the last weights
        return learn(network, loss, recipe, run, trained, lambda: network.take(ahead[0]))


def _check(given: Mapping[str, Any]) -> None:
    for name in ("vectors", "maps"):
        at_least(name, given[name], 1)
    for name in ("eps", "attack"):
        at_least(name, given[name], 0)
    for name in ("follow", "eps"):
        share(name, given[name])
