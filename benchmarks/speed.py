"""Seconds a training step and milliseconds an image, for both precisions, in one run.

    python benchmarks/speed.py

Preset fast, 128 px, grey, random weights: time does not depend on them. The precisions take turns,
and the spread over the turns is given. Asked for: one image, one draw, batch of 16, two cores, at
most 30 ms.
"""

import argparse
import statistics

import torch
from common import keep, load_average, seconds, spread

from advrad.detectors import AdvRAD
from advrad.diffusion.batches import DrawnLoss
from advrad.noise import PerImage

BATCH, TURNS = 16, 7


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    x = torch.rand(BATCH, 1, 128, 128)
    detectors = {p: _ready(p) for p in ("bfloat16", "float32")}
    predict: dict[str, list[float]] = {p: [] for p in detectors}
    train: dict[str, list[float]] = {p: [] for p in detectors}
    preset, whole = _ready("bfloat16", [25, 50, 100]), []
    for turn in range(-1, TURNS):
        with torch.no_grad():
            took = seconds(lambda: preset(x, PerImage(0, NAMES)))
        if turn >= 0:
            whole.append(1000 * took / BATCH)
        for precision, detector in detectors.items():
            with torch.no_grad():
                took = seconds(lambda d=detector: d(x, PerImage(0, NAMES), draws=1))
            loss = DrawnLoss(detector.denoiser, x, BATCH, (1, 400))
            step = seconds(lambda n=loss: n(1).backward())
            if turn >= 0:
                predict[precision].append(1000 * took / BATCH)
                train[precision].append(step)
    keep(
        "speed",
        {
            "prediction_ms_per_image": {p: spread(v) for p, v in predict.items()},
            "prediction_ms_per_image_preset": spread(whole),
            "training_seconds_per_step_of_16": {p: spread(v) for p, v in train.items()},
            "ratio_float32_to_bfloat16": {
                "prediction": _ratio(predict),
                "training": _ratio(train),
            },
            "parameters": detectors["float32"].cost()["parameters"],
            "load_average": load_average(),
        },
    )


NAMES = [str(i) for i in range(BATCH)]


def _ready(precision: str, depth: int | list[int] = 200) -> AdvRAD:
    """A detector that scores; what it learnt does not matter for its speed."""
    torch.manual_seed(0)
    detector = AdvRAD(channels=1, depth=depth, precision=precision, steps=1, warmup=0)
    return detector.fit(torch.rand(BATCH, 1, 128, 128))


def _ratio(values: dict[str, list[float]]) -> float:
    return round(
        statistics.median(
            a / b for a, b in zip(values["float32"], values["bfloat16"], strict=True)
        ),
        2,
    )


if __name__ == "__main__":
    main()
