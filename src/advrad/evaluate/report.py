"""A report: one HTML file that opens with what was found and needs nothing else to be read.

Pictures are embedded, there is no script, and the page forbids its reader's browser to load
anything, so it can be mailed, archived and printed. Every word that comes from outside, file
names above all, is escaped; characters that a reader could not see, or that reorder the line, are
written out.
"""

import base64
import html
import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import UsageError
from ..files import write_bytes
from .style import STYLE

Cell = str | int | float | None
MAGIC = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"<?xml": "image/svg+xml"}
BIDI = {0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)}
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


@dataclass(frozen=True)
class Picture:
    """PNG, JPEG or SVG; `alt` says what it shows to whoever cannot see it."""

    content: bytes
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class Scale:
    """What the colours of a gallery's heat maps mean: a bar from `low` to `high`."""

    bar: Picture
    low: str
    high: str


@dataclass(frozen=True)
class Inspection:
    """One image of a gallery: its pictures (input, reconstruction, heat map, mask) and verdict.

    `truth` is what the image is known to be; `remark` says what went wrong, if anything did.
    """

    name: str
    verdict: str
    score: float
    pictures: Sequence[Picture]
    truth: str = ""
    remark: str = ""


@dataclass(frozen=True)
class Fact:
    """A key figure: what it is, its value, and what qualifies it (interval, how many images)."""

    label: str
    value: Cell
    note: str = ""


