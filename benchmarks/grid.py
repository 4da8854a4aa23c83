"""A ready grid, kept under runs/grids/ and resumed; its table becomes a record.

    python benchmarks/grid.py quick --workers 2
    python benchmarks/grid.py papers --workers 2 --hours 2

NAME is one of the TOML files beside this one. It is what `advrad benchmark` does, with a record of
every figure and its table at the end. The record keeps what was found of each task, so that a grid
goes on from it where runs/ is gone; models that are needed are trained again.
"""

import argparse
import math
import time
from pathlib import Path
from typing import Any

from common import earlier, keep, load_average
from kept import kept, lost, restore

from advrad.evaluate.grid import Task, read, tasks
from advrad.evaluate.grid_report import write_grid
from advrad.evaluate.grid_run import Stint, run_grid, unfinished
from advrad.evaluate.grid_table import Done, figures, markdown
from advrad.evaluate.grid_task import Record

HERE = Path(__file__).parent
RUNS = Path("runs/grids")


def main() -> None:
    parser = argparse.ArgumentParser()
    ready = sorted(path.stem for path in HERE.glob("*.toml") if path.stem != "sensitivity")
    parser.add_argument("name", choices=ready)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--only", action="append", default=[], help="a detector; repeatable")
    parser.add_argument("--hours", type=float, default=math.inf, help="begin no task after these")
    wanted = parser.parse_args()
    grid, out, start = read(HERE / f"{wanted.name}.toml"), RUNS / wanted.name, time.monotonic()

    name = f"grid-{wanted.name}"
    held = earlier(name)
    restore(held.get("tasks", {}), [task for part in tasks(grid) for task in part], out)
    before, new = [], []

    def tell(task: Task, record: Record) -> None:
        (before if record.get("before") else new).append(task)
        print(task.folder, record["error"] or "done", flush=True)

    done = run_grid(grid, out, wanted.workers, tell, stint=Stint(wanted.only, wanted.hours))
    spent = time.monotonic() - start
    write_grid(grid, done, out)
    found = figures(grid, done)
    if gone := lost(held.get("figures", []), found):
        raise SystemExit(
            f"results/{name}.json has {len(gone)} figures that are not here ({gone[0]}): it stays "
            "as it is until they are"
        )
    keep(
        name,
        {
            "name": grid.name,
            "tables": markdown(grid, done),
            "figures": found,
            "seconds_of_tasks": sum(record["seconds"] or 0.0 for _, record in done),
            "not_timed": sum(r["found"] is not None and r["seconds"] is None for _, r in done),
            "seconds": _in_one_go(spent, held, before, new, done),
            "not_run": unfinished(done),
            "failed": {str(t.folder): r["error"] for t, r in done if r["error"]},
            "tasks": kept(done),
            "workers": wanted.workers,
            "load_average": load_average(),
        },
        [wanted.name, "--workers", str(wanted.workers)],
    )


def _in_one_go(
    spent: float, held: dict[str, Any], before: list[Task], new: list[Task], done: Done
) -> float | None:
    """The seconds of a run that did all tasks: this one, or that of the record."""
    if any(record["found"] is None for _, record in done):
        return None
    return spent if not before else None if new else held.get("seconds")


if __name__ == "__main__":
    main()
