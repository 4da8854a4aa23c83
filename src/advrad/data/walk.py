"""The image files that a user means by a list of files and folders."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..errors import DataError
from ..images import is_image


def image_files(paths: Iterable[Path]) -> list[Path]:
    """Files as they are given, and of folders all images below, sorted; hidden ones left out.

    Raises DataError for what does not exist, and for a folder without images.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            below = list(_below(path))
            if not below:
                raise DataError(f"{path} holds no images: expected PNG, JPEG, BMP or TIFF files")
            found += below
        elif path.exists():
            found.append(path)
        else:
            raise DataError(f"{path} does not exist: expected an image or a folder of images")
    return found


def _below(folder: Path) -> Iterator[Path]:
    for here, folders, names in os.walk(folder, onerror=_refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        images = (Path(here) / name for name in sorted(names) if not name.startswith("."))
        yield from (path for path in images if is_image(path))


def _refuse(error: OSError) -> None:
    raise DataError(f"{error.filename}: cannot be listed ({error.strerror})") from error
