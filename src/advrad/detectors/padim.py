"""PaDiM: at each place of the image, a Gaussian of what good images show there.

Defard et al., 2021 (https://arxiv.org/abs/2011.08785): frozen features of several strides at one
size, a random selection of their channels, mean and covariance of these at every place, and the
Mahalanobis distance to them as score. It supposes that every image shows the same view.

Mean and covariance come from sums, so that a hundred thousand images need no more room than one.
"""

import logging
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from ..checks import at_least, plain
from ..networks import Features
from ..networks.features import stacked
from ..noise import Noise, fresh
from . import _patches as patches
from ._backbone import check_backbone, filled, twin
from .base import PLAIN, Anomaly, Detector, Fitting, Images, Run, judged

RIDGE = 0.01  # the paper's epsilon, added to each variance (Section III.B)


class PaDiM(Detector):
    """A deterministic detector: noise and draws change nothing.

    Arguments:
        size: side of the images that the backbone sees, in pixels.
        channels: 1 for grey, 3 for colour; the backbone sees three.
        backbone: a name of `networks.features.NETWORKS`.
        weights: a file for it, read by `fit` alone; None for those of its package.
        strides: of the features, of 4, 8, 16 and 32; the first decides how many places there are.
        dims: channels that are drawn, at most as many as there are. Each place keeps dims ** 2
            numbers; below dims + 1 good images a covariance rests on its ridge, which is said.
        blur: standard deviation in pixels of the map's filter.

    Raises UsageError where a setting is impossible.
    """

    dims: int
    blur: float
    picked: Tensor | None  # (d,), numbers of channels
    typical: Tensor | None  # (n, d), the mean of good images at each place
    whitening: Tensor | None  # (n, d, d), W with W^T W = covariance^-1, lower triangular

    def __init__(
        self,
        size: int = 224,
        channels: int = 3,
        backbone: str = "lite0",
        weights: str | None = None,
        strides: Sequence[int] = (8, 16),
        dims: int = 100,
        blur: float = 4.0,
    ) -> None:
        given = {k: plain(v) for k, v in locals().items() if k not in ("self", "__class__")}
        super().__init__()
        check_backbone(given)
        at_least("dims", dims, 1)
        at_least("blur", blur, 0)
        for name, value in given.items():
            setattr(self, name, value)
        self.features = Features(backbone, tuple(strides))
        for name in ("picked", "typical", "whitening"):
            self.register_buffer(name, None)

    def fit(self, images: Images, run: Run = PLAIN) -> Self:
        """Measures good images; nothing is trained, and nothing is chosen but by the seed."""
        images = Fitting(images, self.channels, self.input_size)
        self.features = filled(self, run.device)
        wide = sum(self.features.channels())
        order = torch.randperm(wide, generator=torch.Generator().manual_seed(run.seed))
        self.picked = order[: self.dims].sort().values.to(run.device)
        return self.measure(images, run)

    def measure(self, images: Images, run: Run = PLAIN, sigma: float = 0.0) -> Self:
        """The Gaussians of good images, each image under Gaussian noise with standard deviation
        sigma, in the [0, 1] scale; backbone and channels stay."""
        images = Fitting(images, self.channels, self.input_size)
        self.typical = self.whitening = None
        total = products = torch.zeros((), dtype=torch.float64, device=run.device)
        look = lambda x: self._embedded(x)[0]
        for rows in patches.walked(images, run, look, sigma):
            at = rows.double().transpose(0, 1)  # (n, B, d)
            total, products = total + at.sum(1), products + at.mT @ at
        if len(images) <= total.shape[1]:
            logging.getLogger("advrad").warning(
                f"{len(images)} good images for the covariance of {total.shape[1]} channels: its "
                f"ridge fills what they leave open; better are {total.shape[1] + 1} images or "
                f"more, or a smaller dims"
            )
        mean, covariance = gaussians(len(images), total, products)
        self.typical, self.whitening = mean.float(), whitening(covariance).float()
        return self.eval()

    def under_noise(
        self, images: Images, run: Run = PLAIN, *, sigma: float, scoring: str = "plain"
    ) -> "PaDiM":
        """The same backbone and channels, with Gaussians of images under the noise."""
        other = twin(self)
        other.picked = self.picked
        return other.measure(images, run, sigma)

    def forward(self, x: Tensor, noise: Noise = fresh, draws: int | None = None) -> Anomaly:
        """Scores images of any size, (B, C, H, W) in [0, 1], at the detector's own size: the
        score is the maximum of the map there.

        Differentiable; the map has the side of x. Raises ValueError before `fit`.
        """
        if self.picked is None or self.typical is None or self.whitening is None:
            raise ValueError("this detector is not fitted: call fit, or load a fitted one")
        rows, side = self._embedded(self.seen(x))
        where = mahalanobis(rows, self.typical, self.whitening).unflatten(1, side)
        return judged(patches.mapped(where, self.input_size, self.blur), 0.0, x)

    def _embedded(self, x: Tensor) -> tuple[Tensor, torch.Size]:
        """The channels that were drawn at each place, (B, n, d), and the places' sides."""
        maps = stacked(self.features(x))[:, self.picked]
        return patches.rows(maps), maps.shape[-2:]

    def check(self) -> None:
        if self.picked is None or self.typical is None or self.whitening is None:
            return
        wide = min(self.dims, sum(self.features.channels()))
        given = [tuple(t.shape) for t in (self.picked, self.typical, self.whitening)]
        with torch.no_grad():
            like = torch.zeros(1, self.channels, self.input_size, self.input_size)
            places = self.features(like.to(self.typical.device))[0][0, 0].numel()
        expected = [(wide,), (places, wide), (places, wide, wide)]
        if given != expected:
            raise ValueError(f"learnt shapes {given}, expected {expected}")

    def cost(self) -> dict[str, Any]:
        kept = 0 if self.whitening is None else self.whitening.numel()
        return super().cost() | {"memorised": kept}


def gaussians(count: int, total: Tensor, products: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance of `count` vectors from their sum (..., d) and the sum of their outer
    products (..., d, d): Sigma = 1 / (N - 1) sum (x - mu) (x - mu)^T + epsilon I (Eq. 1).

    Of a single vector it is epsilon I.
    """
    mean = total / count
    scatter = products - count * mean[..., :, None] * mean[..., None, :]
    ridge = RIDGE * torch.eye(total.shape[-1], dtype=total.dtype, device=total.device)
    return mean, scatter / max(1, count - 1) + ridge


def whitening(covariance: Tensor) -> Tensor:
    """W (..., d, d) with W^T W = covariance^-1."""
    factor = torch.linalg.cholesky(covariance)
    one = torch.eye(covariance.shape[-1], dtype=covariance.dtype, device=covariance.device)
    return torch.linalg.solve_triangular(factor, one.expand_as(covariance), upper=False)


def mahalanobis(rows: Tensor, mean: Tensor, white: Tensor) -> Tensor:
    """The root of (x - mu)^T Sigma^-1 (x - mu) (Eq. 2), of rows (B, n, d) with the Gaussians of
    each place, (n, d) and (n, d, d): (B, n)."""
    gaps = (rows - mean).transpose(0, 1)  # (n, B, d)
    return patches.root((gaps @ white.mT).square().sum(2)).T