class Report:
    """Collects sections in the order in which they are added, then writes the page."""

    def __init__(self, title: str, finding: str, footer: str = "") -> None:
        self.title = title
        self.finding = finding
        self.footer = footer
        self._headings: list[str] = []
        self._parts: list[str] = []

    def heading(self, words: str) -> None:
        """Begins a section; the page lists its sections at the top."""
        self._headings.append(words)
        self._parts.append(f'<h2 id="part-{len(self._headings)}">{escape(words)}</h2>')

    def text(self, words: str) -> None:
        """A paragraph; an empty line begins the next."""
        parts = (escape(part) for part in words.split("\n\n") if part.strip())
        self._parts.extend(f"<p>{part}</p>" for part in parts)

    def facts(self, facts: Iterable[Fact]) -> None:
        """Key figures, side by side."""
        tiles = (
            f'<div><dt>{escape(fact.label)}</dt><dd class="value">{_cell(fact.value)}</dd>'
            f'<dd class="note">{escape(fact.note)}</dd></div>'
            for fact in facts
        )
        self._parts.append(f'<dl class="facts">{"".join(tiles)}</dl>')

    def figures(self, pictures: Iterable[Picture]) -> None:
        """Charts side by side as far as they fit."""
        charts = (
            f'<figure><div class="frame">{_image(picture)}</div>{_caption(picture)}</figure>'
            for picture in pictures
        )
        self._parts.append(f'<div class="figures">{"".join(charts)}</div>')

    def table(self, caption: str, header: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
        """A table whose first column names its rows; columns of numbers are set flush right."""
        if any(len(row) != len(header) for row in rows):
            raise UsageError(
                f"table {caption!r}: each row needs {len(header)} cells, as its header"
            )
        self._parts.append(f'<div class="scroll">{_table(caption, header, rows)}</div>')

    def settings(self, summary: str, values: Mapping[str, object]) -> None:
        """What is needed to run it again, folded away on screen."""
        rows = [(name, str(value)) for name, value in values.items()]
        body = _table("", ("setting", "value"), rows)
        self._parts.append(
            f"<details><summary>{escape(summary)}</summary>"
            f'<div class="scroll">{body}</div></details>'
        )

    def gallery(
        self, rows: Sequence[Inspection], scale: Scale | None = None, limit: int = 24
    ) -> None:
        """The first `limit` inspections with their pictures, and how many more there are."""
        if scale is not None:
            self._parts.append(
                f'<div class="scale"><span>{escape(scale.low)}</span>{_image(scale.bar)}'
                f"<span>{escape(scale.high)}</span><span>{escape(scale.bar.caption)}</span></div>"
            )
        shown = "".join(_inspection(row) for row in rows[:limit])
        self._parts.append(f'<ul class="gallery">{shown}</ul>')
        if len(rows) > limit:
            self.text(f"{limit} of {len(rows)} images are shown.")

    def html(self) -> str:
        """The whole page."""
        links = "".join(
            f'<a href="#part-{number}">{escape(words)}</a>'
            for number, words in enumerate(self._headings, 1)
        )
        contents = f'<nav aria-label="Sections">{links}</nav>' if len(self._headings) > 1 else ""
        return (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{escape(self.title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
            f'<header>\n<p class="name">{escape(self.title)}</p>\n'
            f'<h1 class="finding">{escape(self.finding)}</h1>\n{contents}\n</header>\n'
            f"<main>\n{chr(10).join(self._parts)}\n</main>\n"
            f"<footer>{escape(self.footer)}</footer>\n</body>\n</html>\n"
        )

    def write(self, path: Path) -> None:
        """Puts the page at `path`, whole or not at all."""
        write_bytes(path, self.html().encode())


def escape(words: str) -> str:
    """The words as HTML text or attribute, with what cannot be seen written out."""
    return html.escape("".join(_visible(character) for character in words))


def _visible(character: str) -> str:
    code = ord(character)
    if character in "\n\t":
        return " "
    hidden = unicodedata.category(character) in ("Cc", "Cs") or code in BIDI
    unassigned = code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF
    return f"\\u{code:04x}" if hidden or unassigned else character


def _cell(value: Cell) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return '<span title="not available">n/a</span>'
    return f"{value:#.4g}" if isinstance(value, float) else escape(str(value))


def _table(caption: str, header: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    columns = list(zip(*rows, strict=True)) or [()] * len(header)
    sides = [
        ' class="number"' if at and _numeric(column) else "" for at, column in enumerate(columns)
    ]
    head = "".join(
        f'<th scope="col"{side}>{escape(name)}</th>'
        for name, side in zip(header, sides, strict=True)
    )
    body = "".join(f"<tr>{_table_row(row, sides)}</tr>" for row in rows)
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f"<table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _table_row(row: Sequence[Cell], sides: Sequence[str]) -> str:
    cells = [f"<td{side}>{_cell(value)}</td>" for value, side in zip(row, sides, strict=True)]
    first = f'<th scope="row"><bdi>{_cell(row[0])}</bdi></th>'
    return first + "".join(cells[1:])


def _numeric(column: Sequence[Cell]) -> bool:
    values = [value for value in column if value is not None]
    return bool(values) and all(isinstance(value, (int, float)) for value in values)


def _inspection(row: Inspection) -> str:
    kind = row.verdict.lower() if row.verdict in ("OK", "UNSURE", "NG") else "unsure"
    pictures = "".join(
        f"<figure>{_image(picture)}{_caption(picture)}</figure>" for picture in row.pictures
    )
    remark = f'<span class="remark">{escape(row.remark)}</span>' if row.remark else ""
    truth = f'<span class="soft">{escape(row.truth)}</span>' if row.truth else ""
    return (
        f'<li><div class="row"><span class="badge {kind}">{escape(row.verdict)}</span>'
        f'<bdi class="file">{escape(row.name)}</bdi>{truth}'
        f'<span class="soft">score {row.score:.4g}</span>{remark}</div>'
        f'<div class="pictures">{pictures}</div></li>'
    )


def _image(picture: Picture) -> str:
    kind = next((kind for start, kind in MAGIC.items() if picture.content.startswith(start)), None)
    if kind is None:
        raise UsageError(f"picture {picture.alt!r} is not PNG, JPEG or SVG")
    content = base64.b64encode(picture.content).decode()
    return f'<img src="data:{kind};base64,{content}" alt="{escape(picture.alt)}">'


def _caption(picture: Picture) -> str:
    return f"<figcaption>{escape(picture.caption)}</figcaption>" if picture.caption else ""
