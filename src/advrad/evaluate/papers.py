"""The papers' tables, and ours beside them.

What FreeRAD and AdvRAD print lies in `papers.toml`, misprints marked and losses named. Beside it
stand the figures of a grid, each with what it can be compared with, and what differs in words.
Most of it differs: no figure of ours stands for one of theirs.
"""

import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..checks import fraction
from ..errors import DataError, UsageError
from .grid_table import line, words
from .rows import RESULT

FACTS = Path(__file__).with_name("papers.toml")
NAMES = {
    "ocrgan": "OCR-GAN",
    "spade": "SPADE",
    "cflow": "CFlow",
    "fastflow": "FastFlow",
    "cfa": "CFA",
    "advrad": "FreeRAD",
}
MEAN = "mean"
DIFFERS = (
    "Attack: the papers' PGD is told by its radius alone (no step size, no number of steps, no "
    "restarts, one draw). Ours is the suite named in the column, both classes are attacked, and "
    "the verdict of its health stands beside each figure; the floor is 0 in both.",
    "Radius: the papers do not say on which scale; ours is that of images in [0, 1]. An l2 radius "
    "means the less, the larger the image: the papers' 0.2 at 3 x 256 x 256 is 0.1 of a grey "
    "level a pixel. Ours stands beside the size of the image in the grid's table.",
    "Data: MVTec AD does not come with advrad. Only rows of the same data set and category show "
    "the same images; beside all others stands the papers' mean over MVTec AD, and hazelnut_toy "
    "is not MVTec's hazelnut.",
    "Depth: the papers choose k for each category by its AUROC on the test images; ours is chosen "
    "without labels, or given.",
    "AdvRAD: 113.7 million parameters at 256 px, 30,000 steps, the largest deviation as score in "
    "the papers; the preset `fast` unless the grid says otherwise, and its own score, in ours.",
    "Others: networks trained on ImageNet that are larger (a wide ResNet-50 for most) in the "
    "papers; EfficientNet-Lite0 unless the grid names weights in ours.",
    "Chance: one run and no intervals in the papers; deviations over seeds, or intervals over "
    "images, in ours.",
)


NEEDED = ("data", "detector", "method", "column", "value", "deviation", "low", "high", "error")


def facts() -> dict[str, list[dict[str, Any]]]:
    """The papers' tables (`table`) and what is lost of them (`missing`), AUROC in per cent."""
    return tomllib.loads(FACTS.read_text(encoding="utf-8"))


def results(out: Path) -> list[dict[str, Any]]:
    """The figures that a grid has left in its folder. Raises DataError where there are none."""
    path = out / RESULT
    try:
        found = json.loads(path.read_text())["figures"]
        return [dict(figure) | {name: figure[name] for name in NEEDED} for figure in found]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} holds no figures of a grid: run  advrad benchmark GRID.toml --out {out}  "
            "first"
        ) from error


def record(ours: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """All of it as plain values; AUROC as a share of 1 in `beside`."""
    return {"papers": facts(), "beside": beside(ours), "differs": list(DIFFERS)}


def markdown(ours: Sequence[Mapping[str, Any]]) -> str:
    """The papers' tables, what is lost, ours beside them, and what differs."""
    found = facts()
    parts = ["# The papers' tables"]
    for table in found["table"]:
        parts.append(_table(table))
    parts.append("\n## Lost\n")
    parts += [f"- {lost['name']}: {lost['told']}" for lost in found["missing"]]
    parts.append(_beside(ours) if ours else "\nOurs: give a grid's folder with --out.")
    return "\n".join([*parts, "\n## What differs\n", *(f"- {told}" for told in DIFFERS)]) + "\n"


def beside(ours: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each figure of ours: with the papers' own and what that is of, None where they
    have none."""
    tables = facts()["table"]
    rows = []
    for figure in ours:
        found = _theirs(figure, tables)
        value, of = found if found else (None, None)
        rows.append({**figure, "papers": value, "papers_of": of})
    return rows


def _theirs(figure: Mapping[str, Any], tables: list[dict[str, Any]]) -> tuple[float, str] | None:
    """The papers' figure, a share of 1, and of which table and row it is."""
    threat, clean = _threat(str(figure["column"])), figure["column"] == "clean"
    for part, wanted in _sources(str(figure["data"]), tables):
        if figure["method"] not in part["methods"]:
            continue
        values = part.get("clean" if clean else "robust")
        if values and (clean or _threat(part["threat"]) == threat):
            value = values[wanted][part["methods"].index(figure["method"])]
            mark = part["marks"].get(f"{wanted}.{figure['method']}")
            told = f"{part['name']}, {wanted}" + (f" ({mark})" if mark else "")
            return value / 100, told
    return None


def _sources(data: str, tables: list[dict[str, Any]]) -> list[tuple[dict[str, Any], str]]:
    """The tables to look into, with the row: the category's own, else the mean over MVTec AD."""
    name, _, category = data.rpartition("/")
    own = [
        (table, category)
        for table in tables
        if table["data"] in name.casefold() and category in table["robust"] and category != MEAN
    ]
    return own or [(table, MEAN) for table in tables if table["data"] == "mvtec"]


def _threat(column: str) -> tuple[str, float] | None:
    """Norm and radius of a column, None where it is no attack."""
    norm, _, eps = column.partition(",")[0].partition(" ")
    try:
        return norm, round(fraction(eps, "eps"), 6)
    except UsageError:
        return None


def _table(table: dict[str, Any]) -> str:
    """A paper's table, its marked figures with an asterisk."""
    methods = table["methods"]
    parts = [f"\n## {table['name']}\n\n{table['told']}\n"]
    parts.append(line(["", *(NAMES[name] for name in methods)]))
    parts.append(line(["---"] * (len(methods) + 1)))
    for row, robust in table["robust"].items():
        clean = table.get("clean", {}).get(row, [None] * len(methods))
        cells = [
            f"{r:g}"
            + (f" ({c:g})" if c is not None else "")
            + "*" * (f"{row}.{m}" in table["marks"])
            for m, r, c in zip(methods, robust, clean, strict=True)
        ]
        parts.append(line([row.replace("_", " "), *cells]))
    marked = [f"- * {_marked(place)}: {told}" for place, told in table["marks"].items()]
    return "\n".join([*parts, "", *marked, *(f"- {note}" for note in table["notes"])])


def _marked(place: str) -> str:
    row, _, method = place.partition(".")
    return f"{row.replace('_', ' ')}, {NAMES[method]}"


def _beside(ours: Sequence[Mapping[str, Any]]) -> str:
    """Ours and theirs in turn, a table a data set."""
    rows = beside(ours)
    parts = ["\n## Ours beside them"]
    for data in dict.fromkeys(row["data"] for row in rows):
        own = [row for row in rows if row["data"] == data]
        columns = list(dict.fromkeys(row["column"] for row in own))
        head = [part for column in columns for part in (f"ours: {column}", "papers")]
        parts += [f"\n### {data}\n", line(["detector", *head]), line(["---"] * (len(head) + 1))]
        for name in dict.fromkeys(row["detector"] for row in own):
            cells = [cell for row in own if row["detector"] == name for cell in _pair(row)]
            parts.append(line([name, *cells]))
        of = sorted({row["papers_of"] for row in own if row["papers_of"]})
        parts.append("\nThe papers' figures are of: " + "; ".join(of or ["none"]))
    return "\n".join(parts)


def _pair(row: Mapping[str, Any]) -> tuple[str, str]:
    theirs = "n/a" if row["papers"] is None else f"{row['papers']:.3f}"
    return words(dict(row)), theirs
