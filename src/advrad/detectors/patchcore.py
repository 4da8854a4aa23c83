"""PatchCore: a patch is anomalous that is far from every patch of good images.

Roth et al., 2022 (https://arxiv.org/abs/2106.08265): frozen features, averaged over a
neighbourhood, a greedy coreset of them as memory, and the distance to the nearest one as score.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, Self

from torch import Tensor

from ..checks import at_least, plain
from ..diffusion.flop import told
from ..errors import DataError
from ..networks import Features
from ..noise import Noise, fresh
from . import _patches as patches
from ._backbone import Memory, check_backbone
from .base import PLAIN, Anomaly, Fitting, Images, Run, as_large


class PatchCore(Memory):
    """A deterministic detector: noise and draws change nothing.

    Arguments:
        size: side of the images that the backbone sees, in pixels.
        channels: 1 for grey, 3 for colour; the backbone sees three.
        backbone: a name of `networks.features.NETWORKS`.
        weights: a file for it, read by `fit` alone; None for those of its package.
        strides: of the features, of 4, 8, 16 and 32.
        memory: patches that are kept.
        pool: patches among which they are chosen; of more a sample is drawn.
        neighbours: memorised patches around the nearest one that weigh a score (the paper's b); 1
            leaves it as it is.
        blur: standard deviation in pixels of the map's filter.

    Raises UsageError where a setting is impossible.
    """

    memory: int
    pool: int
    neighbours: int
    blur: float
    memorised: Tensor | None  # (m, D)

    def __init__(
        self,
        size: int = 224,
        channels: int = 3,
        backbone: str = "lite0",
        weights: str | None = None,
        strides: Sequence[int] = (8, 16),
        memory: int = 4000,
        pool: int = 50_000,
        neighbours: int = 9,
        blur: float = 4.0,
    ) -> None:
        given = {k: plain(v) for k, v in locals().items() if k not in ("self", "__class__")}
        super().__init__()
        check_backbone(given)
        for name in ("memory", "pool", "neighbours"):
            at_least(name, given[name], 1)
        at_least("blur", blur, 0)
        for name, value in given.items():
            setattr(self, name, value)
        self.features = Features(backbone, tuple(strides))
        self.register_buffer("memorised", None)

    def memorise(self, images: Images, run: Run = PLAIN, sigma: float = 0.0) -> Self:
        """Chooses the memory anew, of good images under Gaussian noise with standard deviation
        sigma, in the [0, 1] scale; the backbone stays.

        Raises DataError where they have fewer patches than a score takes in.
        """
        images = Fitting(images, self.channels, self.input_size)
        self.memorised = None
        look = lambda x: patches.rows(patches.embedded(self.features, x)).flatten(0, 1)
        found = patches.reservoir(patches.walked(images, run, look, sigma), self.pool, run.seed)
        if len(found) < self.neighbours:
            raise DataError(
                f"{len(images)} good images have {len(found)} patches: neighbours="
                f"{self.neighbours} needs as many; give more images, or a smaller number"
            )
        report = run.stage("choosing the memory")
        choose = partial(patches.coreset, found, self.memory, run.seed, report)
        self.memorised = found[told(run, choose)]
        return self.eval()

    def forward(self, x: Tensor, noise: Noise = fresh, draws: int | None = None) -> Anomaly:
        """Scores images of any size, (B, C, H, W) in [0, 1], at the detector's own size.

        Differentiable; the map has the side of x. Raises ValueError before `fit`.
        """
        if self.memorised is None:
            raise ValueError("this detector is not fitted: call fit, or load a fitted one")
        maps = patches.embedded(self.features, self.seen(x))
        rows = patches.rows(maps)
        place = patches.closest(rows, self.memorised, 1)[..., 0]  # (B, n)
        nearest = patches.root((rows - self.memorised[place]).square().sum(2))
        where = nearest.unflatten(1, maps.shape[-2:])
        found = as_large(patches.mapped(where, self.input_size, self.blur), x)
        return Anomaly(self._weighed(rows, nearest, place), found)

    def _weighed(self, rows: Tensor, nearest: Tensor, place: Tensor) -> Tensor:
        """The largest distance, less where its memorised patch is a lonely one (Eq. 7).

        s = (1 - exp d(m, m*) / sum over the b nearest to m* of exp d(m, .)) max d.
        """
        assert self.memorised is not None
        furthest = nearest.argmax(1, keepdim=True)
        score = nearest.gather(1, furthest)[:, 0]
        if min(self.neighbours, len(self.memorised)) == 1:  # one is no neighbourhood
            return score
        patch = rows.gather(1, furthest[..., None].expand(-1, -1, rows.shape[2]))  # (B, 1, D)
        star = self.memorised[place.gather(1, furthest)[:, 0]]  # (B, D)
        support = patches.closest(star, self.memorised, min(self.neighbours, len(self.memorised)))
        gap = (patch - self.memorised[support]).square().sum(2)  # (B, b)
        return (1 - patches.root(gap).softmax(1)[:, 0]) * score

    def check(self) -> None:
        wide = sum(self.features.channels())
        if self.memorised is not None and self.memorised.shape[1:] != (wide,):
            raise ValueError(f"a memory of {tuple(self.memorised.shape)}, expected (m, {wide})")

    def cost(self) -> dict[str, Any]:
        kept = 0 if self.memorised is None else len(self.memorised)
        return super().cost() | {"memorised": kept}
