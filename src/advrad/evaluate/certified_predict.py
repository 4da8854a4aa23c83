"""The verdict of the smoothed detector on single images, and how far no change can turn it."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..certify import ABSTAIN, samples_needed, settled
from ..errors import UsageError
from ..model import Model
from .certificate import needs
from .certified_rows import VERDICTS, verdict
from .scores import Row
from .smoothed import Smoothed, choose

BATCH = 64


@dataclass(frozen=True)
class Certifier:
    """Adds a certificate to rows of a prediction.

    Arguments:
        model: whose rows they are.
        smoothed: its detector under noise.
        alpha: probability that what is said of an image is wrong, for each image.
        radius: where given, the verdict is only decided there, and drawing ends as soon as no
            outcome of the remaining draws could change it.
        device: where it is drawn.
        seed: as it is shown; None for the model's secret.
        batch: draws at once.
    """

    model: Model
    smoothed: Smoothed
    alpha: float
    radius: float | None
    device: str
    seed: int | None
    batch: int = BATCH

    @classmethod
    def of(
        cls,
        model: Model,
        folder: Path,
        sigma: float | None,
        scoring: str | None,
        alpha: float,
        radius: float | None,
        seed: int | None,
        device: str,
        batch: int = BATCH,
    ) -> "Certifier":
        """From what `advrad certify` has kept in the model's folder.

        Raises UsageError where nothing fits, and for an alpha or a radius that cannot be had.
        """
        if not 0 < alpha < 1:
            raise UsageError(f"alpha {alpha:g}: expected a number between 0 and 1")
        if radius is not None and not 0 <= radius < float("inf"):
            raise UsageError(f"radius {radius:g}: expected a finite l2 norm from 0 on")
        if sigma is not None and not 0 < sigma < float("inf"):
            raise UsageError(f"sigma {sigma:g}: expected a finite number above 0")
        smoothed = choose(model, folder, sigma, scoring)
        way = replace(smoothed.way, seed=model.secret if seed is None else seed)
        if radius is not None:
            needed = samples_needed(radius / way.sigma, alpha / 2)
            if needed is None or needed > way.samples:
                raise UsageError(
                    f"radius {radius:g} at sigma {way.sigma:g} {needs(needed)} and the model's "
                    f"thresholds are for {way.samples:,}: give a smaller radius, or run "
                    "`advrad certify` with more"
                )
        detector = smoothed.detector.to(device)
        smoothed = replace(smoothed, way=way, detector=detector)
        return cls(model, smoothed, alpha, radius, device, seed, batch)

    def added(self, row: Row) -> dict[str, Any]:
        """`certified_verdict` (NG, OK, ABSTAIN), `certified_radius` and `certified_draws`; None of
        an image that could not be read."""
        if row.error is not None or row.sha256 is None:
            found = dict.fromkeys(("certified_verdict", "certified_radius", "certified_draws"))
            return found | self._terms()
        return self._found(row, row.sha256) | self._terms()

    def _terms(self) -> dict[str, Any]:
        """What each row's certificate rests on."""
        return {
            "sigma": self.smoothed.way.sigma,
            "scoring": self.smoothed.way.scoring,
            "alpha": self.alpha,
            "smoothed_threshold": self.smoothed.calibration.threshold,
        }

    def _found(self, row: Row, digest: str) -> dict[str, Any]:
        x = self.model.preprocess(Path(row.path)).to(self.device)
        if self.radius is not None:
            return self._decided(x, digest)
        found = self.smoothed.draws(x, digest, self.batch)
        told = verdict(found, self.smoothed.calibration.threshold, self.smoothed.way, self.alpha)
        return {
            "certified_verdict": told["verdict"],
            "certified_radius": told["radius"],
            "certified_draws": len(found.low),
        }

    def settings(self) -> dict[str, Any]:
        """What the certificates rest on."""
        way = self.smoothed.way
        return self._terms() | {"samples": way.samples, "radius": self.radius}

    def _decided(self, x: Tensor, name: str) -> dict[str, Any]:
        """At the asked radius, with as few draws as settle it."""
        assert self.radius is not None
        way, bound = self.smoothed.way, self.smoothed.calibration.threshold
        above = below = drawn = 0
        label: int | None = None
        score = lambda batch, noise: self.smoothed.detector(batch, noise, draws=1).score
        for scores in way.smoothing(self.batch).batches(score, x, name):
            known = scores[torch.isfinite(scores)]
            above += int((known >= bound).sum())
            below += int((known < bound).sum())
            drawn += len(scores)
            lost = drawn - above - below
            label = settled(above, below, way.samples, self.radius / way.sigma, self.alpha, lost)
            if label is not None:
                break
        label = ABSTAIN if label is None else label
        return {
            "certified_verdict": VERDICTS[label],
            "certified_radius": None if label == ABSTAIN else self.radius,
            "certified_draws": drawn,
        }
