"""The figures of a certificate, from its rows."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from .. import metrics
from ..calibrate import NG, OK
from ..certify import Ordered, certified_auroc, largest_shift, ordered, ranks, worst
from .certificate import Certificate
from .certified_rows import UNDECIDED, Row
from .smoothed import Smoothed, Way

Figures = dict[str, Any]
POINTS = 60  # of the curve, at most


def figures(rows: Sequence[Row], smoothed: Smoothed, wanted: Certificate) -> Figures:
    """At one sigma and scoring; None for what cannot be had."""
    way, labels = smoothed.way, np.array([row["defect"] for row in rows])
    draws, alpha = columns(rows), wanted.alpha / len(rows)
    needed = {r: n for (s, r), n in wanted.impossible(len(rows)).items() if s == way.sigma}
    missing = {"value": None, "ci": None}
    areas = {
        f"{r:g}": missing if r in needed else _area(draws, labels, r / way.sigma, alpha)
        for r in wanted.radii
    }
    medians = draws.median.numpy()
    seconds = [row["seconds"] for row in rows]
    return {
        "sigma": way.sigma,
        "scoring": way.scoring,
        "samples": way.samples,
        "alpha": wanted.alpha,
        **_named("smoothed_auroc", _ranked(medians, medians, labels)),
        "certified_auroc": {r: area["value"] for r, area in areas.items()},
        "certified_auroc_ci": {r: area["ci"] for r, area in areas.items()},
        "needed": {f"{r:g}": n for r, n in needed.items()},
        "certified": {f"{r:g}": _verdicts(rows, r, way, wanted) for r in wanted.radii},
        "abstained": sum(row["verdict"] == UNDECIDED for row in rows) / len(rows),
        "half": half(draws, labels, way.sigma, alpha),
        "curve": curve(draws, labels, way.sigma, alpha),
        "threshold": smoothed.calibration.threshold,
        "lost": sum(row["lost"] for row in rows),
        "calibration_lost": smoothed.lost,
        "seconds_per_image": sum(seconds) / len(seconds),
        **_regions(rows, wanted, smoothed),
    }


def chief(result: Figures) -> tuple[float, Figures] | None:
    """The radius and the best figure that stand for a result: the largest radius whose certified
    AUROC is at least one half, or else the highest figure; None where there is none."""
    found = [(float(radius), area) for radius, area in result["best"].items() if area]
    good = [pair for pair in found if pair[1]["value"] >= 0.5]
    if good:
        return max(good, key=lambda pair: pair[0])
    return max(found, key=lambda pair: (float(pair[1]["value"]), pair[0]), default=None)


def floored(value: float, places: int = 3) -> str:
    """A lower bound as decimals that are not above it."""
    return f"{math.floor(value * 10**places + 1e-9) / 10**places:.{places}f}"


def sure(share: float) -> str:
    """A share that is a lower bound, in per cent."""
    return f"{floored(100 * share, 1)} %"


def best(
    tests: Sequence[Sequence[Row]], ways: Sequence[Way], wanted: Certificate
) -> dict[str, Figures | None]:
    """By radius the largest certified AUROC of all ways. Choosing among ways and radii afterwards
    costs error, so that each pair gets its share of alpha, and all that is here holds at once.
    None where there is none."""
    found: dict[str, Figures | None] = {}
    drawn = [columns(rows) for rows in tests]
    shares = len(ways) * len(wanted.radii)
    for radius in wanted.radii:
        tried = []
        for rows, way, draws in zip(tests, ways, drawn, strict=True):
            labels, alpha = (
                np.array([r["defect"] for r in rows]),
                wanted.alpha / len(rows) / shares,
            )
            shift = radius / way.sigma
            if shift <= largest_shift(way.samples, alpha):
                area = _area(draws, labels, shift, alpha)
                tried.append(area | {"sigma": way.sigma, "scoring": way.scoring})
        tried = [area for area in tried if area["value"] is not None]
        found[f"{radius:g}"] = max(tried, key=lambda area: float(area["value"]), default=None)
    return found


def clean_figures(scores: Sequence[float | None], labels: list[bool]) -> Figures:
    """The unsmoothed detector on the same images; None where a score is no finite number."""
    known = [score for score in scores if score is not None and math.isfinite(score)]
    if len(known) < len(scores):
        return {"clean_auroc": None, "clean_auroc_ci": None}
    return {
        "clean_auroc": metrics.auroc(known, labels),
        "clean_auroc_ci": metrics.interval(metrics.auroc, known, labels),
    }


def why(scores: Sequence[float | None], labels: list[bool]) -> str | None:
    """Which figures cannot be had, and for what reason."""
    if len(set(labels)) == 1:
        kind = "good" if all(labels) else "defective"
        return f"no {kind} test images, so no AUROC; verdicts and radii stand"
    lost = sum(score is None or not math.isfinite(score) for score in scores)
    if lost:
        return (
            f"{lost} of {len(scores)} images have no finite score without noise, so no AUROC of "
            "the detector without smoothing; all that is said of the smoothed one stands"
        )
    return None


def columns(rows: Sequence[Row]) -> Ordered:
    """The draws of all rows, an image a column, (n, N)."""
    lists = [[float("nan") if v is None else v for v in row["scores"]] for row in rows]
    return ordered(torch.tensor(lists, dtype=torch.float32).T)


def half(draws: Ordered, labels: Any, sigma: float, alpha: float) -> float | None:
    """The largest l2 radius at which certified AUROC is at least one half; None where there is
    none, not even 0. Order statistics change at a few radii only, so it is exact."""
    low, high = 1, ranks(len(draws.low), 0.0, alpha)[0]
    if not high or (_of_rank(draws, labels, high) or 0.0) < 0.5:
        return None
    while low < high:
        middle = (low + high) // 2
        if (_of_rank(draws, labels, middle) or 0.0) >= 0.5:
            high = middle
        else:
            low = middle + 1
    return sigma * largest_shift(len(draws.low), alpha, low)


def curve(draws: Ordered, labels: Any, sigma: float, alpha: float) -> dict[str, list[Any]]:
    """Certified AUROC against the l2 radius, up to the largest that the draws can bound.

    It is a step: each value holds at its radius and at all smaller ones.
    """
    first = ranks(len(draws.low), 0.0, alpha)[0]
    if not first or _of_rank(draws, labels, first) is None:
        return {"radius": [], "auroc": []}
    chosen = np.unique(np.linspace(first, 1, min(first, POINTS)).round().astype(int))[::-1]
    places = [sigma * largest_shift(len(draws.low), alpha, int(rank)) for rank in chosen]
    areas = [_of_rank(draws, labels, int(rank)) for rank in chosen]
    return {"radius": places, "auroc": areas}


def _of_rank(draws: Ordered, labels: Any, rank: int) -> float | None:
    """Certified AUROC with the order statistic `rank` as lower bound, its mirror as upper."""
    lower, upper = draws.low[rank - 1].numpy(), draws.high[-rank].numpy()
    return certified_auroc(lower[labels], upper[~labels])


def _area(draws: Ordered, labels: Any, shift: float, alpha: float) -> Figures:
    lower, upper = (end.numpy() for end in draws.bounds(shift, alpha))
    found = _ranked(lower, upper, labels)
    return found | {"value": certified_auroc(lower[labels], upper[~labels])}


def _ranked(lower: Any, upper: Any, labels: Any) -> Figures:
    """AUROC of L of the defects and U of the good ones, and its bootstrap interval; a median that
    is no number is the worst for its image."""
    low, high = (
        np.where(np.isnan(found), end, found) for found, end in ((lower, -np.inf), (upper, np.inf))
    )
    scores = worst(low, high, labels)
    return {
        "value": metrics.auroc(scores, labels),
        "ci": metrics.interval(metrics.auroc, scores, labels),
    }


def _named(name: str, found: Figures) -> Figures:
    return {name: found["value"], f"{name}_ci": found["ci"]}


def _verdicts(rows: Sequence[Row], radius: float, way: Way, wanted: Certificate) -> Figures | None:
    """`_decided`, or None where no verdict can be certain at the radius with so few draws."""
    least = wanted.verdicts_need(radius, way.sigma, len(rows))
    return None if least is None or least > way.samples else _decided(rows, radius)


def _decided(rows: Sequence[Row], radius: float) -> Figures:
    """The share of images whose right verdict no change up to the radius can turn."""

    def share(some: list[Row], right: dict[bool, str]) -> float | None:
        held = [r["verdict"] == right[r["defect"]] and r["radius"] >= radius for r in some]
        return sum(held) / len(held) if held else None

    right = {True: NG, False: OK}
    return {
        "accuracy": share(list(rows), right),
        "defect": share([row for row in rows if row["defect"]], right),
        "good": share([row for row in rows if not row["defect"]], right),
    }


def _regions(rows: Sequence[Row], wanted: Certificate, smoothed: Smoothed) -> Figures:
    """By radius: the share of the drawn defects' blocks that certainly reach their threshold, the
    share of all others that certainly stay below, and how many of those reach it all the same.
    None where the draws are too few for any block, and `regions_needed` says how many it takes."""
    if not wanted.block:
        return {}

    def share(cells: Sequence[dict[str, int]], part: str, whole: str) -> float | None:
        total = sum(cell[whole] for cell in cells)
        return sum(cell[part] for cell in cells) / total if total else None

    found: dict[str, Figures | None] = {}
    needed, way, size = {}, smoothed.way, smoothed.detector.input_size
    for radius in wanted.radii:
        least = wanted.regions_need(radius, way.sigma, len(rows), size)
        if least is None or least > way.samples:
            found[f"{radius:g}"], needed[f"{radius:g}"] = None, least
            continue
        cells = [row["regions"][f"{radius:g}"] for row in rows]
        found[f"{radius:g}"] = {
            "defect_above": share(cells, "above", "defect"),
            "good_below": share(cells, "below", "good"),
            "good_above": sum(cell["above_elsewhere"] for cell in cells),
        }
    told = {"block": wanted.block, "block_threshold": smoothed.peak}
    return told | {"regions": found, "regions_needed": needed}
