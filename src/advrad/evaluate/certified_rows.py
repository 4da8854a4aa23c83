"""Rows of a certificate: clean scores, medians that calibrate, draws around the test images.

Rows are numbered: N clean ones first, then for each way of smoothing those of K calibration images
and of the N test images. A test row holds its draws in order, so that bounds for any radius can be
had from it later; a draw that is not finite is null.
"""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..calibrate import NG, OK
from ..certify import ABSTAIN, Counts, Ordered, Peaks, side
from ..data import Dataset, Images
from ..errors import ModelError, ResourceError
from ..files import write_bytes
from ..model import Model
from . import smoothed as under_noise
from .certificate import Certificate
from .certified_regions import FOLDER, regions
from .rows import Rows
from .scores import scored
from .smoothed import Smoothed, Way, drawn

Row = dict[str, Any]
Tell = Callable[[int, int], None]  # draws made, of how many
UNDECIDED = "ABSTAIN"
VERDICTS = {1: NG, 0: OK, ABSTAIN: UNDECIDED}


@dataclass
class Work:
    """First the clean scores, then one way of smoothing after the other."""

    model: Model
    dataset: Dataset
    images: Images
    rows: Rows
    wanted: Certificate
    ways: list[Way]
    report: Tell
    folder: Path | None
    smoothed: list[Smoothed] = field(default_factory=list)
    done: int = 0

    @property
    def clean(self) -> list[float | None]:
        """The scores without noise; what is no finite number may have been read again as None."""
        return [self.rows.rows[i]["score"] for i in range(len(self.images))]

    def tests(self, number: int) -> list[Row]:
        """The rows of the test images under way `number`."""
        start = self._start(number) + self._calibrating
        return [self.rows.rows[start + i] for i in range(len(self.images))]

    def run(self) -> None:
        """Makes every row that is not there."""
        self._score_clean()
        for number, way in enumerate(self.ways):
            kept = self._kept(way)
            if kept is None:
                kept = self._calibrated(number, way)
                self._keep(kept)
            self.smoothed.append(kept)
            self._draw_tests(number, kept)

    @property
    def _calibrating(self) -> int:
        return len(self.model.seen.get("calibrate", ()))

    def _start(self, number: int) -> int:
        return len(self.images) * (number + 1) + self._calibrating * number

    def _tell(self, draws: int) -> None:
        self.done += draws
        each = len(self.images) + self._calibrating
        self.report(self.done, len(self.ways) * each * self.wanted.samples)

    def _score_clean(self) -> None:
        asked = self.wanted.evaluation
        missing = [i for i in range(len(self.images)) if i not in self.rows.rows]
        batch = min(asked.batch, 16)
        for found in scored(
            self.model.detector, self.images, asked.seed, batch, asked.device, missing
        ):
            row = self._named("clean", self.images, found.index)
            self.rows.add({"index": found.index, **row, "score": found.score})

    def _kept(self, way: Way) -> Smoothed | None:
        """What an earlier run has measured for this very model, with these draws."""
        kept = self._there(way)
        if kept is None or kept.way != way or self.wanted.block not in (0, kept.block):
            return None
        kept.detector.to(self.wanted.evaluation.device)
        self._tell(self._calibrating * way.samples)
        return kept

    def _there(self, way: Way) -> Smoothed | None:
        """What lies in the model's folder for this sigma and scoring; what is damaged is told,
        and measured again."""
        if self.folder is None:
            return None
        try:
            return under_noise.load(self.model, self.folder, way.sigma, way.scoring)
        except ModelError as error:
            logging.getLogger("advrad").warning(f"measured again: {error}")
            return None

    def _keep(self, smoothed: Smoothed) -> None:
        """In the model's folder, unless what lies there was made with more draws."""
        if self.folder is None:
            return
        tell, way, there = logging.getLogger("advrad"), smoothed.way, self._there(smoothed.way)
        place = self.folder / under_noise.FOLDER / way.name
        if there is not None and there.way != way and there.way.samples >= way.samples:
            tell.warning(
                f"{place} stays as it is, with {there.way.samples:,} samples and seed "
                f"{there.way.seed}: `advrad predict --certify` does not use the {way.samples:,} "
                "of this run; remove that folder if it should"
            )
            return
        try:
            under_noise.save(smoothed, self.model, self.folder)
        except (OSError, ResourceError) as error:
            tell.warning(
                f"what was measured under noise is not kept in {place} ({error}): "
                "`advrad predict --certify` will not find it"
            )

    def _calibrated(self, number: int, way: Way) -> Smoothed:
        """Measured and with its threshold; a median a calibration image, each a row."""
        device, batch = self.wanted.evaluation.device, self.wanted.evaluation.batch
        detector = under_noise.measured(self.model, self.dataset, way, device)
        images = under_noise.known(self.model, self.dataset, "calibrate")
        start, medians, peaks, block = self._start(number), [], [], self.wanted.block
        lost = 0
        for i in range(len(images)):
            row = self.rows.rows.get(start + i)
            if row is None:
                x, maps = images[i].to(device), Peaks() if block else None
                smoothing = way.smoothing(batch)
                found = drawn(detector, smoothing, x, images.ids[i], maps, block or 1)
                row = {
                    "index": start + i,
                    **self._named("calibrate", images, i),
                    **_way(way),
                    "median": float(found.median),
                    "lost": int(found.lost),
                    **({"peak": maps.largest} if maps else {}),
                }
                self.rows.add(row)
            lost += row["lost"]
            medians.append(row["median"])
            peaks.append(row.get("peak"))
            self._tell(way.samples)
        calibration = under_noise.threshold(self.model, medians)
        peak = under_noise.threshold(self.model, peaks).threshold if block else None
        return Smoothed(detector, way, calibration, block, peak, lost)

    def _draw_tests(self, number: int, smoothed: Smoothed) -> None:
        start = self._start(number) + self._calibrating
        for i in range(len(self.images)):
            if start + i not in self.rows.rows:
                self.rows.add({"index": start + i, **self._drawn(smoothed, i)})
            self._tell(self.wanted.samples)

    def _drawn(self, smoothed: Smoothed, i: int) -> Row:
        """The row of test image i: its draws, its bounds, its verdict."""
        started, wanted = time.perf_counter(), self.wanted
        way, bound = smoothed.way, smoothed.calibration.threshold
        counts = None if smoothed.peak is None or not wanted.block else Counts(smoothed.peak)
        x = self.images[i].to(wanted.evaluation.device)
        smoothing = way.smoothing(wanted.evaluation.batch)
        found = drawn(
            smoothed.detector, smoothing, x, self.images.ids[i], counts, wanted.block or 1
        )
        alpha = wanted.alpha / len(self.images)
        row = {
            **self._named("test", self.images, i),
            **_way(way),
            "median": float(found.median),
            "lost": int(found.lost),
            **verdict(found, bound, way, alpha),
            "bounds": bounds(found, wanted.radii, way, alpha),
            "seconds": time.perf_counter() - started,
            "scores": shortest(found),
        }
        if counts is not None:
            row["regions"], planes = regions(counts, wanted, way, alpha, self.images, i)
            if self.rows.folder is not None:
                name = f"{self.images.ids[i]}-{way.name}.npy"
                write_bytes(self.rows.folder / FOLDER / name, planes)
        return row

    def _named(self, part: str, images: Images, i: int) -> Row:
        item = images.items[i]
        named = {"part": part, "path": str(item.path), "sha256": images.ids[i]}
        return named | ({} if part == "calibrate" else {"defect": item.defect})


