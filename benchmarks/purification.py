"""A detector behind DiffPure: AUROC against the depth of purification, clean and attacked.

    python benchmarks/purification.py hazelnut_toy --size 64
    python benchmarks/purification.py elpv-mono --size 64 --images 100

The papers on AdvRAD argue that a purifier before a detector does not help: little noise leaves the
attack, much of it takes the anomaly along. One denoiser is trained (kept under runs/purification/
and resumed) and stands before one and the same fitted detector at every depth; depth 0 is that
detector alone. Beside them stands AdvRAD with the same denoiser, which looks at what a purifier
throws away. The figure is written beside the record, `results/purification-DATA.svg`. Labels are
looked at to describe; nothing is chosen by them.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from common import RESULTS, keep, load_average

from advrad.data import Dataset, Images, load
from advrad.detectors import Detector, Purified, Run
from advrad.evaluate import Evaluation, Training, train
from advrad.evaluate.attacked import Threat, attack
from advrad.evaluate.figures import DEFECT, GOOD, drawn
from advrad.model import Model

RUNS = Path("runs/purification")
FIGURES = ("robust_auroc", "robust_auroc_ci")


@dataclass(frozen=True)
class Asked:
    """What is measured: sizes, depths of the purifier, the detector behind it, the attack."""

    data: str
    size: int = 64
    detector: str = "patchcore"
    settings: Mapping[str, Any] = field(default_factory=dict)
    denoiser: Mapping[str, Any] = field(default_factory=lambda: {"steps": 1500})
    depths: Sequence[int] = (10, 25, 50, 100, 200, 300, 500)
    shots: int = 1
    fitted_on: str = "plain"
    images: int | None = None
    norm: str = "linf"
    eps: float = 2 / 255
    suite: str = "quick"
    seed: int = 0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("--size", type=int, default=Asked.size)
    parser.add_argument("--detector", default=Asked.detector)
    parser.add_argument("--depths", type=int, nargs="+", default=Asked.depths)
    parser.add_argument("--shots", type=int, default=Asked.shots)
    parser.add_argument("--fitted-on", default=Asked.fitted_on, choices=("plain", "purified"))
    parser.add_argument("--images", type=int, help="most of them, half good and half defective")
    parser.add_argument("--suite", default=Asked.suite)
    asked = Asked(**vars(parser.parse_args()))
    found = measured(asked)
    keep(f"purification-{Path(asked.data).name}", found)
    (RESULTS / f"purification-{Path(asked.data).name}.svg").write_bytes(figure(found))


def measured(asked: Asked) -> dict[str, Any]:
    """Clean and robust AUROC at every depth, 0 the detector alone, and of AdvRAD."""
    data = load(asked.data)
    levels = {"levels": [1, max(400, *asked.depths)], "size": asked.size}
    wanted = Training(settings=levels | dict(asked.denoiser), seed=asked.seed, resume=True)
    folder = RUNS / f"{data.name}-{asked.size}"
    model = train(data, folder / "model", wanted)
    purified, good = behind(model, data, asked)
    found: dict[str, Any] = {"depth": {}}
    for depth in (0, *asked.depths):
        detector: Detector = purified.inner
        if depth:
            detector = purified.variant(depth=depth)
            if asked.fitted_on == "purified":
                detector = detector.teach(good, Run(seed=asked.seed))
        found["depth"][str(depth)] = _attacked(model, detector, data, folder, str(depth), asked)
        print("depth", depth, found["depth"][str(depth)], flush=True)
    found["advrad"] = _attacked(model, model.detector, data, folder, "advrad", asked)
    return {**found, "asked": asdict(asked), "load_average": load_average()}


def behind(model: Model, data: Dataset, asked: Asked) -> tuple[Purified, Images]:
    """The detector behind the model's denoiser, and the good images that it was fitted on: those
    that trained the denoiser."""
    good = Images([item for item in data.train if not item.defect], model.preprocess)
    seen = set(model.seen["train"])
    good = good.subset([i for i in range(len(good)) if good.ids[i] in seen])
    purified = Purified.around(
        model.detector,
        detector=asked.detector,
        settings=asked.settings,
        depth=max(asked.shots, asked.depths[0]),
        shots=asked.shots,
        fitted_on=asked.fitted_on,
    )
    return purified.teach(good, Run(seed=asked.seed)), good


def _attacked(
    model: Model, detector: Detector, data: Dataset, folder: Path, name: str, asked: Asked
) -> dict[str, Any]:
    threat = Threat(
        asked.norm,
        (asked.eps,),
        asked.suite,
        evaluation=Evaluation(seed=asked.seed, limit=asked.images),
    )
    other = replace(model, detector=detector.eval().requires_grad_(False))
    out = folder / f"{asked.detector}-{asked.fitted_on}-{asked.shots}-{asked.suite}" / name
    result = attack(other, data, out, threat)
    row = result["rows"][0]
    return {
        "clean_auroc": result["clean_auroc"],
        "clean_auroc_ci": result["clean_auroc_ci"],
        **{name: row[name] for name in FIGURES},
        "images": result["images"],
        "health": row["health"]["verdict"],
        "not_run": row["health"]["not_run"],
    }


def figure(found: Mapping[str, Any]) -> bytes:
    """AUROC against depth as SVG: blue clean, vermilion attacked, dashed AdvRAD, with the same
    denoiser."""
    depths = [int(depth) for depth in found["depth"]]
    rows, asked = list(found["depth"].values()), found["asked"]
    lines = (("clean_auroc", "clean", GOOD), ("robust_auroc", "attacked", DEFECT))

    def draw(axes: Any) -> None:
        for key, words, colour in lines:
            bands = [row[f"{key}_ci"] or (row[key], row[key]) for row in rows]
            axes.plot(depths, [row[key] for row in rows], "o-", color=colour, label=words)
            axes.fill_between(depths, *zip(*bands, strict=True), color=colour, alpha=0.15)
            own = found["advrad"][key]
            axes.axhline(own, color=colour, linestyle="--", label=f"AdvRAD, {words}")
        axes.set(
            ylim=(-0.02, 1.02),
            xlabel=f"depth of purification before {asked['detector']}, 0 without",
            ylabel="image AUROC",
        )
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, fontsize=8)

    return drawn(draw)


if __name__ == "__main__":
    main()
