"""The table of a grid: a row a detector, a column a figure, for each data set.

Over several seeds a figure is their mean and standard deviation; of one seed, its bootstrap
interval. A suspect figure never stands without that word, and a cell that failed says so. The rank
of a detector is its mean place over the columns that all of them have.
"""

import csv
import io
from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any

from . import grid_defence
from .certificate import needs
from .grid import Assailed, Certified, Grid, Task
from .grid_defence import Defended
from .grid_task import Record
from .health import SUSPECT, in_words

Done = Sequence[tuple[Task, Record]]
Figure = dict[str, Any]
COST = ("image", "train s", "train TFLOP", "parameters", "peak MiB")
COSTS = ("image", "train_seconds", "train_flop", "parameters", "peak_mib")


def figures(grid: Grid, done: Done) -> list[Figure]:
    """One for each data set, detector and column: value, over seeds, and what qualifies it."""
    found = []
    for data in grid.data:
        for method in grid.detector:
            some = [
                (task, record)
                for task, record in done
                if task.data.label == data.label and task.method.title == method.title
            ]
            for column in _columns(grid):
                found.append(
                    {"data": data.label, "detector": method.title, "column": column}
                    | {"method": method.name.lower()}
                    | _figure(some, column)
                )
    return found


def markdown(grid: Grid, done: Done) -> str:
    """Tables, one a data set."""
    listed = figures(grid, done)
    parts = [f"# {grid.name}"]
    for data in grid.data:
        columns = [*_columns(grid), *COST, "rank"]
        parts += [f"\n## {data.label}\n", line(["detector", *columns])]
        parts.append(line(["---"] * (len(columns) + 1)))
        parts += [line(row) for row in rows(grid, done, data.label, listed)]
    return "\n".join(parts) + "\n" + grid_defence.markdown(trials(done)) + _left(done)


def _left(done: Done) -> str:
    """The trials of defences that failed or wait for another run."""
    lines = [
        f"- {task.words}: {f'failed: {why}' if (why := record['error']) else 'not run'}\n"
        for task, record in done
        if isinstance(task.cell, Defended) and (record["error"] or record.get("waiting"))
    ]
    return "\n" * bool(lines) + "".join(lines)


def trials(done: Done) -> list[Record]:
    """The records of the cells that try defences."""
    return [record for task, record in done if isinstance(task.cell, Defended)]


def rows(grid: Grid, done: Done, data: str, listed: Sequence[Figure]) -> list[list[str]]:
    """Of one data set, in words."""
    own = [figure for figure in listed if figure["data"] == data]
    places = ranks(own)
    table = []
    for method in grid.detector:
        cells = [words(f) for f in own if f["detector"] == method.title]
        rank = places.get(method.title)
        table.append(
            [
                method.title,
                *cells,
                *_cost_in_words(_cost(done, data, method.title)),
                "n/a" if rank is None else f"{rank:.1f}",
            ]
        )
    return table


def as_csv(grid: Grid, done: Done) -> str:
    """Every figure a line, with what qualifies it; and the detector's rank and cost."""
    names = ["data", "detector", "column", "value", "deviation", "low", "high", "seeds", "health"]
    names += ["why", "error", "failed", "waiting", "rank", *COSTS]
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    told = {(each["data"], each["detector"]): each for each in summaries(grid, done)}
    for figure in figures(grid, done):
        writer.writerow(figure | told[figure["data"], figure["detector"]])
    return text.getvalue()


def summaries(grid: Grid, done: Done) -> list[Record]:
    """Of each detector on each data set: its rank, and the cost of its trainings."""
    listed = figures(grid, done)
    found = []
    for data in grid.data:
        places = ranks([figure for figure in listed if figure["data"] == data.label])
        for method in grid.detector:
            own = {"data": data.label, "detector": method.title, "rank": places.get(method.title)}
            found.append(own | _cost(done, data.label, method.title))
    return found


def words(figure: Figure) -> str:
    """`0.936 ± 0.001`, `0.745 (0.67 to 0.81) sound`, `failed`, `not run`, or n/a."""
    if figure["value"] is None:
        if figure["error"]:
            return "failed"
        if figure.get("waiting"):
            return "not run"
        return f"n/a ({figure['why']})" if figure.get("why") else "n/a"
    told = f"{figure['value']:.3f}"
    if figure["deviation"] is not None:
        told += f" ± {figure['deviation']:.3f}"
    elif figure["low"] is not None:
        told += f" ({figure['low']:.2f} to {figure['high']:.2f})"
    told += f" {figure['health']}" if figure["health"] else ""
    told += f", {figure['failed']} of its seeds failed" if figure.get("failed") else ""
    return told + (f", {figure['waiting']} of its seeds not run" if figure.get("waiting") else "")


