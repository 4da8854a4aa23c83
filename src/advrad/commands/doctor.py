"""`advrad doctor`: what is installed, what the machine can do, what is missing for which extra."""

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import time
from pathlib import Path
from typing import Any

import typer

from .options import Debug, Json
from .output import columns, print_json

CORE = ""
REQUIREMENT = re.compile(r"^([\w.-]+)(?:.*extra == ['\"](\w+)['\"])?")
GIB = 2**30


def doctor(json: Json = False, debug: Debug = False) -> None:
    """Say what is installed, what this machine can do, and what is missing."""
    record = examine()
    if json:
        print_json(record)
    else:
        typer.echo(text(record))
    if record["problems"]:
        raise typer.Exit(1)


def examine() -> dict[str, Any]:
    """The findings as plain values; `problems` are what keeps advrad from working."""
    packages = requirements()
    core = packages.pop(CORE, {})
    torch = _torch()
    problems = [f"{name} is not installed" for name, version in core.items() if version is None]
    if "error" in torch:
        problems.append(f"torch cannot be imported: {torch['error']}")
    if importlib.util.find_spec("torchvision"):
        problems.append(
            "torchvision is installed beside advrad; built for another torch it breaks whatever "
            "probes for it. advrad does not need it: pip uninstall torchvision"
        )
    return {
        "advrad": _version("advrad"),
        "python": platform.python_version(),
        "machine": _machine(),
        "torch": torch,
        "packages": core,
        "extras": {name: _extra(name, found) for name, found in sorted(packages.items())},
        "problems": problems,
    }


def requirements() -> dict[str, dict[str, str | None]]:
    """Installed versions (None: missing) of what each extra requires; "" is what all need."""
    try:
        lines = importlib.metadata.requires("advrad") or []
    except importlib.metadata.PackageNotFoundError:  # run from its source folder
        lines = []
    found: dict[str, dict[str, str | None]] = {}
    for line in lines:
        if match := REQUIREMENT.match(line):
            name, extra = match.groups()
            found.setdefault(extra or CORE, {})[name] = _version(name)
    return found


def text(record: dict[str, Any]) -> str:
    """The findings for people."""
    machine, torch = record["machine"], record["torch"]
    rows: list[tuple[str, object]] = [
        ("advrad", record["advrad"] or "from its source folder"),
        ("python", record["python"]),
        ("machine", f"{machine['cores']} cores, {machine['memory_gib']} GiB memory"),
        ("disk", f"{machine['disk_free_gib']} GiB free here"),
    ]
    if "error" not in torch:
        rows += [
            ("torch", f"{torch['version']}, {torch['threads']} threads"),
            ("devices", ", ".join(torch["devices"])),
            ("bfloat16", f"{torch['bfloat16_speed']} times as fast as float32 on one core"),
        ]
    for name, extra in record["extras"].items():
        missing = ", ".join(extra["missing"])
        rows.append(
            (f"[{name}]", f"missing {missing}: {extra['install']}" if missing else "ready")
        )
    problems = record["problems"] or ["none"]
    return "\n".join([columns(rows), "", "problems: " + "\n          ".join(problems)])


def _extra(name: str, found: dict[str, str | None]) -> dict[str, Any]:
    missing = sorted(package for package, version in found.items() if version is None)
    install = f"pip install 'advrad[{name}]' (in a clone '.[{name}]')" if missing else None
    return {"packages": found, "missing": missing, "install": install}


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _machine() -> dict[str, Any]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "system": platform.platform(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory / GIB, 1),
        "disk_free_gib": round(shutil.disk_usage(Path.cwd()).free / GIB, 1),
    }


def _torch() -> dict[str, Any]:
    try:
        import torch
    except (ImportError, OSError) as error:
        return {"error": str(error)}
    cuda = [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
    return {
        "version": torch.__version__,
        "threads": torch.get_num_threads(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "devices": ["cpu", *cuda],
        "bfloat16_speed": _bfloat16_speed(),
    }


def _bfloat16_speed() -> float:
    """How much faster a convolution is in bfloat16 than in float32, by one core's own seconds."""
    import torch

    def seconds(kind: torch.dtype) -> float:
        layer = torch.nn.Conv2d(64, 64, 3, padding=1).to(kind)
        x = torch.zeros(4, 64, 64, 64, dtype=kind)
        taken = []
        for _ in range(6):  # the first one warms up
            start = time.thread_time()
            layer(x)
            taken.append(time.thread_time() - start)
        return min(taken[1:])

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            return round(seconds(torch.float32) / seconds(torch.bfloat16), 1)
    finally:
        torch.set_num_threads(threads)
