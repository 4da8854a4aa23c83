"""CFlow-AD: a patch is anomalous whose features are unlikely at its place among good ones.

Gudovskiy et al., 2022 (https://arxiv.org/abs/2107.12571): at every stride a flow of vectors, which
is told by a sinusoidal code where the vector lies, learns the density of frozen features. What is
trained is -log sigmoid(log p / C), with C channels, as its authors' code does.

Their score is max - exp(log p / C), up to a constant of the test set; it goes flat where a defect
is plain, and depends on the other images. The score here is what is trained, -log sigmoid(log p /
C): unbounded, and of one image alone; at a single stride the two order places alike.
"""

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from ..checks import at_least, plain, share
from ..errors import UsageError
from ..networks import Coupling, Features, Flow
from ..networks.flow import log_density, perceptron, rotation
from ..noise import Noise, fresh
from . import _flows as flows
from . import _patches as patches
from ._backbone import check_backbone
from .base import Anomaly, judged

CLAMP = 1.9


def positions(depth: int, height: int, width: int) -> Tensor:
    """The code of every place, (depth, height, width) in [-1, 1]; depth is a multiple of 4.

    Channel 2i of the first half is sin(column / 10^(4 * 2i / half)), channel 2i + 1 the cosine of
    the same; the second half says the row (Section 4.2).
    """
    half = depth // 2
    slow = torch.exp(torch.arange(0, half, 2) * -(math.log(1e4) / half))
    codes = []
    for length in (width, height):
        angle = slow[:, None] * torch.arange(length)
        codes.append(torch.stack([angle.sin(), angle.cos()], 1).flatten(0, 1))
    across, down = codes
    return torch.cat(
        [across[:, None].expand(-1, height, -1), down[:, :, None].expand(-1, -1, width)]
    )


class CFlow(flows.Flowing):
    """A deterministic detector: noise and draws change nothing.

    Arguments:
        size: side of the images that the backbone sees, in pixels.
        channels: 1 for grey, 3 for colour; the backbone sees three.
        backbone: a name of `networks.features.NETWORKS`.
        weights: a file for it, read by `fit` alone; None for those of its package.
        strides: of the features, of 4, 8, 16 and 32.
        top: the share of the map whose mean is the score; 0 takes its maximum.
        coupling: blocks of each flow.
        ratio: channels inside a block's network, as a multiple of those it sees.
        positions: channels of the code of a place, a multiple of 4.
        steps, batch, rate: of the training; the rate warms up and falls along half a cosine.
        places: patches of a batch that a step trains on, at each stride.

    Raises UsageError where a setting is impossible.
    """

    TRAINED: ClassVar[tuple[str, ...]] = (
        *("size", "channels", "backbone", "weights", "strides"),
        *("coupling", "ratio", "positions", "steps", "batch", "places", "rate"),
    )
    top: float
    coupling: int
    ratio: float
    positions: int
    places: int

    def __init__(
        self,
        size: int = 224,
        channels: int = 3,
        backbone: str = "lite0",
        weights: str | None = None,
        strides: Sequence[int] = (8, 16, 32),
        top: float = 0.0,
        coupling: int = 8,
        ratio: float = 2.0,
        positions: int = 128,
        steps: int = 500,
        batch: int = 8,
        places: int = 1024,
        rate: float = 1e-3,
    ) -> None:
        given = {k: plain(v) for k, v in locals().items() if k not in ("self", "__class__")}
        super().__init__()
        check_backbone(given)
        share("top", top)
        for name in ("coupling", "steps", "batch", "places"):
            at_least(name, given[name], 1)
        for name in ("ratio", "rate"):
            at_least(name, given[name], 0)
        if positions < 4 or positions % 4:
            raise UsageError(f"positions={positions}: expected a multiple of 4")
        for name, value in given.items():
            setattr(self, name, value)
        self.features = Features(backbone, tuple(strides))
        self.flows = self._flows()

    def forward(self, x: Tensor, noise: Noise = fresh, draws: int | None = None) -> Anomaly:
        """Scores images of any size, (B, C, H, W) in [0, 1], at the detector's own size.

        Differentiable; the map has the side of x. Raises ValueError before `fit`.
        """
        found = []
        for flow, maps in zip(self.flows, self._seen(self.seen(x)), strict=True):
            values = surprise(flow, *self._rows(maps))
            found.append(values.view(len(maps), *maps.shape[-2:]))
        return judged(flows.averaged(found, self.input_size), self.top, x)

    def check(self) -> None:
        wide = sum(self.features.channels())
        flows.check_moments(self.mean, self.spread, (wide, wide))

    def _flows(self) -> nn.ModuleList:
        def block(wide: int) -> Coupling:
            net, mixing = perceptron(self.ratio), rotation(wide)
            return Coupling(net, mixing, context=self.positions, clamp=CLAMP)

        wide = self.features.channels()
        return nn.ModuleList(Flow([block(w) for _ in range(self.coupling)]) for w in wide)

    def _maps(self, x: Tensor) -> list[Tensor]:
        return self.features(x)

    def _rows(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors (B * h * w, C) of a map, and the codes of their places."""
        codes = positions(self.positions, *maps.shape[-2:]).to(maps)
        spread = codes[None].expand(len(maps), -1, -1, -1)
        return patches.rows(maps).flatten(0, 1), patches.rows(spread).flatten(0, 1)

    def _loss(self, maps: list[Tensor], source: Generator) -> Tensor:
        found = [self._drawn(m, source) for m in maps]
        pairs = zip(self.flows, found, strict=True)
        return torch.stack([surprise(flow, *rows).mean() for flow, rows in pairs]).sum()

    def _drawn(self, maps: Tensor, source: Generator) -> tuple[Tensor, Tensor]:
        """At most `places` of the vectors of a map."""
        rows, codes = self._rows(maps)
        chosen = torch.randperm(len(rows), generator=source)[: self.places].to(rows.device)
        return rows[chosen], codes[chosen]


def surprise(flow: nn.Module, rows: Tensor, codes: Tensor) -> Tensor:
    """-log sigmoid(log p / C) of vectors (n, C) at coded places: (n,), at least 0."""
    return F.softplus(-log_density(*flow(rows, codes)))
