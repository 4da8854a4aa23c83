"""The report of a training: what was learnt, what was chosen, what the thresholds promise."""

import json
from itertools import islice
from pathlib import Path
from typing import Any

from ..data import Dataset, Item
from ..errors import ImageError
from ..images import fingerprint
from ..model import Model
from .figures import loss_figure
from .gallery import Gallery
from .report import Fact, Report
from .sections import add_charts, add_settings, cell, footer, percent, seconds_in_words
from .summary import chosen

SHOWN = 6  # held-out good images


def write_training_report(
    model: Model, dataset: Dataset, folder: Path, device: str = "cpu"
) -> Path:
    """Writes MODEL/training/report.html and says where it is."""
    report = Report(f"advrad train: {dataset.name}", finding(model), footer(model))
    add_training(report, model, folder)
    held = held_out(model, dataset)
    if held:
        report.heading("Good images it has not trained on")
        report.text(
            "What the model rebuilds of good images, and how far they are from it. Nothing here "
            "should glow."
        )
        Gallery(model, dataset, model.about["seed"], device).add(report, held)
    add_settings(report, settings_of(model))
    page = folder / "training" / "report.html"
    report.write(page)
    return page


def finding(model: Model) -> str:
    """One sentence on the outcome of a training."""
    about, held = model.about, model.calibration
    most = f"{'about ' * held.approximate}{percent(held.level)} of good images or fewer"
    return (
        f"Learnt from {len(model.seen['train'])} good images of {about['data']} in "
        f"{seconds_in_words(about['training']['seconds'])}; {most} will be called NG."
    )


def add_training(report: Report, model: Model, folder: Path) -> None:
    """Key figures, calibration, loss curve and tables of choices."""
    report.heading("Training")
    report.facts(_facts(model))
    losses = read_losses(folder)
    if losses:
        chart = (
            lambda: loss_figure(losses),
            f"Training loss over {losses[-1][0]} steps, from {losses[0][1]:.3g} to "
            f"{losses[-1][1]:.3g}.",
            "Loss at each step and its running mean.",
        )
        add_charts(report, [chart])
    for choice in chosen(model):
        _add_choice(report, choice)
    _add_calibration(report, model)


def held_out(model: Model, dataset: Dataset) -> list[Item]:
    """A few good images that calibrated the model and did not train it."""
    trained, held = set(model.seen["train"]), set(model.seen["calibrate"])
    wanted = held - trained or held
    good = (item for item in dataset.train if not item.defect)
    return list(islice((item for item in good if _digest(item) in wanted), SHOWN))


def read_losses(folder: Path) -> list[tuple[int, float]]:
    """Step and loss from the training's log, where there is one."""
    path = folder / "training" / "log.jsonl"
    if not path.exists():
        return []
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [(row["step"], row["loss"]) for row in rows]


def settings_of(model: Model) -> dict[str, Any]:
    """What is needed to train it again."""
    about = model.about
    names = ("advrad", "data", "layout", "split_seed", "seed", "settings", "machine")
    return {name: about[name] for name in names if name in about}


def _facts(model: Model) -> list[Fact]:
    about, seen = model.about, model.seen
    spent = about["training"]
    same = set(seen["tune"]) == set(seen["calibrate"])
    tuned = "the same" if same else str(len(seen["tune"]))
    others = "the same" if set(seen["train"]) == set(seen["calibrate"]) else "others"
    facts = [
        Fact(
            "Good images trained on",
            len(seen["train"]),
            f"{len(seen['calibrate'])} {others} calibrate, {tuned} tune",
        ),
        Fact(
            "Time",
            seconds_in_words(spent["seconds"]),
            f"by the clock; {seconds_in_words(spent['cpu_seconds'])} of processor time",
        ),
        Fact(
            "Threshold of NG",
            f"{model.calibration.threshold:.4g}",
            f"UNSURE from {model.calibration.unsure:.4g}",
        ),
        Fact("Parameters", f"{about['cost']['parameters']:,}", f"{_side(model)} images"),
    ]
    if about["skipped"]:
        facts.append(Fact("Left out", len(about["skipped"]), "images that cannot be read"))
    return facts


def _side(model: Model) -> str:
    size = model.preprocess.size
    return f"{model.preprocess.channels} x {size} x {size}"


def _add_choice(report: Report, choice: dict[str, Any]) -> None:
    """What was tried; the value taken is marked."""
    name, rows = choice["name"], choice["table"]
    header = list(rows[0])
    table = [
        [*(cell(row[key]) for key in header), "taken" if row[name] == choice["chosen"] else ""]
        for row in rows
    ]
    report.table(
        f"{name[:1].upper()}{name[1:]} was chosen without test labels: how well (AUROC) each "
        "value tells held-out good images from the same images with defects that we painted in.",
        [*header, "choice"],
        table,
    )


def _add_calibration(report: Report, model: Model) -> None:
    calibration = model.calibration
    kind = "approximate" if calibration.approximate else "held for any detector"
    report.table(
        "Thresholds from held-out good images.",
        ["verdict", "from a score of", "good images called so, at most", "images", "bound"],
        [
            ["NG", calibration.threshold, percent(calibration.level), calibration.count, kind],
            [
                "UNSURE or NG",
                calibration.unsure,
                percent(calibration.unsure_level),
                calibration.count,
                kind,
            ],
        ],
    )
    report.text(calibration.sentence())


def _digest(item: Item) -> str | None:
    try:
        return fingerprint(item.path)
    except ImageError:
        return None
