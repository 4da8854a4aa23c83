"""AnoDDPM: AdvRAD's elder relative, with simplex noise and a long way back.

Wyatt et al., CVPRW 2022 (https://julianwyatt.co.uk/anoddpm): a diffusion model of good
images is trained under simplex noise of several octaves, which covers more of an image than white
noise of the same level; an image is taken 250 of 1000 levels deep and back, and where it differs
from the result there is an anomaly. The way back is the usual one, with white noise, as in the
authors' code.

The network, its training and its score are AdvRAD's, so that the noise and the way back are all
that differs between the two. Published is the squared error of the mean reconstruction, which is
reported beside the score as `error`, its largest value. `shots=250` is the published way back, one
level at a time; 1 is one-shot. `AnoDDPM(size=256, patch=1, widths=[128, 128, 256, 256, 512, 512],
blocks=2, attention=[16, 8], levels=[1, 800], steps=300_000, batch=1, rate=1e-4, shots=250)` is
close to the published recipe.

What differs: the noise, see `diffusion.simplex`; a jump's variance is that of the posterior, where
the authors take beta_t; x_t is not clipped, which would hide gradients.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor

from .. import scoring
from ..checks import at_least, one_of, plain, share, typed
from ..diffusion import EpsDenoiser, reconstruct
from ..diffusion.batches import DrawnLoss
from ..diffusion.learning import drawn, learn
from ..diffusion.loss import noise_error
from ..diffusion.recompute import Recomputed
from ..diffusion.simplex import Simplex
from ..errors import UsageError
from ..noise import Noise, Split, fresh, redraw
from ._moments import measured
from ._settings import TRAINED, Settings, checked, recipe, untrained
from .base import PLAIN, Anomaly, Detector, Fitting, Images, Run, judged


@dataclass(frozen=True)
class Colour:
    """The settings of the noise that is put in; the meanings are those of `Simplex`."""

    octaves: int
    persistence: float
    frequency: float


class AnoDDPM(Detector):
    """A stochastic detector; with many shots a slow one.

    Arguments:
        size: side of the images the network sees, in pixels.
        channels: 1 for grey, 3 for colour.
        depth: levels of noise put in (k).
        shots: jumps that lead back; 1 is one-shot, `depth` is the published chain.
        draws: draws of the noise whose errors are averaged.
        octaves, persistence, frequency: of the noise that is put in, see `Simplex`.
        score: a name of `scoring.SCORES`.
        top: the share of the map whose mean is the score; 0 takes its maximum.
        schedule, patch, widths, blocks, attention, levels: as AdvRAD's.
        steps, batch, rate, warmup, decay, average, clip: of the training, see `Recipe`.
        augment: views of the training images, names of `diffusion.augment.ALL`.
        precision: `float32` or `bfloat16` (mixed), the same in training, calibration and use.

    Raises UsageError where a setting is impossible.
    """

    typical: Tensor | None  # (K, H, W), mean error of good images
    spread: Tensor | None  # (K, H, W), its standard deviation over good images

    def __init__(
        self,
        size: int = 128,
        channels: int = 3,
        depth: int = 250,
        shots: int = 5,
        draws: int = 2,
        octaves: int = 6,
        persistence: float = 0.8,
        frequency: float = 2**-6,
        score: str = "deviation",
        top: float = 0.01,
        schedule: str = "linear",
        patch: int = 2,
        widths: Sequence[int] = (64, 96, 128, 128),
        blocks: int = 1,
        attention: Sequence[int] = (),
        levels: Sequence[int] = (1, 400),
        steps: int = 1000,
        batch: int = 16,
        rate: float = 5e-4,
        warmup: int = 50,
        decay: bool = True,
        average: float = 0.995,
        clip: float = 1.0,
        augment: Sequence[str] = ("flips",),
        precision: str = "bfloat16",
    ) -> None:
        given = {k: plain(v) for k, v in locals().items() if k not in ("self", "__class__")}
        super().__init__()
        for name, value in given.items():
            setattr(self, name, value)
        self.settings, self.colour = _settings(given)
        self.denoiser = self._denoiser()
        self.spent: dict[str, float] = {}
        self.register_buffer("typical", None)
        self.register_buffer("spread", None)

    def fit(self, images: Images, run: Run = PLAIN) -> Self:
        """Trains the denoiser and measures what it makes of good images. It chooses nothing, so
        that `run.tune` is not looked at."""
        images = Fitting(images, self.channels, self.input_size)
        self.denoiser = drawn(run.seed, self._denoiser).to(run.device)
        self.typical = self.spread = None
        self.train()
        self._learn(images, run)
        return self.eval().measure(images, run)

    def measure(self, images: Images, run: Run = PLAIN, sigma: float = 0.0) -> Self:
        """What good images show under the present settings, without any training; each of them
        under Gaussian noise with standard deviation sigma, in the [0, 1] scale."""
        images = Fitting(images, self.channels, self.input_size)

        def maps(x: Tensor, noise: Noise) -> list[Tensor]:
            return [self._views(self._gaps(x, noise, self.settings.draws))]

        with torch.no_grad():
            [found] = measured(images, len(images), run, maps, sigma)
        self.typical, self.spread = (m.to(run.device) for m in (found.mean(), found.spread()))
        return self

    def under_noise(
        self, images: Images, run: Run = PLAIN, *, sigma: float, scoring: str = "plain"
    ) -> "AnoDDPM":
        """The same denoiser, measured under the noise; one draw of its own a score."""
        return self.variant(draws=1).measure(images, run, sigma)

    def variant(self, **settings: Any) -> "AnoDDPM":
        """The same denoiser under other settings of the score; `measure` it before use."""
        other = AnoDDPM(**(self.params | settings))
        other.denoiser.load_state_dict(self.denoiser.state_dict())
        return other.to(next(self.parameters()).device).eval()

    def forward(self, x: Tensor, noise: Noise = fresh, draws: int | None = None) -> Anomaly:
        """Scores images of any size, (B, C, H, W) in [0, 1], at the detector's own size.

        Differentiable through all shots; the map has the side of x. Raises ValueError before
        `fit`, and where `draws` is below 1.
        """
        if draws is not None and draws < 1:
            raise ValueError(f"draws={draws}: expected 1 or more, or None for the detector's own")
        return self._judged(x, noise, draws or self.settings.draws)[0]

    def examine(self, x: Tensor, noise: Noise) -> tuple[Anomaly, dict[str, Tensor]]:
        """The anomaly and, beside it, the largest squared error of the mean reconstruction."""
        anomaly, error = self._judged(x, noise, self.settings.draws)
        return anomaly, {"error": error}

    def reconstruction(self, x: Tensor, noise: Noise = fresh) -> Tensor:
        """What x is compared with in one draw: (B, C, H, W) in [0, 1] scale."""
        return self._rebuild(self.seen(x), noise)

    def check(self) -> None:
        given = [None if m is None else tuple(m.shape) for m in (self.typical, self.spread)]
        number = scoring.SCORES[self.settings.score].number
        fitted = (number, self.input_size, self.input_size)
        if given not in ([None] * 2, [fitted] * 2):
            raise ValueError(f"learnt shapes {given}, expected {fitted} twice")

    @property
    def draws_taken(self) -> int:
        return self.settings.draws

    def cost(self) -> dict[str, Any]:
        return super().cost() | self.spent

    @staticmethod
    def compared(x: Tensor, rebuilt: Tensor) -> tuple[Tensor, Tensor]:
        """An image and its reconstruction as the error sees them; attackers may look otherwise."""
        return x, rebuilt

    def _denoiser(self) -> EpsDenoiser:
        return untrained(self.settings, self.channels)

    def _coloured(self, noise: Noise) -> Simplex:
        return Simplex(noise, **asdict(self.colour))

    def _learn(self, images: Images, run: Run) -> None:
        s = self.settings
        loss = DrawnLoss(
            self.denoiser,
            images,
            s.batch,
            s.levels,
            s.augment,
            run.seed,
            run.device,
            loss=noise_error,
            coloured=self._coloured,
        )
        trained = {name: getattr(s, name) for name in TRAINED} | {"channels": self.channels}
        self.spent = learn(self.denoiser, loss, recipe(s), run, trained | asdict(self.colour))

    def _judged(self, x: Tensor, noise: Noise, draws: int) -> tuple[Anomaly, Tensor]:
        """The anomaly, and the largest error of each image, (B,)."""
        if self.typical is None or self.spread is None:
            raise ValueError("this detector is not fitted: call fit, or load a fitted one")
        gaps = self._gaps(self.seen(x), noise, draws)
        judge = scoring.SCORES[self.settings.score].judge
        found = judge(self._views(gaps), self.typical, self.spread)
        error = gaps.mean(0).square().mean(1)
        return judged(found, self.settings.top, x), scoring.aggregate(error)

    def _gaps(self, x: Tensor, noise: Noise, draws: int) -> Tensor:
        """What separates x from its reconstruction in each draw, (draws, B, C, H, W)."""
        rebuild = partial(self._rebuild, x)
        pairs = [self.compared(x, rebuild(redraw(noise, draw))) for draw in range(draws)]
        return torch.stack([image - rebuilt for image, rebuilt in pairs])

    def _views(self, gaps: Tensor) -> Tensor:
        """What the score looks at, averaged over draws: (B, K, H, W)."""
        views = scoring.SCORES[self.settings.score].views
        return torch.stack([views(gap) for gap in gaps]).mean(0)

    def _rebuild(self, x: Tensor, noise: Noise) -> Tensor:
        s = self.settings
        [depth] = s.depth or ()
        denoiser = self.denoiser if s.shots == 1 else Recomputed(self.denoiser)
        noise = Split(self._coloured(noise), noise)
        return (reconstruct(denoiser, 2 * x - 1, depth, s.shots, noise) + 1) / 2


def _settings(given: dict[str, Any]) -> tuple[Settings, Colour]:
    """AdvRAD's settings of the same names, and those of the noise, both checked."""
    one_of("channels", given["channels"], (1, 3))
    own = {field.name for field in fields(Colour)}
    colour = typed(Colour, {name: given[name] for name in own})
    at_least("octaves", colour.octaves, 1)
    share("persistence", colour.persistence)
    if not 0 < colour.frequency * 2 ** (colour.octaves - 1) <= 1:
        raise UsageError(
            f"frequency={colour.frequency:g} with octaves={colour.octaves}: expected the last "
            "octave's, frequency * 2 ** (octaves - 1), above 0 and at most 1 per pixel"
        )
    values = {name: value for name, value in given.items() if name not in own | {"channels"}}
    return checked(values | {"depth": (given["depth"],), "carried": 0.0}), colour
