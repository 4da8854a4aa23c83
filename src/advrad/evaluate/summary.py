"""What the verbs say of their results: records for machines, a few lines for people."""

from pathlib import Path
from typing import Any

from ..calibrate import Calibration
from ..model import Model
from .training import machine

Result = dict[str, Any]


def finding(result: Result, subject: str = "defective images", good: str = "good ones") -> str:
    """One sentence that says what an evaluation found."""
    verdicts, parts = result["verdicts"], []
    defects, fine = verdicts["defect"], verdicts["good"]
    if total := sum(defects.values()):
        parts.append(f"{defects['NG']} of {total} {subject} {_were(defects['NG'])} found")
        if defects["UNSURE"]:
            parts.append(f"{defects['UNSURE']} more left for a second look (UNSURE)")
    if total := sum(fine.values()):
        parts.append(f"{fine['NG']} of {total} {good} called defective")
        if fine["UNSURE"]:
            parts.append(f"{fine['UNSURE']} more left for a second look (UNSURE)")
    words = f"{', '.join(parts[:-1])} and {parts[-1]}" if len(parts) > 1 else parts[0]
    if result["image_auroc"] is None:
        return f"{words}."
    low, high = result["image_auroc_ci"]
    area = f"image AUROC {result['image_auroc']:.3f} (95 % interval {low:.2f} to {high:.2f})"
    return f"{words}; {area}."


def training_record(model: Model, folder: Path, page: Path) -> Result:
    """The JSON of `advrad train`."""
    about = model.about
    return {
        "model": str(folder),
        "name": model.name,
        "images": {part: len(ids) for part, ids in model.seen.items()},
        "skipped": about["skipped"],
        "calibration": thresholds(model.calibration),
        "chosen": about["chosen"],
        "cost": about["cost"],
        "training": about["training"],
        "report": str(page),
        "settings": {
            "detector": type(model.detector).__name__,
            "detector_settings": about["settings"],
            "data": about["data"],
            "seed": about["seed"],
            "split_seed": about["split_seed"],
            "machine": about["machine"],
        }
        | tensor_settings(model),
    }


def calibration_record(model: Model, old: Model) -> Result:
    """The JSON of `advrad calibrate`."""
    return {
        "model": model.name,
        "calibration": thresholds(model.calibration),
        "before": thresholds(old.calibration),
        "settings": model.about["calibration"] | tensor_settings(model),
    }


def thresholds(calibration: Calibration) -> Result:
    """A calibration without its scores, and in words."""
    values = calibration.as_dict()
    del values["scores"]
    return values | {"sentence": calibration.sentence()}


def tensor_settings(model: Model) -> Result:
    """The image tensor's shape and the draws, which each record's settings carry."""
    side = model.preprocess.size
    channels, draws = model.preprocess.channels, model.detector.draws_taken
    return {"channels": channels, "height": side, "width": side, "draws": draws}


def prediction_settings(model: Model, seed: int | None, batch: int, device: str) -> Result:
    """The settings of `advrad predict`; `seed` is None where it is the model's secret."""
    return tensor_settings(model) | {
        "model": model.name,
        "detector": type(model.detector).__name__,
        "detector_settings": model.detector.resolved(),
        "seed": seed,
        "batch": batch,
        "device": device,
        "threshold": model.calibration.threshold,
        "unsure": model.calibration.unsure,
        "machine": machine(),
    }


def trained(model: Model, folder: Path, page: Path) -> str:
    """What `advrad train` says to people."""
    seconds = model.about["training"]["seconds"]
    skipped = len(model.about["skipped"])
    return "\n".join(
        [
            f"{folder}: {model.name}, trained on {len(model.seen['train'])} good images in "
            f"{seconds:.0f} s" + (f"; {skipped} unreadable images left out" if skipped else ""),
            *(
                f"{row['name']} {row['chosen']} was chosen without test labels"
                for row in chosen(model)
            ),
            *_lines(model.calibration),
            f"report: {page}",
        ]
    )


def chosen(model: Model) -> list[Result]:
    """The settings that were chosen without test labels."""
    found: list[Result] = model.about.get("chosen", [])
    return found


def calibrated(model: Model, old: Model) -> str:
    """What `advrad calibrate` says to people."""
    before = f"(before: {old.calibration.threshold:.6g}, {old.calibration.unsure:.6g})"
    return "\n".join([*_lines(model.calibration), before])


def evaluated(result: Result, verdicts: list[Result], page: Path | None) -> str:
    """What `advrad evaluate` says to people."""
    names = ("image_auroc", "image_ap", "f1_max", "pixel_auroc", "pro", "miss_rate")
    lines = [finding(result)]
    lines += [_figure(result, name) for name in (*names, "false_alarm_rate", "seconds_per_image")]
    for name, figures in result["beside"].items():
        lines.append(f"  score {name!r} beside it: image_auroc {_number(figures['image_auroc'])}")
    if result["why"]:
        lines.append(f"  n/a: {result['why']}")
    if result["skipped"]:
        lines.append(f"  {len(result['skipped'])} unreadable images left out")
    for verdict in verdicts:
        state = "holds" if verdict["holds"] else "FAILS"
        lines.append(f"{state}: {verdict['requirement']} ({_number(verdict['value'])})")
    return "\n".join([*lines, *([f"report: {page}"] if page else [])])


def demonstrated(result: Result, out: Path) -> str:
    """What `advrad demo` says to people."""
    return (
        f"{result['finding']}\n{result['seconds']:.0f} s in all, "
        f"{result['training']['seconds']:.0f} s of them training\nreport: {out / 'report.html'}"
    )


def _lines(calibration: Calibration) -> list[str]:
    unsure = (
        f"UNSURE from {calibration.unsure:.6g}"
        if calibration.unsure < calibration.threshold
        else "UNSURE never: so few held-out images do not tell the two levels apart"
    )
    return [f"NG from {calibration.threshold:.6g}, {unsure}", calibration.sentence()]


def _figure(result: Result, name: str) -> str:
    interval = result.get(f"{name}_ci")
    between = f"  (95 % interval {interval[0]:.3f} to {interval[1]:.3f})" if interval else ""
    return f"  {name:<18} {_number(result[name])}{between}"


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.4f}"


def _were(count: int) -> str:
    return "was" if count == 1 else "were"
