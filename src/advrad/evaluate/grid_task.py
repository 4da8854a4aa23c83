"""One task of a grid, done in a process of its own and written down whatever becomes of it.

`task.json` in the task's folder is written last: what was asked, what was found or what went
wrong, how long it took and the most memory it held.
"""

import json
import resource
import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..data import Dataset, load
from ..errors import AdvradError
from ..files import plain, write_json
from ..model import load as load_model
from ..store import MANIFEST, content, whole
from .attacked import Threat, attack
from .certificate import Certificate
from .certified import certify
from .clean import Evaluation, evaluate
from .grid import Assailed, Certified, Data, Task
from .grid_defence import Defended, contents, replaced, tried
from .training import Training, train

RECORD = "task.json"
MEASURED, MODEL = "model.json", "model"  # what a cell's rows are of
TOLD = ("seconds", "peak_mib")
Record = dict[str, Any]
Ended = tuple[Task, Record]


def recorded(task: Task, out: Path) -> Record | None:
    """What an earlier run has found for this very task; None where it did not, or failed, or
    where what it measured has been replaced: a folder that a defence is made of, or the model.

    A training that was begun again and did not come to its end has still found what it found.
    """
    record = _read(task, out / task.folder / RECORD)
    if task.cell is None:
        return record if _sound(record) else _read(task, _aside(task, out)) or None
    if not _sound(record):
        return None
    if isinstance(task.cell, Defended):
        return None if replaced(record.get("models"), task.cell) else record
    measured, now = (record.get("models") or {}).get(MODEL), content(out / task.model)
    return None if measured and now and measured != now else record


def set_aside(task: Task, out: Path) -> None:
    """Takes the record away, before the task is done again or after it failed; that of a training
    is kept beside its folder, since its cost stays true when its model is gone."""
    path = out / task.folder / RECORD
    if task.cell is None and _sound(_read(task, path)):
        path.replace(_aside(task, out))
    path.unlink(missing_ok=True)


def _aside(task: Task, out: Path) -> Path:
    return (out / task.folder).with_name("training.json")


def _sound(record: Record) -> bool:
    found = record.get("found")
    return record.get("error") is None and bool(found) and isinstance(found, dict)


def failure(task: Task, out: Path) -> str | None:
    """Why an earlier run of this very task failed; None where there was none."""
    return _read(task, out / task.folder / RECORD).get("error")


def _read(task: Task, path: Path) -> Record:
    """The record in the file; empty where it is of another task, or damaged."""
    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    if not isinstance(record, dict) or not record.keys() >= {"error", "found", *TOLD}:
        return {}
    return record if record.get("task") == plain(asdict(task)) else {}


def unmade(left: Iterable[Task], out: Path) -> set[Path]:
    """Models that cells need and that are not in the folder, whatever is recorded of them."""
    cells = [task for task in left if task.cell and not isinstance(task.cell, Defended)]
    return {model for model in {task.model for task in cells} if not whole(out / model)}


def _begin_rows(task: Task, out: Path) -> None:
    """Makes the cell's folder one of rows of the model that is there now: those of another go."""
    place, now = out / task.folder, content(out / task.model)
    measured: object = {MODEL: now}
    with suppress(OSError, ValueError):
        measured = json.loads((place / MEASURED).read_text())
    if measured != {MODEL: now}:
        shutil.rmtree(place)
    write_json(place / MEASURED, {MODEL: now})


def run(task: Task, out: Path) -> Record:
    """Does the task, and writes and returns its record; an error is recorded and not raised."""
    set_aside(task, out)
    started, error, found = time.monotonic(), None, None
    models: dict[str, str | None] = {}
    try:
        models = contents(task.cell) if isinstance(task.cell, Defended) else {}
        found = _done(task, out)
        if task.cell and not isinstance(task.cell, Defended):
            models = {MODEL: content(out / task.model)}
    except AdvradError as refused:
        error = str(refused)
    except Exception as unexpected:
        error = f"{type(unexpected).__name__}: {unexpected}"
    record = {
        "task": plain(asdict(task)),
        "error": error,
        "found": plain(found),
        "seconds": time.monotonic() - started,
        "models": models,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    write_json(out / task.folder / RECORD, record)
    return record


def opened(data: Data) -> Dataset:
    """The data set; raises as `data.load` does."""
    return load(data.name, layout=data.layout, category=data.category, split_seed=data.split_seed)


def _done(task: Task, out: Path) -> dict[str, Any]:
    if isinstance(task.cell, Defended):
        return tried(task.cell, out / task.folder, task.device)
    dataset = opened(task.data)
    if task.cell is None:
        return _trained(task, dataset, out)
    model = load_model(out / task.model)
    place = out / task.folder
    _begin_rows(task, out)
    if isinstance(task.cell, Assailed):
        return _attacked(model, dataset, place, task, task.cell)
    if isinstance(task.cell, Certified):
        return _certified(model, dataset, place, task, task.cell)
    most = task.data.limit if task.method.limit is None else task.method.limit
    wanted = Evaluation(task.seed, device=task.device, limit=most)
    result = evaluate(model, dataset, place, wanted)
    return {k: v for k, v in result.items() if k != "settings"}


def _trained(task: Task, dataset: Dataset, out: Path) -> dict[str, Any]:
    folder = out / task.model
    if not whole(folder):
        (folder / MANIFEST).unlink(missing_ok=True)  # what it names is damaged
        wanted = Training(
            task.method.name,
            task.method.settings,
            task.seed,
            resume=True,
            size=task.size,
            device=task.device,
        )
        train(dataset, folder, wanted)
    model = load_model(folder)
    kept = {name: model.about[name] for name in ("cost", "training", "settings")}
    return kept | {"shape": [model.preprocess.channels] + [model.preprocess.size] * 2}


def _attacked(
    model: Any, dataset: Dataset, place: Path, task: Task, cell: Assailed
) -> dict[str, Any]:
    asked = Evaluation(task.seed, device=task.device, limit=cell.limit)
    threat = Threat(cell.norm, (cell.radius,), cell.suite, evaluation=asked)
    result = attack(model, dataset, place, threat)
    clean = {k: result[k] for k in ("clean_auroc", "clean_auroc_ci", "images")}
    return clean | result["rows"][0]


def _certified(
    model: Any, dataset: Dataset, place: Path, task: Task, cell: Certified
) -> dict[str, Any]:
    wanted = Certificate(
        (cell.sigma,),
        cell.radii,
        cell.samples,
        cell.alpha,
        (cell.scoring,) if cell.scoring else (),
        evaluation=Evaluation(task.seed, 64, task.device, cell.limit),
    )
    result = certify(model, dataset, place, wanted)
    row = {k: v for k, v in result["rows"][0].items() if k != "curve"}
    return {"clean_auroc": result["clean_auroc"], "images": result["images"]} | row


def failed(task: Task, out: Path, why: str) -> Record:
    """Writes and returns the record of a task that did not come to its end."""
    set_aside(task, out)
    record: Record = {
        "task": plain(asdict(task)), "error": why, "found": None, "seconds": 0.0, "peak_mib": None,
    }  # fmt: skip
    write_json(out / task.folder / RECORD, record)
    return record
