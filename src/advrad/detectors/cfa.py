"""CFA: frozen features adapted to good images, so that good patches crowd around a memory.

Lee et al., 2022 (https://arxiv.org/abs/2206.04325): one layer that knows its place in the image
(a CoordConv) is trained to bring each good patch within a radius of its K nearest memorised ones
and to keep it off the J after those; the score of a patch is its distance to the nearest, weighed
by how much nearer that is than the next.

The paper and its authors' code differ. The memory here is k-means over good patches, as the paper
begins it from the first image; the code takes the mean of the images at each place, and offers
k-means over these. `alpha` = 0.1 has the sign of the code, and so leaves a margin inside of the
radius. The radius is learnt, as in the authors' code; anomalib's stays what it is at first.
Adam takes the place of AdamW with amsgrad, whose decay of 5e-7 a step does not show.
"""

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from ..checks import at_least, plain
from ..diffusion import Recipe
from ..diffusion.batches import Batches
from ..diffusion.learning import drawn, learn
from ..errors import DataError
from ..networks import Features
from ..noise import Noise, fresh
from . import _patches as patches
from ._backbone import check_backbone, filled, twin
from ._clusters import kmeans
from .base import PLAIN, Anomaly, Detector, Fitting, Images, Run, judged

NU = 1e-3  # the paper's; one over it weighs the loss
SCORED = ("blur",)  # settings on which the weights do not depend


class Descriptor(nn.Module):
    """Features (B, D, h, w) -> adapted ones of the same shape, of each place by itself.

    It sees the place too, from -1 to 1 in both directions (Liu et al., 2018,
    https://arxiv.org/abs/1807.03247), and keeps the radius that is learnt with it.
    """

    def __init__(self, wide: int, radius: float) -> None:
        super().__init__()
        self.layer = nn.Conv2d(wide + 2, wide, 1)
        self.radius = nn.Parameter(torch.tensor(radius))

    def forward(self, maps: Tensor) -> Tensor:
        row, column = (torch.linspace(-1, 1, side).to(maps) for side in maps.shape[-2:])
        place = torch.stack(torch.meshgrid(row, column, indexing="ij"))
        return self.layer(torch.cat([maps, place.expand(len(maps), -1, -1, -1)], 1))


