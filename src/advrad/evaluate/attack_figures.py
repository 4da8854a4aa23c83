"""The figures of an attack, from its rows."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import metrics
from ..attacks.strongest import SUITES
from ..data import Images
from ..pixels import PixelMetrics
from .attack_rows import Radius, Row
from .lost import lost, worst

Figures = dict[str, Any]


def figures(radius: Radius, threshold: float) -> Figures:
    """Under one radius, image by image the worst; None for what cannot be had.

    `lost` counts the images whose score is no finite number under attack: the worst of all.
    """
    rows = radius.ordered
    labels = np.array([row["defect"] for row in rows])
    clean, attacked = (worst([row[key] for row in rows], labels) for key in ("clean", "attacked"))
    return {
        **_area("robust_auroc", attacked, labels),
        **_area("robust_auroc_missed", np.where(labels, attacked, clean), labels),
        **_area("robust_auroc_false_alarm", np.where(labels, clean, attacked), labels),
        **_apart("known_draw", rows, labels),
        **_apart("resubmitted", rows, labels),
        **_pixels("pixel_auroc", radius.pixel),
        **_rates("", attacked, labels, threshold),
        "parts": {
            name: metrics.auroc(worst([row["parts"][name] for row in rows], labels), labels)
            for name in rows[0]["parts"]
        },
        "lost": sum(lost(row["attacked"]) for row in rows),
    }


def clean_figures(radius: Radius, threshold: float) -> Figures:
    """The same images with nobody attacking."""
    labels = np.array([row["defect"] for row in radius.ordered])
    clean = np.array([row["clean"] for row in radius.ordered])
    return {
        **_area("clean_auroc", clean, labels),
        **_pixels("clean_pixel_auroc", radius.clean_pixel),
        **_rates("clean_", clean, labels, threshold),
    }


def why(images: Images, suite: str, stochastic: bool) -> str | None:
    """Which figures cannot be had, and for what reason."""
    reasons = []
    labels = images.labels
    if all(labels) or not any(labels):
        kind = "good" if all(labels) else "defective"
        reasons.append(f"no {kind} test images, so no figure that compares the two")
    if not any(item.mask for item in images.items):
        reasons.append("no masks of defects, so no figures for pixels")
    if not stochastic:
        reasons.append("the detector draws no noise that could be known or drawn again")
    elif not (SUITES[suite].known and SUITES[suite].resubmit):
        reasons.append(f"the suite {suite} tries no known draw and no resubmission")
    return "; ".join(reasons) or None


def _area(name: str, scores: Any, labels: NDArray[np.bool_]) -> Figures:
    return {
        name: metrics.auroc(scores, labels),
        f"{name}_ci": metrics.interval(metrics.auroc, scores, labels),
    }


def _apart(key: str, rows: list[Row], labels: NDArray[np.bool_]) -> Figures:
    """A figure that stands apart, and beside it the clean one under the same rules."""
    names = {"attacked": f"robust_auroc_{key}", "clean": f"clean_auroc_{key}"}
    if any(row[key] is None for row in rows):
        return {name + end: None for name in names.values() for end in ("", "_ci")}
    pairs = [row[key] for row in rows]
    found: Figures = {}
    for part, name in names.items():
        found |= _area(name, worst([pair[part] for pair in pairs], labels), labels)
    return found


def _pixels(name: str, pixel: PixelMetrics) -> Figures:
    area = pixel.auroc()
    return {
        name: area and area.value,
        f"{name}_ci": pixel.auroc_interval() if area else None,
    }


def _rates(
    prefix: str, scores: NDArray[np.float64], labels: NDArray[np.bool_], threshold: float
) -> Figures:
    miss = metrics.miss_rate(scores, labels, threshold)
    alarm = metrics.false_alarm_rate(scores, labels, threshold)
    return {
        f"{prefix}miss_rate": miss and miss.value,
        f"{prefix}false_alarm_rate": alarm and alarm.value,
    }
