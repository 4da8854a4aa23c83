"""From a data set to a model: divide, fit, calibrate, save."""

import hashlib
import json
import logging
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from ..calibrate import Calibration, calibrate
from ..data import Dataset, Images, Parts, divide, limit, split_record
from ..detectors import Detector, Progress, Run, build
from ..errors import DataError, ImageError, UsageError
from ..files import write_json
from ..images import Preprocess, dimensions
from ..model import Model, Seen, load
from ..store import MANIFEST
from .scores import scored


@dataclass(frozen=True)
class Training:
    """What is asked of a training.

    Arguments:
        detector: its name.
        settings: of its constructor.
        seed: of weights, batches and noise.
        level, unsure_level: bounds on false alarms, see `calibrate`; None for the defaults.
        skip_bad: whether unreadable images are left out.
        resume: whether to go on from the folder's checkpoint.
        overwrite: whether what lies in the folder may be lost.
        limit: at most so many images of the training split, drawn by its seed, for a trial.
        device, batch: where and how many at once while images are scored.
    """

    detector: str = "advrad"
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    level: float | None = None
    unsure_level: float | None = None
    skip_bad: bool = False
    resume: bool = False
    overwrite: bool = False
    limit: int | None = None
    device: str = "cpu"
    batch: int = 16


def train(
    dataset: Dataset,
    folder: Path,
    wanted: Training = Training(),
    report: Callable[[Progress], None] = lambda progress: None,
) -> Model:
    """Learns from the data set's good training images, calibrates on others, saves the model.

    The folder gets the model and, in `training/`, checkpoint, log, split and timings. Raises
    DataError where there is nothing to learn from, UsageError where the folder is taken.
    """
    started = time.monotonic(), time.process_time()
    _refuse_taken(folder, wanted)
    before = _finished(folder) if wanted.resume and not wanted.overwrite else None
    items = [item for item in dataset.train if not item.defect]
    if wanted.limit is not None:
        items = list(limit(items, wanted.limit, dataset.split_seed))
    if not items:
        raise DataError(f"{dataset.name}: no good images to train on")
    settings = {"channels": channels_of(dataset)} | dict(wanted.settings)
    detector = build(wanted.detector, settings)
    preprocess = Preprocess(detector.input_size, detector.channels)
    images = Images(items, preprocess, wanted.skip_bad)
    parts = divide(len(images), dataset.split_seed)
    calibrate(range(len(parts.calibrate)), wanted.level, wanted.unsure_level)  # refuses in time
    _announce(detector, images, parts)
    run = _run(dataset, images, parts, folder, wanted, report)
    write_json(folder / "training" / "split.json", split_record(dataset))
    detector.fit(images.subset(parts.train), run)
    spent = time.monotonic() - started[0], time.process_time() - started[1]
    seen = {
        part: tuple(images.ids[i] for i in getattr(parts, part))
        for part in ("train", "tune", "calibrate")
    }
    approximate = not learnt(seen, detector.chosen()).isdisjoint(seen["calibrate"])
    calibration = _calibrate(detector, images.subset(parts.calibrate), approximate, wanted)
    about = _about(dataset, detector, images, wanted, spent)
    model = Model(detector.eval().requires_grad_(False), preprocess, calibration, seen, about)
    if before is not None:
        model = replace(model, secret=before.secret)
    model.save(folder)
    return model


def learnt(seen: Seen, chosen: Sequence[Any]) -> set[str]:
    """The images that a model has learnt from: those that trained it or chose a setting."""
    return {*seen.get("train", ()), *(seen.get("tune", ()) if chosen else ())}


def channels_of(dataset: Dataset) -> int:
    """1 where every training image that can be read is grey, else 3."""
    return 1 if all(_mode(item.path) in GREY for item in dataset.train) else 3


def _mode(path: Path) -> str:
    """Pillow's name of the image's pixels; an unreadable one, met again later, counts as grey."""
    try:
        return dimensions(path)[2]
    except ImageError:
        return "L"


GREY = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "F")


def resolution_note(size: int, path: Path) -> str:
    """What the chosen size leaves of a small defect in an image such as that at `path`."""
    width, height, _ = dimensions(path)
    return (
        f"images of {width} x {height} px are seen at {size} x {size}: a defect 1 % as long as "
        f"the image's side keeps {size / 100:.1f} px, one of 1 % of its area "
        f"{size / 10:.0f} x {size / 10:.0f} px"
    )


