"""Which recipe of training is best, asked without a single test image.

    python benchmarks/recipes.py elpv-mono --recipes preset levels-900 size-256 half-batches
    python benchmarks/recipes.py elpv-poly --recipes preset

Each recipe is trained under runs/recipes/ by `advrad.train` (resumed where it was interrupted) and
judged by the image AUROC of held-out good cells against the cells that the data set calls
defective with a probability of 2/3, which are in neither its training nor its test part: at every
depth, at the ladder of the three mildest, and there for other shares of the map and other numbers
of draws. What good images show is measured on 128 of those that trained. The recipe that wins
becomes the preset.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from common import keep, load_average

from advrad.data import Dataset, Images, load
from advrad.detectors import AdvRAD, Progress, Run
from advrad.detectors._settings import DEPTHS
from advrad.evaluate import Training, scored, train
from advrad.metrics import auroc, interval
from advrad.model import Model
from advrad.model import load as load_model
from advrad.tune import evenly

RECIPES: dict[str, dict[str, Any]] = {
    "preset": {},
    "levels-900": {"levels": [1, 900]},
    "levels-400": {"levels": [1, 400]},
    "levels-200": {"levels": [1, 200]},
    "size-256": {"size": 256, "patch": 4, "levels": [1, 900]},
    "half-batches": {"batch": 8, "steps": 2000, "levels": [1, 900]},
}
LADDER = DEPTHS[:3]
RUNS = Path("runs/recipes")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", choices=["elpv-mono", "elpv-poly"])
    parser.add_argument("--recipes", nargs="+", choices=list(RECIPES), default=["preset"])
    parser.add_argument("--draws", type=int, default=2)
    wanted = parser.parse_args()
    data = load(wanted.data)
    found = {}
    for name in wanted.recipes:
        found[name] = _judged(_model(data, name), data, wanted.draws)
        print(name, found[name], flush=True)
    keep(f"recipes-{wanted.data}", {"recipes": found, "draws": wanted.draws})


def _model(data: Dataset, name: str) -> Model:
    folder = RUNS / data.name / name
    if (folder / "manifest.json").exists():
        return load_model(folder)

    def report(progress: Progress) -> None:
        if progress.done % 100 == 0:
            print(data.name, name, *progress, flush=True)

    return train(data, folder, Training(settings=RECIPES[name], resume=True), report)


def _judged(model: Model, data: Dataset, draws: int) -> dict[str, Any]:
    good = Images(data.train, model.preprocess)
    held = {*model.seen["tune"], *model.seen["calibrate"]}
    trained = set(model.seen["train"])
    learnt = good.subset([i for i in range(len(good)) if good.ids[i] in trained])
    learnt = learnt.subset(evenly(len(learnt), 128))
    spare = good.subset([i for i in range(len(good)) if good.ids[i] in held])
    doubtful = load(f"{data.name}-doubtful")
    items = [item for item in doubtful.test if item.kind == "doubtful"]
    parts = learnt, spare, Images(items, model.preprocess)
    assert isinstance(model.detector, AdvRAD)
    depths = [d for d in DEPTHS if d <= model.detector.settings.levels[1]]

    def at(**settings: Any) -> Any:
        assert isinstance(model.detector, AdvRAD)
        return _auroc(model.detector.variant(**{"draws": draws} | settings), *parts)

    return {
        "steps": model.detector.settings.steps,
        "training": model.about["training"],
        "cells": {"good": len(spare), "doubtful": len(items)},
        "doubtful": {str(depth): at(depth=depth)[0] for depth in depths},
        "ladder": at(depth=LADDER),
        "top": {str(top): at(depth=LADDER, top=top)[0] for top in (0.0, 0.05)},
        "draws": {
            str(count): at(depth=LADDER, draws=count)[0] for count in (1, 4) if count != draws
        },
        "load_average": load_average(),
    }


def _auroc(
    detector: AdvRAD, learnt: Images, spare: Images, doubtful: Images
) -> tuple[float | None, tuple[float, float] | None]:
    """With its 95 % interval."""
    detector.measure(learnt, Run())
    scores = [found.score for part in (spare, doubtful) for found in scored(detector, part)]
    labels = [False] * len(spare) + [True] * len(doubtful)
    return auroc(scores, labels), interval(auroc, scores, labels)


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