class CFA(Detector):
    """A deterministic detector: noise and draws change nothing.

    Arguments:
        size: side of the images that the backbone sees, in pixels.
        channels: 1 for grey, 3 for colour; the backbone sees three.
        backbone: a name of `networks.features.NETWORKS`.
        weights: a file for it, read by `fit` alone; None for those of its package.
        strides: of the features, of 4, 8, 16 and 32.
        memory: centres of good patches that are kept.
        pool: patches of which they are the centres; of more a sample is drawn.
        neighbours: memorised patches that draw a patch, and weigh its score (the paper's K).
        negatives: those after them that repel it (the paper's J).
        alpha: squared distance inside of the radius up to which they do not.
        radius: with which the training begins.
        steps, batch, rate: of the training.
        blur: standard deviation in pixels of the map's filter.

    Raises UsageError where a setting is impossible.
    """

    memory: int
    pool: int
    neighbours: int
    negatives: int
    alpha: float
    radius: float
    steps: int
    batch: int
    rate: float
    blur: float
    centres: Tensor | None  # (m, D)

    def __init__(
        self,
        size: int = 224,
        channels: int = 3,
        backbone: str = "lite0",
        weights: str | None = None,
        strides: Sequence[int] = (8, 16),
        memory: int = 784,
        pool: int = 20_000,
        neighbours: int = 3,
        negatives: int = 3,
        alpha: float = 0.1,
        radius: float = 1e-5,
        steps: int = 200,
        batch: int = 4,
        rate: float = 1e-3,
        blur: float = 4.0,
    ) -> None:
        given = {k: plain(v) for k, v in locals().items() if k not in ("self", "__class__")}
        super().__init__()
        check_backbone(given)
        for name in ("memory", "pool", "neighbours", "steps", "batch"):
            at_least(name, given[name], 1)
        for name in ("negatives", "radius", "rate", "blur"):
            at_least(name, given[name], 0)
        for name, value in given.items():
            setattr(self, name, value)
        self.features = Features(backbone, tuple(strides))
        self.descriptor = self._descriptor()
        self.spent: dict[str, float] = {}
        self.register_buffer("centres", None)

    def fit(self, images: Images, run: Run = PLAIN) -> Self:
        """Memorises patches as the descriptor sees them at first, and trains it. It chooses
        nothing, so that `run.tune` is not looked at."""
        images = Fitting(images, self.channels, self.input_size)
        self.features = filled(self, run.device)
        self.descriptor = drawn(run.seed, self._descriptor).to(run.device)
        self.memorise(images, run)
        self.train()
        self._learn(images, run)
        return self.eval()

    def memorise(self, images: Images, run: Run = PLAIN, sigma: float = 0.0) -> Self:
        """Takes the centres anew, of good images under Gaussian noise with standard deviation
        sigma, in the [0, 1] scale, as the present descriptor sees them.

        Raises DataError where they have fewer patches than the loss takes in.
        """
        images = Fitting(images, self.channels, self.input_size)
        self.centres = None
        look = lambda x: patches.rows(self._described(x)).flatten(0, 1)
        found = patches.reservoir(patches.walked(images, run, look, sigma), self.pool, run.seed)
        centres = kmeans(found, self.memory, run.seed, run.stage("choosing the memory"))
        needed = self.neighbours + self.negatives
        if len(centres) < needed:
            raise DataError(
                f"{len(images)} good images leave {len(centres)} patches in the memory: neighbours"
                f" and negatives need {needed}; give more images, or a larger memory"
            )
        self.centres = centres
        return self.eval()

    def under_noise(
        self, images: Images, run: Run = PLAIN, *, sigma: float, scoring: str = "plain"
    ) -> "CFA":
        """The same backbone and descriptor, with a memory of patches under the noise."""
        other = twin(self)
        other.descriptor.load_state_dict(self.descriptor.state_dict())
        return other.memorise(images, run, sigma)

    def forward(self, x: Tensor, noise: Noise = fresh, draws: int | None = None) -> Anomaly:
        """Scores images of any size, (B, C, H, W) in [0, 1], at the detector's own size: the
        score is the maximum of the map there.

        Differentiable; the map has the side of x. Raises ValueError before `fit`.
        """
        if self.centres is None:
            raise ValueError("this detector is not fitted: call fit, or load a fitted one")
        maps = self._described(self.seen(x))
        squares = patches.nearest(patches.rows(maps), self.centres, self.neighbours)
        where = certain(squares).unflatten(1, maps.shape[-2:])
        return judged(patches.mapped(where, self.input_size, self.blur), 0.0, x)

    def _described(self, x: Tensor) -> Tensor:
        """(B, C, size, size) -> adapted features (B, D, h, w)."""
        return self.descriptor(patches.embedded(self.features, x))

    def _descriptor(self) -> Descriptor:
        return Descriptor(sum(self.features.channels()), self.radius)

    def _learn(self, images: Images, run: Run) -> None:
        batches = Batches(images, self.batch, (), run.seed, run.device)
        recipe = Recipe(self.steps, self.rate, average=0, clip=0)
        trained = {k: v for k, v in self.params.items() if k not in SCORED}
        count = self.neighbours + self.negatives

        def loss(number: int) -> Tensor:
            assert self.centres is not None
            rows = patches.rows(self._described(batches.draw(number)[0]))
            squares = patches.nearest(rows, self.centres, count)
            return boundary(squares, self.descriptor.radius, self.neighbours, self.alpha)

        self.spent = learn(self.descriptor, loss, recipe, run, trained)

    def check(self) -> None:
        wide, least = sum(self.features.channels()), self.neighbours
        if self.centres is None:
            return
        if self.centres.shape[1:] != (wide,) or len(self.centres) < least:
            given = tuple(self.centres.shape)
            raise ValueError(f"a memory of {given}, expected ({least} or more, {wide})")

    def cost(self) -> dict[str, Any]:
        kept = 0 if self.centres is None else len(self.centres)
        return super().cost() | {"memorised": kept} | self.spent


def boundary(squares: Tensor, radius: Tensor, neighbours: int, alpha: float) -> Tensor:
    """The loss of squared distances d (..., K + J), from near to far: ().

    1 / nu (mean max(0, d_k - r^2) over the first K + mean max(0, r^2 - d_j - alpha) over the
    last J).
    """
    inside, beyond = squares[..., :neighbours], squares[..., neighbours:]
    attracted = (inside - radius**2).clamp_min(0).mean()
    if not beyond.shape[-1]:
        return attracted / NU
    return (attracted + (radius**2 - beyond - alpha).clamp_min(0).mean()) / NU


def certain(squares: Tensor) -> Tensor:
    """The score of patches from their squared distances to the K nearest, (..., K) -> (...): the
    least distance times its softmin among them."""
    apart = patches.root(squares)
    return (-apart).softmax(-1)[..., 0] * apart[..., 0]
