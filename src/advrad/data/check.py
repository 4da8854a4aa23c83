"""What a data set holds and what each image would be used for, before anything is trained.

`check` looks at every file once, one at a time. Shallow, it reads headers; deep, it decodes every
image and mask and compares the files' sha256, which finds damage and duplicates. Problems are what
would stop a training or make its figures wrong; notes are what one should know.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from advrad import images
from advrad.data import describe
from advrad.data.items import Dataset, Item
from advrad.data.split import divide
from advrad.errors import ImageError

GREY = frozenset({"1", "L", "LA", "La", "F", "I"})  # and all 16 bit kinds, "I;16..."


@dataclass(frozen=True)
class Duplicate:
    """Two files of the same bytes; `between` says that one trains and the other tests."""

    first: str
    second: str
    between: bool


@dataclass
class Check:
    """All that was found; paths are relative to `root`.

    `files` lists the images of each part ("train", "test good", "test defect" and its kind),
    `division` how training would divide its images ("train", "tune", "calibrate").
    """

    name: str
    root: str
    layout: str
    drawn: bool
    split_seed: int
    deep: bool
    files: dict[str, list[str]] = field(default_factory=dict)
    division: dict[str, list[str]] = field(default_factory=dict)
    approximate: bool = False
    sizes: dict[str, int] = field(default_factory=Counter)
    modes: dict[str, int] = field(default_factory=Counter)
    masks_found: int = 0
    masks_missing: list[str] = field(default_factory=list)
    duplicates: list[Duplicate] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def counts(self) -> dict[str, int]:
        """The number of images of each part."""
        return {part: len(paths) for part, paths in self.files.items()}

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain JSON values."""
        plain = asdict(self)
        plain["counts"] = self.counts()
        plain["sizes"], plain["modes"] = dict(self.sizes), dict(self.modes)
        plain["unreadable"] = [{"path": path, "why": why} for path, why in self.unreadable]
        plain["ok"] = not self.problems
        return plain

    def text(self) -> str:
        """Everything as plain lines; long lists of files are cut short and say so."""
        return "\n".join(describe.lines(self))


def check(
    dataset: Dataset, deep: bool = True, progress: Callable[[int, int], None] | None = None
) -> Check:
    """Looks at every image of the data set; `progress(done, all)` is called after each."""
    found = Check(
        dataset.name, str(dataset.root), dataset.layout, dataset.drawn, dataset.split_seed, deep
    )
    seen: dict[str, tuple[Item, bool]] = {}
    total = len(dataset.train) + len(dataset.test)
    for done, (item, trains) in enumerate(_uses(dataset), start=1):
        found.files.setdefault(_part(item, trains), []).append(dataset.relative(item.path))
        size = _examine(found, dataset, item)
        _examine_mask(found, dataset, item, size)
        if deep and size:
            _compare(found, dataset, item, trains, seen)
        if progress:
            progress(done, total)
    _divide(found, dataset)
    _judge(found, dataset)
    return found


def _uses(dataset: Dataset) -> Iterator[tuple[Item, bool]]:
    yield from ((item, True) for item in dataset.train)
    yield from ((item, False) for item in dataset.test)


def _part(item: Item, trains: bool) -> str:
    if trains:
        return "train"
    if not item.defect:
        return "test good"
    return "test defect" if item.kind == "defect" else f"test defect {item.kind}"


def _examine(found: Check, dataset: Dataset, item: Item) -> tuple[int, int] | None:
    """The image's (width, height) as it will be seen, or None where it cannot be read."""
    try:
        width, height, mode = images.dimensions(item.path)
        if found.deep:
            height, width = images.read(item.path).shape[-2:]
    except ImageError as error:
        _unreadable(found, dataset, error)
        return None
    found.sizes[f"{width}x{height}"] += 1
    found.modes[mode] += 1
    return width, height


def _examine_mask(
    found: Check, dataset: Dataset, item: Item, size: tuple[int, int] | None
) -> None:
    if item.mask is None:
        if item.defect:
            found.masks_missing.append(dataset.relative(item.path))
        return
    found.masks_found += 1
    name = dataset.relative(item.mask)
    try:
        width, height, _ = images.dimensions(item.mask)
        if found.deep and not bool(images.read(item.mask).any()):
            found.notes.append(f"{name}: the mask marks no pixel")
    except ImageError as error:
        _unreadable(found, dataset, error)
        return
    if size and (width, height) != size:
        found.problems.append(
            f"{name}: the mask is {width}x{height}, its image {size[0]}x{size[1]}: "
            f"they must be of one size"
        )


def _unreadable(found: Check, dataset: Dataset, error: ImageError) -> None:
    name = _below(error.path, dataset)
    found.unreadable.append((name, error.why))
    found.problems.append(f"{name}: {error.why}")


def _below(path: Path, dataset: Dataset) -> str:
    return dataset.relative(path) if path.is_relative_to(dataset.root) else str(path)


def _compare(
    found: Check, dataset: Dataset, item: Item, trains: bool, seen: dict[str, tuple[Item, bool]]
) -> None:
    first, trained = seen.setdefault(images.fingerprint(item.path), (item, trains))
    if first is item:
        return
    names = dataset.relative(first.path), dataset.relative(item.path)
    found.duplicates.append(Duplicate(*names, between=trained != trains))
    if first.defect != item.defect:
        found.problems.append(f"{names[0]} and {names[1]}: one image, labelled good and defect")


def _divide(found: Check, dataset: Dataset) -> None:
    if not dataset.train:
        return
    parts = divide(len(dataset.train), dataset.split_seed)
    names = [dataset.relative(item.path) for item in dataset.train]
    for part, indices in (
        ("train", parts.train),
        ("tune", parts.tune),
        ("calibrate", parts.calibrate),
    ):
        found.division[part] = [names[i] for i in indices]
    found.approximate = parts.approximate


def _judge(found: Check, dataset: Dataset) -> None:
    between = sum(duplicate.between for duplicate in found.duplicates)
    within = len(found.duplicates) - between
    if between:
        found.problems.append(f"{_times(between)} between train and test: remove one of each")
    if within:
        found.notes.append(f"{_times(within)} within one part")
    if not dataset.train:
        found.problems.append("no images to train on")
    if len({item.defect for item in dataset.test}) < 2:
        found.notes.append("test needs good and defective images for an AUROC; it has not both")
    if len(found.sizes) > 1:
        found.notes.append(f"images of {len(found.sizes)} sizes: all are resized to one square")
    if len({mode in GREY or mode.startswith("I;") for mode in found.modes}) > 1:
        found.notes.append("grey and colour images mixed: all are brought to one channel count")
    found.notes.extend(dataset.notes)


def _times(count: int) -> str:
    return f"{count} duplicate{'s' * (count > 1)}"
