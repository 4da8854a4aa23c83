"""Clean and robust AUROC of AdvRAD, the paper's score and ours, under one suite of attacks.

    python benchmarks/robustness.py elpv-mono --suite quick --images 200
    python benchmarks/robustness.py elpv-mono --suite standard --images 100

Takes the model that `accuracy.py` trained (seed 0), as it comes and under the paper's score at
depth 100 with one draw, and attacks it in l_inf 2/255. Half of the images are good; they are
chosen by the split's seed. Rows are kept under runs/robustness/, so that a run that was stopped
goes on. Seconds are those of the one run that made all rows: where several did they are not known,
and one that finds them all, and only checks them again, keeps what stands in the record.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from common import RESULTS, Told, keep, load_average

from advrad.data import Images, load
from advrad.detectors import AdvRAD, Run
from advrad.evaluate import Evaluation
from advrad.evaluate.attacked import Threat, attack
from advrad.evaluate.rows import RESULT, ROWS
from advrad.model import Model
from advrad.model import load as load_model

PAPER: dict[str, Any] = {"score": "paper", "top": 0.0, "draws": 1, "depth": 100}
SETTINGS: dict[str, dict[str, Any]] = {"ours": {}, "paper": PAPER}
FIGURES = (
    "robust_auroc",
    "robust_auroc_ci",
    "robust_auroc_missed",
    "robust_auroc_false_alarm",
    "robust_auroc_known_draw",
    "clean_auroc_known_draw",
    "robust_auroc_resubmitted",
    "clean_auroc_resubmitted",
    "parts",
    "passes",
    "cost",
    "health",
)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("--suite", default="quick")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--settings", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--eps", type=float, default=2 / 255)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=16, help="rows are kept batch by batch")
    parser.add_argument("--source", type=Path, help="a model whose attacked images are tried too")
    wanted = parser.parse_args()
    found = {name: _attacked(name, wanted) for name in wanted.settings}
    keep(
        _record(wanted),
        {
            "data": wanted.data,
            "suite": wanted.suite,
            "norm": "linf",
            "eps": wanted.eps,
            "seed": wanted.seed,
            "found": found,
        },
    )


def _attacked(name: str, wanted: argparse.Namespace) -> dict[str, Any]:
    data = load(wanted.data)
    model = load_model(Path("runs/accuracy") / wanted.data / "0")
    if SETTINGS[name]:
        model = _variant(model, SETTINGS[name])
    source = None if wanted.source is None else load_model(wanted.source).detector
    threat = Threat(
        eps=(wanted.eps,),
        suite=wanted.suite,
        source=source,
        evaluation=Evaluation(seed=wanted.seed, limit=wanted.images, batch=wanted.batch),
    )
    out = Path("runs/robustness") / f"{wanted.data}-{wanted.suite}-{name}-{wanted.images}"
    anew = not (out / ROWS).exists()
    before = _seconds(name, wanted) if (out / RESULT).exists() else None
    result = attack(model, data, out, threat, Told(f"{name} {wanted.suite}"))
    row = result["rows"][0]
    return {
        "clean_auroc": result["clean_auroc"],
        "clean_auroc_ci": result["clean_auroc_ci"],
        **{figure: row[figure] for figure in FIGURES},
        "images": result["images"],
        "seconds": result["seconds"] if anew else before,
        "load_average": load_average(),
        "depth": model.detector.resolved()["depth"],
    }


def _variant(model: Model, settings: dict[str, Any]) -> Model:
    """The same denoiser under other settings, measured on the images that trained it."""
    assert isinstance(model.detector, AdvRAD)
    data = load(str(model.about["data"]))
    good = Images(data.train, model.preprocess)
    seen = set(model.seen["train"])
    good = good.subset([i for i in range(len(good)) if good.ids[i] in seen])
    detector = model.detector.variant(**settings).requires_grad_(False)
    return replace(model, detector=detector.measure(good, Run(seed=model.about["seed"])))


def _seconds(name: str, wanted: argparse.Namespace) -> float | None:
    """What the record of an earlier run says that the attack took."""
    path = RESULTS / f"{_record(wanted)}.json"
    if not path.exists():
        return None
    return json.loads(path.read_text())["figures"]["found"].get(name, {}).get("seconds")


def _record(wanted: argparse.Namespace) -> str:
    return "-".join(["robustness", wanted.data, wanted.suite, *wanted.settings])


if __name__ == "__main__":
    main()
