"""The tasks of a grid as its record keeps them, so that a grid goes on where its folder is gone.

Of each task there is what the table needs, under the sha256 of what was asked; one whose question
has changed since is done anew. Models are not kept: what needs one trains it again.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

from advrad.evaluate.grid import Task
from advrad.evaluate.grid_defence import Defended
from advrad.evaluate.grid_table import Figure
from advrad.evaluate.grid_task import RECORD, Record, recorded
from advrad.files import plain, write_json

TOLD = ("seconds", "peak_mib", "models")
FOUND = (
    "image_auroc", "image_auroc_ci", "clean_auroc", "robust_auroc", "robust_auroc_ci", "images",
    "certified_auroc", "certified_auroc_ci", "needed", "cost", "training", "shape",
)  # fmt: skip
HEALTH = ("verdict", "reasons", "not_run")


def kept(done: Iterable[tuple[Task, Record]]) -> dict[str, Record]:
    """What has been found, by the folder of its task."""
    return {
        str(task.folder): {"asked": _asked(task), "found": _told(task, record["found"])}
        | {name: record.get(name) for name in TOLD}
        for task, record in done
        if record["found"] is not None
    }


def restore(held: Mapping[str, Record], some: Iterable[Task], out: Path) -> None:
    """Writes the records of tasks that are held and not found in the folder."""
    for task in some:
        one = held.get(str(task.folder))
        if one and one["asked"] == _asked(task) and recorded(task, out) is None:
            told = {name: value for name, value in one.items() if name != "asked"}
            write_json(
                out / task.folder / RECORD, {"task": plain(asdict(task)), "error": None} | told
            )


def lost(before: Iterable[Figure], now: Iterable[Figure]) -> list[str]:
    """Figures of an earlier record that are asked for still and are not there any more, or over
    fewer seeds."""
    seeds = {_named(figure): figure["seeds"] for figure in now}
    return [_named(f) for f in before if seeds.get(_named(f), f["seeds"]) < f["seeds"]]


def _named(figure: Figure) -> str:
    return f"{figure['data']}, {figure['detector']}: {figure['column']}"


def _asked(task: Task) -> str:
    text = json.dumps(plain(asdict(task)), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _told(task: Task, found: Record) -> Record:
    """Of a trial of defences everything, of a detector what its table needs."""
    if isinstance(task.cell, Defended):
        return found
    told = {name: found[name] for name in FOUND if name in found}
    if "health" in found:
        told["health"] = {name: found["health"][name] for name in HEALTH}
    return told
