"""How people lay out inspection data, one small reader for each way.

A layout says whether a folder looks like it, and reads it into a draft: which images train, which
test, and whether that split had to be drawn.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from advrad.data import manifest
from advrad.data.items import Item
from advrad.data.listing import DEFECT, GOOD, MASKS, child, images_in, listing
from advrad.data.masks import with_masks
from advrad.data.split import draw
from advrad.errors import DataError


@dataclass(frozen=True)
class Draft:
    """What a layout's reader finds."""

    train: tuple[Item, ...]
    test: tuple[Item, ...]
    drawn: bool
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Layout:
    """`read` takes the folder, the category (VisA alone needs it) and the split's seed."""

    expects: str
    matches: Callable[[Path], bool]
    read: Callable[[Path, str | None, int], Draft]


def draw_good(
    good: list[Item], defects: list[Item], root: Path, seed: int, notes: list[str]
) -> Draft:
    """Good images 60/40 to train and test by the split's seed, all defects to test."""
    if not defects:
        notes.append("no defects: all good images train, none are tested")
        return Draft(tuple(good), (), drawn=False, notes=tuple(notes))
    names = [item.path.relative_to(root).as_posix() for item in good]
    train, test = draw(names, seed)
    tested = tuple(good[i] for i in test)
    return Draft(tuple(good[i] for i in train), (*tested, *defects), True, tuple(notes))


def _is_mvtec(root: Path) -> bool:
    good = _train_good(root)
    return good is not None and good.name.casefold() != "ok"


def _is_btad(root: Path) -> bool:
    good = _train_good(root)
    return good is not None and good.name.casefold() == "ok"


def _train_good(root: Path) -> Path | None:
    return child(child(root, {"train"}), GOOD)


def _read_train_test(root: Path, _category: str | None, _seed: int) -> Draft:
    """train/good, test/<kind>, ground_truth/<kind>: MVTec AD, and BTAD with other words."""
    notes: list[str] = []
    learnt, good, tested = child(root, {"train"}), _train_good(root), child(root, {"test"})
    train = _labelled(good, defect=False, notes=notes) if good else []
    for folder in listing(learnt).folders if learnt else ():
        if folder != good:
            notes.append(f"train/{folder.name}/: ignored, training takes good images alone")
    items = [
        item
        for folder in (listing(tested).folders if tested else ())
        for item in _labelled(folder, folder.name.casefold() not in GOOD, notes)
    ]
    masks = child(root, MASKS)
    test = with_masks(items, tested, masks, notes) if tested else ()
    return Draft(tuple(train), test, drawn=False, notes=tuple(notes))


def _labelled(folder: Path, defect: bool, notes: list[str]) -> list[Item]:
    kind = folder.name if defect else "good"
    return [Item(path, defect, None, kind) for path in images_in(folder, notes)]


def _visa_table(root: Path) -> Path:
    return root / "split_csv" / "1cls.csv"


def _is_visa(root: Path) -> bool:
    return _visa_table(root).is_file()


def _read_visa(root: Path, category: str | None, _seed: int) -> Draft:
    """VisA's own split of one category (Zou et al., 2022, https://arxiv.org/abs/2207.14315)."""
    table = manifest.rows(_visa_table(root))
    known = sorted({row.fields.get("object", "") for row in table})
    if category not in known:
        given = "no category given" if category is None else f"no category {category!r}"
        raise DataError(f"{root}: {given}; choose one of {', '.join(known)} (--category NAME)")
    chosen = [row for row in table if row.fields.get("object") == category]
    return _from_table(manifest.items(chosen, root), root, 0)


def manifest_in(root: Path) -> Path | None:
    """The manifest's file: the root itself, or manifest.csv or manifest.jsonl in it."""
    if root.is_file():
        return root if root.suffix.casefold() in manifest.SUFFIXES else None
    found = [root / name for name in ("manifest.csv", "manifest.jsonl")]
    found = [file for file in found if file.is_file()]
    if len(found) > 1:
        raise DataError(f"{root} holds manifest.csv and manifest.jsonl: keep one of them")
    return found[0] if found else None


