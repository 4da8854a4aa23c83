"""What fine-tuning under attack adds to DiffPure: ADDT and ADBM beside a control of equal cost.

    python benchmarks/finetuned.py fashion-mnist models
    python benchmarks/finetuned.py fashion-mnist trial --images 128

`models` trains what is missing under runs/finetuned/DATA/ with the command line's own verbs and
goes on where it was stopped; `--only` trains some. `trial` attacks each defence with PGD of 20
steps, each over 10 draws, by its exact gradient, and with all of its noise known (DW): DiffPure of
5 steps before a plain classifier, the same after a control fine-tuning, ADDT's and ADBM's, and
beside them the bare classifier and, on digits and clothes, classifiers trained on PGD and TRADES.
The chain of 100 steps is measured without an attack.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import keep, load_average
from trials import chosen, found, place, told, trained, tried

from advrad import classifiers
from advrad.data.labelled import labelled
from advrad.evaluate.defence_metrics import figures as counted
from advrad.evaluate.defence_trial import Examples, Trial, examples
from advrad.evaluate.defence_words import defences, folders, read
from advrad.evaluate.rows import ROWS
from advrad.noise import PerImage
from advrad.store import MANIFEST

RUNS = Path("runs/finetuned")
EPS = {"mnist": 0.3, "fashion-mnist": 0.1, "cifar10": 8 / 255}
DEPTH, SHOTS, WHOLE = 100, 5, 100
MODES = ["transfer", "full", "dw_both"]
GREY = ["--set", "widths=32,64", "--set", "patch=2", "--set", "steps=4000"]
PHOTOGRAPHS = ["--set", 'views=["mirrors"]']
NETWORKS = {
    "mnist": ["--network", "a"],
    "fashion-mnist": ["--network", "a"],
    "cifar10": ["--network", "wrn-16-2", "--set", 'views=["mirrors","shifts"]'],
}
DIFFUSION = {
    "mnist": GREY,
    "fashion-mnist": GREY,
    "cifar10": [
        "--set", "widths=48,64,64", "--set", "patch=2", "--set", "steps=3500", *PHOTOGRAPHS,
    ],
}  # fmt: skip
STEPS = {"mnist": (3000, 800), "fashion-mnist": (3000, 800), "cifar10": (1500, 0)}
PASSES = 3600


def models(data: str) -> dict[str, list[str]]:
    """The words that train each, in their order."""
    natural, robust = STEPS[data]
    classifier = ["train-classifier", data, "MODEL", *NETWORKS[data], "--set"]
    tuned = ["finetune", f"{RUNS}/{data}/diffusion", data, "MODEL", "--set", f"passes={PASSES}"]
    tuned += PHOTOGRAPHS if data == "cifar10" else []
    guided = [*tuned, "--classifier", f"{RUNS}/{data}/natural", "--method"]
    found = {"natural": [*classifier, f"steps={natural}"]}
    for loss in ("pgd", "trades") if robust else ():
        attack = ["--loss", loss, "--set", f"eps={EPS[data]}", "--set", "attack=5"]
        found[loss] = [*classifier, f"steps={robust}", *attack]
    return found | {
        "diffusion": ["train-diffusion", data, "MODEL", *DIFFUSION[data]],
        "control": [*tuned, "--method", "clean"],
        "addt": [*guided, "addt"],
        "adbm": [*guided, "adbm", "--set", f"eps={EPS[data]}"],
    }


def purifiers(data: str, shots: int = SHOTS) -> list[str]:
    """The defences, in words."""
    root = RUNS / data
    bare = ["none", *(f"none classifier={root}/{loss} label={loss}" for loss in ("pgd", "trades"))]
    kinds = {"DiffPure": "diffusion", "control": "control", "ADDT": "addt"}
    steps = f"depth={DEPTH} shots={shots}"
    return [
        *(bare if STEPS[data][1] else bare[:1]),
        *(f"diffpure {steps} generator={root}/{f} label={name}" for name, f in kinds.items()),
        f"adbm {steps} generator={root}/adbm label=ADBM",
    ]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", choices=sorted(EPS))
    parser.add_argument("part", choices=["models", "trial"])
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--only", nargs="+", help="some models")
    parser.add_argument("--seed", type=int, default=0)
    wanted = parser.parse_args()
    root, made = RUNS / wanted.data, models(wanted.data)
    if wanted.part == "models":
        for name in chosen(parser, wanted.only, made):
            trained(root / name, made[name])
        return
    natural, some = root / "natural", _made(purifiers(wanted.data))
    asked = Trial(MODES, ["pgd"], eps=[EPS[wanted.data]], steps=20, seed=wanted.seed)
    out = place(root, f"trial-of-{len(some)}", wanted.images, wanted.seed)
    tried(natural, wanted.data, some, wanted.images, asked, out)
    tested = examples(labelled(wanted.data), wanted.images)
    whole = [words for words in _made(purifiers(wanted.data, WHOLE)) if "shots" in words]
    keep(
        f"defences-finetuned-{wanted.data}",
        {
            "eps": EPS[wanted.data],
            "seed": wanted.seed,
            "trials": {wanted.data: found(out)},
            "over_control": _paired(out, wanted.seed),
            "whole": {"shots": WHOLE, "clean": _clean(natural, whole, tested, wanted.seed)},
            "models": told(root, made),
            "load_average": load_average(),
        },
    )


def _made(some: list[str]) -> list[str]:
    """Those whose models are trained."""
    stands_on = {words: folders(read(words)).values() for words in some}
    left = [words for words in some if any(not (f / MANIFEST).exists() for f in stands_on[words])]
    for words in left:
        print(f"{words}: not trained, left out")
    return [words for words in some if words not in left]


def _paired(out: Path, seed: int) -> dict[str, dict[str, float]]:
    """By how much each fine-tuning is better than its control on the same attacked images, in the
    mean over draws, with the 95 % interval of 10,000 bootstrap samples of the images."""
    shares: dict[tuple[str, str], dict[str, float]] = {}
    for line in (out / ROWS).read_text().splitlines():
        row = json.loads(line)
        if row["attack"]:
            right = [answer == row["label"] for answer in row["classes"]]
            shares.setdefault((row["defence"], row["mode"]), {})[row["id"]] = float(np.mean(right))
    found = {}
    for name, mode in shares:
        held = shares.get(("control", mode))
        if name in ("DiffPure", "ADDT", "ADBM") and held:
            by = np.array([shares[name, mode][image] - held[image] for image in held])
            drawn = np.random.default_rng(seed).choice(by, (10_000, len(by))).mean(1)
            low, high = np.quantile(drawn, (0.025, 0.975))
            found[f"{name}, {mode}"] = {"value": by.mean(), "low": low, "high": high}
    return found


@torch.no_grad()
def _clean(
    classifier: Path, some: list[str], tested: Examples, seed: int
) -> dict[str, dict[str, Any]]:
    """Of each defence the share of right answers, of one draw."""
    rights = {}
    for name, defence in defences([read(w) for w in some], classifiers.load(classifier)).items():
        logits = defence.logits(tested.x, PerImage(seed, tested.ids))
        answers = logits.argmax(1).tolist()
        rights[name] = counted([answers], tested.labels.tolist())["one_shot"]
    return rights


if __name__ == "__main__":
    main()
