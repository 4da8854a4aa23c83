"""A plain convolutional autoencoder: what it cannot rebuild is an anomaly.

Trained on good images, it squeezes an image through a narrow code; where the result differs from
the image more than it does on good images, there is an anomaly. The difference is squared (l2) or
one minus the structural similarity (ssim), and what is trained is what is scored. It draws no
noise.

Bergmann et al. (2019, https://arxiv.org/abs/1807.02011). Its score is the error itself,
`normalise=False, top=0`.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import torch
from torch import Tensor

from .. import scoring
from ..diffusion.augment import ALL as VIEWS
from ..diffusion.batches import Batches
from ..errors import UsageError
from ..networks import ConvolutionalAutoencoder
from ..noise import Noise, fresh
from ._checks import at_least, one_of, plain, share, typed
from ._learning import learn, short
from ._moments import measured
from .base import PLAIN, Anomaly, Detector, Fitting, Images, Run, judged


def l2(x: Tensor, y: Tensor) -> Tensor:
    """The squared difference, mean over channels: (B, C, H, W) twice -> (B, H, W)."""
    return (x - y).square().mean(1)


def dissimilarity(x: Tensor, y: Tensor) -> Tensor:
    """1 - SSIM, mean over channels, in [0, 2]: (B, C, H, W) twice -> (B, H, W)."""
    return 1 - scoring.ssim(x, y).mean(1)


ERRORS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"l2": l2, "ssim": dissimilarity}
TRAINED = ("size", "channels", "score", "widths", "latent", "steps", "batch", "rate", "augment")


@dataclass(frozen=True)
class Settings:
    """The meanings are those of Autoencoder's arguments."""

    size: int
    channels: int
    score: str
    normalise: bool
    smooth: int
    top: float
    widths: tuple[int, ...]
    latent: int
    steps: int
    batch: int
    rate: float
    augment: tuple[str, ...]


