"""Which views of good images to train on: the loss on held-out good images after equal trainings.

    python benchmarks/augmentation.py [--data hazelnut_toy elpv-mono brick] [--steps 120]

A small network at 64 px is trained on the training part with each set of views; L_simple on the
held-out part, whole and unchanged, over a fixed set of levels and noise, is what counts. Neither a
test image nor a defect takes part.
"""

import argparse
import statistics

import torch
from common import keep, load_average
from torch import Tensor

from advrad.data import Images, divide, load
from advrad.detectors import AdvRAD, Run
from advrad.diffusion.loss import diffuse, simple
from advrad.images import Preprocess
from advrad.noise import Fixed

CANDIDATES = ((), ("flips",), ("flips", "crops"), ("flips", "quarters"), ("flips", "rotations"))
LEVELS = (25, 50, 100, 200, 300)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", nargs="+", default=["hazelnut_toy", "elpv-mono", "brick"])
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--size", type=int, default=64)
    wanted = parser.parse_args()
    figures = {name: _compare(name, wanted.steps, wanted.size) for name in wanted.data}
    keep(
        "augmentation",
        {
            "held_out_loss": figures,
            "relative_to_none": {
                views: statistics.mean(row[views] / row["none"] for row in figures.values())
                for views in next(iter(figures.values()))
            },
            "steps": wanted.steps,
            "size": wanted.size,
            "seed": 0,
            "load_average": load_average(),
        },
    )


def _compare(name: str, steps: int, size: int) -> dict[str, float]:
    data = load(name)
    channels = 3 if name == "hazelnut_toy" else 1
    images = Images(data.train, Preprocess(size, channels))
    parts = divide(len(images), data.split_seed)
    held = torch.stack(list(images.subset(parts.tune)))
    rows = {}
    for views in CANDIDATES:
        detector = AdvRAD(size=size, channels=channels, depth=100, steps=steps, augment=views)
        detector._learn(images.subset(parts.train), Run(seed=0))
        rows["+".join(views) or "none"] = _loss(detector, held)
        print(name, views, rows["+".join(views) or "none"], flush=True)
    return rows


@torch.no_grad()
def _loss(detector: AdvRAD, held: Tensor) -> float:
    """L_simple over the held-out images, five levels and four draws of the noise each."""
    x, losses = 2 * held - 1, []
    for level in LEVELS:
        t = torch.full((len(x),), level)
        for draw in range(4):
            eps = Fixed(draw)(x, level)
            x_t = diffuse(detector.denoiser.schedule, x, t, eps)
            losses.append(float(simple(eps, detector.denoiser.predict(x_t, t).eps).mean()))
    return statistics.mean(losses)


if __name__ == "__main__":
    main()
