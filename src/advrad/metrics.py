"""How good a ranking of images is, and how sure one can be of it.

A score is higher for a more anomalous image; a label is true for a defect. Everything here is a
function of two counts at each distinct score, the good and the defective images that have it, so
ties need no rule of their own, and a bootstrap of a thousand resamples is one vectorised pass.

A figure that cannot be had, because one class is missing, is None. A score that is not a finite
number is refused: no ranking can place it, and dropping it would flatter the detector.

Bootstrap: Efron and Tibshirani, An Introduction to the Bootstrap, 1993 (percentile interval).
Exact rates: Clopper and Pearson, 1934 (https://doi.org/10.1093/biomet/26.4.404).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv
from torch import Tensor

from .errors import DataError

Values = Tensor | ArrayLike
Metric = Callable[[Values, Values], float | None]
Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

RESAMPLES = 1000
TAIL = 0.025  # on either side of a 95 % interval
CELLS = 1 << 22  # numbers that one step of a bootstrap may hold at once


@dataclass(frozen=True)
class Threshold:
    """A figure and the threshold that reaches it; `score >= threshold` is NG."""

    value: float
    threshold: float


@dataclass(frozen=True)
class Rate:
    """`hits` of `total`, with the exact 95 % interval (Clopper and Pearson)."""

    hits: int
    total: int
    low: float
    high: float

    @property
    def value(self) -> float:
        return self.hits / self.total


@dataclass(frozen=True)
class RocCurve:
    """The rates at each threshold, highest first; all (K,), from (0, 0) to (1, 1)."""

    false_alarm: Floats
    detection: Floats
    threshold: Floats


def auroc(scores: Values, labels: Values) -> float | None:
    """The chance that a defect scores above a good image, a tie counting half. Exact."""
    return _exact(_area, scores, labels)


def average_precision(scores: Values, labels: Values) -> float | None:
    """The sum over distinct thresholds of the recall gained times the precision there."""
    return _exact(_precision, scores, labels)


def f1_max(scores: Values, labels: Values) -> Threshold | None:
    """The best F1 of any threshold, and the highest threshold that reaches it."""
    values, defect = checked(scores, labels)
    if not _both(defect):
        return None
    found, alarms, distinct = _curve(values, defect)
    f1 = 2 * found / (found + alarms + found[-1])
    best = int(f1.argmax())
    return Threshold(float(f1[best]), float(distinct[best]))


def roc_curve(scores: Values, labels: Values) -> RocCurve | None:
    """The detection rate against the false-alarm rate, a point for each distinct score."""
    values, defect = checked(scores, labels)
    if not _both(defect):
        return None
    found, alarms, distinct = _curve(values, defect)
    return RocCurve(
        np.concatenate([[0.0], alarms / alarms[-1]]),
        np.concatenate([[0.0], found / found[-1]]),
        np.concatenate([[np.inf], distinct]),
    )


def roc_band(
    scores: Values, labels: Values, grid: Floats, *, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[Floats, Floats] | None:
    """The pointwise 95 % band of the detection rate at the false-alarm rates `grid` (K,).

    A point says how many defects are found by the lowest threshold whose false-alarm rate does
    not exceed it.
    """
    values, defect = checked(scores, labels)
    if not _both(defect):
        return None
    rows = []
    for good, bad in _resampled_counts(values, defect, resamples, seed):
        alarms, found = good.cumsum(-1) / good.sum(-1)[:, None], bad.cumsum(-1)
        reached = [np.searchsorted(row, grid, "right") for row in alarms]
        started = np.pad(found / found[:, -1:], ((0, 0), (1, 0)))
        rows.append(np.take_along_axis(started, np.stack(reached), -1))
    low, high = np.quantile(np.concatenate(rows), (TAIL, 1 - TAIL), axis=0)
    return low, high


def interval(
    metric: Metric, scores: Values, labels: Values, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float] | None:
    """The 95 % bootstrap interval of `metric`, good images and defects resampled apart.

    Where every pair is in the same order (an AUROC of exactly 0 or 1) all resamples agree, and a
    bootstrap would claim certainty. There the exact bound takes its place: m disjoint pairs, m
    the smaller class, are independent, so an AUROC of A orders them all with a chance of at most
    A^m; the limit is the A at which that chance is 2.5 %. It is wide where images are few,
    wider than the bootstrap of a slightly worse result.
    """
    values, defect = checked(scores, labels)
    if not _both(defect):
        return None
    if metric is auroc and (whole := auroc(values, defect)) in (0.0, 1.0):
        reach = TAIL ** (1 / min(int(defect.sum()), int((~defect).sum())))
        return (reach, 1.0) if whole else (0.0, 1 - reach)
    return percentiles(_replicates(metric, values, defect, resamples, seed))


def miss_rate(scores: Values, labels: Values, threshold: float) -> Rate | None:
    """How many defects score below the threshold."""
    values, defect = checked(scores, labels)
    return rate(int((values[defect] < _number(threshold)).sum()), int(defect.sum()))


def false_alarm_rate(scores: Values, labels: Values, threshold: float) -> Rate | None:
    """How many good images score at or above the threshold."""
    values, defect = checked(scores, labels)
    return rate(int((values[~defect] >= _number(threshold)).sum()), int((~defect).sum()))


def rate(hits: int, total: int) -> Rate | None:
    """`hits` of `total` with the exact 95 % interval; None of nothing."""
    if not total:
        return None
    low = float(betaincinv(hits, total - hits + 1, TAIL)) if hits else 0.0
    high = float(betaincinv(hits + 1, total - hits, 1 - TAIL)) if hits < total else 1.0
    return Rate(hits, total, low, high)


def percentiles(replicates: Floats) -> tuple[float, float]:
    """The middle 95 % of bootstrap replicates."""
    low, high = np.quantile(replicates, (TAIL, 1 - TAIL))
    return float(low), float(high)


def draws(sizes: Sequence[int], resamples: int, seed: int) -> Iterator[list[NDArray[np.int64]]]:
    """Resamples with replacement of several groups: for each group the indices (rows, size).

    Each group has a source of its own, so that the draws do not depend on how many rows fit.
    """
    if resamples < 1:
        raise DataError(f"a bootstrap of {resamples} resamples was asked for; it needs at least 1")
    sources = [np.random.default_rng([seed, group]) for group in range(len(sizes))]
    rows = max(1, CELLS // max(1, sum(sizes)))
    for start in range(0, resamples, rows):
        held = min(rows, resamples - start)
        pairs = zip(sources, sizes, strict=True)
        yield [source.integers(size, size=(held, size)) for source, size in pairs]


def checked(scores: Values, labels: Values) -> tuple[Floats, NDArray[np.bool_]]:
    """Scores as float64 (N,) and labels as bool (N,); refuses what cannot be ranked."""
    values = _array(scores).astype(np.float64)
    marks = _array(labels)
    if values.ndim != 1 or values.shape != marks.shape:
        raise DataError(
            f"scores of shape {values.shape} and labels of shape {marks.shape}: "
            "expected one score and one label for each image"
        )
    if bad := int((~np.isfinite(values)).sum()):
        raise DataError(
            f"{bad} of {len(values)} scores are not finite numbers: "
            "find the images they belong to and leave those out by name, or mend the model"
        )
    if not np.isin(marks, (0, 1)).all():
        raise DataError("labels must be true (defect) or false (good)")
    return values, marks.astype(np.bool_)


def _exact(
    figure: Callable[[Counts, Counts], Floats], scores: Values, labels: Values
) -> float | None:
    values, defect = checked(scores, labels)
    if not _both(defect):
        return None
    codes, width = _codes(values)
    counts = [np.bincount(codes[part], minlength=width) for part in (~defect, defect)]
    return float(figure(counts[0], counts[1]))


def _area(good: Counts, bad: Counts) -> Floats:
    """AUROC (...) from counts (..., K), highest score first, in whole numbers to the last line."""
    below = good.sum(-1)[..., None] - good.cumsum(-1)
    wins = (bad * (2 * below + good)).sum(-1)
    return np.asarray(wins / (2 * good.sum(-1) * bad.sum(-1)))


def _precision(good: Counts, bad: Counts) -> Floats:
    """Average precision (...) from counts (..., K), highest score first."""
    found, marked = bad.cumsum(-1), (good + bad).cumsum(-1)
    return np.asarray((bad * found / np.maximum(marked, 1)).sum(-1) / bad.sum(-1))


BY_COUNTS: dict[Metric, Callable[[Counts, Counts], Floats]] = {
    auroc: _area,
    average_precision: _precision,
}


def _replicates(
    metric: Metric, values: Floats, defect: NDArray[np.bool_], resamples: int, seed: int
) -> Floats:
    if metric in BY_COUNTS:
        counts = _resampled_counts(values, defect, resamples, seed)
        return np.concatenate([BY_COUNTS[metric](good, bad) for good, bad in counts])
    groups = np.flatnonzero(~defect), np.flatnonzero(defect)
    figures = []
    for good, bad in draws([len(group) for group in groups], resamples, seed):
        for row in np.concatenate([groups[0][good], groups[1][bad]], axis=1):
            figures.append(metric(values[row], defect[row]))
    return np.asarray(figures, np.float64)


def _resampled_counts(
    values: Floats, defect: NDArray[np.bool_], resamples: int, seed: int
) -> Iterator[tuple[Counts, Counts]]:
    """Counts of good images and of defects at each distinct score, both (rows, K)."""
    codes, width = _codes(values)
    groups = codes[~defect], codes[defect]
    for good, bad in draws([len(group) for group in groups], resamples, seed):
        yield _tally(groups[0][good], width), _tally(groups[1][bad], width)


def _tally(codes: NDArray[np.int64], width: int) -> Counts:
    """How often each code occurs in each row: (rows, N) -> (rows, width)."""
    rows = len(codes)
    places = codes + width * np.arange(rows)[:, None]
    return np.bincount(places.ravel(), minlength=rows * width).reshape(rows, width)


def _codes(values: Floats) -> tuple[NDArray[np.int64], int]:
    """The rank of each score among the distinct ones, the highest first, and their number."""
    distinct, places = np.unique(-values, return_inverse=True)
    return places.astype(np.int64), len(distinct)


def _curve(values: Floats, defect: NDArray[np.bool_]) -> tuple[Counts, Counts, Floats]:
    """Defects found and false alarms at each distinct score, the highest first."""
    codes, width = _codes(values)
    found, alarms = (
        np.bincount(codes[part], minlength=width).cumsum() for part in (defect, ~defect)
    )
    return found, alarms, -np.unique(-values)


def _both(defect: NDArray[np.bool_]) -> bool:
    return bool(defect.any() and not defect.all())


def _number(threshold: float) -> float:
    if np.isnan(threshold):
        raise DataError("the threshold is not a number")
    return threshold


def _array(values: Values) -> NDArray[np.generic]:
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        return np.asarray(values.double() if values.is_floating_point() else values)
    return np.asarray(values)
