"""Rows of a result, written as they come, so that a run that was killed goes on where it stopped.

A result is a folder: `settings.json` says of what, `images.jsonl` holds one row an image, and
`result.json` is written last. The same folder with other settings is refused.
"""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import UsageError
from ..files import full_disk_told, plain, write_bytes, write_json
from ..store import MANIFEST

SETTINGS, ROWS, RESULT, MAPS = "settings.json", "images.jsonl", "result.json", ".maps"
PAGE, ATTACKED = "report.html", "attacked"


class Rows:
    """The rows so far; without a folder they live in memory alone.

    Arguments:
        folder: of the result, or None.
        settings: what the rows depend on; those that only say how fast (machine, batch, device)
            may differ between two runs of one result.

    `finished` is the result of an earlier run that came to its end, or None.
    """

    def __init__(self, folder: Path | None, settings: dict[str, Any]) -> None:
        self.folder = folder
        self.rows: dict[int, dict[str, Any]] = {}
        self.finished: dict[str, Any] | None = None
        if folder is None:
            return
        _refuse_foreign(folder)
        _refuse_other(folder, settings)
        write_json(folder / SETTINGS, settings)
        self.finished = _result(folder / RESULT)
        (folder / RESULT).unlink(missing_ok=True)
        if (folder / ROWS).exists():
            self._read(folder / ROWS)

    def add(self, row: dict[str, Any], anomaly: Tensor | None = None) -> None:
        """Takes a row in, and writes it; a map is kept beside it until the result is finished."""
        self.rows[row["index"]] = row
        if self.folder is None:
            return
        if anomaly is not None:
            content = io.BytesIO()
            np.save(content, anomaly.float().numpy())
            write_bytes(self._map_path(row["index"]), content.getvalue())
        line = json.dumps(plain(row)) + "\n"
        with full_disk_told(self.folder / ROWS, len(line)), (self.folder / ROWS).open("a") as file:
            file.write(line)

    def map(self, index: int) -> Tensor | None:
        """The map of a row from an earlier run, (H, W)."""
        path = self._map_path(index)
        return torch.from_numpy(np.load(path, allow_pickle=False)) if path.exists() else None

    def forget(self, index: int) -> None:
        """Drops a row, to be scored again."""
        del self.rows[index]

    def finish(self, result: dict[str, Any]) -> None:
        """Puts the rows in order and writes the result."""
        if self.folder is None:
            return
        ordered = [plain(self.rows[index]) for index in sorted(self.rows)]
        lines = "".join(json.dumps(row) + "\n" for row in ordered)
        write_bytes(self.folder / ROWS, lines.encode())
        write_json(self.folder / RESULT, result)
        shutil.rmtree(self.folder / MAPS, ignore_errors=True)

    def _map_path(self, index: int) -> Path:
        return (self.folder or Path()) / MAPS / f"{index}.npy"

    def _read(self, path: Path) -> None:
        """Reads whole rows; a last one that was cut off by a kill is dropped from the file too."""
        for line in path.read_text().splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                break
            self.rows[row["index"]] = row
        lines = (json.dumps(plain(row)) + "\n" for row in self.rows.values())
        write_bytes(path, "".join(lines).encode())


def _result(path: Path) -> dict[str, Any] | None:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, TypeError, ValueError):
        return None


def _refuse_foreign(folder: Path) -> None:
    """A model, or what somebody else has written, is not to be mixed with results."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file: results need a folder, name another --out")
    if (folder / MANIFEST).exists():
        raise UsageError(f"{folder} is a model's folder: name another --out for results")
    kept = folder / ATTACKED
    if kept.exists() and not kept.is_dir():
        raise UsageError(
            f"{kept} is a file, and attacked images are kept in a folder of this name: name "
            "another --out"
        )
    found = [name for name in (PAGE, RESULT, ROWS, ATTACKED) if (folder / name).exists()]
    if found and not (folder / SETTINGS).exists():
        raise UsageError(
            f"{folder} holds {found[0]}, which is no result of advrad, as {SETTINGS} is missing: "
            "name another --out"
        )


def _refuse_other(folder: Path, settings: dict[str, Any]) -> None:
    path = folder / SETTINGS
    if not path.exists():
        return
    try:
        ours, theirs = plain(settings), dict(json.loads(path.read_text()))
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"{path} holds no settings of a result ({error}): name another --out"
        ) from error
    free = {"machine", "batch", "device"}
    changed = [k for k in ours | theirs if k not in free and ours.get(k) != theirs.get(k)]
    if changed:
        raise UsageError(
            f"{folder} holds results with other settings ({', '.join(changed)}): "
            "choose another --out, or remove that folder"
        )
