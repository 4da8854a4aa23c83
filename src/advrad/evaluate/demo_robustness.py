"""The demo's attack: AdvRAD beside a plain autoencoder, on the same images."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..data import Dataset
from ..detectors import Progress
from ..model import Model
from .attack_gallery import AttackGallery
from .attack_report import add_curve, add_health
from .attack_summary import chief, doubt, radius
from .attacked import Threat, attack
from .clean import Evaluation
from .health import in_words
from .report import Cell, Report
from .rows import ROWS

FOLDER = "robustness"
IMAGES = 12  # half of them good
SHOWN = 4  # of each detector
NAMES = {"advrad": "AdvRAD", "autoencoder": "a plain autoencoder"}
Results = dict[str, dict[str, Any]]


def attack_both(
    models: Mapping[str, Model],
    dataset: Dataset,
    out: Path,
    asked: Evaluation,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Results:
    """The same quick attack on each model by name, in OUT/robustness/NAME; it resumes."""
    found = {}
    for name, model in models.items():
        wanted = Threat(evaluation=asked)
        stage = f"attacking {NAMES[name]}"
        found[name] = attack(
            model,
            dataset,
            out / FOLDER / name,
            wanted,
            lambda done, total, stage=stage: report(Progress(stage, done, total)),  # type: ignore[misc]
        )
    return found


def sentence(results: Results) -> str:
    """What the attack found, in one sentence."""
    rows = {name: chief(result) for name, result in results.items()}
    first = next(iter(results.values()))
    parts = []
    for name, row in rows.items():
        clean, robust = results[name]["clean_auroc"], row["robust_auroc"]
        moved = f"goes from {clean:.2f} to" if robust < clean else "stays at"
        parts.append(f"that of {NAMES[name]} {moved} {robust:.2f}{doubt(row)}")
    images = first["images"]
    where = f"{radius(chief(first))} on {images['good']} + {images['defect']} images"
    return f"Under an attack of {where}, {' and '.join(parts)}."


def add_robustness(
    report: Report,
    models: Mapping[str, Model],
    dataset: Dataset,
    out: Path,
    results: Results,
    device: str = "cpu",
) -> None:
    """Curve, table, checks and a few attacked images of both."""
    named = {NAMES[name]: result for name, result in results.items()}
    shown = {
        name: [json.loads(line) for line in (out / FOLDER / name / ROWS).read_text().splitlines()]
        for name in results
    }
    add_curve(report, named, shown["advrad"], models["advrad"])
    report.table(
        "The same suite, quick, on both: good images are raised and defects lowered. Counts are "
        "those under attack, at the threshold that each has calibrated on good images.",
        [
            *("detector", "clean AUROC", "under attack", "low", "high"),
            *("defects missed", "good called NG", "health"),
        ],
        [_line(NAMES[name], result) for name, result in results.items()],
    )
    add_health(report, named)
    report.heading("What an attack looks like")
    for name, rows in shown.items():
        result = results[name]
        report.text(f"{NAMES[name][0].upper()}{NAMES[name][1:]}.")
        AttackGallery(models[name], dataset, out / FOLDER / name, result["settings"], device).add(
            report, rows, radius(chief(result)), SHOWN
        )


def _line(name: str, result: dict[str, Any]) -> list[Cell]:
    row, images = chief(result), result["images"]
    missed, alarms = (
        f"{round(row[key] * images[kind])} of {images[kind]}"
        for key, kind in (("miss_rate", "defect"), ("false_alarm_rate", "good"))
    )
    figures = [
        result["clean_auroc"],
        row["robust_auroc"],
        *(row["robust_auroc_ci"] or (None, None)),
    ]
    return [name, *figures, missed, alarms, in_words(row["health"])]
