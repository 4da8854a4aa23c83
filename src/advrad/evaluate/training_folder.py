"""The folder of a training: whose it is, what was asked of it, and that one process has it.

`training/settings.json` keeps the settings as they were given, so that an interrupted training can
go on without being told them again.
"""

import contextlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import ModelError, ResourceError, UsageError
from ..files import held, write_json
from ..model import Model, load
from ..store import MANIFEST

CHECKPOINT = Path("training") / "checkpoint.safetensors"
SETTINGS = "settings.json"
COPIES = 5  # of a batch a step holds: images, noise, their mixture, the prediction, its error


class Asked(NamedTuple):
    """A detector's name and its settings, as they were given."""

    detector: str
    settings: Mapping[str, Any]


def remember(folder: Path, asked: Asked) -> None:
    """Keeps what was asked in the folder `training` itself, for `recall`."""
    write_json(folder / SETTINGS, asked._asdict())


def recall(folder: Path) -> Asked | None:
    """What was asked of the training in the folder. Raises ModelError where it cannot be read."""
    path = folder / "training" / SETTINGS
    if not path.exists():
        return None
    try:
        kept = json.loads(path.read_text())
        asked = Asked(str(kept["detector"]), dict(kept["settings"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"{path} is damaged ({error}): give the settings again, each with --set"
        ) from error
    given = (
        ", ".join(f"{name}={value}" for name, value in asked.settings.items()) or "the preset's"
    )
    logging.getLogger("advrad").info(f"settings of the earlier training: {given}")
    return asked


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Holds the folder; raises UsageError where another process trains there."""
    told = f"another process is training in {folder}: wait for it, or name another folder"
    with held(folder / "training" / ".lock", told):
        yield


def refuse_taken(folder: Path, *, resume: bool, overwrite: bool) -> None:
    """Raises UsageError where the folder holds what a training must not touch."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file: a model is a folder, name a new one")
    if not (folder / MANIFEST).exists() and not overwrite:
        _refuse_foreign(folder)
    if resume or overwrite:
        return
    if (folder / MANIFEST).exists():
        raise UsageError(
            f"{folder} already holds a model: choose another folder, or --overwrite it"
        )
    if (folder / CHECKPOINT).exists():
        raise UsageError(
            f"{folder} holds an unfinished training: go on with --resume, or --overwrite it"
        )


def finished(folder: Path) -> Model | None:
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
    return model


def refuse_huge(size: int, channels: int, batch: int) -> None:
    """Raises ResourceError, naming the setting, where the images of one step exceed all memory."""
    memory = _memory()
    image = COPIES * 4 * channels * size**2
    if memory is None or batch * image <= memory:
        return
    name, value = ("size", size) if image > memory else ("batch", batch)
    raise ResourceError(
        f"one step would need {batch * image / 2**30:,.0f} GiB for its images alone, this "
        f"machine has {memory / 2**30:,.0f} GiB: lower the setting {name}, which is {value}"
    )


def _memory() -> int | None:
    """Bytes of physical memory; None where the system does not tell."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


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
