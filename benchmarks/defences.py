"""What purifiers before a classifier are worth on MNIST: grey box, attacks noticed, adaptive.

    python benchmarks/defences.py models
    python benchmarks/defences.py grey-box --images 500
    python benchmarks/defences.py side-by-side --images 50
    python benchmarks/defences.py adaptive --images 100

`models` trains what is missing under runs/defences/ with the command line's own verbs, and goes on
where it was stopped; the other parts need them. Trials keep their rows there as well.

- grey-box: the attacks of DiffDefense's paper, l_inf 0.3, on the bare classifier, handed to it, to
  one trained on FGSM, and to purifiers before it; how well their error gives each attack away,
  and the seconds of an image.
- side-by-side: DiffDefense and Defense-GAN with searches of several lengths (iterations x
  restarts), in one run: accuracy against seconds.
- adaptive: attackers who know of the purifier, by the identity's gradient and by the exact one,
  and one who also lowers the error.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from common import Told, keep, load_average

from advrad import classifiers
from advrad.cli import main as advrad
from advrad.data.labelled import labelled
from advrad.evaluate.defence_report import tables
from advrad.evaluate.defence_trial import Trial, examples
from advrad.evaluate.defence_words import defences, read
from advrad.evaluate.defended import defend
from advrad.evaluate.rows import RESULT
from advrad.store import MANIFEST

RUNS = Path("runs/defences")
EPS = 0.3
MODELS: dict[str, list[str]] = {
    "a": ["train-classifier", "mnist", "--network", "a", "--set", "steps=3000"],
    "fgsm": [
        "train-classifier", "mnist", "--network", "a", "--set", "steps=1500", "--loss", "fgsm",
        "--set", f"eps={EPS}",
    ],
    "ramp": [
        "train-diffusion", "mnist", "--set", "centred=false", "--set", "schedule=ramp", "--set",
        "levels=100", "--set", "widths=16,32,32", "--set", "steps=4000",
    ],
    "wgan": [
        "train-diffusion", "mnist", "--kind", "wgan", "--set", "width=32", "--set", "steps=6000",
    ],
}  # fmt: skip
GREY = ["fgsm", "pgd", "deepfool", "square", "autoattack-standard", "elastic-net"]
ADAPTIVE = ["pgd", "pgd-unseen"]
# name: purifiers, modes, images as a share of those asked for, whether the checks are run
Part = dict[str, tuple[list[str], list[str], float, bool]]
PURIFIERS = {
    "diffdefense": f"diffdefense generator={RUNS}/ramp",
    "defensegan": f"defensegan generator={RUNS}/wgan",
}
BARE = ["none", f"none classifier={RUNS}/fgsm label=adversarial-training"]
SEARCHES = {"diffdefense": [(2, 1), (5, 1), (5, 5)], "defensegan": [(25, 1), (200, 10)]}
BUDGETS = [
    f"{PURIFIERS[name]} iterations={turns} restarts={starts} 'label={name}, {turns} x {starts}'"
    for name, some in SEARCHES.items()
    for turns, starts in some
]
PARTS: dict[str, tuple[list[str], Part]] = {
    "grey-box": (
        GREY,
        {
            "bare": (BARE, ["full"], 1.0, True),
            "diffdefense": ([PURIFIERS["diffdefense"]], ["transfer"], 1.0, True),
            "defensegan": ([PURIFIERS["defensegan"]], ["transfer"], 0.2, True),
        },
    ),
    "adaptive": (
        ADAPTIVE,
        {
            "diffdefense": ([PURIFIERS["diffdefense"]], ["bpda"], 1.0, True),
            "diffdefense-full": ([PURIFIERS["diffdefense"]], ["full"], 0.16, False),
            "defensegan": ([PURIFIERS["defensegan"]], ["bpda"], 0.16, True),
        },
    ),
    "side-by-side": (["fgsm", "pgd"], {"both": (BUDGETS, ["transfer"], 1.0, False)}),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=["models", *PARTS])
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--only", nargs="+", help="trials of the part; all others")
    parser.add_argument("--seed", type=int, default=0)
    wanted = parser.parse_args()
    if wanted.part == "models":
        for name in MODELS:
            _trained(name)
        return
    attacks, part = PARTS[wanted.part]
    found = {}
    for name, trial in part.items():
        out = RUNS / f"{wanted.part}-{name}-{wanted.images}"
        if not wanted.only or name in wanted.only:
            _tried(out, attacks, *trial, wanted)
        if (out / RESULT).exists():
            found[name] = _told_of(json.loads((out / RESULT).read_text()))
    figures = {"eps": EPS, "seed": wanted.seed, "trials": found, "models": _told()}
    keep(f"defences-{wanted.part}", figures | {"load_average": load_average()})


def _trained(name: str) -> None:
    """One model, unless it is there; an interrupted training goes on."""
    if not (RUNS / name / MANIFEST).exists():
        verb, data, *rest = MODELS[name]
        begun = ["--resume"] * (RUNS / name).exists()
        if advrad(["purify", verb, data, str(RUNS / name), *rest, "--device", "cpu", *begun]):
            raise SystemExit(f"{name}: its training did not come to its end")


def _tried(
    out: Path,
    attacks: list[str],
    purifiers: list[str],
    modes: list[str],
    share: float,
    health: bool,
    wanted: argparse.Namespace,
) -> None:
    """One trial, with its result in the folder."""
    tried = defences([read(words) for words in purifiers], classifiers.load(RUNS / "a"))
    tested = examples(labelled("mnist"), max(10, round(share * wanted.images)))
    asked = Trial(modes, attacks, eps=[EPS], draws=1, eot=1, health=health, seed=wanted.seed)
    defend(tried, tested, asked, out, Told(out.name))


def _told_of(result: dict[str, Any]) -> dict[str, Any]:
    """A trial's figures, and its tables as they stand in a report."""
    kept = ("clean", "rows", "modes", "left_out", "images")
    return {name: result[name] for name in kept} | {"tables": tables(result)}


def _told() -> dict[str, Any]:
    """How each model was made, as its folder says."""
    return {name: json.loads((RUNS / name / "about.json").read_text()) for name in MODELS}


if __name__ == "__main__":
    main()
