"""The report of an evaluation: what was found, how sure that is, and where it went wrong."""

import json
from pathlib import Path
from typing import Any

from .. import metrics
from ..calibrate import NG
from ..data import Dataset, Item
from ..model import Model
from .figures import roc_figure, scores_figure
from .gallery import Gallery
from .report import Cell, Fact, Report
from .rows import PAGE, RESULT, ROWS
from .sections import Chart, add_charts, add_settings, footer
from .summary import finding

PRO = "overlap of regions, up to a false-alarm rate of 0.3"
SHOWN = 24  # images of the gallery
LABELS = {
    "image_auroc": "image AUROC",
    "image_ap": "image average precision",
    "f1_max": "largest image F1",
    "pixel_auroc": "pixel AUROC",
    "pro": "PRO",
}


def write_evaluation_report(
    model: Model, dataset: Dataset, out: Path, device: str = "cpu"
) -> Path:
    """Writes OUT/report.html from the results in OUT, and says where it is."""
    result = json.loads((out / RESULT).read_text())
    report = Report(f"advrad evaluate: {dataset.name}", finding(result), footer(model))
    add_evaluation(report, model, dataset, out, device)
    add_settings(report, result["settings"])
    page = out / PAGE
    report.write(page)
    return page


def add_evaluation(
    report: Report, model: Model, dataset: Dataset, out: Path, device: str = "cpu"
) -> None:
    """Key figures, charts, table and gallery of the results in OUT."""
    result = json.loads((out / RESULT).read_text())
    rows = [json.loads(line) for line in (out / ROWS).read_text().splitlines()]
    scores, labels = [row["score"] for row in rows], [row["defect"] for row in rows]
    threshold = model.calibration.threshold
    report.facts(_facts(result, scores, labels, threshold))
    report.heading("How the classes separate")
    report.text(
        "Each mark is one image; a score at or above the threshold is called NG. "
        + model.calibration.sentence()
    )
    add_charts(report, _charts(scores, labels, model))
    report.heading("Figures")
    report.table(
        "Measured on the test images, which had no part in training. Intervals are 95 % bootstrap "
        "intervals over images. PRO is the overlap of regions up to a false-alarm rate of 0.3.",
        ["metric", "value", "low", "high"],
        table_rows(result),
    )
    if result.get("masks"):
        masks, defects = result["masks"], result["images"]["defect"]
        report.text(
            f"{masks} of {defects} defects have masks; the figures for pixels are of them."
        )
    if result["why"]:
        report.text(f"n/a: {result['why']}.")
    report.heading("What it saw")
    report.text(
        "Misses and false alarms come first, the worst before; then defects, then good images, "
        "the closest decisions before."
    )
    items = worth_seeing(rows, dataset, threshold)
    Gallery(model, dataset, result["settings"]["seed"], device).add(report, items)
    if len(rows) > len(items):
        report.text(f"{len(items)} of {len(rows)} images are shown.")


def worth_seeing(rows: list[dict[str, Any]], dataset: Dataset, threshold: float) -> list[Item]:
    """The worst misses and false alarms, then defects and good images, the closest first."""
    items = {str(item.path): item for item in dataset.test}

    def rank(row: dict[str, Any]) -> tuple[bool, float]:
        """Wrong ones first, the most wrong before; then right ones, the least clear before."""
        margin = row["score"] - threshold
        right = margin if row["defect"] else -margin
        return (row["verdict"] == NG) == row["defect"], right

    known = [row for row in rows if row["score"] is not None and row["path"] in items]
    ordered = sorted(known, key=rank)
    wrong = [row for row in ordered if not rank(row)[0]][:SHOWN]
    left = SHOWN - len(wrong)
    good = [row for row in ordered if rank(row)[0] and not row["defect"]]
    bad = [row for row in ordered if rank(row)[0] and row["defect"]]
    share = max(left // 3, left - len(bad))
    chosen = [*wrong, *bad[: left - min(share, len(good))], *good[:share]]
    return [items[row["path"]] for row in chosen]


def table_rows(result: dict[str, Any]) -> list[list[Cell]]:
    """Every figure with its interval, and other scores of the detector beside its own."""
    rows: list[list[Cell]] = []
    for name, label in LABELS.items():
        low, high = result.get(f"{name}_ci") or (None, None)
        rows.append([label, result[name], low, high])
    for name, figures in result["beside"].items():
        low, high = figures.get("image_auroc_ci") or (None, None)
        rows.append([f"image AUROC of the score '{name}'", figures["image_auroc"], low, high])
    if result["seconds_per_image"] is not None:
        rows.append(["milliseconds an image", 1000 * result["seconds_per_image"], None, None])
    return rows


def _facts(
    result: dict[str, Any], scores: list[float], labels: list[bool], threshold: float
) -> list[Fact]:
    images = result["images"]
    facts = []
    for name in ("image_auroc", "pixel_auroc", "pro"):
        if result[name] is None:
            continue
        interval = result.get(f"{name}_ci")
        note = f"95 % interval {interval[0]:.3f} to {interval[1]:.3f}" if interval else PRO
        facts.append(Fact(LABELS[name], f"{result[name]:.3f}", note))
    for label, found in (
        ("defects missed", metrics.miss_rate(scores, labels, threshold)),
        ("good called NG", metrics.false_alarm_rate(scores, labels, threshold)),
    ):
        if found:
            note = f"{found.low:.0%} to {found.high:.0%} (exact 95 % interval)"
            facts.append(Fact(label, f"{found.hits} of {found.total}", note))
    skipped = len(result["skipped"])
    if skipped:
        total = images["good"] + images["defect"] + skipped
        facts.append(Fact("left out", skipped, f"of {total} images; they cannot be read"))
    return facts


def _charts(scores: list[float], labels: list[bool], model: Model) -> list[Chart]:
    good, bad = labels.count(False), labels.count(True)
    lines = {"NG": model.calibration.threshold, "UNSURE": model.calibration.unsure}
    charts: list[Chart] = [
        (
            lambda: scores_figure(scores, labels, lines),
            f"Scores of {good} good and {bad} defective images with both thresholds.",
            "Scores by class, with the thresholds of NG and UNSURE.",
        )
    ]
    if good and bad:
        charts.append(
            (
                lambda: roc_figure(scores, labels, lines["NG"]),
                f"ROC curve, AUROC {metrics.auroc(scores, labels):.3f}.",
                "ROC curve with its 95 % bootstrap band; the square is the threshold of NG with "
                "exact intervals.",
            )
        )
    return charts