def _announce(detector: Detector, images: Images, parts: Parts) -> None:
    """Tells, before the long part begins, what will be learnt from what."""
    tell = logging.getLogger("advrad").info
    tell(resolution_note(detector.input_size, images.items[0].path))
    left_out = f"; {len(images.skipped)} unreadable ones left out" if images.skipped else ""
    held = f"{len(parts.calibrate)} tune and calibrate"
    if parts.tune != parts.calibrate:
        held = f"{len(parts.tune)} tune, {len(parts.calibrate)} calibrate"
    many = f"{len(images)} good image{'s' * (len(images) > 1)}"
    tell(f"{many}: {len(parts.train)} train, {held}{left_out}")
    if parts.train == parts.calibrate:
        logging.getLogger("advrad").warning(
            f"{many} cannot be divided: the same ones train and calibrate, so the threshold "
            "promises nothing. Give 4 or more, better 60"
        )
    tell(f"{type(detector).__name__} with {detector.cost()['parameters']:,} parameters")


def _refuse_taken(folder: Path, wanted: Training) -> None:
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file: a model is a folder, name a new one")
    if not (folder / MANIFEST).exists() and not wanted.overwrite:
        _refuse_foreign(folder)
    if wanted.resume or wanted.overwrite:
        return
    if (folder / MANIFEST).exists():
        raise UsageError(
            f"{folder} already holds a model: choose another folder, or --overwrite it"
        )
    if (folder / "training" / "checkpoint.safetensors").exists():
        raise UsageError(
            f"{folder} holds an unfinished training: go on with --resume, or --overwrite it"
        )


def _finished(folder: Path) -> Model | None:
    """The model that a resumed training finds finished: it is made again, with its own secret.

    Raises UsageError where `advrad calibrate` has given it other thresholds since.
    """
    if not (folder / MANIFEST).exists():
        return None
    model = load(folder)
    if "calibration" in model.about:
        raise UsageError(
            f"{folder} is trained, and its thresholds were set anew by `advrad calibrate`: there "
            "is nothing to resume. To train it again and lose them, --overwrite it"
        )
    logging.getLogger("advrad").warning(
        f"{folder} is trained already: its settings are chosen and its thresholds set again"
    )
    return model


def _refuse_foreign(folder: Path) -> None:
    """Nobody's photographs, or their README.md, are to be mixed with a model."""
    if not folder.is_dir() or (folder / "training" / "split.json").exists():
        return
    names = sorted(path.name for path in folder.iterdir())
    foreign = [name for name in names if name != "training" and not name.startswith(".")]
    if foreign:
        raise UsageError(
            f"{folder} is no model and holds other files ({', '.join(foreign[:3])}): name a new "
            "or an empty folder, or --overwrite what has the name of a model's file"
        )


def _run(
    dataset: Dataset,
    images: Images,
    parts: Parts,
    folder: Path,
    wanted: Training,
    report: Callable[[Progress], None],
) -> Run:
    names = json.dumps([images.ids[i] for i in (*parts.train, *parts.tune)])
    return Run(
        seed=wanted.seed,
        tune=images.subset(parts.tune),
        images=hashlib.sha256(names.encode()).hexdigest(),
        folder=folder / "training",
        resume=wanted.resume,
        report=report,
        device=wanted.device,
    )


def _calibrate(
    detector: Detector, held: Images, approximate: bool, wanted: Training
) -> Calibration:
    scores = [
        found.score for found in scored(detector, held, wanted.seed, wanted.batch, wanted.device)
    ]
    return calibrate(scores, wanted.level, wanted.unsure_level, approximate)


def _about(
    dataset: Dataset,
    detector: Detector,
    images: Images,
    wanted: Training,
    spent: tuple[float, float],
) -> dict[str, Any]:
    return {
        "name": f"{wanted.detector}-{dataset.name}",
        "advrad": __version__,
        "data": dataset.name,
        "layout": dataset.layout,
        "split_seed": dataset.split_seed,
        "seed": wanted.seed,
        "skipped": [[str(path), why] for path, why in images.skipped],
        "settings": detector.resolved(),
        "chosen": detector.chosen(),
        "cost": detector.cost(),
        "training": _whole(detector, spent),
        "machine": machine(),
    }


def _whole(detector: Detector, spent: tuple[float, float]) -> dict[str, float]:
    """Wall and CPU seconds; of a resumed training, those of its earlier steps too."""
    cost = detector.cost()
    return {
        name: max(seconds, cost.get(f"training_{name}", 0.0))
        for name, seconds in zip(("seconds", "cpu_seconds"), spent, strict=True)
    }


def machine() -> dict[str, Any]:
    """Where this runs: processor, cores used, torch."""
    return {
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
