"""The tasks of a grid as its record keeps them, so that a grid goes on where its folder is gone.

Of each task there is what the table needs, under the sha256 of what was asked; one whose question
has changed since is done anew. Models are not kept: what needs one trains it again.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from common import RESULTS

from advrad.evaluate.grid import Task
from advrad.evaluate.grid_task import RECORD, Record
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
        str(task.folder): {"asked": _asked(task), "found": _told(record["found"])}
        | {name: record.get(name) for name in TOLD}
        for task, record in done
        if record["found"] is not None
    }


def restore(name: str, some: Iterable[Task], out: Path) -> None:
    """Writes the records of tasks that are not in the folder and stand in `results/NAME.json`."""
    path = RESULTS / f"{name}.json"
    held: dict[str, Record] = {}
    if path.exists():
        held = json.loads(path.read_text())["figures"].get("tasks", {})
    for task in some:
        place, one = out / task.folder / RECORD, held.get(str(task.folder))
        if one and one["asked"] == _asked(task) and not place.exists():
            told = {name: value for name, value in one.items() if name != "asked"}
            write_json(place, {"task": plain(asdict(task)), "error": None} | told)


def _asked(task: Task) -> str:
    text = json.dumps(plain(asdict(task)), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _told(found: Record) -> dict[str, Any]:
    told = {name: found[name] for name in FOUND if name in found}
    if "health" in found:
        told["health"] = {name: found["health"][name] for name in HEALTH}
    return told
