"""How much memory 100,000 images take in training and evaluation beyond the model.

    python benchmarks/memory.py [--images 100000]

A list of repeated files at 32 px and a tiny model; the peak of the process is read from the
operating system after each stage, above what it was before the first image. Asked for: at most
1.5 GiB.
"""

import argparse
import resource
import shutil
import tempfile
from pathlib import Path

import torch
from common import keep

from advrad.data.items import Dataset, Item
from advrad.evaluate import Training, evaluate, train
from advrad.images import write_png

SETTINGS = {"size": 32, "widths": [8, 16], "steps": 200, "draws": 1, "depth": 100, "batch": 64}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=100_000)
    count = parser.parse_args().images
    folder = Path(tempfile.mkdtemp())
    before = _peak()
    data = _dataset(folder, count)
    model = train(data, folder / "model", Training(settings=SETTINGS, batch=64))
    trained = _peak()
    result = evaluate(model, data, folder / "out")
    evaluated = _peak()
    shutil.rmtree(folder)
    keep(
        "memory",
        {
            "images": count,
            "trained_on": count // 2,
            "evaluated": result["images"],
            "gib_before": round(before, 3),
            "gib_above_after_training": round(trained - before, 3),
            "gib_above_after_evaluation": round(evaluated - before, 3),
            "settings": SETTINGS,
        },
    )


def _dataset(folder: Path, count: int) -> Dataset:
    """Half of the list trains, half is tested; 64 files each, each named many times."""
    source = torch.Generator().manual_seed(0)
    files: dict[str, list[Path]] = {"train": [], "test": []}
    for part, paths in files.items():
        for i in range(64):
            paths.append(folder / part / f"{i}.png")
            write_png(paths[-1], torch.rand(3, 32, 32, generator=source))
    half = count // 2
    learn = tuple(Item(files["train"][i % 64], defect=False) for i in range(half))
    test = tuple(Item(files["test"][i % 64], defect=i % 64 < 32) for i in range(half))
    return Dataset("repeated", folder, "made", learn, test, False, 0)


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
