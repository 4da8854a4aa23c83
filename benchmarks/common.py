"""What every benchmark shares: where it ran, and where its result goes.

A result is `results/NAME.json`: the figures, the command that made them, and the machine. Run from
the repository's root, with the virtual environment that `make` builds.
"""

import json
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from advrad.files import plain, write_json

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """The processor, the cores this process may use, and the versions that matter."""
    model = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        model = next((line.split(":")[1].strip() for line in lines if "model name" in line), model)
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "amx_bfloat16": bool(getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def keep(name: str, figures: Any, arguments: Sequence[str] | None = None) -> None:
    """Writes a result and prints it; `arguments` are those of the command that makes the whole,
    where this one has only added to it."""
    script = Path(sys.argv[0]).resolve()
    arguments = sys.argv[1:] if arguments is None else arguments
    command = shlex.join(["python", f"benchmarks/{script.name}", *arguments])
    record = {
        "command": command,
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "figures": figures,
    }
    write_json(RESULTS / f"{name}.json", record)
    print(json.dumps(plain(figures), indent=2))


def earlier(name: str) -> dict[str, Any]:
    """The figures of the record that is there; none where there is none."""
    path = RESULTS / f"{name}.json"
    return dict(json.loads(path.read_text())["figures"]) if path.exists() else {}


def load_average() -> float:
    """How busy the machine was in the last minute, beside what was measured."""
    return round(os.getloadavg()[0], 2)


def seconds(work: Callable[[], object]) -> float:
    """What it takes, once."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def spread(values: list[float]) -> dict[str, float]:
    """Median, least and most."""
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


class Told:
    """A line every twentieth of the way."""

    def __init__(self, name: str) -> None:
        self.name, self.step = name, -1

    def __call__(self, done: int, total: int) -> None:
        if (step := 20 * done // max(total, 1)) > self.step:
            self.step = step
            print(self.name, done, "of", total, flush=True)
