"""AdvRAD, also called FreeRAD: anomalies are what a diffusion model of good images cannot rebuild.

An image is diffused to a depth, which buries small defects and small attacks alike in noise, and
rebuilt from there by a model that has only seen good images. Where the result differs from the
image more (or less) than it does on good images, there is an anomaly. The reconstruction that
detects is the reconstruction that purifies.

AdvRAD (2024, https://arxiv.org/abs/2408.04839), Algorithms 1-3 and Section 4.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from .. import scoring
from ..checks import plain
from ..diffusion import EpsDenoiser, reconstruct
from ..diffusion.batches import DrawnLoss
from ..diffusion.learning import drawn, learn
from ..noise import Noise, fresh, redraw
from ..tune import Choice
from ._depth import choose_depth
from ._moments import measured
from ._settings import TRAINED, Settings, depths_of, recipe, resolve, under_noise, untrained
from .base import PLAIN, Anomaly, Detector, Fitting, Images, Run, judged


class AdvRAD(Detector):
    """Arguments left out are those of the preset.

    Arguments:
        preset: `fast` for a plain machine, `paper` for the paper's recipe to the letter.
        size: side of the images the network sees, in pixels.
        channels: 1 for grey, 3 for colour.
        depth: steps of noise put in (k), or a ladder of several; None chooses it on held-out
            good images.
        shots: jumps that lead back; 1 is one-shot, `depth` is full-shot.
        draws: draws of the noise whose errors are averaged.
        score: a name of `scoring.SCORES`; `paper` with top 0 and one draw is the paper's.
        top: the share of the map whose mean is the score; 0 takes its maximum.
        schedule: `linear` or `cosine`.
        patch, widths, blocks: of the U-Net.
        attention: sides in pixels of the levels with attention.
        levels: range of the levels of noise drawn in training.
        steps, batch, rate, warmup, decay, average, clip: of the training, see `Recipe`.
        augment: views of the training images, names of `diffusion.augment.ALL`.
        precision: `float32` or `bfloat16` (mixed), the same in training, calibration and use.
        carried: standard deviation of the Gaussian noise that the images carry, in the [0, 1]
            scale; the depth includes it, and only what is missing is put in.

    Raises UsageError where a setting is impossible.
    """

    SCORINGS: ClassVar[tuple[str, ...]] = ("matched", "coarse", "deep", "plain")
    preset: str
    typical: Tensor | None  # (K, H, W), mean error of good images
    spread: Tensor | None  # (K, H, W), its standard deviation over good images
    papers: Tensor | None  # (H, W), mean of the paper's error of good images, one draw
    taken: Tensor | None  # (D,), the depths that were chosen, where `depth` is None

    def __init__(
        self,
        preset: str = "fast",
        size: int | None = None,
        channels: int = 3,
        depth: int | Sequence[int] | None = None,
        shots: int | None = None,
        draws: int | None = None,
        score: str | None = None,
        top: float | None = None,
        schedule: str | None = None,
        patch: int | None = None,
        widths: Sequence[int] | None = None,
        blocks: int | None = None,
        attention: Sequence[int] | None = None,
        levels: Sequence[int] | None = None,
        steps: int | None = None,
        batch: int | None = None,
        rate: float | None = None,
        warmup: int | None = None,
        decay: bool | None = None,
        average: float | None = None,
        clip: float | None = None,
        augment: Sequence[str] | None = None,
        precision: str | None = None,
        carried: float | None = None,
    ) -> None:
        given = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        super().__init__()
        self.settings: Settings = resolve(preset, given)
        for name, value in (given | asdict(self.settings) | {"depth": depth}).items():
            setattr(self, name, plain(value))
        self.denoiser = self._denoiser()
        self.choice: Choice | None = None
        self.spent: dict[str, float] = {}
        for name in ("typical", "spread", "papers", "taken"):
            self.register_buffer(name, None)

    def fit(self, images: Images, run: Run = PLAIN) -> Self:
        """Trains the denoiser, chooses the depth where none is given, and measures good images.

        Without `run.tune` a depth that is not given becomes 100, the paper's. Images of another
        size or number of channels are brought to the detector's own, as in `forward`.
        """
        images = self._fitting(images)
        run = replace(run, tune=None if run.tune is None else self._fitting(run.tune))
        self.learn(images, run)
        if self.settings.depth is None and run.tune is not None:
            self.choice = choose_depth(self, images, run.tune, run)
            self.taken = torch.tensor(self.choice.chosen)
        return self.measure(images, run)

    def measure(self, images: Images, run: Run = PLAIN, sigma: float = 0.0) -> Self:
        """What good images show under the present settings, without any training; each of them
        under Gaussian noise with standard deviation sigma, in the [0, 1] scale."""
        images = self._fitting(images)
        with torch.no_grad():
            found = self.statistics(images, self.depths, run, len(images), sigma)
        self.typical, self.spread, self.papers = found
        return self

    def largest_sigma(self, scoring: str = "plain") -> float:
        deepest = self.settings.levels[1]
        return math.inf if scoring == "plain" else self.denoiser.schedule.sigma(deepest) / 2

    def under_noise(
        self, images: Images, run: Run = PLAIN, *, sigma: float, scoring: str = "plain"
    ) -> "AdvRAD":
        """The same denoiser, measured under the noise; one pass and one draw of its own a score.
        What the scorings mean, `under_noise` of the settings says."""
        depth, deepest = self.depths[-1], self.settings.levels[1]
        settings = under_noise(self.denoiser.schedule, sigma, scoring, depth, deepest)
        return self.variant(**settings).measure(images, run, sigma)

    def variant(self, **settings: Any) -> "AdvRAD":
        """The same denoiser under other settings of the score; `measure` it before use."""
        other = AdvRAD(**(self.params | {"depth": self.depths} | settings))
        other.denoiser.load_state_dict(self.denoiser.state_dict())
        return other.to(next(self.parameters()).device).eval()

    def at(self, depth: int) -> "AdvRAD":
        """One rung of a fitted ladder by itself; weights and statistics are shared."""
        place, other = self.depths.index(depth), copy.copy(self)
        number = scoring.SCORES[self.settings.score].number
        other.settings = replace(self.settings, depth=(depth,))
        other._buffers = dict(self._buffers)
        for name in ("typical", "spread"):
            maps = self._buffers[name]
            assert maps is not None
            other._buffers[name] = maps[place * number : (place + 1) * number]
        return other

    def forward(self, x: Tensor, noise: Noise = fresh, draws: int | None = None) -> Anomaly:
        """Scores images of any size, (B, C, H, W) in [0, 1], at the detector's own size.

        Differentiable; the map has the side of x. Raises ValueError before `fit`, and where
        `draws` is below 1.
        """
        if draws is not None and draws < 1:
            raise ValueError(f"draws={draws}: expected 1 or more, or None for the detector's own")
        return self._judged(x, noise, draws or self.settings.draws)[0]

    def examine(self, x: Tensor, noise: Noise) -> tuple[Anomaly, dict[str, Tensor]]:
        """The anomaly and, beside it, the paper's exact score of the first draw."""
        anomaly, paper = self._judged(x, noise, self.settings.draws)
        return anomaly, {"paper": paper}

    def _judged(self, x: Tensor, noise: Noise, draws: int) -> tuple[Anomaly, Tensor]:
        """The anomaly, and the paper's exact score of the first draw at the first depth, (B,)."""
        if self.typical is None or self.spread is None or self.papers is None:
            raise ValueError("this detector is not fitted: call fit, or load a fitted one")
        fitted = self.seen(x)
        error, first = self.error(fitted, self.depths, noise, draws)
        judge = scoring.SCORES[self.settings.score].judge
        deviation = judge(error, self.typical, self.spread)
        paper = scoring.aggregate((first - self.papers).abs())
        return judged(deviation, self.settings.top, x), paper

    def reconstruction(self, x: Tensor, noise: Noise = fresh) -> Tensor:
        """What x is compared with at the last depth, one draw: (B, C, H, W) in [0, 1] scale."""
        return self._rebuild(self.seen(x), self.depths[-1], noise)

    def check(self) -> None:
        learnt = [self.typical, self.spread, self.papers]
        given = [None if value is None else tuple(value.shape) for value in learnt]
        side, maps = self.input_size, len(self.depths) * scoring.SCORES[self.settings.score].number
        fitted = [(maps, side, side), (maps, side, side), (side, side)]
        if given not in ([None] * 3, fitted) or not all(0 < d <= 1000 for d in self.depths):
            raise ValueError(f"learnt shapes {given} at depths {self.depths}, expected {fitted}")

    @property
    def input_size(self) -> int:
        return self.settings.size

    @property
    def draws_taken(self) -> int:
        return self.settings.draws

    def cost(self) -> dict[str, Any]:
        return super().cost() | self.spent

    def resolved(self) -> dict[str, Any]:
        return asdict(self.settings) | {
            "preset": self.preset,
            "channels": self.channels,
            "depth": self.depths,
        }

    def chosen(self) -> list[dict[str, Any]]:
        return [asdict(self.choice)] if self.choice else []

    @property
    def depths(self) -> list[int]:
        """The depths in use: given, chosen, or 100 before a choice."""
        if self.settings.depth is not None:
            return list(self.settings.depth)
        if self.taken is not None:
            return [int(depth) for depth in self.taken]
        possible = depths_of(self.settings)
        return [100 if 100 in possible else possible[0]]

    def _denoiser(self) -> EpsDenoiser:
        return untrained(self.settings, self.channels)

    def _fitting(self, images: Images) -> Fitting:
        return Fitting(images, self.channels, self.input_size)

    def _rebuild(self, x: Tensor, depth: int, noise: Noise) -> Tensor:
        s = self.settings
        rebuilt = reconstruct(self.denoiser, 2 * x - 1, depth, s.shots, noise, 2 * s.carried)
        return (rebuilt + 1) / 2

    def error(
        self, x: Tensor, depths: Sequence[int], noise: Noise, draws: int
    ) -> tuple[Tensor, Tensor]:
        """What the score looks at, averaged over draws, and the paper's error of the first one.

        (B, C, H, W) -> (B, K, H, W) and (B, H, W).
        """
        views = scoring.SCORES[self.settings.score].views
        found, first = [], None
        for depth in depths:
            gaps = [self._gap(x, depth, redraw(noise, draw)) for draw in range(draws)]
            found.append(torch.stack([views(gap) for gap in gaps]).mean(0))
            first = scoring.filtered(gaps[0])[:, 0] if first is None else first
        assert first is not None
        return torch.cat(found, 1), first

    def _gap(self, x: Tensor, depth: int, noise: Noise) -> Tensor:
        image, rebuilt = self.compared(x, self._rebuild(x, depth, noise))
        return image - rebuilt

    @staticmethod
    def compared(x: Tensor, rebuilt: Tensor) -> tuple[Tensor, Tensor]:
        """An image and its reconstruction as the error sees them; attackers may look otherwise."""
        return x, rebuilt

    def learn(self, images: Images, run: Run = PLAIN) -> Self:
        """Trains a new denoiser alone, and forgets what was measured with the old one."""
        s, images = self.settings, self._fitting(images)
        self.denoiser = drawn(run.seed, self._denoiser).to(run.device)
        self.typical = self.spread = self.papers = self.taken = self.choice = None
        self.train()
        loss = DrawnLoss(self.denoiser, images, s.batch, s.levels, s.augment, run.seed, run.device)
        trained = {name: getattr(s, name) for name in TRAINED} | {"channels": self.channels}
        self.spent = learn(self.denoiser, loss, recipe(s), run, trained)
        return self.eval()

    def statistics(
        self,
        images: Images,
        depths: Sequence[int],
        run: Run,
        count: int,
        sigma: float = 0.0,
    ) -> tuple[Tensor, ...]:
        """Over `count` images: mean and standard deviation of what the score looks at,
        (K, H, W) each, and the mean of the paper's error of one draw, (H, W)."""

        def maps(x: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
            return self.error(x, depths, noise, self.settings.draws)

        views, papers = measured(images, count, run, maps, sigma)
        return tuple(m.to(run.device) for m in (views.mean(), views.spread(), papers.mean()))
