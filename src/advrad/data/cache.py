"""A folder for data that are made once and kept.

What is made appears under its name at one stroke, by renaming a finished folder. Whoever is
killed half-way leaves a temporary folder behind, which nobody takes for the whole and which the
next one sweeps away when it is a day old.
"""

import contextlib
import os
import secrets
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from advrad.errors import ResourceError

STALE = 24 * 3600  # seconds after which an unfinished folder has no living maker


def cache_folder() -> Path:
    """ADVRAD_CACHE, or advrad in XDG_CACHE_HOME, or ~/.cache/advrad; it may not exist yet."""
    if own := os.environ.get("ADVRAD_CACHE"):
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "advrad"


def cached(name: str) -> Path:
    """Where the cache keeps `name`; whole if it exists."""
    return cache_folder() / name


def ensure(name: str, make: Callable[[Path], None]) -> Path:
    """The cache's folder `name`, filled by `make(folder)` if it was not there.

    ResourceError when it cannot be written. Two makers at once do no harm: the first wins.
    """
    final = cached(name)
    if final.is_dir():
        return final
    unfinished = final.with_name(f".{name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        _sweep(final.parent, name)
        unfinished.mkdir()
        make(unfinished)
        _rename(unfinished, final)
    except OSError as error:
        raise ResourceError(
            f"{final} cannot be written ({error.strerror or error}): "
            f"free some space, or set ADVRAD_CACHE to another folder"
        ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return final


def _rename(unfinished: Path, final: Path) -> None:
    try:
        unfinished.rename(final)
    except OSError:
        if not final.is_dir():
            raise


def _sweep(folder: Path, name: str) -> None:
    for left in folder.glob(f".{name}.*"):
        with contextlib.suppress(FileNotFoundError):  # another maker swept it first
            if time.time() - left.stat().st_mtime > STALE:
                shutil.rmtree(left, ignore_errors=True)
