"""A list of images in a file: CSV with a header, JSON Lines, or one JSON array of objects.

Columns: path, label (good or defect, 0 or 1, false or true, ok or ng), and as far as wanted split
(train or test), mask, kind. Paths are relative to the manifest's folder and may not leave it, be
it by `..`, by an absolute path or through a symbolic link.
"""

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from advrad.data.items import Item
from advrad.data.listing import DEFECT, GOOD
from advrad.errors import DataError
from advrad.images import is_image

SUFFIXES = frozenset({".csv", ".jsonl", ".json"})
SPLITS = {"train": "train", "training": "train", "test": "test", "testing": "test", "": ""}


@dataclass(frozen=True, slots=True)
class Row:
    """One image of a manifest; `place` names file and line for messages."""

    place: str
    fields: dict[str, str]

    def refuse(self, why: str) -> DataError:
        """The error to raise for this row."""
        return DataError(f"{self.place}: {why}")


def rows(file: Path) -> list[Row]:
    """The rows of the file, names of columns in lower case; DataError names the line."""
    read = {".csv": _csv_rows, ".jsonl": _jsonl_rows, ".json": _json_rows}
    try:
        return list(read[file.suffix.casefold()](file))
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: is not UTF-8 text ({error.reason}): save it as UTF-8") from error
    except csv.Error as error:
        raise DataError(f"{file}: is no CSV file ({error})") from error


def items(table: Iterable[Row], root: Path) -> Iterator[tuple[str, Item]]:
    """(split, item) for each row; the split is "train", "test" or "" where none is given."""
    base = root.resolve()
    for row in table:
        path = _inside(row, row.fields.get("path", ""), root, base)
        defect = _is_defect(row)
        split = SPLITS.get(row.fields.get("split", "").casefold())
        if split is None:
            raise row.refuse(f"split is {row.fields['split']!r}, expected train or test")
        if defect and split == "train":
            raise row.refuse("a defect for training: training learns from good images alone")
        mask = row.fields.get("mask", "") if defect else ""
        kind = (row.fields.get("kind", "") or "defect") if defect else "good"
        yield split, Item(path, defect, _inside(row, mask, root, base) if mask else None, kind)


def _csv_rows(file: Path) -> Iterator[Row]:
    with file.open(encoding="utf-8-sig", newline="") as stream:
        header = stream.readline()
        stream.seek(0)
        delimiter = "," if "," in header or ";" not in header else ";"
        reader = csv.DictReader(stream, delimiter=delimiter)
        for fields in reader:
            place = f"{file}, line {reader.line_num}"
            if None in fields:
                raise DataError(f"{place}: has more fields than the header")
            yield _row(place, fields)


def _jsonl_rows(file: Path) -> Iterator[Row]:
    with file.open(encoding="utf-8-sig") as stream:
        for number, line in enumerate(stream, start=1):
            if line.strip():
                yield _row(f"{file}, line {number}", _parsed(f"{file}, line {number}", line))


def _json_rows(file: Path) -> Iterator[Row]:
    entries = _parsed(str(file), file.read_text(encoding="utf-8-sig"))
    if not isinstance(entries, list):
        raise DataError(f"{file}: expected one JSON array of objects")
    for number, entry in enumerate(entries, start=1):
        yield _row(f"{file}, entry {number}", entry)


def _parsed(place: str, text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place}: is no JSON ({error})") from error


def _row(place: str, fields: object) -> Row:
    if not isinstance(fields, dict):
        raise DataError(f"{place}: expected an object with path and label")
    plain = {
        str(name).strip().casefold(): "" if value is None else str(value).strip()
        for name, value in fields.items()
    }
    plain.setdefault("path", plain.get("image", ""))
    missing = [name for name in ("path", "label") if not plain.get(name)]
    if missing:
        raise DataError(
            f"{place}: no {' and no '.join(missing)}; columns are path, label[, split, mask, kind]"
        )
    return Row(place, plain)


def _is_defect(row: Row) -> bool:
    label = row.fields["label"].casefold()
    if label in GOOD or label in ("0", "false"):
        return False
    if label in DEFECT or label in ("1", "true"):
        return True
    raise row.refuse(f"label is {row.fields['label']!r}, expected good or defect, 0 or 1")


def _inside(row: Row, name: str, root: Path, base: Path) -> Path:
    path = root / name
    absolute = PurePosixPath(name).is_absolute() or PureWindowsPath(name).is_absolute()
    if absolute or ".." in Path(name).parts:
        raise row.refuse(f"{name!r} leaves the folder {root}: paths are relative and stay inside")
    try:
        real = path.resolve()
        exists = real.is_file()
    except (OSError, ValueError, RuntimeError) as error:
        raise row.refuse(f"{name!r} is no usable path ({error})") from error
    if not real.is_relative_to(base):
        raise row.refuse(f"{name!r} leaves the folder {root} through a symbolic link")
    if not exists:
        raise row.refuse(f"{name!r} does not exist in {root}")
    if not is_image(path):
        raise row.refuse(f"{name!r} is no image file by its suffix")
    return path
