"""The part of an attack's report that says how much it takes to turn each verdict."""

from pathlib import Path
from typing import Any

from ..data import Dataset
from .attack_smallest import SEARCH
from .attack_summary import distrust, found_eps, number, spread
from .curves import standing_figure
from .health import in_words
from .report import Cell, Report
from .sections import add_charts

Result = dict[str, Any]
LISTED = 30  # images in the table of smallest radii
SIDES = {"defect": "defects", "good": "good ones"}


def add_smallest(report: Report, result: Result, dataset: Dataset) -> None:
    """How many verdicts turn at which radius, where it was searched their chart, and a list."""
    report.heading("How much it takes")
    if "search" in result:
        _add_search(report, result)
    _add_counts(report, result)
    _add_list(report, result, dataset)


def name(dataset: Dataset, path: str) -> str:
    """An image's path below the data set's root."""
    inside = Path(path).is_relative_to(dataset.root)
    return dataset.relative(Path(path)) if inside else Path(path).name


def _add_search(report: Report, result: Result) -> None:
    found, search, norm = result["smallest_eps"], result["search"], result["settings"]["norm"]
    limit, cost = found_eps(search["up_to"], norm), search["cost"]
    lines = []
    for kind, words in SIDES.items():
        each = [one for one in found if one["defect"] is (kind == "defect")]
        if each:
            lines.append(f"{words}: {spread(each, search['median'][kind], norm)}")
    report.text(
        f"The smallest eps that turns each image's verdict, searched up to {limit} within "
        f"{cost['gradients']} evaluations with a gradient and {cost['forwards']} without: "
        f"{'. '.join(lines)}{distrust(result)}. A better search may find a smaller one."
    )
    add_charts(
        report,
        [
            (
                lambda: standing_figure(result),
                "Share of images whose verdict stands, against eps.",
                "Each step down is one image more whose verdict can be turned. The line at the "
                f"left end starts below 1 by what is wrong without attack{distrust(result)}.",
            )
        ],
    )


def _add_counts(report: Report, result: Result) -> None:
    """How many verdicts are wrong at each radius that was asked for."""
    found, norm = result["smallest_eps"], result["settings"]["norm"]
    counts: list[list[Cell]] = []
    for row in sorted(result["rows"], key=lambda row: float(row["eps"])):
        line: list[Cell] = [number(row["eps"], norm)]
        for defect in (True, False):
            each = [one for one in found if one["defect"] is defect]
            lost = sum(one["eps"] is not None and one["eps"] <= row["eps"] for one in each)
            line.append(f"{lost} of {len(each)}" if each else None)
        counts.append([*line, in_words(row["health"])])
    report.table(
        "Images whose verdict is wrong at this radius or at a smaller one.",
        ["radius", "defects missed", "good ones called NG", "health"],
        counts,
    )


def _add_list(report: Report, result: Result, dataset: Dataset) -> None:
    found, norm = result["smallest_eps"], result["settings"]["norm"]
    lost = sorted((one for one in found if one["eps"] is not None), key=lambda one: one["eps"])
    if not lost:
        return
    rows: list[list[Cell]] = []
    for one in lost[:LISTED]:
        words = found_eps(one["eps"], norm) if one["found"] == SEARCH else number(one["eps"], norm)
        truth = "defect" if one["defect"] else "good"
        shown = f"{words}{distrust(result)}" if one["eps"] else "0, without attack"
        rows.append([name(dataset, one["path"]), truth, shown, one["found"]])
    report.table(
        "The smallest radius known at which an image's verdict is wrong, searched or of the curve"
        + (f"; {LISTED} of {len(lost)} are listed." if len(lost) > LISTED else "."),
        ["image", "truth", "radius", "by"],
        rows,
    )
