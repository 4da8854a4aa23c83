"""Whether a purifier's error gives attacks away, and how many mislead all the same.

The score is `purifiers.detect.look`'s, of the evaluation's first draw. Only images that an attack
has changed count as attacked: one that was misread as it came is nobody's attack. A score that is
no number is an alarm, the loudest there is.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..metrics import auroc, interval
from .defence_metrics import Table, counted, more_harm
from .health import FAILED, NOT_RUN, PASSED, Check

Row = dict[str, Any]
Scores = NDArray[np.float64]
ALARMS = 0.05  # share of clean images that may be taken for attacks
LOST_SCORE = "lost"  # in the place of one that is no number


def detection(clean: Sequence[Row], attacked: Sequence[Row]) -> dict[str, Any] | None:
    """AUROC of changed against clean images, and the share of the changed ones that mislead with a
    score no higher than a threshold that at most `ALARMS` of the clean ones exceed.

    Rows are those of a cell, image by image, and of its clean cell. The interval of the share
    takes the threshold as known; of fewer than 20 clean images it is the largest score. None where
    nothing detects or no image was changed.
    """
    scored = _scores(clean, attacked)
    changed = np.array([row["size"] > 0 for row in attacked])
    if scored is None or not changed.any():
        return None
    usual, found = scored[0], scored[1][changed]
    scores = np.concatenate([usual, found])
    labels = np.arange(len(scores)) >= len(usual)
    low, high = interval(auroc, scores, labels) or (None, None)
    limit = threshold(usual)
    missed = np.array(unnoticed(clean, attacked))[changed]
    lost = sum(row["error"] == LOST_SCORE for row in (*clean, *attacked))
    return {
        "auroc": {"value": auroc(scores, labels), "low": low, "high": high},
        "images": int(changed.sum()),
        "threshold": limit,
        "false_alarms": float((usual > limit).mean()),
        "unnoticed": counted(missed).as_dict(),
        "lost": lost,
    }


def unnoticed(clean: Sequence[Row], attacked: Sequence[Row]) -> list[bool] | None:
    """Which images an attack has changed, misleads by, and is not noticed on, (N,)."""
    scored = _scores(clean, attacked)
    if scored is None:
        return None
    limit = threshold(scored[0])
    return [
        bool(row["size"] > 0 and row["classes"][0] != row["label"] and score <= limit)
        for row, score in zip(attacked, scored[1], strict=True)
    ]


def louder(ours: Table | None, theirs: Table | None, tail: float) -> Check:
    """An attack that does not hide must not be less noticed; tables are true where the attack is
    noticed or does not mislead, (1, N)."""
    if ours is None or theirs is None:
        return Check(NOT_RUN, "nothing detects")
    words = (
        f"pgd, which does not hide, misleads unnoticed on {1 - theirs.mean():.1%} of the images, "
        f"against {1 - ours.mean():.1%}"
    )
    return Check(PASSED if more_harm(ours, theirs) >= tail else FAILED, words)


def threshold(clean: Scores) -> float:
    """The smallest of the clean scores (N,) that at most `ALARMS` of them exceed."""
    place = math.ceil((1 - ALARMS) * len(clean)) - 1
    return float(np.sort(clean)[place])


def _scores(clean: Sequence[Row], attacked: Sequence[Row]) -> tuple[Scores, Scores] | None:
    """Of both, one that was lost above all others; images that no attack has changed may have
    none. None where nothing detects."""
    usual = [row.get("error") for row in clean]
    found = [row.get("error") for row in attacked if row["size"] > 0]
    if None in usual or None in found:
        return None
    top = 1 + max((float(e) for e in (*usual, *found) if isinstance(e, float)), default=0.0)
    both = [
        np.array([top if each in (LOST_SCORE, None) else each for each in some], dtype=float)
        for some in (usual, [row.get("error") for row in attacked])
    ]
    return both[0], both[1]
