"""A model on disk: a folder of plain files under one manifest, read only if every byte is right.

`manifest.json` holds the sha256 of each file and is written last. A folder is replaced through a
staging folder inside it whose own manifest is the commit mark: a process killed before that mark
leaves the old model, one killed after it leaves a staging that the next reader moves into place.
Nothing is ever unpickled.
"""

import contextlib
import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse
from safetensors.torch import save as serialise
from torch import Tensor

from .errors import ModelError, ResourceError
from .files import full_disk_told, plain, sha256, write_bytes, write_json

FORMAT = 1
MANIFEST = "manifest.json"
STAGING = ".staging"
TOLD = ("README.md", "about.json", "secret.json", "seen.json")  # no answer depends on them
SECRET = "secret.json"  # who publishes a model leaves it out


class OtherFormatError(ModelError):
    """A model that another advrad wrote."""


def dump(value: Any) -> bytes:
    """A JSON file's bytes."""
    return (json.dumps(plain(value), indent=2) + "\n").encode()


def tensors(state: Mapping[str, Tensor]) -> bytes:
    """A safetensors file's bytes."""
    return serialise({name: value.detach().contiguous().cpu() for name, value in state.items()})


def replace(folder: Path, files: Mapping[str, bytes]) -> None:
    """Makes the folder hold these files under a new manifest, all of them or none.

    Files that the old manifest does not name (training/, reports) stay. Raises ResourceError
    where the disk is full, with the old model as it was.
    """
    recover(folder)
    staging = folder / STAGING
    shutil.rmtree(staging, ignore_errors=True)
    total = sum(map(len, files.values()))
    try:
        with full_disk_told(folder, total):
            for name, content in files.items():
                write_bytes(staging / name, content)
            sums = {name: sha256(staging / name) for name in files}
            write_json(staging / MANIFEST, {"format": FORMAT, "files": sums})
    except ResourceError:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    recover(folder)


def recover(folder: Path) -> None:
    """Finishes a replacement that was interrupted after its commit mark; drops one before it."""
    staging = folder / STAGING
    if not staging.is_dir():
        return
    if (staging / MANIFEST).exists():
        for path in sorted(staging.iterdir(), key=lambda path: path.name == MANIFEST):
            if not path.name.startswith("."):
                with contextlib.suppress(FileNotFoundError):  # another process moved it
                    path.replace(folder / path.name)
    shutil.rmtree(staging, ignore_errors=True)


def read(folder: Path) -> dict[str, bytes]:
    """All files of a model folder, verified; SECRET alone may be missing.

    Raises ModelError that names what is wrong.
    """
    if not folder.is_dir():
        raise ModelError(f"{folder} is no model: expected a folder written by `advrad train`")
    if (folder / STAGING / MANIFEST).exists():
        recover(folder)
    manifest = _manifest(folder)
    files = {}
    for name, expected in manifest["files"].items():
        path = folder / name
        if name == SECRET and not path.exists():
            continue
        if Path(name).name != name or not path.is_file():
            raise ModelError(f"{folder}: the file {name} is missing; copy the model again")
        if sha256(path) != expected:
            raise ModelError(
                f"{path} is damaged: its sha256 is not the one in {MANIFEST}. Copy the model "
                "again, or train anew"
            )
        files[name] = path.read_bytes()
    return files


def whole(folder: Path) -> bool:
    """Whether there is a model, with every file as it was written; one of another format is."""
    try:
        return bool(read(folder))
    except OtherFormatError:
        return True
    except ModelError:
        return False


def content(folder: Path) -> str | None:
    """A sha256 over the files that answers depend on, and not what tells how the model was made.
    None where there is no manifest."""
    try:
        sums = _manifest(folder)["files"]
    except ModelError:
        return None
    own = sorted(f"{name}/{each}" for name, each in sums.items() if name not in TOLD)
    return hashlib.sha256("\n".join(own).encode()).hexdigest()


def finished(folder: Path, kind: str, command: str) -> dict[str, bytes]:
    """As `read`, of a folder that a training of this kind has written to its end.

    Raises ModelError, which names the command that writes one.
    """
    if not folder.is_dir():
        raise ModelError(f"{folder} is no {kind}: expected a folder written by `{command}`")
    if not (folder / MANIFEST).exists() and not (folder / STAGING).exists():
        raise ModelError(
            f"{folder} holds no finished {kind} ({MANIFEST} is missing): train one with "
            f"`{command}`, or go on with one that was interrupted by --resume"
        )
    return read(folder)


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        raise ModelError(
            f"{folder} holds no finished model ({MANIFEST} is missing): if its training was "
            "interrupted, run `advrad train` again with --resume"
        )
    try:
        manifest = json.loads(path.read_bytes())
        version, files = manifest["format"], manifest.get("files")
        if version == FORMAT and not isinstance(files, dict):
            raise TypeError("files")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path} is damaged: it is no manifest ({error})") from error
    if version != FORMAT:
        raise OtherFormatError(
            f"{folder} was written in model format {version!r}, this advrad reads {FORMAT}: "
            "install the advrad that wrote it, or train anew"
        )
    return manifest


def read_json(files: Mapping[str, bytes], name: str) -> dict[str, Any]:
    """One JSON object among the files. Raises ModelError where it is missing or no object."""
    try:
        value = json.loads(files[name])
    except KeyError as error:
        raise ModelError(f"the model has no {name}; copy it again") from error
    except ValueError as error:
        raise ModelError(f"the model's {name} is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise ModelError(f"the model's {name} holds no object")
    return value


def read_tensors(files: Mapping[str, bytes], name: str = "model.safetensors") -> dict[str, Tensor]:
    """The tensors of a safetensors file, all finite. Raises ModelError otherwise."""
    try:
        state = parse(files[name])
    except KeyError as error:
        raise ModelError(f"the model has no {name}; copy it again") from error
    except (SafetensorError, ValueError, RuntimeError) as error:
        raise ModelError(f"the model's {name} is damaged: {error}") from error
    bad = [k for k, v in state.items() if v.is_floating_point() and not torch.isfinite(v).all()]
    if bad:
        raise ModelError(f"the model's {name} holds numbers that are not finite: {', '.join(bad)}")
    return state