def ranks(own: Sequence[Figure]) -> dict[str, float]:
    """The mean place of each detector, 1 the best, over columns that all have under all of their
    seeds; ties share. One with a cell that failed has no place and takes none."""
    places: dict[str, list[float]] = {}
    lame = {figure["detector"] for figure in own if figure.get("failed")}
    own = [figure for figure in own if figure["detector"] not in lame]
    for column in dict.fromkeys(figure["column"] for figure in own):
        values = {
            f["detector"]: None if f.get("waiting") else f["value"]
            for f in own
            if f["column"] == column
        }
        whole = {name: value for name, value in values.items() if value is not None}
        if len(whole) < len(values):
            continue
        for name, value in whole.items():
            better = sum(other > value for other in whole.values())
            same = sum(other == value for other in whole.values())
            places.setdefault(name, []).append(better + (same + 1) / 2)
    return {name: mean(found) for name, found in places.items()}


def _columns(grid: Grid) -> list[str]:
    certified = [
        f"{one.title}, radius {radius:g}" for one in grid.certificate for radius in one.radii
    ]
    titles = ["clean", *(attack.title for attack in grid.attack), *certified]
    return list(dict.fromkeys(titles))


def _figure(some: Done, column: str) -> Figure:
    """Over the seeds that have it."""
    found, error, health, why, waiting, failed = [], None, "", "", 0, 0
    interval: list[float] | None = None
    for task, record in some:
        if not _is(task, column):
            continue
        error = record["error"] or error
        failed += bool(record["error"])
        waiting += bool(record.get("waiting") and not record["error"])
        if record["found"] is None:
            continue
        value, interval = _value(task, record["found"], column)
        if value is not None:
            found.append(value)
        else:
            why = _needed(task, record["found"], column)
        health = _worse(health, record["found"])
    low, high = interval if interval and len(found) == 1 else (None, None)
    return {
        "value": mean(found) if found else None,
        "deviation": stdev(found) if len(found) > 1 else None,
        "low": low,
        "high": high,
        "seeds": len(found),
        "waiting": waiting,
        "failed": failed,
        "health": health,
        "why": why,
        "error": error,
    }


def _is(task: Task, column: str) -> bool:
    if task.cell is None:
        return False
    if isinstance(task.cell, Certified):
        return any(column == f"{task.title}, radius {r:g}" for r in task.cell.radii)
    return task.title == column


def _value(
    task: Task, found: dict[str, Any], column: str
) -> tuple[float | None, list[float] | None]:
    if isinstance(task.cell, Assailed):
        return found["robust_auroc"], found["robust_auroc_ci"]
    if isinstance(task.cell, Certified):
        radius = column.rsplit(" ", 1)[1]
        return found["certified_auroc"][radius], found["certified_auroc_ci"][radius]
    return found["image_auroc"], found["image_auroc_ci"]


def _needed(task: Task, found: dict[str, Any], column: str) -> str:
    """Why a radius has no certificate: so many draws would have to be made."""
    if not isinstance(task.cell, Certified):
        return ""
    needed = found.get("needed", {})
    radius = column.rsplit(" ", 1)[1]
    return needs(needed[radius]) if radius in needed else ""


def _worse(before: str, found: dict[str, Any]) -> str:
    """The health of several seeds is that of the worst."""
    if "health" not in found:
        return before
    own = in_words(found["health"])
    return (
        before if before.startswith(SUSPECT) or (before and not own.startswith(SUSPECT)) else own
    )


def _cost(done: Done, data: str, title: str) -> Record:
    """Of the trainings: what an image is, (C, H, W); seconds and floating-point operations, means
    over seeds; parameters; the most memory. None where it is not known."""
    some = [
        record
        for task, record in done
        if task.cell is None and task.data.label == data and task.method.title == title
    ]
    found = [record["found"] for record in some if record["found"]]
    if not found:
        return dict.fromkeys(COSTS)
    seconds = mean(one["training"]["seconds"] for one in found)
    peaks = [record["peak_mib"] for record in some if record["peak_mib"] is not None]
    flop = [one["cost"].get("training_flop") for one in found]
    values = (
        " x ".join(map(str, found[0]["shape"])),
        seconds,
        None if None in flop else mean(flop),
        found[0]["cost"]["parameters"],
        max(peaks, default=None),
    )
    return dict(zip(COSTS, values, strict=True))


def _cost_in_words(cost: Record) -> list[str]:
    image, seconds, flop, parameters, peak = (cost[name] for name in COSTS)
    return [
        image or "n/a",
        "n/a" if seconds is None else f"{seconds:.0f}",
        "n/a" if flop is None else f"{flop / 1e12:.3g}",
        "n/a" if parameters is None else f"{parameters:,}",
        "n/a" if peak is None else f"{peak:.0f}",
    ]


def line(cells: Sequence[str]) -> str:
    """A row of a table in Markdown."""
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
