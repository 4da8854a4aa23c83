"""FastFlow: a place is anomalous whose features are unlikely among those of good images.

Yu et al., 2021 (https://arxiv.org/abs/2111.07677): at every stride a flow of convolutions, 3 x 3
and 1 x 1 in turn, learns the density of frozen features by maximum likelihood (Eq. 3).

Features are normalised image by image and, as the published layer norm has an offset for every
place, taken as their difference from what good images show there; else the padding of the backbone
makes every corner a defect. The default strides are those of CFlow; published are 4, 8 and 16 of a
ResNet, but the fine grain at stride 4 is the loudest in a mean of unbounded scores.

What is published, by gathierry and in anomalib, scores a place by -exp(-|z|^2 / 2C), averaged over
strides. That lies in [-1, 0] and goes flat where a defect is plain: at |z|^2 / C = 40 its slope is
1e-9 of its largest, and an attack by gradients would see nothing. The score here is the exponent,
which is unbounded and falls nowhere flat; at a single stride the two order places alike.
"""

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from ..checks import at_least, one_of, plain, share
from ..networks import Coupling, Features, Flow
from ..networks.flow import convolutions, log_density, permutation
from ..noise import Noise, fresh
from . import _flows as flows
from ._backbone import check_backbone
from .base import Anomaly, judged

KERNELS = (3, 1)  # in turn (Figure 2)


def latent(z: Tensor, log_det: Tensor) -> Tensor:
    """Half the mean square of z at every place: (B, C, h, w) -> (B, h, w)."""
    return z.square().mean(1) / 2


def likelihood(z: Tensor, log_det: Tensor) -> Tensor:
    """The negative logarithm of the density at every place, per channel: (B, h, w)."""
    return -log_density(z, log_det)


SCORES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "latent": latent,
    "likelihood": likelihood,
}


class FastFlow(flows.Flowing):
    """A deterministic detector: noise and draws change nothing.

    Arguments:
        size: side of the images that the backbone sees, in pixels.
        channels: 1 for grey, 3 for colour; the backbone sees three.
        backbone: a name of `networks.features.NETWORKS`.
        weights: a file for it, read by `fit` alone; None for those of its package.
        strides: of the features, of 4, 8, 16 and 32.
        score: what the flow makes of a place, a name of `SCORES`; the training is the same.
        top: the share of the map whose mean is the score; 0 takes its maximum.
        coupling: blocks of each flow.
        ratio: channels inside a block's network, as a share of those it sees.
        steps, batch, rate: of the training; the rate warms up and falls along half a cosine.

    Raises UsageError where a setting is impossible.
    """

    TRAINED: ClassVar[tuple[str, ...]] = (
        *("size", "channels", "backbone", "weights", "strides"),
        *("coupling", "ratio", "steps", "batch", "rate"),
    )
    LOCAL: ClassVar[bool] = True
    coupling: int
    ratio: float
    score: str
    top: float

    def __init__(
        self,
        size: int = 224,
        channels: int = 3,
        backbone: str = "lite0",
        weights: str | None = None,
        strides: Sequence[int] = (8, 16, 32),
        score: str = "latent",
        top: float = 0.0,
        coupling: int = 8,
        ratio: float = 1.0,
        steps: int = 300,
        batch: int = 16,
        rate: float = 2e-3,
    ) -> None:
        given = {k: plain(v) for k, v in locals().items() if k not in ("self", "__class__")}
        super().__init__()
        check_backbone(given)
        one_of("score", score, SCORES)
        share("top", top)
        for name in ("coupling", "steps", "batch"):
            at_least(name, given[name], 1)
        for name in ("ratio", "rate"):
            at_least(name, given[name], 0)
        for name, value in given.items():
            setattr(self, name, value)
        self.features = Features(backbone, tuple(strides))
        self.flows = self._flows()

    def forward(self, x: Tensor, noise: Noise = fresh, draws: int | None = None) -> Anomaly:
        """Scores images of any size, (B, C, H, W) in [0, 1], at the detector's own size.

        Differentiable; the map has the side of x. Raises ValueError before `fit`.
        """
        found = [SCORES[self.score](*flowed) for flowed in self._flowed(self._seen(self.seen(x)))]
        return judged(flows.averaged(found, self.input_size), self.top, x)

    def check(self) -> None:
        wide = self.features.channels()
        sides = [-(-self.input_size // stride) for stride in self.features.strides]
        places = sum(c * side**2 for c, side in zip(wide, sides, strict=True))
        flows.check_moments(self.mean, self.spread, (places, sum(wide)))

    def _flows(self) -> nn.ModuleList:
        nets = [convolutions(KERNELS[i % 2], self.ratio) for i in range(self.coupling)]
        return nn.ModuleList(
            Flow([Coupling(net, permutation(wide)) for net in nets])
            for wide in self.features.channels()
        )

    def _maps(self, x: Tensor) -> list[Tensor]:
        """Each image's features with mean 0 and standard deviation 1 at each stride."""
        return [F.layer_norm(m, m.shape[1:]) for m in self.features(x)]

    def _flowed(self, maps: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """z (B, C, h, w) and its logarithmic determinants (B, h, w), at each stride."""
        return [flow(m) for flow, m in zip(self.flows, maps, strict=True)]

    def _loss(self, maps: list[Tensor], source: Generator) -> Tensor:
        return torch.stack([likelihood(*f).mean() for f in self._flowed(maps)]).sum()
