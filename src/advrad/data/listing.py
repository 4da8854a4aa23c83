"""What lies in a folder: images and folders in sorted order, and a count of all the rest.

Names are compared without regard to case, hidden files are passed over, and whatever is passed
over is counted in a note, so that nothing is ignored in silence.
"""

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from advrad.errors import DataError
from advrad.images import is_image

GOOD = frozenset({"good", "ok", "normal", "pass", "defect-free", "defect_free"})
DEFECT = frozenset({"defect", "defects", "defective", "ng", "nok", "ko", "bad", "faulty"}) | {
    "abnormal",
    "anomaly",
    "anomalies",
    "anomalous",
}
MASKS = frozenset({"mask", "masks", "ground_truth"})


@dataclass(frozen=True)
class Listing:
    """The entries of one folder, sorted by name; `hidden` and `other` are counts of files."""

    images: tuple[Path, ...]
    folders: tuple[Path, ...]
    hidden: int
    other: int

    def text(self) -> str:
        """What was found, in a few words for a message."""
        names = ", ".join(f"{folder.name}/" for folder in self.folders[:8])
        more = f" and {len(self.folders) - 8} more folders" if len(self.folders) > 8 else ""
        folders = f"{names}{more}" if names else "no folders"
        return f"{folders}; {len(self.images)} images; {self.other} other files"


def listing(folder: Path) -> Listing:
    """What lies directly in the folder; DataError when it cannot be listed."""
    images, folders, hidden, other = [], [], 0, 0
    try:
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                path = folder / entry.name
                if entry.name.startswith(".") or entry.name == "__MACOSX":
                    hidden += 1
                elif entry.is_dir():
                    folders.append(path)
                elif is_image(path):
                    images.append(path)
                else:
                    other += 1
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error.strerror})") from error
    return Listing(tuple(images), tuple(folders), hidden, other)


def images_in(folder: Path, notes: list[str]) -> tuple[Path, ...]:
    """The images directly in the folder; what is passed over goes into the notes."""
    here = listing(folder)
    passed = [
        f"{count} {what}"
        for count, what in (
            (here.hidden, "hidden"),
            (here.other, "that are no images"),
            (len(here.folders), "that are folders"),
        )
        if count
    ]
    if passed:
        notes.append(f"{folder.name}/: ignored entries: {', '.join(passed)}")
    return here.images


def child(folder: Path | None, names: Collection[str]) -> Path | None:
    """The folder's subfolder with one of the names, in any case; DataError if there are two."""
    if folder is None:
        return None
    found = [inner for inner in listing(folder).folders if inner.name.casefold() in names]
    if len(found) > 1:
        both = " and ".join(inner.name for inner in found[:2])
        raise DataError(f"{folder} holds {both}, which mean the same: keep one of them")
    return found[0] if found else None
