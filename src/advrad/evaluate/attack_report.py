"""The report of an attack: what it found, whether that can be believed, and what it looks like."""

import json
from pathlib import Path
from typing import Any

from ..data import Dataset
from ..model import Model
from .attack_gallery import AttackGallery
from .attack_rows import Row
from .attack_standing import add_smallest
from .attack_summary import FIGURES, between, chief, doubt, finding, number, radius
from .curves import curve_figure, moves_figure
from .health import UNCHECKED, in_words
from .lost import told
from .report import Cell, Fact, Report
from .rows import RESULT, ROWS
from .sections import Chart, add_charts, add_settings, footer

Result = dict[str, Any]
CAPTION = (
    "Image by image the attack that did most harm, scored under noise that had no part in finding "
    "it. Both sides: good images are raised and defects lowered; the floor is 0 and not one half."
)
FOUND = (
    "A check states what holds for every honest detector and every attack that finds what there "
    "is. Where one fails the figure is suspect: the attack was hindered, and the true figure may "
    "be lower."
)


def write_attack_report(model: Model, dataset: Dataset, out: Path, device: str = "cpu") -> Path:
    """Writes OUT/report.html from the results in OUT, and says where it is."""
    result = json.loads((out / RESULT).read_text())
    report = Report(f"advrad attack: {dataset.name}", finding(result), footer(model))
    add_attack(report, model, dataset, out, device)
    add_settings(report, result["settings"])
    page = out / "report.html"
    report.write(page)
    return page


def add_attack(
    report: Report, model: Model, dataset: Dataset, out: Path, device: str = "cpu"
) -> None:
    """Key figures, charts, tables and gallery of the results in OUT."""
    result = json.loads((out / RESULT).read_text())
    lines = (out / ROWS).read_text().splitlines()
    shown = [row for row in map(json.loads, lines) if row["radius"] == _number(result)]
    report.facts(_facts(result))
    add_curve(report, {"": result}, shown, model)
    add_figures(report, result)
    add_health(report, {"": result})
    add_smallest(report, result, dataset)
    report.heading("What it looks like")
    AttackGallery(model, dataset, out, result["settings"], device).add(
        report, shown, radius(chief(result))
    )


def add_curve(report: Report, results: dict[str, Result], rows: list[Row], model: Model) -> None:
    """The AUROC against the radius for each result by name; `rows` are those of the first."""
    name, first = next(iter(results.items()))
    charts: list[Chart] = []
    if first["clean_auroc"] is not None:
        charts.append(
            (
                lambda: curve_figure(results),
                "Image AUROC against the radius of the attack.",
                "Security curve with 95 % bootstrap bands; at radius 0 nobody attacks. A hollow "
                "mark is a suspect figure.",
            )
        )
    lines = {"NG": model.calibration.threshold}
    charts.append(
        (
            lambda: moves_figure(rows, lines["NG"]),
            "Each image's score before and under attack.",
            f"{name}{': e' if name else 'E'}ach mark is one image, before and under "
            f"{radius(chief(first))}{doubt(chief(first))}: above the diagonal its score rose. "
            "Lines: the threshold of NG.",
        )
    )
    report.heading("What an attacker can do")
    add_charts(report, charts)


def add_figures(report: Report, result: Result) -> None:
    """Every figure of every radius beside its clean one, and each part of the suite alone."""
    report.heading("Figures")
    rows = [line for row in result["rows"] for line in _lines(result, row)]
    header = ["figure", "radius", "clean", "under attack", "low", "high", "health"]
    report.table(CAPTION, header, rows)
    if result["why"]:
        report.text(f"n/a: {result['why']}.")
    for row in result["rows"]:
        if row.get("lost"):
            report.text(f"{radius(row)}: {told(row['lost'])}; it has no mark in the chart.")
    parts = [
        [name, number(row["eps"], row["norm"]), area, in_words(row["health"])]
        for row in result["rows"]
        for name, area in row["parts"].items()
    ]
    if parts:
        report.table(
            "Each attack of the suite alone: image AUROC of its own candidates.",
            ["attack", "radius", "image AUROC", "health"],
            parts,
        )


def add_health(report: Report, results: dict[str, Result]) -> None:
    """Every check of every radius, of the results by name."""
    report.heading("Can the figures be believed?")
    report.text(FOUND)
    for name, result in results.items():
        for row in result["rows"]:
            health = row["health"]
            title = f"{name}, {radius(row)}" if name else radius(row)
            if health["verdict"] == UNCHECKED:
                report.text(f"{title}: {UNCHECKED}, {health['checks']['floor']['words']}.")
                continue
            report.table(
                f"{title}: {in_words(health)}.",
                ["check", "status", "what was seen"],
                [
                    [check.replace("_", " "), found["status"].replace("_", " "), found["words"]]
                    for check, found in health["checks"].items()
                ],
            )


def _facts(result: Result) -> list[Fact]:
    row = chief(result)
    facts = []
    for name, label in (
        ("robust_auroc", "image AUROC under attack"),
        ("pixel_auroc", "pixel AUROC under attack"),
    ):
        if row[name] is not None:
            clean = result["clean_" + name.removeprefix("robust_")]
            note = "; ".join(filter(None, [between(row, name), f"clean {clean:.3f}"]))
            facts.append(Fact(label, f"{row[name]:.3f}{doubt(row)}", note))
    for name, label, kind in (
        ("miss_rate", "defects missed", "defect"),
        ("false_alarm_rate", "good called NG", "good"),
    ):
        if row[name] is not None:
            total = result["images"][kind]
            hits, before = (round(each * total) for each in (row[name], result[f"clean_{name}"]))
            note = f"{before} without attack"
            facts.append(Fact(label, f"{hits} of {total}{doubt(row)}", note))
    health = row["health"]
    left_out = ", ".join(health["not_run"])
    note = f"not run: {left_out}" if left_out else "every check was run"
    facts.append(Fact("Health", health["verdict"], note))
    if result["skipped"]:
        facts.append(Fact("left out", len(result["skipped"]), "images that cannot be read"))
    return facts


def _lines(result: Result, row: Result) -> list[list[Cell]]:
    lines: list[list[Cell]] = []
    for name in FIGURES:
        if row[name] is None:
            continue
        words, beside = FIGURES[name]
        low, high = row.get(f"{name}_ci") or (None, None)
        clean = row.get(beside, result.get(beside))
        eps = number(row["eps"], row["norm"])
        lines.append([words, eps, clean, row[name], low, high, in_words(row["health"])])
    return lines


def _number(result: Result) -> int:
    """Of the radius that is shown image by image."""
    place: int = result["rows"].index(chief(result))
    return place
