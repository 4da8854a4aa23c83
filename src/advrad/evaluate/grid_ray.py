"""The tasks of a grid on a Ray cluster (https://docs.ray.io): several machines, one table.

Every task is a Ray task in a worker process of its own. The grid's folder, and data that are
folders, must lie where every machine finds them under the same path; each machine has advrad
installed. As on one machine a task that dies fails alone, and the same command goes on.
"""

import json
import os
import socket
import time
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import MissingExtraError, ResourceError
from .grid import Task
from .grid_task import RECORD, Ended, Record, failed, run, set_aside

LOCAL = "local"
GPU = "cuda"


class RayCrew:
    """A crew of Ray tasks; to be closed.

    Arguments:
        address: of the cluster, as `ray.init` takes it (`HOST:PORT`, `ray://HOST:PORT`, `auto`);
            `local` starts one on this machine.
        out: the grid's folder.
        size: tasks at once, which share the cores of the cluster.

    Raises MissingExtraError without ray, ResourceError where no cluster answers.
    """

    def __init__(self, address: str, out: Path, size: int) -> None:
        self.ray, self.out, self.size = _connected(address, size), out.resolve(), size
        self.threads = _threads(self.ray.nodes(), size)
        self.running: dict[Any, Task] = {}

    def begin(self, task: Task) -> None:
        set_aside(task, self.out)
        wanted = {"num_cpus": self.threads, "max_calls": 1, "max_retries": 0}
        wanted["num_gpus"] = int(task.device.startswith(GPU))
        if wanted["num_gpus"] > self.ray.cluster_resources().get("GPU", 0):
            raise ResourceError(f"device {task.device!r}: no machine of the Ray cluster has a GPU")
        remote = self.ray.remote(**wanted)(_work)
        self.running[remote.remote(task, str(self.out), self.threads)] = task

    def ended(self) -> list[Ended]:
        gone, _ = self.ray.wait(list(self.running), num_returns=1)
        return [(task, self._outcome(handle, task)) for handle, task in self._taken(gone)]

    def _taken(self, handles: list[Any]) -> list[tuple[Any, Task]]:
        return [(handle, self.running.pop(handle)) for handle in handles]

    def _outcome(self, handle: Any, task: Task) -> Record:
        """What the task found; its record must be where this machine sees it."""
        try:
            record: Record = json.loads(self.ray.get(handle))
        except self.ray.exceptions.RayError as error:
            told = (str(error).strip() or type(error).__name__).splitlines()[0]
            return failed(task, self.out, f"its Ray task was lost: {told}")
        if not _seen(self.out / task.folder / RECORD):
            return failed(
                task,
                self.out,
                f"it was done on another machine, and {self.out} there is not the folder here: "
                "name an --out that all machines share",
            )
        return record

    def stop(self) -> None:
        """Interrupts what runs: a training saves its state."""
        for handle in self.running:
            self.ray.cancel(handle)
        if self.running:
            self.ray.wait(list(self.running), num_returns=len(self.running), timeout=10)
        self.running = {}

    def close(self) -> None:
        """Leaves the cluster, and ends it where it is a local one."""
        self.ray.shutdown()


def _work(task: Task, out: str, threads: int) -> str:
    """On the other side: the record as JSON, which needs no class there and here."""
    import torch

    torch.set_num_threads(threads)
    return json.dumps(run(task, Path(out)))


def _connected(address: str, size: int) -> ModuleType:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError("a grid on several machines (--ray)", "ray") from error
    wanted: dict[str, Any] = {"address": address, "log_to_driver": False}
    if address == LOCAL:
        wanted |= {"num_cpus": max(size, os.cpu_count() or 1), "include_dashboard": False}
    try:
        _knock(address)
        ray.init(**wanted)
    except Exception as error:  # Ray raises plain ones as well
        told = (str(error).strip() or type(error).__name__).splitlines()[0]
        way = "Start one with  ray start --head  and give its HOST:PORT, or use --ray local"
        way = "Try again when this machine is less busy" if address == LOCAL else way
        raise ResourceError(
            f"--ray {address}: no Ray cluster answers in time ({told}). {way}"
        ) from error
    found: ModuleType = ray
    return found


def _knock(address: str) -> None:
    """Raises OSError where nobody listens: Ray itself would wait for minutes."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()


def _threads(nodes: list[dict[str, Any]], size: int) -> int:
    """Cores of each task: a fair share, and no more than the smallest machine has."""
    cores = [int(node["Resources"].get("CPU", 0)) for node in nodes if node["Alive"]]
    able = [number for number in cores if number]
    return max(1, min(sum(able) // size, min(able, default=1)))


def _seen(path: Path, seconds: float = 10.0) -> bool:
    """Whether a file of another machine is there; shared folders may take a moment."""
    end = time.monotonic() + seconds
    while not path.exists():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True
