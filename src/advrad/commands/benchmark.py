"""`advrad benchmark`: detectors, data, attacks and certificates in one table."""

import contextlib
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import UsageError
from .options import Debug, Json
from .output import print_json

if TYPE_CHECKING:
    from ..evaluate.grid_run import Crew


def benchmark(
    grid: Annotated[
        Path | None,
        typer.Argument(metavar="GRID.toml", help="What is compared; see the documentation."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for models, cells and the table.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Tasks at once.")] = 1,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Of a Ray cluster that does the tasks: HOST:PORT, auto, or local.",
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A detector or purifier to do this time; repeatable."),
    ] = None,
    hours: Annotated[
        float, typer.Option(help="Begin no task after so long; the same command goes on.")
    ] = math.inf,
    papers: Annotated[
        bool,
        typer.Option("--papers", help="Print the papers' tables, beside those in --out, if any."),
    ] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Train and measure every cell of a grid; run again, it goes on where it stopped.

    A cell that fails is recorded and the rest goes on; the exit code is then 1.
    """
    if papers:
        _papers(grid, out, json)
        return
    if grid is None or out is None:
        raise UsageError("expected  advrad benchmark GRID.toml --out DIR  (or --papers)")
    from ..evaluate.grid import read
    from ..evaluate.grid_defence import joined
    from ..evaluate.grid_report import write_grid
    from ..evaluate.grid_run import Stint, run_grid, unfinished
    from ..evaluate.grid_table import figures, markdown, trials

    asked = read(grid)
    with _crew(ray, out, workers) as crew:
        done = run_grid(asked, out, workers, _Told(), crew, Stint(only or [], hours))
    page = write_grid(asked, done, out)
    if left := unfinished(done):
        print(f"{left} of {len(done)} tasks not run: the same command goes on", file=sys.stderr)
    if json:
        record = {"name": asked.name, "figures": figures(asked, done)}
        print_json(record | {"defences": joined(trials(done))})
    else:
        typer.echo(f"{markdown(asked, done)}\nreport: {page}")
    if any(record["error"] for _, record in done):
        raise typer.Exit(1)


class _Told:
    """A line for each task that has ended."""

    def __init__(self) -> None:
        self.ended = 0

    def __call__(self, task: Any, record: dict[str, Any]) -> None:
        from ..evaluate.sections import seconds_in_words

        self.ended += 1
        told = record["error"] or (
            "done before" if record.get("before") else seconds_in_words(record["seconds"])
        )
        print(f"{self.ended}: {task.words}: {told}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _crew(address: str | None, out: Path, workers: int) -> Iterator["Crew | None"]:
    """The Ray crew at an address; None without one."""
    if address is None:
        yield None
        return
    from ..evaluate.grid_ray import RayCrew

    crew = RayCrew(address, out, workers)
    try:
        yield crew
    finally:
        crew.close()


def _papers(grid: Path | None, out: Path | None, json: bool) -> None:
    """What the papers say, and beside it what a grid's folder holds."""
    from ..evaluate import papers

    if grid is not None:
        raise UsageError(f"--papers runs nothing: leave {grid} out; --out is a folder of results")
    ours = [] if out is None else papers.results(out)
    if json:
        print_json(papers.record(ours))
    else:
        typer.echo(papers.markdown(ours))
