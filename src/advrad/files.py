"""Files that are there whole or not at all.

A file is written under another name in the same folder, made durable, and renamed into place. A
full disk leaves the old file as it was and says how much was wanted.
"""

import contextlib
import errno
import glob
import hashlib
import json
import math
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .errors import ResourceError, UsageError


def write_bytes(path: Path, content: bytes) -> None:
    """Puts `content` at `path`, atomically. Raises ResourceError where the disk is full."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with full_disk_told(path, len(content)):
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(name).chmod(0o666 & ~_umask())
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def write_text(path: Path, content: str) -> None:
    """Puts `content` at `path` as UTF-8, atomically."""
    write_bytes(path, content.encode())


def write_json(path: Path, value: Any) -> None:
    """Puts `value` at `path` as JSON, atomically; numbers that are not finite become null."""
    write_text(path, json.dumps(plain(value), indent=2) + "\n")


def plain(value: Any) -> Any:
    """The value with tuples as lists, paths as strings, numbers that are not finite as None."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value


def sweep(path: Path) -> None:
    """Removes what killed writers of `path` left beside it."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*"):
        left.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """The sha256 of a file, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def held(path: Path, told: str) -> Iterator[None]:
    """Holds a lock file; raises UsageError with these words where another process does. Without a
    lock where the system has none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            import fcntl

            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(told) from error
        except (ImportError, OSError):  # Windows, and file systems without locks
            pass
        yield


@contextlib.contextmanager
def full_disk_told(path: Path, size: int) -> Iterator[None]:
    """Turns "no space left" into an error that names the file, its size and the way out."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ResourceError(
            f"the disk is full: {path} needs {size / 2**20:.1f} MiB. Nothing was overwritten; "
            "make room or choose another folder, then run the same command again (with --resume "
            "for a training)"
        ) from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def as_given(value: Any) -> Any:
    """A setting as the command line takes it: a list as JSON, the rest as it is."""
    return json.dumps(list(value)) if isinstance(value, (list, tuple)) else value
