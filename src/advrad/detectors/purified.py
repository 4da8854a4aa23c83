"""Any detector behind a purifier: DiffPure first, then look.

For classifiers a diffusion model takes an attack away and leaves the object. A detector of
anomalies asks more of it: to take away one small deviation, the attack, and to leave another, the
anomaly. The papers on AdvRAD hold that no depth does both; this is the detector to see it with.

AdvRAD (2024, https://arxiv.org/abs/2408.04839), Section 4.2; DiffPure (Nie et al., 2022,
https://arxiv.org/abs/2205.07460).
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from ..checks import at_least, one_of, plain
from ..errors import UsageError
from ..noise import AROUND, Noise, PerImage, fresh, redraw
from ..purifiers import Purifier, diffpure
from ._settings import TRAINED
from .advrad import AdvRAD
from .base import PLAIN, Anomaly, Detector, Fitting, Images, Progress, Run, as_large

DENOISER = ("preset", *(name for name in TRAINED if name != "size"))
BEHIND = 1 << 20  # the number of the inner detector's first draw: more than a purifier takes
SPENT = ("training_seconds", "training_cpu_seconds")


class Purified(Detector):
    """A stochastic detector: every draw is one purification and one draw of the inner detector.

    Arguments:
        detector: the inner one's name.
        settings: of the inner one; its size is the purifier's where none is given.
        size: side of the images that are purified, in pixels.
        channels: 1 for grey, 3 for colour.
        denoiser: settings of AdvRAD that its denoiser depends on, with the preset.
        depth, shots: of the purification, see `diffpure`.
        draws: purifications whose anomalies are averaged.
        fitted_on: what the inner detector learns from: `plain` good images, as in the papers,
            where the defence comes when the detector is there; or `purified` ones, each in one
            draw and computed whenever it is asked for.

    Raises UsageError where a setting is impossible.
    """

    def __init__(
        self,
        detector: str = "patchcore",
        settings: Mapping[str, Any] | None = None,
        size: int = 128,
        channels: int = 3,
        denoiser: Mapping[str, Any] | None = None,
        depth: int = 100,
        shots: int = 1,
        draws: int = 1,
        fitted_on: str = "plain",
    ) -> None:
        super().__init__()
        at_least("draws", draws, 1)
        one_of("fitted_on", fitted_on, ("plain", "purified"))
        self.detector, self.size, self.channels = detector.lower(), size, channels
        self.depth, self.shots, self.draws, self.fitted_on = depth, shots, draws, fitted_on
        self.diffusion = self._diffusion(denoiser or {})
        self.denoiser = {name: self.diffusion.params[name] for name in DENOISER}
        self.inner = self._inner(settings or {})
        self.settings = {k: v for k, v in self.inner.params.items() if k != "channels"}

    @classmethod
    def around(cls, ready: AdvRAD | str | Path, **settings: Any) -> "Purified":
        """One that purifies with the denoiser of a ready AdvRAD, or of the one in a model's
        folder; `teach` it before use. Raises UsageError where that is another detector."""
        if isinstance(ready, str | Path):
            ready = _loaded(ready)
        denoiser = {name: ready.params[name] for name in DENOISER}
        size, channels = ready.input_size, ready.channels
        made = cls(size=size, channels=channels, denoiser=denoiser, **settings)
        made.diffusion.denoiser.load_state_dict(ready.denoiser.state_dict())
        return made.to(next(ready.parameters()).device).eval()

    def fit(self, images: Images, run: Run = PLAIN) -> Self:
        """Trains the denoiser, then fits the inner detector, both on good images."""
        images = Fitting(images, self.channels, self.input_size)
        self.diffusion = self._diffusion(self.denoiser).learn(images, run)
        return self.teach(images, run)

    def teach(self, images: Images, run: Run = PLAIN, sigma: float = 0.0) -> Self:
        """Fits a new inner detector alone, behind the denoiser as it is.

        Arguments:
            images: good images.
            sigma: standard deviation of the Gaussian noise under which images are purified, in
                the [0, 1] scale, where `fitted_on` is `purified`.
        """
        inner = self._inner(self.settings).to(run.device)
        run = replace(
            run,
            folder=run.folder and run.folder / "inner",
            report=partial(_told, run.report, self.detector),
        )
        if self.fitted_on == "purified":
            images = Fitting(images, self.channels, self.input_size)
            tune = run.tune and Fitting(run.tune, self.channels, self.input_size)
            run = replace(
                run,
                tune=tune and Cleaned(tune, self.purifier, run, "tune", sigma),
                images=f"{run.images}, purified at {self.depth} in {self.shots}",
            )
            images = Cleaned(images, self.purifier, run, "good", sigma)
        self.inner = inner.fit(images, run)
        return self.eval()

    @property
    def purifier(self) -> Purifier:
        """What stands before the inner detector."""
        return diffpure(self.diffusion.denoiser, self.depth, self.shots)

    def variant(self, **settings: Any) -> "Purified":
        """The same denoiser and the same inner detector under another depth, shots or draws."""
        other = Purified(**(self.params | settings))
        other.diffusion.denoiser.load_state_dict(self.diffusion.denoiser.state_dict())
        other.inner = copy.deepcopy(self.inner)
        return other.to(next(self.parameters()).device).eval()

    def under_noise(
        self, images: Images, run: Run = PLAIN, *, sigma: float, scoring: str = "plain"
    ) -> "Purified":
        """One draw a score. What was fitted on plain images stays as it is: it is the purifier
        that meets the noise."""
        other = self.variant(draws=1)
        return other if self.fitted_on == "plain" else other.teach(images, run, sigma)

    def forward(self, x: Tensor, noise: Noise = fresh, draws: int | None = None) -> Anomaly:
        """Scores images of any size, (B, C, H, W) in [0, 1], at the detector's own size.

        Differentiable through purifier and detector; the map has the side of x. Raises ValueError
        before `fit`, and where `draws` is below 1.
        """
        if draws is not None and draws < 1:
            raise ValueError(f"draws={draws}: expected 1 or more, or None for the detector's own")
        fitted, purify = self.seen(x), self.purifier
        found = [
            self.inner(purify(fitted, redraw(noise, draw)), redraw(noise, BEHIND + draw), draws=1)
            for draw in range(draws or self.draws)
        ]
        scores, maps = (torch.stack(part).mean(0) for part in zip(*found, strict=True))
        return Anomaly(scores, as_large(maps, x))

    def reconstruction(self, x: Tensor, noise: Noise = fresh) -> Tensor:
        """What the inner detector sees of x in one draw: (B, C, size, size) in [0, 1]."""
        return self.purifier(self.seen(x), noise)

    def check(self) -> None:
        self.inner.check()

    @property
    def draws_taken(self) -> int:
        return self.draws

    def cost(self) -> dict[str, Any]:
        parts = [self.diffusion.spent, self.inner.cost()]
        spent = {n: sum(p.get(n, 0.0) for p in parts) for n in SPENT if any(n in p for p in parts)}
        return parts[1] | super().cost() | spent

    def resolved(self) -> dict[str, Any]:
        return self.params | {"settings": self.inner.resolved()}

    def chosen(self) -> list[dict[str, Any]]:
        return self.inner.chosen()

    def _diffusion(self, given: Mapping[str, Any]) -> AdvRAD:
        """An AdvRAD, of which the denoiser is used alone."""
        for name in given:
            if name not in DENOISER:
                known = ", ".join(DENOISER)
                raise UsageError(f"denoiser: unknown setting {name!r}; there are {known}")
        own = {"size": self.size, "channels": self.channels}
        chain = {"depth": self.depth, "shots": self.shots, "draws": 1}
        with torch.random.fork_rng(devices=[]):
            return AdvRAD(**{**own, **chain, **given})

    def _inner(self, given: Mapping[str, Any]) -> Detector:
        from . import build  # whose table names this class too

        if "channels" in given:
            raise UsageError("settings: the inner detector has the channels of the purifier")
        own = {"size": self.size, "channels": self.channels}
        with torch.random.fork_rng(devices=[]):
            return build(self.detector, own | {k: plain(v) for k, v in given.items()})


class Cleaned:
    """Good images as the purifier leaves them, each in one draw of its own.

    Arguments:
        images: of the purifier's size and channels.
        purify: the purifier.
        run: whose seed and device are taken.
        part: their name, so that no two parts share a draw.
        sigma: of the Gaussian noise on each of them before, in the [0, 1] scale.
    """

    def __init__(
        self, images: Images, purify: Purifier, run: Run, part: str, sigma: float = 0.0
    ) -> None:
        self.images, self.purify, self.run = images, purify, run
        self.part, self.sigma = part, sigma

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int, /) -> Tensor:
        x = self.images[index][None].to(self.run.device)
        noise = PerImage(self.run.seed, [f"{self.part}-{index}"])
        with torch.no_grad():
            x = x + self.sigma * noise(x, AROUND) if self.sigma else x
            return self.purify(x, noise)[0].cpu()


def _told(report: Callable[[Progress], None], name: str, done: Progress) -> None:
    """Reports what the inner detector does, by its name."""
    report(done._replace(stage=f"{name}: {done.stage}"))


def _loaded(folder: str | Path) -> AdvRAD:
    from . import load

    found = load(folder)
    if not isinstance(found, AdvRAD):
        raise UsageError(
            f"{folder} holds a {type(found).__name__}: a purifier needs the denoiser of an AdvRAD"
        )
    return found
