"""Image AUROC of a detector as it comes, other scores beside it, and what the choices cost.

    python benchmarks/accuracy.py elpv-mono --seeds 0 1 2
    python benchmarks/accuracy.py brick elpv-poly weave speckle ridges
    python benchmarks/accuracy.py elpv-mono hazelnut_toy --detector autoencoder

Every data set and seed is trained by `advrad.train` (AdvRAD unless --detector names another;
defaults, nothing set but --steps), kept under runs/accuracy/ and resumed; one that is finished has
its settings chosen and its thresholds set again. Measured, without training anew:

- the model as it is, and the scores that it reports beside its own: AdvRAD the paper's exact one,
  one draw, at the first of the chosen depths;
- with `--labelled`, AdvRAD only, for the first seed: in float32; with the score `signed`; the
  paper's exact score at depth 100; and every depth of the ladder, so that what the choice without
  labels costs can be said. Nothing is chosen by these.
"""

import argparse
import statistics
from pathlib import Path
from typing import Any

import torch
from common import keep, load_average

from advrad.data import Dataset, Images, load, textures
from advrad.detectors import ALL, AdvRAD, Progress, Run
from advrad.detectors._settings import DEPTHS
from advrad.evaluate import Training, evaluate, scored, train
from advrad.metrics import auroc
from advrad.model import Model

PAPER: dict[str, Any] = {"score": "paper", "top": 0.0, "draws": 1}
RUNS = Path("runs/accuracy")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", nargs="+")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--labelled", action="store_true", help="variants of the first seed too")
    parser.add_argument("--train", action="store_true", help="train only, measure nothing yet")
    parser.add_argument("--steps", type=int, help="of the training, instead of the preset's")
    parser.add_argument("--detector", default="advrad", choices=ALL)
    wanted = parser.parse_args()
    if wanted.labelled and wanted.detector != "advrad":
        parser.error("--labelled looks at AdvRAD's settings: leave it or --detector out")
    for name in wanted.data:
        models = {seed: _model(name, seed, wanted) for seed in wanted.seeds}
        if wanted.train:
            continue
        rows = [_one(name, model, seed, wanted) for seed, model in models.items()]
        keep("-".join(["accuracy", *_prefix(wanted), name]), _summary(rows) | {"runs": rows})


def _prefix(wanted: argparse.Namespace) -> list[str]:
    return [] if wanted.detector == "advrad" else [wanted.detector]


def _dataset(name: str) -> Dataset:
    if name not in textures.ALL:
        return load(name)
    folder = RUNS / "textures" / name
    if not folder.exists():
        textures.write(name, folder)
    return load(str(folder))


def _model(name: str, seed: int, wanted: argparse.Namespace) -> Model:
    folder = RUNS.joinpath(*_prefix(wanted), name, str(seed))
    settings = {"steps": wanted.steps} if wanted.steps else {}
    asked = Training(wanted.detector, settings, seed=seed, resume=True)
    return train(_dataset(name), folder, asked, _Printed(f"{name} {seed}"))


def _one(name: str, model: Model, seed: int, wanted: argparse.Namespace) -> dict[str, Any]:
    data = _dataset(name)
    result, settings = evaluate(model, data), model.detector.resolved()
    found = {
        "data": name,
        "seed": seed,
        **{key: result[key] for key in FIGURES},
        "choice": settings,
        "cost": model.about["cost"],
        "steps": settings["steps"],
        "parts": {part: len(ids) for part, ids in model.seen.items()},
        **{f"image_auroc_{k}": v["image_auroc"] for k, v in result["beside"].items()},
        "load_average": load_average(),
    }
    if wanted.labelled and seed == wanted.seeds[0]:
        found |= {
            "image_auroc_float32": _variant(model, data, precision="float32"),
            "image_auroc_signed": _variant(model, data, score="signed"),
            "image_auroc_paper_depth_100": _variant(model, data, depth=100, **PAPER),
            "image_auroc_by_depth": {
                str(depth): _variant(model, data, depth=depth) for depth in DEPTHS
            },
        }
    return found


FIGURES = (
    "image_auroc",
    "image_auroc_ci",
    "pixel_auroc",
    "pro",
    "miss_rate",
    "false_alarm_rate",
    "seconds_per_image",
    "images",
)


def _variant(model: Model, data: Dataset, **settings: Any) -> float | None:
    """Image AUROC of the same denoiser under other settings, measured on the same good images."""
    assert isinstance(model.detector, AdvRAD)
    good = Images([item for item in data.train if not item.defect], model.preprocess)
    seen = set(model.seen["train"])
    good = good.subset([i for i in range(len(good)) if good.ids[i] in seen])
    detector = model.detector.variant(**settings)
    detector.measure(good, Run(seed=model.about["seed"]))
    test = Images(data.test, model.preprocess)
    return auroc([found.score for found in scored(detector, test)], test.labels)


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    names = ("image_auroc", "image_auroc_paper", "image_auroc_error", "pixel_auroc")
    summary: dict[str, Any] = {}
    for name in names:
        values = [row[name] for row in rows if row.get(name) is not None]
        if values:
            summary[name] = {
                "mean": statistics.mean(values),
                "sd": statistics.stdev(values) if len(values) > 1 else None,
            }
    return summary


class _Printed:
    """A line every hundred steps."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, progress: Progress) -> None:
        if progress.done % 100 == 0:
            print(self.name, *progress, flush=True)


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
