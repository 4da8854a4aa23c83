"""All tasks of a grid, several at once, each in a process of its own.

Stopped, the running ones save what they have; the same command goes on. Who does the tasks is a
crew: processes of this machine in `grid_processes`, those of a Ray cluster in `grid_ray`.
"""

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from ..errors import AdvradError, UsageError
from ..files import held, plain, write_json
from .grid import Data, Grid, Task, tasks
from .grid_checks import known
from .grid_defence import Defended
from .grid_processes import Processes
from .grid_queue import Queue, in_order
from .grid_task import Ended, Record, failed, failure, opened, recorded, unmade

GRID = "grid.json"
Tell = Callable[[Task, Record], None]


class Crew(Protocol):
    """Does tasks, at most `size` at once."""

    size: int

    def begin(self, task: Task) -> None:
        """Sets out on a task whose record is not there."""

    def ended(self) -> list[tuple[Task, Record]]:
        """Tasks that have ended since, with what they found; waits for the first."""

    def stop(self) -> None:
        """Ends those that run, which save what they have."""


@dataclass(frozen=True)
class Stint:
    """What one run does of a grid.

    Arguments:
        only: titles of the detectors, or labels of the purifiers, that it is about; none: of all.
        hours: after which no further task is begun; those that run come to their end. 0 begins
            none, and tells what is there.
    """

    only: Sequence[str] = ()
    hours: float = math.inf

    def checked(self, grid: Grid) -> "Stint":
        """Raises UsageError for a title that the grid does not have, and for less than no time."""
        labels = [label for one in grid.defence for label in one.labels()]
        known(self.only, [*(method.title for method in grid.detector), *labels], "--only")
        if not self.hours >= 0:
            raise UsageError(f"--hours {self.hours:g}: expected 0 or more")
        return self

    def means(self, task: Task) -> bool:
        return not self.only or task.method.title in self.only


WHOLE = Stint()


def run_grid(
    grid: Grid,
    out: Path,
    workers: int = 1,
    tell: Tell = lambda task, record: None,
    crew: Crew | None = None,
    stint: Stint = WHOLE,
) -> list[tuple[Task, Record]]:
    """Every task with what it found, done before or now; `tell` hears of each as it ends.

    A cell whose training failed fails with it; what the stint leaves for another run is `waiting`.
    `crew` does the tasks in the place of `workers` processes of this machine. Raises UsageError
    where `out` holds another grid or another run works there, workers are below one, or the stint
    is impossible.
    """
    if workers < 1:
        raise UsageError(f"{workers} workers: expected 1 or more")
    stint = stint.checked(grid)
    crew = crew or Processes(out, workers)
    _refuse_other(grid, out)
    end = time.monotonic() + 3600 * stint.hours
    order = in_order(grid)
    told = f"another run works in {out}: wait for it, or name another --out"
    with held(out / ".lock", told) if stint.hours else nullcontext():
        ended = _through(order, out, crew, tell, stint, end)
        done = {task.folder: record for task, record in ended}
    done |= {task.folder: record for task, record in _since(order, done, out)}
    return [(task, done[task.folder]) for part in tasks(grid) for task in part]


def unfinished(done: Sequence[Ended]) -> int:
    """How many tasks wait for another run; those that failed in an earlier one have failed."""
    return sum(bool(record.get("waiting") and not record["error"]) for _, record in done)


def _since(order: Sequence[Task], done: dict[Path, Record], out: Path) -> Iterator[Ended]:
    """What else is known at the end: what a training had found that could not be done again, and
    that cells done before have measured another model than the one that was made meanwhile."""
    for task in order:
        record, now = done[task.folder], recorded(task, out)
        if task.cell is None and record["error"] and now is not None:
            yield task, now | {"before": True}
        elif record.get("before") and now is None:
            yield task, _waiting(task, out)


def _waiting(task: Task, out: Path) -> Record:
    """Of a task that is left for another run; why it failed, where it did."""
    return {
        "task": plain(asdict(task)), "error": failure(task, out), "found": None, "seconds": None,
        "peak_mib": None, "waiting": True,
    }  # fmt: skip


def _refuse_other(grid: Grid, out: Path) -> None:
    """The same folder with other tasks is refused where a task of the same name differs."""
    path = out / GRID
    asked = {str(task.folder): plain(asdict(task)) for part in tasks(grid) for task in part}
    before: dict[str, object] = {}
    if path.exists():
        try:
            before = dict(json.loads(path.read_text()))
        except (TypeError, ValueError) as error:
            raise UsageError(f"{path} holds no grid ({error}): name another --out") from error
    changed = [name for name in asked if name in before and before[name] != asked[name]]
    if changed:
        raise UsageError(
            f"{out} holds results of other settings for {changed[0]}"
            + (f" and {len(changed) - 1} more" if len(changed) > 1 else "")
            + ": name another --out, or give what changed a label of its own"
        )
    write_json(path, before | asked)


def _through(
    order: Sequence[Task], out: Path, crew: Crew, tell: Tell, stint: Stint, end: float
) -> Iterator[Ended]:
    """Each task with its record; the next one that can be done is begun."""
    left, settled = _sorted(order, out, stint, isinstance(crew, Processes))
    for task, record in settled:
        if not record.get("waiting"):
            tell(task, record)
        yield task, record
    queue = Queue(left)
    try:
        while queue.left or queue.running:
            over = time.monotonic() >= end
            for task in queue.next(0 if over else crew.size):
                crew.begin(task)
            yield from (
                (task, recorded(task, out) or _waiting(task, out)) for task in queue.late(over)
            )
            for task, record in crew.ended() if queue.running else ():
                tell(task, record)
                yield task, record
                for cell in queue.ended(task, record["error"]):
                    why = failed(cell, out, f"its training failed: {record['error']}")
                    tell(cell, why)
                    yield cell, why
    finally:
        crew.stop()


def _sorted(
    order: Sequence[Task], out: Path, stint: Stint, here: bool
) -> tuple[list[Task], list[Ended]]:
    """What is left to be done, and the rest with its records: done before, for another stint, or,
    where the tasks are done `here`, without its data. A training is left as well where its model
    is gone and a cell needs it."""
    records = {task.folder: recorded(task, out) for task in order}
    cells = [task for task in order if records[task.folder] is None and stint.means(task)]
    records |= dict.fromkeys(unmade(cells, out))
    left: list[Task] = []
    settled: list[Ended] = []
    for task in order:
        record = records[task.folder]
        if record is not None:
            settled.append((task, record | {"before": True}))
        elif stint.means(task):
            left.append(task)
        else:
            settled.append((task, _waiting(task, out)))
    lost = _without_data(left) if here and stint.hours else {}
    settled += [(task, failed(task, out, why)) for task, why in lost]
    gone = {task.folder for task, _ in lost}
    return [task for task in left if task.folder not in gone], settled


def _without_data(some: Sequence[Task]) -> list[tuple[Task, str]]:
    """Tasks whose data set is not there, and why; one look at each, and not one a process. A trial
    of a defence opens its own, which has classes."""
    some = [task for task in some if not isinstance(task.cell, Defended)]
    why: dict[Data, str] = {}
    for data in dict.fromkeys(task.data for task in some):
        try:
            opened(data)
        except AdvradError as error:
            why[data] = str(error)
    return [(task, why[task.data]) for task in some if task.data in why]
