"""What a data set is: image files with what is known of them, and which are for what.

An item is one image file, good or defective, with its mask where there is one. A data set is a
tuple of items to learn from (good ones only) and a tuple to test on. Nothing is decoded here:
a hundred thousand items are a hundred thousand paths.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from advrad.errors import DataError


@dataclass(frozen=True, slots=True)
class Item:
    """One image file; `kind` is the sort of its defect, or "good"."""

    path: Path
    defect: bool
    mask: Path | None = None
    kind: str = "good"


@dataclass(frozen=True)
class Dataset:
    """Items to learn from and items to test on.

    `drawn` says that the split was drawn by `split_seed`; otherwise the data came with it.
    `notes` tell in plain sentences what was ignored or decided on the way.
    """

    name: str
    root: Path
    layout: str
    train: tuple[Item, ...]
    test: tuple[Item, ...]
    drawn: bool
    split_seed: int
    notes: tuple[str, ...] = ()

    def part(self, name: Literal["train", "test"]) -> tuple[Item, ...]:
        """The items of one part; DataError where it has none, with what to do about it."""
        items = self.train if name == "train" else self.test
        if not items:
            raise DataError(
                f"{self.root} has no {name} images (layout {self.layout}): add some, "
                f"or list the images with their split in a manifest"
            )
        return items

    def relative(self, path: Path) -> str:
        """The file's name below the root, with forward slashes."""
        return path.relative_to(self.root).as_posix()


def split_record(dataset: Dataset) -> dict[str, Any]:
    """The split, written down: plain JSON values, paths relative to the root."""
    return {
        "name": dataset.name,
        "layout": dataset.layout,
        "drawn": dataset.drawn,
        "split_seed": dataset.split_seed,
        "train": [dataset.relative(item.path) for item in dataset.train],
        "test": [dataset.relative(item.path) for item in dataset.test],
    }


def with_split(dataset: Dataset, record: dict[str, Any]) -> Dataset:
    """The same items, divided as an earlier `split_record` says.

    DataError when the record names an image that is not there, or a defect as training image.
    Images that the record does not name are left out, which a note counts.
    """
    known = {dataset.relative(item.path): item for item in (*dataset.train, *dataset.test)}
    train = _named(record["train"], known, dataset.root)
    test = _named(record["test"], known, dataset.root)
    if both := set(record["train"]) & set(record["test"]):
        raise DataError(f"the split record lists {min(both)} for training and for testing")
    if defects := [item for item in train if item.defect]:
        raise DataError(f"the split record trains on a defect: {defects[0].path}")
    left = len(known) - len({*record["train"], *record["test"]})
    notes = (*dataset.notes, *([f"left out {left} images that the split does not name"][:left]))
    drawn, seed = bool(record["drawn"]), int(record["split_seed"])
    return replace(dataset, train=train, test=test, drawn=drawn, split_seed=seed, notes=notes)


def _named(names: Iterable[str], known: dict[str, Item], root: Path) -> tuple[Item, ...]:
    names = list(names)
    if missing := [name for name in names if name not in known]:
        raise DataError(
            f"the split record names {missing[0]}, which is not among the images of {root}"
            f" ({len(missing)} such names): give the folder that the split was drawn from"
        )
    return tuple(known[name] for name in names)
