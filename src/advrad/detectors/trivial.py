"""Scores that need no learning, to keep every other one honest.

A detector that does not beat the mean brightness of the image has not understood it: on solar
cells brightness alone tells much. All are measured in units of what good images vary by.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from ..checks import at_least, one_of, plain
from ..noise import Noise, fresh
from ..scoring import enlarge
from . import _patches as patches
from ._moments import Moments, measured
from .base import PLAIN, Anomaly, Detector, Fitting, Images, Run

FLOOR = 1 / 255  # good images are not taken to vary by less than one grey level


class Way(NamedTuple):
    """One of the scores.

    Arguments:
        view: what is measured of good images, (B, C, H, W) -> (B, ...).
        judge: the score (B,) and the map (B, H, W), of images (B, C, H, W), their view's mean
            over good images, and the unit.
    """

    view: Callable[[Tensor], Tensor]
    judge: Callable[[Tensor, Tensor, Tensor], Anomaly]


def brightness(x: Tensor) -> Tensor:
    """The mean over all pixels and channels, (B,)."""
    return x.mean((1, 2, 3))


def contrast(x: Tensor) -> Tensor:
    """The standard deviation over pixels of the mean over channels, (B,)."""
    grey = x.mean(1)
    return patches.root((grey - grey.mean((1, 2), keepdim=True)).square().mean((1, 2)))


def _brighter(x: Tensor, typical: Tensor, unit: Tensor) -> Anomaly:
    """|mean - typical|, and what each pixel adds to it: the map's mean is the score."""
    return _summed((x.mean(1) - typical) / unit)


def _starker(x: Tensor, typical: Tensor, unit: Tensor) -> Anomaly:
    """|deviation - typical|, and what each pixel adds to it: the map's mean is the score.

    The standard deviation c is the mean of (x - mean)^2 / c. A constant image has c = 0, its
    least value, and no slope.
    """
    grey, c = x.mean(1), contrast(x)[:, None, None]
    squares = (grey - grey.mean((1, 2), keepdim=True)).square()
    return _summed((squares / c.clamp_min(patches.TINY**0.5) - typical) / unit)


def _summed(shares: Tensor) -> Anomaly:
    """The absolute mean, and the shares with the sign under which they make it."""
    mean = shares.mean((1, 2))
    return Anomaly(mean.abs(), shares * torch.where(mean < 0, -1.0, 1.0)[:, None, None])


def _unlike(x: Tensor, typical: Tensor, unit: Tensor) -> Anomaly:
    """The root mean square difference from the mean image, over the image and at each pixel."""
    squares = ((x - typical) / unit).square().mean(1)
    return Anomaly(patches.root(squares.mean((1, 2))), patches.root(squares))


SCORES: dict[str, Way] = {
    "brightness": Way(brightness, _brighter),
    "contrast": Way(contrast, _starker),
    "mean_image": Way(lambda x: x, _unlike),
}


class Trivial(Detector):
    """A deterministic detector: noise and draws change nothing.

    Arguments:
        size: side of the images that are measured, in pixels.
        channels: 1 for grey, 3 for colour.
        score: a name of `SCORES`: how far the mean brightness, or the contrast, is from that of
            good images, in standard deviations of these; or the root mean square difference from
            their mean image, in units of their own.

    Raises UsageError where a setting is impossible.
    """

    score: str
    typical: Tensor | None  # () or (C, H, W), the mean over good images
    unit: Tensor | None  # (), what they vary by

    def __init__(self, size: int = 128, channels: int = 3, score: str = "brightness") -> None:
        given = {k: plain(v) for k, v in locals().items() if k not in ("self", "__class__")}
        super().__init__()
        one_of("channels", channels, (1, 3))
        one_of("score", score, SCORES)
        at_least("size", size, 1)
        for name, value in given.items():
            setattr(self, name, value)
        self.register_buffer("typical", None)
        self.register_buffer("unit", None)

    def fit(self, images: Images, run: Run = PLAIN) -> Self:
        """Measures good images; nothing is trained, and nothing is chosen."""
        return self.measure(images, run)

    def measure(self, images: Images, run: Run = PLAIN, sigma: float = 0.0) -> Self:
        """The same of good images under Gaussian noise with standard deviation sigma, in the
        [0, 1] scale."""
        images = Fitting(images, self.channels, self.input_size)

        def views(x: Tensor, noise: Noise) -> Sequence[Tensor]:
            return [SCORES[self.score].view(x)]

        with torch.no_grad():
            [found] = measured(images, len(images), run, views, sigma)
        self.typical, self.unit = found.mean().to(run.device), _unit(found).to(run.device)
        return self.eval()

    def under_noise(
        self, images: Images, run: Run = PLAIN, *, sigma: float, scoring: str = "plain"
    ) -> "Trivial":
        """The same score, measured under the noise."""
        return Trivial(**self.params).measure(images, run, sigma)

    def forward(self, x: Tensor, noise: Noise = fresh, draws: int | None = None) -> Anomaly:
        """Scores images of any size, (B, C, H, W) in [0, 1], at the detector's own size.

        Differentiable; the map has the side of x. Raises ValueError before `fit`.
        """
        if self.typical is None or self.unit is None:
            raise ValueError("this detector is not fitted: call fit, or load a fitted one")
        score, found = SCORES[self.score].judge(self.seen(x), self.typical, self.unit)
        if found.shape[-2:] != x.shape[-2:]:
            found = enlarge(found[:, None], x.shape[-2:])[:, 0]
        return Anomaly(score, found)

    def check(self) -> None:
        if self.typical is None or self.unit is None:
            return
        with torch.no_grad():
            like = torch.zeros(1, self.channels, self.input_size, self.input_size)
            expected = SCORES[self.score].view(like).shape[1:]
        if self.typical.shape != expected or self.unit.shape != ():
            raise ValueError(f"a mean of shape {tuple(self.typical.shape)}, not {tuple(expected)}")

    def cost(self) -> dict[str, Any]:
        kept = 0 if self.typical is None else self.typical.numel()
        return super().cost() | {"memorised": kept}


def _unit(found: Moments) -> Tensor:
    """The root mean square of what good images vary by, a grey level at least: ()."""
    return found.spread().square().mean().sqrt().clamp_min(FLOOR)
