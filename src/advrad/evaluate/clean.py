"""How well a model tells good from defective, with nobody attacking.

Each image's row is written when it is scored, so that an evaluation that was killed goes on where
it stopped; the results of another evaluation in the same folder are refused.
"""

import hashlib
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from .. import metrics
from ..calibrate import NG, OK, UNSURE
from ..data import Dataset, Images, limit
from ..errors import DataError
from ..files import plain
from ..model import Model
from ..pixels import PixelMetrics
from .rows import Rows
from .scores import Scored, scored
from .training import machine

Row = dict[str, Any]


@dataclass(frozen=True)
class Evaluation:
    """What is asked of an evaluation: seed of the noise, batch, device, most images, bad files."""

    seed: int = 0
    batch: int = 16
    device: str = "cpu"
    limit: int | None = None
    skip_bad: bool = False


def evaluate(
    model: Model,
    dataset: Dataset,
    out: Path | None = None,
    wanted: Evaluation = Evaluation(),
    report: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """The clean figures on the test split; with `out` also rows, maps and resumption.

    Returns image_auroc, image_ap, f1_max, pixel_auroc, pro (a figure that cannot be had is None,
    and `why` says so; those for pixels are over `masks` defects), 95 % intervals under `_ci`, the
    rates at the model's threshold, and the AUROC of every score that the detector reports beside
    its own. What `out` holds whole is not scored again. Raises DataError without test images,
    LeakError where the model has seen one of them.
    """
    images = test_images(model, dataset, wanted)
    settings = settings_of(model, dataset, images, wanted)
    rows, pixel = Rows(out, settings), PixelMetrics()
    if rows.finished is not None and _whole(rows.finished, rows, images):
        rows.finish(rows.finished)
        return rows.finished
    drawn = any(item.mask for item in images.items)
    if drawn:
        _take_back(rows, images, pixel)
    _announce_masks(images)
    missing = [i for i in range(len(images)) if i not in rows.rows]
    start = time.perf_counter()
    for found in _scored(model, images, wanted, missing):
        if drawn:
            add_pixels(pixel, images, found.index, found.map)
        rows.add(_row(model, images, found), found.map if drawn else None)
        report(len(rows.rows), len(images))
    seconds = (time.perf_counter() - start) / len(missing) if missing else None
    ordered = [rows.rows[index] for index in sorted(rows.rows)]
    result = _figures(ordered, model.calibration.threshold, pixel) | _about(images, seconds)
    if seconds is None:
        timed = "all rows are from an earlier run, so no time"
        result["why"] = "; ".join(filter(None, [result["why"], timed]))
    rows.finish(result | {"settings": settings})
    return result | {"settings": settings}


def test_images(model: Model, dataset: Dataset, wanted: Evaluation) -> Images:
    """The test split as the model sees it, none of it seen before."""
    items = list(dataset.test)
    if not items:
        raise DataError(
            f"{dataset.name} ({dataset.layout}) has no test images: expected good and defective "
            "ones; `advrad data check` shows what was found"
        )
    if wanted.limit is not None:
        items = list(limit(items, wanted.limit, dataset.split_seed))
    images = Images(items, model.preprocess, wanted.skip_bad)
    model.refuse_seen({str(item.path): images.ids[i] for i, item in enumerate(images.items)})
    return images


def settings_of(
    model: Model, dataset: Dataset, images: Images, wanted: Evaluation
) -> dict[str, Any]:
    """All that is needed to run an evaluation again."""
    return plain(
        {
            "model": model.name,
            "detector": type(model.detector).__name__,
            "detector_settings": model.detector.resolved(),
            "data": dataset.name,
            "images": hashlib.sha256("".join(images.ids).encode()).hexdigest(),
            "split_seed": dataset.split_seed,
            "seed": wanted.seed,
            "limit": wanted.limit,
            "batch": wanted.batch,
            "device": wanted.device,
            "channels": model.preprocess.channels,
            "height": model.preprocess.size,
            "width": model.preprocess.size,
            "draws": model.detector.draws_taken,
            "threshold": model.calibration.threshold,
            "machine": machine(),
        }
    )


def _whole(result: dict[str, Any], rows: Rows, images: Images) -> bool:
    """Whether a result is that of an evaluation whose rows are all there."""
    return result.keys() >= {"image_auroc", "f1_max"} and rows.rows.keys() == set(
        range(len(images))
    )


def _take_back(rows: Rows, images: Images, pixel: PixelMetrics) -> None:
    """Counts the maps of rows from an earlier run; one whose map is gone is scored again."""
    for index in list(rows.rows):
        anomaly = rows.map(index)
        if anomaly is None:
            rows.forget(index)
        else:
            add_pixels(pixel, images, index, anomaly)


def _about(images: Images, seconds: float | None) -> dict[str, Any]:
    """What was scored, and how fast."""
    return {
        "seconds_per_image": seconds,
        "images": {"good": images.labels.count(False), "defect": images.labels.count(True)},
        "masks": sum(item.mask is not None for item in images.items),
        "skipped": [[str(path), why] for path, why in images.skipped],
    }


def _scored(
    model: Model, images: Images, wanted: Evaluation, places: list[int]
) -> Iterator[Scored]:
    return scored(model.detector, images, wanted.seed, wanted.batch, wanted.device, places)


def _row(model: Model, images: Images, found: Scored) -> Row:
    return {
        "index": found.index,
        "path": str(images.items[found.index].path),
        "sha256": found.id,
        "defect": images.labels[found.index],
        "score": found.score,
        "verdict": model.calibration.verdict(found.score),
        "beside": found.beside,
    }


def _announce_masks(images: Images) -> None:
    """Tells where figures for pixels leave defects out."""
    masks, defects = sum(item.mask is not None for item in images.items), sum(images.labels)
    if 0 < masks < defects:
        tell = logging.getLogger("advrad").warning
        tell(f"{masks} of {defects} defects have masks: the figures for pixels are over these")


def add_pixels(pixel: PixelMetrics, images: Images, index: int, anomaly: Tensor) -> None:
    """Counts an image whose defects are drawn, or that has none."""
    mask = images.mask(index)
    if mask is not None or not images.labels[index]:
        pixel.add(anomaly, mask)


def _figures(rows: list[Row], threshold: float, pixel: PixelMetrics) -> dict[str, Any]:
    labels = np.array([row["defect"] for row in rows])
    scores = np.array([row["score"] for row in rows])
    best = metrics.f1_max(scores, labels)
    miss = metrics.miss_rate(scores, labels, threshold)
    alarm = metrics.false_alarm_rate(scores, labels, threshold)
    area, pro = pixel.auroc(), pixel.pro()
    return {
        "image_auroc": metrics.auroc(scores, labels),
        "image_auroc_ci": metrics.interval(metrics.auroc, scores, labels),
        "image_ap": metrics.average_precision(scores, labels),
        "f1_max": best and best.value,
        "pixel_auroc": area and area.value,
        "pixel_auroc_ci": pixel.auroc_interval() if area else None,
        "pro": pro and pro.value,
        "miss_rate": miss and miss.value,
        "false_alarm_rate": alarm and alarm.value,
        "verdicts": {
            part: {
                verdict: sum(row["verdict"] == verdict for row in rows if row["defect"] is defect)
                for verdict in (OK, UNSURE, NG)
            }
            for part, defect in (("good", False), ("defect", True))
        },
        "beside": {
            name: _area([row["beside"][name] for row in rows], labels)
            for name in (rows[0]["beside"] if rows else {})
        },
        "why": _why(labels, area is None),
    }


def _area(scores: list[float], labels: NDArray[np.bool_]) -> dict[str, Any]:
    return {
        "image_auroc": metrics.auroc(scores, labels),
        "image_auroc_ci": metrics.interval(metrics.auroc, scores, labels),
    }


def _why(labels: NDArray[np.bool_], no_masks: bool) -> str | None:
    reasons = []
    if labels.all() or not labels.any():
        kind = "good" if labels.all() else "defective"
        reasons.append(f"no {kind} test images, so no figure that compares the two")
    if no_masks:
        reasons.append("no masks of defects, so no figures for pixels")
    return "; ".join(reasons) or None
