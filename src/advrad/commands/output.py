"""What the verbs print: one JSON object, or text for people, on standard output."""

import json
import sys
from collections.abc import Sequence
from typing import Any

from ..files import plain


def print_json(record: Any) -> None:
    """One line of JSON; numbers that are not finite are null, numpy's and torch's are numbers."""
    text = json.dumps(plain(record), default=_unwrapped, ensure_ascii=False, allow_nan=False)
    if not _printable(text):  # names of files may hold bytes that are no UTF-8
        text = json.dumps(json.loads(text))
    print(text, flush=True)


def printable(text: str) -> str:
    """The text with what standard output cannot hold written out as \\udcff and the like."""
    encoding = sys.stdout.encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def one_line(text: str) -> str:
    """The text with line breaks and other characters that are not printed as \\n and the like."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _printable(text: str) -> bool:
    return printable(text) == text


def columns(rows: Sequence[Sequence[object]], indent: int = 0) -> str:
    """The rows as text, in columns as wide as their widest cell but the last."""
    cells = [["-" if cell is None else str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)][:-1]
    lines = [
        "  ".join([*(c.ljust(w) for c, w in zip(row[:-1], widths, strict=True)), row[-1]]).rstrip()
        for row in cells
    ]
    return "\n".join(" " * indent + line for line in lines)


def _unwrapped(value: Any) -> Any:
    """An array's or a tensor's numbers; what JSON cannot say otherwise is a mistake of ours."""
    if not hasattr(value, "tolist"):
        raise TypeError(f"{type(value).__name__} has no place in JSON")
    return plain(value.tolist())
