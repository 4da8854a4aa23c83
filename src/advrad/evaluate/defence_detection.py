"""Whether a purifier's error gives attacks away, and how many mislead all the same.

The score is `purifiers.detect.look`'s, of the evaluation's first draw. Only images that an attack
has changed count as attacked: one that was misread as it came is nobody's attack.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..metrics import auroc, interval
from .defence_metrics import counted

Row = dict[str, Any]
ALARMS = 0.05  # share of clean images that may be taken for attacks


def detection(clean: Sequence[Row], attacked: Sequence[Row]) -> dict[str, Any] | None:
    """AUROC of changed against clean images, and the share of the changed ones that mislead with a
    score below the one that `ALARMS` of the clean ones exceed.

    Rows are those of a cell, image by image, and of its clean cell. None where nothing detects,
    where no image was changed, and where a score is missing.
    """
    changed = [row for row in attacked if row["size"] > 0]
    usual = [row.get("error") for row in clean]
    found = [row.get("error") for row in changed]
    if not changed or None in usual or None in found:
        return None
    scores = np.array([*usual, *found], dtype=float)
    labels = np.arange(len(scores)) >= len(usual)
    bounds = interval(auroc, scores, labels)
    low, high = (None, None) if bounds is None else bounds
    limit = threshold(scores[: len(usual)])
    missed = [row["classes"][0] != row["label"] and row["error"] <= limit for row in changed]
    return {
        "auroc": {"value": auroc(scores, labels), "low": low, "high": high},
        "images": len(changed),
        "threshold": limit,
        "false_alarms": float((scores[: len(usual)] > limit).mean()),
        "unnoticed": counted(np.array(missed)).as_dict(),
    }


def threshold(clean: np.ndarray) -> float:
    """The smallest of the clean scores (N,) that at most `ALARMS` of them exceed."""
    place = math.ceil((1 - ALARMS) * len(clean)) - 1
    return float(np.sort(clean)[place])
