"""How long the demo takes, whole, and what it finds.

    python benchmarks/demo.py [--runs 1]

Runs `advrad demo` as a user would, each time from nothing. Asked for: at most four minutes on two
cores after installation, of these at most two for the certificate; image AUROC at least 0.99,
pixel AUROC at least 0.95.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import keep, load_average

FIGURES = (
    "image_auroc",
    "image_auroc_ci",
    "pixel_auroc",
    "pro",
    "verdicts",
    "beside",
    "training",
    "settings",
)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=1)
    seconds, loads = [], []
    for _ in range(parser.parse_args().runs):
        folder = Path(tempfile.mkdtemp())
        start = time.perf_counter()
        command = [sys.executable, "-m", "advrad", "demo", "--out", str(folder / "demo")]
        subprocess.run(command, check=True)
        seconds.append(round(time.perf_counter() - start, 1))
        loads.append(load_average())
        result = json.loads((folder / "demo" / "result.json").read_text())
        shutil.rmtree(folder)
    keep(
        "demo",
        {
            "seconds": seconds,
            **{name: result[name] for name in FIGURES},
            "robustness": {name: _robust(found) for name, found in result["robustness"].items()},
            "certificate": _certified(result["certificate"]),
            "load_average": loads,
        },
    )


def _robust(found: dict[str, Any]) -> dict[str, Any]:
    """Of one detector's attack: what the table and the page tell."""
    row = found["rows"][0]
    names = ("norm", "eps", "suite", "robust_auroc", "robust_auroc_ci", "passes")
    return {name: row[name] for name in names} | {
        "clean_auroc": found["clean_auroc"],
        "images": found["images"],
        "health": row["health"]["verdict"],
        "not_run": row["health"]["not_run"],
        "seconds": found["seconds"],
    }


def _certified(found: dict[str, Any]) -> dict[str, Any]:
    """Of the certificate: what the table and the page tell."""
    row = found["rows"][0]
    names = ("sigma", "scoring", "samples", "alpha", "smoothed_auroc", "certified_auroc")
    names += ("certified", "abstained", "half", "regions")
    return {name: row[name] for name in names} | {
        "images": found["images"],
        "seconds": found["seconds"],
    }


if __name__ == "__main__":
    main()
