"""Workers of a grid: their share of the machine, and their end."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from advrad.evaluate import grid_processes
from advrad.evaluate.grid_processes import end_with_parent

PARENT = """
import multiprocessing, sys, time
from tests.test_grid_run import endless
if __name__ == "__main__":
    child = multiprocessing.get_context("spawn").Process(target=endless, args=(sys.argv[1],))
    child.start()
    child.join()
"""


def endless(told: str) -> None:
    """A worker that would never end by itself."""
    end_with_parent()
    Path(told).write_text(str(os.getpid()))
    time.sleep(300)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").exists() and " Z " in Path(f"/proc/{pid}/stat").read_text()


def waited(holds: Any, seconds: float = 60.0) -> bool:
    end = time.monotonic() + seconds
    while not (held := holds()) and time.monotonic() < end:
        time.sleep(0.05)
    return bool(held)


def test_a_worker_ends_with_the_one_that_began_it(tmp_path: Path) -> None:
    told, script = tmp_path / "pid", tmp_path / "parent.py"
    script.write_text(PARENT)
    root = str(Path(__file__).parent.parent)
    parent = subprocess.Popen(
        [sys.executable, str(script), str(told)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([root, *sys.path])},
    )
    try:
        assert waited(lambda: told.exists() and told.read_text())
        child = int(told.read_text())
        assert not gone(child)
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    assert waited(lambda: gone(child))


def test_the_first_process_has_nobody_to_follow() -> None:
    assert multiprocessing.parent_process() is None
    end_with_parent()


@pytest.mark.parametrize(("share", "asked", "taken"), [(4, 1, 1), (2, 8, 2)])
def test_workers_take_no_more_threads_than_they_are_given(
    share: int, asked: int, taken: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told: list[int] = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: asked)
    monkeypatch.setattr(torch, "set_num_threads", told.append)
    monkeypatch.setattr(grid_processes, "run", lambda task, out: None)
    grid_processes._work(None, tmp_path, share)  # type: ignore[arg-type]
    assert told == [taken]