def _is_manifest(root: Path) -> bool:
    return manifest_in(root) is not None


def _read_manifest(root: Path, _category: str | None, seed: int) -> Draft:
    file = manifest_in(root)
    if file is None:
        raise DataError(f"{root} holds no manifest.csv or manifest.jsonl")
    return _from_table(manifest.items(manifest.rows(file), file.parent), file.parent, seed)


def _from_table(table: Iterator[tuple[str, Item]], root: Path, seed: int) -> Draft:
    rows = list(table)
    _refuse_contradictions(rows)
    if all(split == "" for split, _ in rows):
        ordered = sorted((item for _, item in rows), key=lambda item: item.path.as_posix())
        good = [item for item in ordered if not item.defect]
        return draw_good(good, [item for item in ordered if item.defect], root, seed, [])
    train = tuple(item for split, item in rows if split == "train")
    test = tuple(item for split, item in rows if split == "test")
    return Draft(train, test, drawn=False, notes=())


def _refuse_contradictions(rows: list[tuple[str, Item]]) -> None:
    first: dict[Path, tuple[str, bool]] = {}
    for split, item in rows:
        if first.setdefault(item.path, (split, item.defect)) != (split, item.defect):
            raise DataError(f"{item.path}: listed twice, with another split or label")
    if len({bool(split) for split, _ in rows}) > 1:
        path = next(item.path for split, item in rows if not split)
        raise DataError(f"{path}: no split, while other images have one: give all or none")


def _is_good_defect(root: Path) -> bool:
    return child(root, GOOD) is not None


def _read_good_defect(root: Path, _category: str | None, seed: int) -> Draft:
    notes: list[str] = []
    folder = child(root, GOOD)
    good = _labelled(folder, defect=False, notes=notes) if folder else []
    if loose := len(listing(root).images):
        notes.append(f"ignored {loose} images beside the folders, which say neither good nor not")
    defects = [
        item for kind in _defect_folders(root, notes) for item in _labelled(kind, True, notes)
    ]
    items = with_masks([*good, *defects], root, child(root, MASKS), notes)
    return draw_good(good, [item for item in items if item.defect], root, seed, notes)


def _defect_folders(root: Path, notes: list[str]) -> list[Path]:
    """Folders of defects: those so called, with the kinds inside them, or else all others."""
    others = [
        folder
        for folder in listing(root).folders
        if folder.name.casefold() not in GOOD and folder.name.casefold() not in MASKS
    ]
    named = [folder for folder in others if folder.name.casefold() in DEFECT]
    if not named:
        return others
    notes.extend(f"{folder.name}/: ignored" for folder in others if folder not in named)
    kinds = [kind for folder in named for kind in listing(folder).folders]
    notes.extend(f"{kind}: ignored" for kind in kinds if kind.name.casefold() in MASKS)
    return named + [kind for kind in kinds if kind.name.casefold() not in MASKS]


def _is_flat(root: Path) -> bool:
    return bool(listing(root).images)


def _read_flat(root: Path, _category: str | None, _seed: int) -> Draft:
    notes: list[str] = []
    train = tuple(Item(path, defect=False) for path in images_in(root, notes))
    return Draft(train, (), drawn=False, notes=(*notes, "taken for good images, all of them"))


LAYOUTS = {  # in the order in which they are tried
    "manifest": Layout(
        "manifest.csv or manifest.jsonl, or such a file", _is_manifest, _read_manifest
    ),
    "visa": Layout("split_csv/1cls.csv and the categories' folders", _is_visa, _read_visa),
    "mvtec": Layout("train/good, test/<kind>, ground_truth/<kind>", _is_mvtec, _read_train_test),
    "btad": Layout("train/ok, test/ok, test/ko, ground_truth/ko", _is_btad, _read_train_test),
    "good-defect": Layout(
        "good/ and defect/, or good/ and kinds", _is_good_defect, _read_good_defect
    ),
    "flat": Layout("good images and nothing else", _is_flat, _read_flat),
}
