"""All tasks of a grid, several at once, each in a process of its own.

A process that dies (killed, out of memory) fails its task and no other. Stopped, the running ones
save what they have; the same command goes on. Who does the tasks is a crew: processes of this
machine here, those of a Ray cluster in `grid_ray`.
"""

import json
import math
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Protocol

from ..allocator import keep_freed_memory
from ..errors import AdvradError, UsageError
from ..files import held, plain, write_json
from .grid import Data, Grid, Task, tasks
from .grid_checks import known
from .grid_defence import Defended
from .grid_queue import Queue, in_order
from .grid_task import RECORD, Record, failure, opened, recorded, run, unmade

GRID = "grid.json"
Tell = Callable[[Task, Record], None]
Ended = tuple[Task, Record]


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
    return [(task, done[task.folder]) for part in tasks(grid) for task in part]


def unfinished(done: Sequence[Ended]) -> int:
    """How many tasks wait for another run."""
    return sum(bool(record.get("waiting")) for _, record in done)


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


class Processes:
    """A crew of processes of this machine, which share its cores."""

    def __init__(self, out: Path, size: int) -> None:
        self.out, self.size = out, size
        self.running: list[tuple[Task, SpawnProcess]] = []

    def begin(self, task: Task) -> None:
        self.running.append((task, _begun(task, self.out, self.size)))

    def ended(self) -> list[Ended]:
        wait([process.sentinel for _, process in self.running])
        gone = [pair for pair in self.running if not pair[1].is_alive()]
        found = []
        for task, process in gone:
            self.running.remove((task, process))
            process.join()
            found.append((task, _outcome(task, self.out, process.exitcode)))
        return found

    def stop(self) -> None:
        _stop([process for _, process in self.running])
        self.running = []


def _begun(task: Task, out: Path, workers: int) -> SpawnProcess:
    process = multiprocessing.get_context("spawn").Process(
        target=_work, args=(task, out, max(1, (os.cpu_count() or 1) // workers))
    )
    (out / task.folder / RECORD).unlink(missing_ok=True)
    process.start()
    return process


def _work(task: Task, out: Path, threads: int) -> None:
    """In the new process; fewer threads where OMP_NUM_THREADS asks for fewer."""
    import torch

    end_with_parent()
    keep_freed_memory()
    torch.set_num_threads(min(threads, torch.get_num_threads()))
    run(task, out)


def end_with_parent() -> None:
    """Ends this process when the one that began it is gone, even by SIGKILL: whoever starts the
    grid again must not meet workers of before."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        assert parent is not None
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGKILL)

    if parent is not None:
        threading.Thread(target=watch, daemon=True).start()


def _outcome(task: Task, out: Path, code: int | None) -> Record:
    """What a process has left, or that it died."""
    path = out / task.folder / RECORD
    if path.exists():
        record: Record = json.loads(path.read_text())
        return record
    why = f"its process ended with {code}"
    if code is not None and code < 0:
        with suppress(ValueError):
            why = f"its process was ended by {signal.Signals(-code).name}"
        why += "; out of memory?" if code == -signal.SIGKILL else ""
    return failed(task, out, why)


def failed(task: Task, out: Path, why: str) -> Record:
    """Writes and returns the record of a task that did not come to its end."""
    record: Record = {
        "task": plain(asdict(task)), "error": why, "found": None, "seconds": 0.0, "peak_mib": None,
    }  # fmt: skip
    write_json(out / task.folder / RECORD, record)
    return record


def _stop(processes: list[SpawnProcess]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(10)
        if process.is_alive():
            process.kill()
            process.join()
