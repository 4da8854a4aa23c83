"""How AdvRAD's AUROC depends on the depth, clean and attacked, and on the shots, with their time.

    python benchmarks/sensitivity.py [benchmarks/sensitivity.toml]

One denoiser is trained (kept under runs/sensitivity/ and resumed) and measured anew under each
setting on the good images that trained it. Labels are looked at to describe; nothing is chosen by
them. Rows are kept, so that a run that was stopped goes on.
"""

import argparse
import time
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

from common import keep, load_average

from advrad.data import Dataset, Images, load
from advrad.detectors import AdvRAD, Run
from advrad.evaluate import Evaluation, Training, evaluate, train
from advrad.evaluate.attacked import Threat, attack
from advrad.model import Model

RUNS = Path("runs/sensitivity")
MEASURED = 128  # good images that say what is typical


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "settings", type=Path, nargs="?", default=Path(__file__).with_suffix(".toml")
    )
    asked = tomllib.loads(parser.parse_args().settings.read_text())
    data = load(asked["data"])
    wanted = Training(settings=asked["training"], seed=asked["seed"], resume=True)
    model = train(data, RUNS / asked["data"], wanted)
    found: dict[str, Any] = {"depth": {}, "shots": {}}
    for depth in asked["depth"]["values"]:
        settings = {"depth": depth, "shots": asked["depth"]["shots"]}
        found["depth"][str(depth)] = _attacked(_under(model, data, asked, settings), data, asked)
        print("depth", depth, found["depth"][str(depth)], flush=True)
    depth = asked["shots"]["depth"]
    for share in asked["shots"]["shares"]:
        shots = max(1, round(share * depth))
        found["shots"][str(shots)] = _timed(
            _under(model, data, asked, {"depth": depth, "shots": shots}), data, asked
        )
        print("shots", shots, found["shots"][str(shots)], flush=True)
    keep(f"sensitivity-{asked['data']}", {**found, "asked": asked, "load_average": load_average()})


def _under(model: Model, data: Dataset, asked: dict[str, Any], settings: dict[str, Any]) -> Model:
    """The same denoiser under other settings."""
    assert isinstance(model.detector, AdvRAD)
    good = Images([item for item in data.train if not item.defect], model.preprocess)
    seen = set(model.seen["train"])
    places = [i for i in range(len(good)) if good.ids[i] in seen][:MEASURED]
    detector = model.detector.variant(**asked["score"], **settings).requires_grad_(False)
    detector.measure(good.subset(places), Run(seed=asked["seed"]))
    return replace(model, detector=detector)


def _attacked(model: Model, data: Dataset, asked: dict[str, Any]) -> dict[str, Any]:
    threat = Threat(
        asked["norm"],
        (asked["eps"],),
        asked["suite"],
        evaluation=Evaluation(seed=asked["seed"], limit=asked["images"]),
    )
    depth = model.detector.resolved()["depth"][0]
    result = attack(model, data, RUNS / f"{asked['data']}-depth-{depth}", threat)
    row = result["rows"][0]
    return {
        "clean_auroc": result["clean_auroc"],
        "clean_auroc_ci": result["clean_auroc_ci"],
        "robust_auroc": row["robust_auroc"],
        "robust_auroc_ci": row["robust_auroc_ci"],
        "health": row["health"]["verdict"],
        "reasons": row["health"]["reasons"],
        "not_run": row["health"]["not_run"],
    }


def _timed(model: Model, data: Dataset, asked: dict[str, Any]) -> dict[str, Any]:
    start = time.perf_counter()
    result = evaluate(model, data, None, Evaluation(seed=asked["seed"], limit=asked["images"]))
    return {
        "image_auroc": result["image_auroc"],
        "image_auroc_ci": result["image_auroc_ci"],
        "seconds_per_image": (time.perf_counter() - start) / asked["images"],
    }


if __name__ == "__main__":
    main()
