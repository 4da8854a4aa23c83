"""`advrad benchmark`: detectors, data, attacks and certificates in one table."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from .options import Debug, Json
from .output import print_json


def benchmark(
    grid: Annotated[
        Path, typer.Argument(metavar="GRID.toml", help="What is compared; see the documentation.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for models, cells and the table.")],
    workers: Annotated[int, typer.Option(min=1, help="Processes at once.")] = 1,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Train and measure every cell of a grid; run again, it goes on where it stopped.

    A cell that fails is recorded and the rest goes on; the exit code is then 1.
    """
    from ..evaluate.grid import read
    from ..evaluate.grid_report import write_grid
    from ..evaluate.grid_run import run_grid
    from ..evaluate.grid_table import figures, markdown
    from ..evaluate.sections import seconds_in_words

    asked = read(grid)
    ended = 0

    def tell(task: Any, record: dict[str, Any]) -> None:
        nonlocal ended
        ended += 1
        told = record["error"] or (
            "done before" if record.get("before") else seconds_in_words(record["seconds"])
        )
        print(f"{ended}: {task.words}: {told}", file=sys.stderr, flush=True)

    done = run_grid(asked, out, workers, tell)
    page = write_grid(asked, done, out)
    if json:
        print_json({"name": asked.name, "figures": figures(asked, done)})
    else:
        typer.echo(f"{markdown(asked, done)}\nreport: {page}")
    if any(record["error"] for _, record in done):
        raise typer.Exit(1)
