"""Tasks of a grid in processes of this machine, which share its cores.

A process that dies (killed, out of memory) fails its task and no other.
"""

import json
import multiprocessing
import os
import signal
import threading
from contextlib import suppress
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

from ..allocator import keep_freed_memory
from .grid import Task
from .grid_task import RECORD, Ended, Record, failed, run, set_aside


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
    set_aside(task, out)
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


def _stop(processes: list[SpawnProcess]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(10)
        if process.is_alive():
            process.kill()
            process.join()
