"""A plain convolutional autoencoder: what it cannot rebuild is an anomaly.

Trained on good images, it squeezes an image through a narrow code; where the result differs from
the image more than it does on good images, there is an anomaly. The difference is squared (l2) or
one minus the structural similarity (ssim), and what is trained is what is scored. It draws no
noise.

Bergmann et al. (2019, https://arxiv.org/abs/1807.02011). Its score is the error itself,
`normalise=False, top=0`.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..checks import at_least, one_of, plain, typed
from ..diffusion.batches import Batches
from ..diffusion.learning import learn, short
from ..networks import ConvolutionalAutoencoder
from ._rebuilding import ERRORS, Rebuilding, check_rebuilding
from .base import Images, Run

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


class Autoencoder(Rebuilding):
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

    PUBLISHED = 0.0  # the largest

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

    def resolved(self) -> dict[str, Any]:
        return asdict(self.settings)

    def _network(self) -> ConvolutionalAutoencoder:
        s = self.settings
        return ConvolutionalAutoencoder(s.channels, s.size, s.widths, s.latent)

    def _learn(self, images: Images, run: Run) -> dict[str, float]:
        s = self.settings
        batches = Batches(images, s.batch, s.augment, run.seed, run.device)
        trained = {name: getattr(s, name) for name in TRAINED}
        loss = lambda number: self._error(batches.draw(number)[0]).mean()
        return learn(self.network, loss, short(s.steps, s.rate), run, trained)


def _check(settings: Settings) -> None:
    one_of("score", settings.score, ERRORS)
    at_least("latent", settings.latent, 1)
    check_rebuilding(asdict(settings))
