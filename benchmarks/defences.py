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
from pathlib import Path

from common import keep, load_average
from trials import before, chosen, found, place, told, trained, tried

from advrad.evaluate.defence_trial import Trial

RUNS = Path("runs/defences")
EPS = 0.3
MNIST = ["mnist", "MODEL"]
MODELS: dict[str, list[str]] = {
    "a": ["train-classifier", *MNIST, "--network", "a", "--set", "steps=3000"],
    "fgsm": [
        *["train-classifier", *MNIST, "--network", "a", "--set", "steps=1500"],
        *["--loss", "fgsm", "--set", f"eps={EPS}"],
    ],
    "ramp": [
        *["train-diffusion", *MNIST, "--set", "centred=false", "--set", "schedule=ramp"],
        *["--set", "levels=100", "--set", "widths=16,32,32", "--set", "steps=4000"],
    ],
    "wgan": [
        *["train-diffusion", *MNIST, "--kind", "wgan", "--set", "width=32"],
        *["--set", "steps=6000"],
    ],
}
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
    parser.add_argument("--only", nargs="+", help="some trials of the part, or models")
    parser.add_argument("--seed", type=int, default=0)
    wanted = parser.parse_args()
    if wanted.part == "models":
        for name in chosen(parser, wanted.only, MODELS):
            trained(RUNS / name, MODELS[name])
        return
    attacks, part = PARTS[wanted.part]
    some = chosen(parser, wanted.only, part)
    name = f"defences-{wanted.part}"
    trials, made = before(name, EPS, wanted.seed)
    for trial, (purifiers, modes, share, health) in part.items():
        out = place(RUNS, f"{wanted.part}-{trial}", wanted.images, wanted.seed)
        if trial in some:
            asked = Trial(
                modes, attacks, eps=[EPS], draws=1, eot=1, health=health, seed=wanted.seed
            )
            images = max(10, round(share * wanted.images))
            tried(RUNS / "a", "mnist", purifiers, images, asked, out)
        if (result := found(out)) is not None:
            trials[trial] = result
    figures = {"eps": EPS, "seed": wanted.seed, "trials": trials}
    figures["models"] = made | told(RUNS, MODELS)
    keep(name, figures | {"load_average": load_average()})


if __name__ == "__main__":
    main()