class Autoencoder(Detector):
    """A deterministic detector: noise and draws change nothing.

    Arguments:
        size: side of the images the network sees, in pixels.
        channels: 1 for grey, 3 for colour.
        score: the error that is trained and scored, a name of `ERRORS`.
        normalise: whether an error is measured as its deviation from what good images show at the
            same place, in units of what they vary by there; else it is taken as it is.
        smooth: side in pixels of the square over which errors are averaged, odd; 1 leaves them as
            they are.
        top: the share of the map whose mean is the score; 0 takes its maximum.
        widths, latent: of the network, see `ConvolutionalAutoencoder`.
        steps, batch, rate: of the training; the rate warms up and falls along half a cosine.
        augment: views of the training images, names of `diffusion.augment.ALL`.

    Raises UsageError where a setting is impossible.
    """

    typical: Tensor | None  # (1, H, W), mean error of good images
    spread: Tensor | None  # (1, H, W), its standard deviation over good images

    def __init__(
        self,
        size: int = 128,
        channels: int = 3,
        score: str = "l2",
        normalise: bool = True,
        smooth: int = 1,
        top: float = 0.001,
        widths: Sequence[int] = (16, 32, 64, 128),
        latent: int = 128,
        steps: int = 400,
        batch: int = 16,
        rate: float = 2e-3,
        augment: Sequence[str] = ("flips",),
    ) -> None:
        given = {k: plain(v) for k, v in locals().items() if k not in ("self", "__class__")}
        super().__init__()
        self.settings: Settings = typed(Settings, given)
        _check(self.settings)
        for name, value in given.items():
            setattr(self, name, value)
        self.network = self._network()
        self.spent: dict[str, float] = {}
        self.register_buffer("typical", None)
        self.register_buffer("spread", None)

    def fit(self, images: Images, run: Run = PLAIN) -> Self:
        """Trains the network and measures what it makes of good images. It chooses nothing, so
        that `run.tune` is not looked at."""
        images = Fitting(images, self.settings.channels, self.input_size)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(run.seed)
            self.network = self._network().to(run.device)
        self.typical = self.spread = None
        self.train()
        self._learn(images, run)
        self.eval()
        return self.measure(images, run)

    def measure(self, images: Images, run: Run = PLAIN, sigma: float = 0.0) -> Self:
        """What good images show, without any training; each of them under Gaussian noise with
        standard deviation sigma, in the [0, 1] scale."""
        images = Fitting(images, self.settings.channels, self.input_size)

        def maps(x: Tensor, noise: Noise) -> list[Tensor]:
            return [self._smoothed(self._error(x))]

        with torch.no_grad():
            [found] = measured(images, len(images), run, maps, sigma)
        self.typical, self.spread = (m.to(run.device) for m in (found.mean(), found.spread()))
        return self

    def under_noise(
        self, images: Images, run: Run = PLAIN, *, sigma: float, scoring: str = "plain"
    ) -> "Autoencoder":
        """The same network, measured under the noise."""
        other = Autoencoder(**self.params)
        other.network.load_state_dict(self.network.state_dict())
        return other.to(next(self.parameters()).device).eval().measure(images, run, sigma)

    def forward(self, x: Tensor, noise: Noise = fresh, draws: int | None = None) -> Anomaly:
        """Scores images of any size, (B, C, H, W) in [0, 1], at the detector's own size.

        Differentiable; the map has the side of x. Raises ValueError before `fit`.
        """
        return self._judged(x)[0]

    def examine(self, x: Tensor, noise: Noise) -> tuple[Anomaly, dict[str, Tensor]]:
        """The anomaly and, beside it, Bergmann's score: the largest error as it is."""
        anomaly, error = self._judged(x)
        return anomaly, {"error": error}

    def _judged(self, x: Tensor) -> tuple[Anomaly, Tensor]:
        """The anomaly, and the largest error of each image, (B,)."""
        if self.typical is None or self.spread is None:
            raise ValueError("this detector is not fitted: call fit, or load a fitted one")
        fitted = self.seen(x)
        error = self._error(fitted)
        found = self._smoothed(error)
        if self.settings.normalise:
            found = scoring.normalised(found, self.typical, self.spread)
        else:
            found = found[:, 0]
        return judged(found, self.settings.top, x), scoring.aggregate(error)

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

    def resolved(self) -> dict[str, Any]:
        return asdict(self.settings)

    def _network(self) -> ConvolutionalAutoencoder:
        s = self.settings
        return ConvolutionalAutoencoder(s.channels, s.size, s.widths, s.latent)

    def _error(self, x: Tensor) -> Tensor:
        """(B, C, size, size) -> (B, size, size)."""
        return ERRORS[self.settings.score](*self.compared(x, self.network(x)))

    @staticmethod
    def compared(x: Tensor, rebuilt: Tensor) -> tuple[Tensor, Tensor]:
        """The two sides of the error as they are; an attacker may look otherwise."""
        return x, rebuilt

    def _smoothed(self, error: Tensor) -> Tensor:
        """(B, size, size) -> (B, 1, size, size)."""
        return scoring.mean_filter(error, self.settings.smooth)[:, None]

    def _learn(self, images: Images, run: Run) -> None:
        s = self.settings
        batches = Batches(images, s.batch, s.augment, run.seed, run.device)
        recipe = short(s.steps, s.rate)
        trained = {name: getattr(s, name) for name in TRAINED}
        self.spent = learn(
            self.network, lambda n: self._error(batches.draw(n)[0]).mean(), recipe, run, trained
        )


def _check(settings: Settings) -> None:
    one_of("channels", settings.channels, (1, 3))
    one_of("score", settings.score, ERRORS)
    for name in settings.augment:
        one_of("augment", name, VIEWS)
    for name in ("size", "latent", "steps", "batch"):
        at_least(name, getattr(settings, name), 1)
    at_least("rate", settings.rate, 0)
    share("top", settings.top)
    if settings.smooth < 1 or settings.smooth % 2 == 0:
        raise UsageError(f"smooth={settings.smooth}: expected an odd number of pixels")
    if not settings.widths or min(settings.widths) < 1:
        raise UsageError(f"widths={list(settings.widths)}: expected numbers from 1 on")
    multiple = 2 ** len(settings.widths)
    if settings.size % multiple:
        raise UsageError(
            f"size={settings.size}: with {len(settings.widths)} widths it must be a multiple of "
            f"{multiple}"
        )
