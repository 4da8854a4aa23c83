"""SPADE: an image is anomalous that is far from the good images most like it.

Cohen and Hoshen, 2020 (https://arxiv.org/abs/2005.02357): frozen features averaged over the image
find its nearest good images, and their mean distance is the score; the map compares each place
with every place of those images.

The two distances are of different features. Here the map is brought to the scale of the score by
one number, measured on good images: the mean ratio of the two.
"""

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from ..checks import at_least, plain
from ..networks import Features
from ..networks.features import stacked
from ..noise import Noise, fresh
from ..scoring import aggregate
from ..tune import evenly
from . import _patches as patches
from ._backbone import Memory, check_backbone
from .base import PLAIN, Anomaly, Fitting, Images, Run, as_large

WHOLE = 32  # the stride of the features that are averaged over the image
SCALED = 32  # good images at most on which the map's scale is measured


class SPADE(Memory):
    """A deterministic detector: noise and draws change nothing.

    Arguments:
        size: side of the images that the backbone sees, in pixels.
        channels: 1 for grey, 3 for colour; the backbone sees three.
        backbone: a name of `networks.features.NETWORKS`.
        weights: a file for it, read by `fit` alone; None for those of its package.
        strides: of the features that the map compares, of 4, 8, 16 and 32.
        memory: good images that are kept; of more a sample is drawn.
        neighbours: nearest good images whose distances make the score (the paper's K), at most
            as many as there are.
        compared: of these, the nearest whose places the map compares; the paper takes all.
        blur: standard deviation in pixels of the map's filter.

    Raises UsageError where a setting is impossible.
    """

    strides: list[int]
    memory: int
    neighbours: int
    compared: int
    blur: float
    wholes: Tensor | None  # (m, E), each good image as one vector
    parts: Tensor | None  # (m, n, D), its patches
    scale: Tensor | None  # (), what the map is multiplied by

    def __init__(
        self,
        size: int = 224,
        channels: int = 3,
        backbone: str = "lite0",
        weights: str | None = None,
        strides: Sequence[int] = (8, 16),
        memory: int = 200,
        neighbours: int = 50,
        compared: int = 10,
        blur: float = 4.0,
    ) -> None:
        given = {k: plain(v) for k, v in locals().items() if k not in ("self", "__class__")}
        super().__init__()
        check_backbone(given)
        for name in ("memory", "neighbours", "compared"):
            at_least(name, given[name], 1)
        at_least("blur", blur, 0)
        for name, value in given.items():
            setattr(self, name, value)
        Features(backbone, tuple(strides))  # refuses what is no row of strides
        self.features = Features(backbone, tuple(dict.fromkeys([*strides, WHOLE])))
        for name in ("wholes", "parts", "scale"):
            self.register_buffer(name, None)

    def memorise(self, images: Images, run: Run = PLAIN, sigma: float = 0.0) -> Self:
        """Fills the gallery anew, with good images under Gaussian noise with standard deviation
        sigma, in the [0, 1] scale; the backbone stays."""
        images = Fitting(images, self.channels, self.input_size)
        self.wholes = self.parts = self.scale = None
        shape: list[torch.Size] = []

        def look(x: Tensor) -> Tensor:
            whole, parts, _ = self._embedded(x)
            shape[:] = [whole.shape[1:], parts.shape[1:]]
            return torch.cat([whole, parts.flatten(1)], 1)

        walked = patches.walked(images, run, look, sigma)
        rows = patches.reservoir(walked, self.memory, run.seed)
        self.wholes = rows[:, : shape[0][0]].clone()
        self.parts = rows[:, shape[0][0] :].unflatten(1, shape[1]).clone()
        self.scale = self._scale(run)
        return self.eval()

    def forward(self, x: Tensor, noise: Noise = fresh, draws: int | None = None) -> Anomaly:
        """Scores images of any size, (B, C, H, W) in [0, 1], at the detector's own size.

        Differentiable; the map has the side of x. Raises ValueError before `fit`.
        """
        if self.wholes is None or self.parts is None or self.scale is None:
            raise ValueError("this detector is not fitted: call fit, or load a fitted one")
        whole, rows, side = self._embedded(self.seen(x))
        near = self._near(whole)
        where = self.scale * self._apart(rows, near).unflatten(1, side)
        found = as_large(patches.mapped(where, self.input_size, self.blur), x)
        return Anomaly(self._far(whole, near), found)

    def _embedded(self, x: Tensor) -> tuple[Tensor, Tensor, torch.Size]:
        """Each image as one vector (B, E), its patches (B, n, D), and their sides."""
        maps = dict(zip(self.features.strides, self.features(x), strict=True))
        fine = stacked([maps[stride] for stride in self.strides])
        return maps[WHOLE].mean((2, 3)), patches.rows(fine), fine.shape[-2:]

    @torch.no_grad()  # which ones they are has no slope
    def _near(self, whole: Tensor, but: Tensor | None = None) -> Tensor:
        """The nearest good images of each, but one: their places in the gallery, (B, k)."""
        assert self.wholes is not None
        apart = patches.distances(whole, self.wholes)
        left = len(self.wholes)
        if but is not None:
            apart, left = apart.scatter(1, but[:, None], torch.inf), left - 1
        return apart.topk(min(self.neighbours, left), largest=False).indices

    def _far(self, whole: Tensor, near: Tensor) -> Tensor:
        """The mean distance to the nearest good images: (B,)."""
        assert self.wholes is not None
        gaps = whole[:, None] - self.wholes[near]
        return patches.root(gaps.square().sum(2)).mean(1)

    def _apart(self, rows: Tensor, near: Tensor) -> Tensor:
        """The distance of each patch to the nearest of those images' (kappa = 1)."""
        assert self.parts is not None
        with torch.no_grad():  # which one it is has no slope
            best, closest = torch.full_like(rows[..., 0], torch.inf), torch.empty_like(rows)
            for column in near[:, : self.compared].T:
                parts = self.parts[column]  # (B, n, D)
                apart, place = patches.behind(rows, parts).min(2)
                chosen = parts.gather(1, place[..., None].expand_as(rows))
                closest = torch.where((apart < best)[..., None], chosen, closest)
                best = torch.minimum(apart, best)
        return patches.root((rows - closest).square().sum(2))

    @torch.no_grad()
    def _scale(self, run: Run) -> Tensor:
        """The mean ratio of score and largest distance in the map, of good images among the rest;
        1 where there is no rest, or no ratio."""
        assert self.wholes is not None
        assert self.parts is not None
        count, report = len(self.wholes), run.stage("measuring good images")
        score = where = self.wholes.new_zeros(())
        chosen = evenly(count, min(count, SCALED)) if count > 1 else []
        for done, i in enumerate(chosen):
            report(done, len(chosen))
            near = self._near(self.wholes[i : i + 1], torch.tensor([i], device=run.device))
            score = score + self._far(self.wholes[i : i + 1], near)[0]
            where = where + aggregate(self._apart(self.parts[i : i + 1], near)[:, None])[0]
        known = bool(score > 0) and bool(where > 0)
        return score / where if known else torch.ones_like(score)

    def check(self) -> None:
        if self.wholes is None or self.parts is None:
            return
        wide = dict(zip(self.features.strides, self.features.channels(), strict=True))
        given = [tuple(self.wholes.shape), tuple(self.parts.shape[::2])]
        count, deep = len(self.wholes), sum(wide[stride] for stride in self.strides)
        if given != [(count, wide[WHOLE]), (count, deep)]:
            raise ValueError(f"a gallery of {given}, expected {count} x {wide[WHOLE]}, {deep}")

    def cost(self) -> dict[str, Any]:
        kept = 0 if self.wholes is None else len(self.wholes)
        return super().cost() | {"memorised": kept}