def _way(way: Way) -> Row:
    return {"sigma": way.sigma, "scoring": way.scoring, "samples": way.samples}


def verdict(found: Ordered, threshold: float, way: Way, alpha: float) -> Row:
    """NG or OK and the l2 radius up to which no change turns it, or ABSTAIN.

    Wrong with probability alpha at most, both sides together.
    """
    known = torch.isfinite(found.low)
    above = int((known & (found.low >= threshold)).sum())
    below = int((known & (found.low < threshold)).sum())
    label, radius = side(above, below, len(found.low), way.sigma, alpha)
    return {"verdict": VERDICTS[label], "radius": None if label == ABSTAIN else radius}


def bounds(
    found: Ordered, radii: Any, way: Way, alpha: float
) -> dict[str, tuple[float | None, float | None]]:
    """By radius the bounds of the median, each with error alpha; None for an infinite one."""
    listed = {}
    for radius in radii:
        pair = found.bounds(radius / way.sigma, alpha)
        low, high = (float(end) if math.isfinite(end) else None for end in pair)
        listed[f"{radius:g}"] = low, high
    return listed


def shortest(found: Ordered) -> list[float | None]:
    """The draws in order, as the shortest decimals of their float32; None for lost ones."""
    known = found.high.numpy()
    return [float(str(np.float32(v))) if np.isfinite(v) else None for v in known]
