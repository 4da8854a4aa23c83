"""ZARND: distance to the nearest good images, in the features of a robust network.

Mirzaei et al., 2024 (https://arxiv.org/abs/2501.15271): nothing is trained. A network that was
trained adversarially on ImageNet, the weights of which are a file of the user's own, makes one
vector of an image: the mean of its last features, of length 1. The score is the squared distance
to the good images next to it, k = 2 of them as in the authors' code. An ordinary network's weights
are taken too, and give what the robust ones are compared with.

The paper has no map. Here it is what each place adds to the score, so that its mean is the score.
"""

from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from ..checks import at_least, plain
from ..networks import Features
from ..noise import Noise, fresh
from . import _patches as patches
from ._backbone import Memory, check_backbone
from .base import PLAIN, Anomaly, Fitting, Images, Run, as_large

LAST = 32  # the stride of the features that are averaged


class ZARND(Memory):
    """A deterministic detector: noise and draws change nothing.

    Arguments:
        size: side of the images that the backbone sees, in pixels.
        channels: 1 for grey, 3 for colour; the backbone sees three.
        backbone: a name of `networks.features.NETWORKS`.
        weights: a file for it, read by `fit` alone; None for those of its package.
        memory: good images that are kept; of more a sample is drawn.
        neighbours: nearest good images whose squared distances are averaged, at most as many as
            there are.

    Raises UsageError where a setting is impossible.
    """

    memory: int
    neighbours: int
    memorised: Tensor | None  # (m, D), each good image as a vector of length 1

    def __init__(
        self,
        size: int = 224,
        channels: int = 3,
        backbone: str = "resnet18",
        weights: str | None = None,
        memory: int = 10_000,
        neighbours: int = 2,
    ) -> None:
        given = {k: plain(v) for k, v in locals().items() if k not in ("self", "__class__")}
        super().__init__()
        check_backbone(given | {"strides": ()})
        at_least("memory", memory, 1)
        at_least("neighbours", neighbours, 1)
        for name, value in given.items():
            setattr(self, name, value)
        self.features = Features(backbone, (LAST,))
        self.register_buffer("memorised", None)

    def memorise(self, images: Images, run: Run = PLAIN, sigma: float = 0.0) -> Self:
        """Fills the memory anew, with good images under Gaussian noise with standard deviation
        sigma, in the [0, 1] scale; the backbone stays."""
        images = Fitting(images, self.channels, self.input_size)
        self.memorised = None
        look = lambda x: F.normalize(self._features(x).mean((2, 3)))
        walked = patches.walked(images, run, look, sigma)
        self.memorised = patches.reservoir(walked, self.memory, run.seed)
        return self.eval()

    def forward(self, x: Tensor, noise: Noise = fresh, draws: int | None = None) -> Anomaly:
        """Scores images of any size, (B, C, H, W) in [0, 1], at the detector's own size.

        Differentiable; the map has the side of x. Raises ValueError before `fit`.
        """
        if self.memorised is None:
            raise ValueError("this detector is not fitted: call fit, or load a fitted one")
        maps = self._features(self.seen(x))
        where = added(maps, self._near(maps))
        return Anomaly(where.mean((1, 2)), as_large(where, x))

    @torch.no_grad()  # which ones they are has no slope
    def _near(self, maps: Tensor) -> Tensor:
        """The nearest good images of each, (B, k, D). Robust features lie close together, so that
        no distance is taken as a difference of squares."""
        assert self.memorised is not None
        one = F.normalize(maps.mean((2, 3)))
        apart = torch.cdist(one, self.memorised, compute_mode="donot_use_mm_for_euclid_dist")
        count = min(self.neighbours, len(self.memorised))
        return self.memorised[apart.topk(count, largest=False).indices]

    def _features(self, x: Tensor) -> Tensor:
        """The last features, (B, D, h, w)."""
        [maps] = self.features(x)
        return maps

    def check(self) -> None:
        [wide] = self.features.channels()
        given = None if self.memorised is None else tuple(self.memorised.shape)
        if given is not None and (len(given) != 2 or given[0] > self.memory or given[1] != wide):
            raise ValueError(f"a memory of {given}, expected ({self.memory} or fewer, {wide})")

    def cost(self) -> dict[str, Any]:
        kept = 0 if self.memorised is None else len(self.memorised)
        return super().cost() | {"memorised": kept}


def added(maps: Tensor, near: Tensor) -> Tensor:
    """What each place of the features f (B, D, h, w) adds to the mean squared distance of their
    normalised mean z to vectors m_k, (B, k, D): (B, h, w), whose mean is that distance.

    With f' = f / |mean f| and m the mean of m_k: (f' - m)(z - m) + mean |m_k - m|^2.
    """
    whole = maps.mean((2, 3))
    one, length = F.normalize(whole), whole.norm(dim=1).clamp_min(1e-12)
    middle = near.mean(1)
    apart = maps / length[:, None, None, None] - middle[..., None, None]
    among = (near - middle[:, None]).square().sum(2).mean(1)
    return torch.einsum("bdhw,bd->bhw", apart, one - middle) + among[:, None, None]
