"""Certificates put to the test: attacks within the radius on the smoothed median itself.

    python benchmarks/soundness.py hazelnut_toy --size 32 --images 12
    python benchmarks/soundness.py elpv-mono --size 64 --images 12

Takes the model of certificates.py, or trains it. For each image: bounds at the radius, an attack
on the median within it, and the interval of the attacked median from fresh draws. A violation is
an interval wholly outside the bounds; none is expected. How much that says is told beside it: how
many of the same attacks would have caught bounds for half the radius, or for none. Also: certified
AUROC <= AUROC of the attacked medians <= AUROC of the clean medians, within the bootstrap error.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from common import keep, load_average

from advrad import metrics
from advrad.certify import certified_auroc
from advrad.data import load
from advrad.evaluate import Evaluation, Training, train
from advrad.evaluate.challenge import Challenge, challenge
from advrad.evaluate.clean import test_images
from advrad.evaluate.smoothed import Smoothed, Way, measured
from advrad.model import load as load_model
from advrad.store import MANIFEST

RUNS = Path("runs/certificates")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--sigma", type=float, default=0.12)
    parser.add_argument("--radius", type=float, default=0.1)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--attacked-samples", type=int, default=4000)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--draws", type=int, default=8)
    parser.add_argument("--alpha", type=float, default=0.001)
    asked = parser.parse_args()
    data, folder = load(asked.data), RUNS / f"{asked.data}-{asked.size}"
    if not (folder / MANIFEST).exists():
        train(data, folder, Training(settings={"size": asked.size}, resume=True))
    model = load_model(folder)
    images = test_images(model, data, Evaluation(limit=asked.images))
    way = Way(asked.sigma, asked.samples, "matched")
    detector = measured(model, data, way, "cpu")
    smoothed = Smoothed(detector, way, model.calibration)  # no verdicts here, only medians
    keep(
        f"soundness-{asked.data}",
        _found(smoothed, images, asked) | {"load_average": load_average()},
    )


def _found(smoothed: Smoothed, images: Any, asked: argparse.Namespace) -> dict[str, Any]:
    labels, shift = images.labels, asked.radius / asked.sigma
    clean, bounds, bold, answers = [], [], [], []
    wanted = Challenge(asked.radius, asked.steps, asked.draws, asked.attacked_samples)
    for i, bad in enumerate(labels):
        found = smoothed.draws(images[i], images.ids[i], 64)
        clean.append(float(found.median))
        bounds.append(found.bounds(shift, asked.alpha / len(labels)))
        bold.append([found.bounds(part * shift, asked.alpha / len(labels)) for part in (0.5, 0.0)])
        answers += challenge(smoothed, [images[i]], [images.ids[i]], [bad], wanted)
        print(i, clean[-1], bounds[-1], float(answers[-1].attacked.median), flush=True)
    defect = torch.tensor(labels)
    low, high = (torch.stack(ends) for ends in zip(*bounds, strict=True))
    attacked = [float(answer.attacked.median) for answer in answers]
    gap = [(c - a) if bad else (a - c) for c, a, bad in zip(clean, attacked, labels, strict=True)]
    room = [float(c - b.lower) if bad else float(b.upper - c)
            for c, b, bad in zip(clean, bounds, labels, strict=True)]  # fmt: skip
    return {
        "data": asked.data,
        "size": asked.size,
        "sigma": asked.sigma,
        "radius": asked.radius,
        "samples": asked.samples,
        "alpha": asked.alpha,
        "images": len(labels),
        "violations": sum(
            answer.violates(bound) for answer, bound in zip(answers, bounds, strict=True)
        ),
        "caught_if_bounds_were_for": {
            radius: sum(a.violates(b[place]) for a, b in zip(answers, bold, strict=True))
            for place, radius in enumerate(("half the radius", "no radius"))
        },
        "certified_auroc": certified_auroc(low[defect].numpy(), high[~defect].numpy()),
        "attacked_auroc": metrics.auroc(attacked, labels),
        "attacked_auroc_ci": metrics.interval(metrics.auroc, attacked, labels),
        "smoothed_auroc": metrics.auroc(clean, labels),
        "smoothed_auroc_ci": metrics.interval(metrics.auroc, clean, labels),
        "share_of_the_bound_used": sum(g / r for g, r in zip(gap, room, strict=True)) / len(gap),
    }


if __name__ == "__main__":
    main()
