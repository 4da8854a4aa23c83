"""A folder, or a manifest, as a data set: its layout is recognised, then read.

A folder of several data sets (all of MVTec AD, say) needs the category that is meant.
"""

from pathlib import Path

from advrad.data.items import Dataset, Item, split_record, with_split
from advrad.data.layouts import LAYOUTS, Draft
from advrad.data.listing import MASKS, listing
from advrad.data.manifest import SUFFIXES
from advrad.errors import DataError, UsageError

__all__ = ["Dataset", "Item", "read", "split_record", "with_split"]

PARTS = MASKS | {"train", "test"}  # folders that are never a category


def read(
    root: Path, *, layout: str | None = None, category: str | None = None, split_seed: int = 0
) -> Dataset:
    """The data set in a folder or manifest.

    UsageError for an unknown layout or a negative seed; DataError for everything that is wrong
    with the data: no folder, no good images, no known layout, a category that is not there.
    """
    if layout is not None and layout not in LAYOUTS:
        raise UsageError(f"no layout {layout!r}; layouts are {', '.join(LAYOUTS)}")
    if split_seed < 0:
        raise UsageError(f"the split's seed is {split_seed}, expected a whole number from 0 on")
    place, found = _locate(root, layout, category)
    draft = LAYOUTS[found].read(place, category, split_seed)
    _refuse_no_good(place, draft)
    name = category if found == "visa" and category else _name(place)
    folder = place.parent if place.is_file() else place
    return Dataset(
        name, folder, found, draft.train, draft.test, draft.drawn, split_seed, draft.notes
    )


def _locate(root: Path, layout: str | None, category: str | None) -> tuple[Path, str]:
    """The folder (or manifest file) to read, and its layout."""
    if not root.is_dir():
        return _file(root, layout), "manifest"
    here = listing(root)
    if not (here.images or here.folders or here.other):
        raise DataError(f"{root} is empty: expected images, or folders of images")
    found = _recognise(root, layout)
    if found == "visa" or (found and category is None and (layout or found != "flat")):
        return root, found
    inside = {
        folder.name: name
        for folder in here.folders
        if folder.name.casefold() not in PARTS
        and (name := _recognise(folder, layout, inside=True))
    }
    if category is None and found and not inside:
        return root, found
    if category in inside:
        return root / category, inside[category]
    raise _lost(root, layout, category, sorted(inside))


def _recognise(folder: Path, layout: str | None, inside: bool = False) -> str | None:
    """The layout of the folder; `inside` a data set loose images alone make no category."""
    for name in [layout] if layout else LAYOUTS:
        if (layout or not inside or name != "flat") and LAYOUTS[name].matches(folder):
            return name
    return None


def _lost(root: Path, layout: str | None, category: str | None, inside: list[str]) -> DataError:
    if inside:
        given = "no category given" if category is None else f"no category {category!r}"
        return DataError(f"{root}: {given}; choose one of {', '.join(inside)} (--category NAME)")
    what = f"category {category!r} of {root}" if category else str(root)
    found = listing(root).text()
    if category and (alone := _recognise(root, layout)):
        return DataError(f"{root} is one data set (layout {alone}): leave the category out")
    if layout:
        expected = LAYOUTS[layout].expects
        return DataError(f"{what} is not laid out as {layout}: expected {expected}; found {found}")
    known = "".join(f"\n  {name}: {entry.expects}" for name, entry in LAYOUTS.items())
    return DataError(f"{what} has no known layout: found {found}; known layouts are{known}")


def _file(root: Path, layout: str | None) -> Path:
    if not root.exists():
        raise DataError(f"{root} does not exist: expected a folder of images or a manifest")
    if root.suffix.casefold() not in SUFFIXES or layout not in (None, "manifest"):
        wanted = f"a folder (layout {layout})" if layout else "a folder, or a .csv or .jsonl list"
        raise DataError(f"{root} is a file: expected {wanted}")
    return root


def _refuse_no_good(place: Path, draft: Draft) -> None:
    if not (draft.train or draft.test):
        raise DataError(f"{place} lists no images: expected one row a photograph of a good part")
    if all(item.defect for item in (*draft.train, *draft.test)):
        ignored = f" ({'; '.join(draft.notes[:3])})" if draft.notes else ""
        raise DataError(
            f"{place} holds no good images, {len(draft.test)} defects{ignored}: "
            f"training needs photographs of good parts"
        )


def _name(place: Path) -> str:
    if place.is_file() and place.stem.casefold() != "manifest":
        return place.stem
    return (place.parent if place.is_file() else place).resolve().name
