"""What all detectors share that compare an image with what a network of theirs makes of it.

Trained on good images, the network rebuilds an image; where the result differs from the image more
than it does on good images, there is an anomaly. The difference is squared (l2) or one minus the
structural similarity (ssim). None of them draws any noise.
"""

import abc
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from .. import scoring
from ..checks import at_least, one_of, share
from ..diffusion.augment import ALL as VIEWS
from ..diffusion.learning import drawn
from ..errors import UsageError
from ..noise import Noise, fresh
from ._moments import measured
from .base import PLAIN, Anomaly, Detector, Fitting, Images, Run, judged


def l2(x: Tensor, y: Tensor) -> Tensor:
    """The squared difference, mean over channels: (B, C, H, W) twice -> (B, H, W)."""
    return (x - y).square().mean(1)


def dissimilarity(x: Tensor, y: Tensor) -> Tensor:
    """1 - SSIM, mean over channels, in [0, 2]: (B, C, H, W) twice -> (B, H, W)."""
    return 1 - scoring.ssim(x, y).mean(1)


ERRORS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"l2": l2, "ssim": dissimilarity}


class Rebuilding(Detector):
    """A deterministic detector: noise and draws change nothing.

    A subclass has the settings named here, a network, and a way to train it.
    """

    PUBLISHED: ClassVar[float] = 1.0  # the share of the error whose mean is the published score
    size: int
    channels: int
    score: str = "l2"  # a name of ERRORS
    normalise: bool
    smooth: int
    top: float
    network: nn.Module
    typical: Tensor | None  # (1, H, W), mean error of good images
    spread: Tensor | None  # (1, H, W), its standard deviation over good images

    def __init__(self) -> None:
        super().__init__()
        self.spent: dict[str, float] = {}
        self.register_buffer("typical", None)
        self.register_buffer("spread", None)

    @abc.abstractmethod
    def _network(self) -> nn.Module:
        """A new network, (B, C, size, size) in [0, 1] -> the same shape."""

    @abc.abstractmethod
    def _learn(self, images: Images, run: Run) -> dict[str, float]:
        """Trains the network; returns the seconds it took."""

    def fit(self, images: Images, run: Run = PLAIN) -> Self:
        """Trains the network and measures what it makes of good images. It chooses nothing, so
        that `run.tune` is not looked at."""
        images = Fitting(images, self.channels, self.input_size)
        self.network = drawn(run.seed, self._network).to(run.device)
        self.typical = self.spread = None
        self.train()
        self.spent = self._learn(images, run)
        self.eval()
        return self.measure(images, run)

    def measure(self, images: Images, run: Run = PLAIN, sigma: float = 0.0) -> Self:
        """What good images show, without any training; each of them under Gaussian noise with
        standard deviation sigma, in the [0, 1] scale."""
        images = Fitting(images, self.channels, self.input_size)

        def maps(x: Tensor, noise: Noise) -> list[Tensor]:
            return [self._smoothed(self._error(x))]

        with torch.no_grad():
            [found] = measured(images, len(images), run, maps, sigma)
        self.typical, self.spread = (m.to(run.device) for m in (found.mean(), found.spread()))
        return self

    def under_noise(
        self, images: Images, run: Run = PLAIN, *, sigma: float, scoring: str = "plain"
    ) -> "Rebuilding":
        """The same network, measured under the noise."""
        kind: Any = type(self)
        other: Rebuilding = kind(**self.params)
        other.network.load_state_dict(self.network.state_dict())
        return other.to(next(self.parameters()).device).eval().measure(images, run, sigma)

    def forward(self, x: Tensor, noise: Noise = fresh, draws: int | None = None) -> Anomaly:
        """Scores images of any size, (B, C, H, W) in [0, 1], at the detector's own size.

        Differentiable; the map has the side of x. Raises ValueError before `fit`.
        """
        return self._judged(x)[0]

    def examine(self, x: Tensor, noise: Noise) -> tuple[Anomaly, dict[str, Tensor]]:
        """The anomaly and, beside it, the published score: the error as it is."""
        anomaly, error = self._judged(x)
        return anomaly, {"error": error}

    def _judged(self, x: Tensor) -> tuple[Anomaly, Tensor]:
        """The anomaly, and the published score of each image, (B,)."""
        if self.typical is None or self.spread is None:
            raise ValueError("this detector is not fitted: call fit, or load a fitted one")
        error = self._error(self.seen(x))
        found = self._smoothed(error)
        if self.normalise:
            found = scoring.normalised(found, self.typical, self.spread)
        else:
            found = found[:, 0]
        return judged(found, self.top, x), scoring.aggregate(error, self.PUBLISHED)

    def reconstruction(self, x: Tensor, noise: Noise = fresh) -> Tensor:
        """What x is compared with: (B, C, H, W) in [0, 1] scale."""
        return self.network(self.seen(x))

    def check(self) -> None:
        given = [None if m is None else tuple(m.shape) for m in (self.typical, self.spread)]
        fitted = (1, self.input_size, self.input_size)
        if given not in ([None] * 2, [fitted] * 2):
            raise ValueError(f"learnt shapes {given}, expected {fitted} twice")

    def cost(self) -> dict[str, Any]:
        return super().cost() | self.spent

    def _error(self, x: Tensor) -> Tensor:
        """(B, C, size, size) -> (B, size, size)."""
        return ERRORS[self.score](*self.compared(x, self.network(x)))

    @staticmethod
    def compared(x: Tensor, rebuilt: Tensor) -> tuple[Tensor, Tensor]:
        """The two sides of the error as they are; an attacker may look otherwise."""
        return x, rebuilt

    def _smoothed(self, error: Tensor) -> Tensor:
        """(B, size, size) -> (B, 1, size, size)."""
        return scoring.mean_filter(error, self.smooth)[:, None]


def check_rebuilding(given: Mapping[str, Any]) -> None:
    """Raises UsageError where a setting is impossible that a convolutional autoencoder has."""
    one_of("channels", given["channels"], (1, 3))
    for name in given["augment"]:
        one_of("augment", name, VIEWS)
    for name in ("size", "steps", "batch"):
        at_least(name, given[name], 1)
    at_least("rate", given["rate"], 0)
    share("top", given["top"])
    smooth, widths, size = given["smooth"], list(given["widths"]), given["size"]
    if smooth < 1 or smooth % 2 == 0:
        raise UsageError(f"smooth={smooth}: expected an odd number of pixels")
    if not widths or min(widths) < 1:
        raise UsageError(f"widths={widths}: expected numbers from 1 on")
    multiple = 2 ** len(widths)
    if size % multiple:
        raise UsageError(
            f"size={size}: with {len(widths)} widths it must be a multiple of {multiple}"
        )
