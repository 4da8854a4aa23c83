"""OCR-GAN: an autoencoder a band of frequency, trained against a discriminator.

Liang et al., 2022 (https://arxiv.org/abs/2203.00259). The networks, and where they differ from the
authors' code, are `networks.omnifrequency`'s. A training step adds up 50 times the absolute error
of the reconstruction, the discriminator's doubts about it, and how far its features are from the
image's; the discriminator learns to tell good images from reconstructions and from images into
which a piece of themselves is pasted. The published score, in [-1, 1] scale, is

    0.9 mean (x - x')^2 + 0.1 mean (f(x) - f(x'))^2,    x' the reconstruction, f the features,

here of every pixel, with the mean over features the same at all of them: `normalise=False, top=1`.
It is reported beside the own score, which sees small defects better.

What differs: both players move in the same step, by Adam's usual momentum, and what is kept is the
average of their weights. The published figures are those of the epoch that does best on the test
set; here no test image takes part.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from ..checks import at_least, plain, share, typed
from ..data.defects import cut_paste
from ..data.shapes import MIN_SIDE
from ..diffusion.batches import Batches
from ..diffusion.learning import learn, short
from ..errors import UsageError
from ..networks import OmniFrequency
from ..networks.gan import held, taken_for_made, taken_for_real
from ..noise import Fixed
from ._rebuilding import Rebuilding, check_rebuilding, l2
from .base import Images, Run

TRAINED = (
    *("size", "channels", "bands", "widths", "latent", "weights", "pasted"),
    *("steps", "batch", "rate", "augment"),
)


@dataclass(frozen=True)
class Settings:
    """The meanings are those of OCRGAN's arguments."""

    size: int
    channels: int
    bands: int
    felt: float
    normalise: bool
    smooth: int
    top: float
    widths: tuple[int, ...]
    latent: int
    weights: tuple[float, ...]
    pasted: bool
    steps: int
    batch: int
    rate: float
    augment: tuple[str, ...]


class OCRGAN(Rebuilding):
    """A deterministic detector: noise and draws change nothing.

    Arguments:
        size: side of the images the networks see, in pixels.
        channels: 1 for grey, 3 for colour.
        bands: of frequency, 2 to as many as there are widths.
        felt: the share of the features in the error; the rest is the squared difference's.
        normalise: whether an error is measured as its deviation from what good images show at the
            same place, in units of what they vary by there; else it is taken as it is.
        smooth: side in pixels of the square over which errors are averaged, odd; 1 leaves them as
            they are.
        top: the share of the map whose mean is the score; 0 takes its maximum.
        widths, latent: of the networks, see `OmniFrequency`.
        weights: of the reconstruction, the discriminator's doubts and the features in the loss.
        pasted: whether the discriminator also sees images with a piece pasted in.
        steps, batch, rate: of the training; the rate warms up and falls along half a cosine.
        augment: views of the training images, names of `diffusion.augment.ALL`.

    Raises UsageError where a setting is impossible.
    """

    network: OmniFrequency

    def __init__(
        self,
        size: int = 128,
        channels: int = 3,
        bands: int = 2,
        felt: float = 0.1,
        normalise: bool = True,
        smooth: int = 1,
        top: float = 0.01,
        widths: Sequence[int] = (16, 32, 64, 128),
        latent: int = 100,
        weights: Sequence[float] = (50.0, 1.0, 1.0),
        pasted: bool = True,
        steps: int = 400,
        batch: int = 16,
        rate: float = 5e-4,
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

    def _network(self) -> OmniFrequency:
        s = self.settings
        return OmniFrequency(s.channels, s.size, s.bands, s.widths, s.latent)

    def _error(self, x: Tensor) -> Tensor:
        """The published error of every pixel, (B, size, size)."""
        image, rebuilt = self.compared(x, self.network(x))
        (_, one), (_, other) = map(self.network.discriminator, (image, rebuilt))
        latent = (one - other).square().mean(1)
        felt = self.settings.felt
        return (1 - felt) * l2(2 * image, 2 * rebuilt) + felt * latent[:, None, None]

    def _learn(self, images: Images, run: Run) -> dict[str, float]:
        s = self.settings
        batches = Batches(images, s.batch, s.augment, run.seed, run.device)
        trained = {name: getattr(s, name) for name in TRAINED}
        loss = lambda number: self._loss(*batches.draw(number))
        return learn(self.network, loss, short(s.steps, s.rate), run, trained)

    def _loss(self, x: Tensor, source: Generator) -> Tensor:
        """The losses of both players: the gradient of each is its own player's alone, ()."""
        rebuild, doubt, feel = self.settings.weights
        made, judge = self.network(x), self.network.discriminator
        (verdict, felt), (real, at_real) = held(judge, made), judge(x)
        player = (
            rebuild * (2 * made - 2 * x).abs().mean()
            + doubt * taken_for_real(verdict)
            + feel * (felt - at_real.detach()).square().mean()
        )
        fake, at_fake = judge(made.detach())
        adversary = taken_for_real(real) + taken_for_made(fake)
        adversary = adversary + feel * (at_real - at_fake).square().mean()
        if self.settings.pasted:
            adversary = adversary + taken_for_made(judge(_pasted(x, source))[0])
        return player + adversary


def _pasted(x: Tensor, source: Generator) -> Tensor:
    """Each image with a piece of itself pasted in elsewhere."""
    seeds = torch.randint(2**62, (len(x),), generator=source).tolist()
    pairs = zip(x.clamp(0, 1).cpu(), seeds, strict=True)
    return torch.stack([cut_paste(image, Fixed(seed))[0] for image, seed in pairs]).to(x)


def _check(settings: Settings) -> None:
    check_rebuilding(asdict(settings))
    at_least("latent", settings.latent, 1)
    share("felt", settings.felt)
    if len(settings.weights) != 3 or not all(weight >= 0 for weight in settings.weights):
        raise UsageError(f"weights={list(settings.weights)}: expected three numbers from 0 on")
    if not 2 <= settings.bands <= len(settings.widths):
        raise UsageError(
            f"bands={settings.bands}: with {len(settings.widths)} widths, expected 2 to "
            f"{len(settings.widths)}"
        )
    if settings.pasted and settings.size < MIN_SIDE:
        raise UsageError(
            f"size={settings.size}: pieces are pasted into images of {MIN_SIDE} px or more; give "
            "pasted=false"
        )
