"""What a score sees and what it does not, on a data set where AdvRAD is weak.

    python benchmarks/exploration.py elpv-poly

Takes the model that `accuracy.py` trained, or another one given by `--model`, and computes image
AUROC on at most 240 test images for a ladder of depths and several ways to look at the same
reconstructions. It looks at test labels: it explains, and chooses nothing.

- deviation: the multiscale error, normalised by what good images show at each place;
- scales: the same for each scale by itself;
- signed: the gap itself at 1/8 and 1/16, normalised;
- darker: the same, counting only what is darker than its reconstruction;
- bound: the term of the variational bound with the learned variance (bits a value), normalised
  over good images;
- ladder: the maps of all depths averaged; brightness: the mean of the image, low is anomalous.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from common import keep, load_average
from torch import Tensor

from advrad import scoring
from advrad.data import Images, limit, load
from advrad.detectors import AdvRAD
from advrad.diffusion.loss import diffuse, variational
from advrad.metrics import auroc
from advrad.model import load as load_model
from advrad.noise import PerImage, redraw

DEPTHS = (50, 100, 200, 300, 400, 600, 800)
DRAWS, BATCH, TOP = 2, 16, 0.01
Looks = dict[str, Tensor]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("--images", type=int, default=240)
    parser.add_argument("--model", type=Path, help="its folder")
    wanted = parser.parse_args()
    model = load_model(wanted.model or Path("runs/accuracy") / wanted.data / "0")
    data = load(wanted.data)
    assert isinstance(model.detector, AdvRAD)
    test = Images(limit(data.test, wanted.images, data.split_seed), model.preprocess)
    good = Images(data.train, model.preprocess)
    seen = set(model.seen["train"])
    good = good.subset([i for i in range(len(good)) if good.ids[i] in seen][:200])
    labels = torch.tensor(test.labels)
    table: dict[str, Any] = {}
    sums: dict[str, Tensor] = {}
    for depth in [d for d in DEPTHS if d <= model.detector.settings.levels[1]]:
        typical, shown = _looks(model.detector, good, depth), _looks(model.detector, test, depth)
        row = {}
        for name in shown:
            score, deviation = _judge(name, shown[name], typical[name])
            row[name] = auroc(score, labels)
            sums[name] = sums.get(name, torch.zeros(())) + deviation
        table[str(depth)] = row
        print(depth, row, flush=True)
    table["ladder"] = {name: auroc(_score(value), labels) for name, value in sums.items()}
    darkness = torch.stack([-x.mean() for x in test])
    keep(
        f"exploration-{wanted.data}",
        {
            "image_auroc": table,
            "brightness": auroc(darkness, labels),
            "images": {"good": int((~labels).sum()), "defect": int(labels.sum())},
            "steps": model.detector.settings.steps,
            "levels": model.detector.settings.levels,
            "draws": DRAWS,
            "top": TOP,
            "load_average": load_average(),
        },
    )


@torch.no_grad()
def _looks(detector: AdvRAD, images: Images, depth: int) -> Looks:
    """Every view of the same reconstructions, (N, ..., H, W), or (N, 1, 1) for the bound."""
    found: dict[str, list[Tensor]] = {}
    for start in range(0, len(images), BATCH):
        some = range(start, min(start + BATCH, len(images)))
        x = 2 * torch.stack([images[i] for i in some]) - 1
        noise = PerImage(0, [images.ids[i] for i in some])
        draws = [_draw(detector, x, depth, redraw(noise, draw)) for draw in range(DRAWS)]
        for name in draws[0]:
            found.setdefault(name, []).append(torch.stack([d[name] for d in draws]).mean(0))
    return {name: torch.cat(parts) for name, parts in found.items()}


def _draw(detector: AdvRAD, x: Tensor, depth: int, noise: Any) -> Looks:
    denoiser, t = detector.denoiser, torch.full((len(x),), depth)
    x_t = diffuse(denoiser.schedule, x, t, noise(x, depth))
    eps, log_variance = denoiser.predict(x_t, t)
    a_t = denoiser.schedule.alpha_bar(depth)
    gap = x - (x_t - (1 - a_t) ** 0.5 * eps) / a_t**0.5
    side = scoring.window(x.shape[-1])
    scales = [scoring.mean_filter(scoring.scale_error(gap, s), side) for s in scoring.SCALES]
    bound = variational(denoiser.schedule, x, x_t, t, eps, log_variance)
    return {
        "deviation": scoring.filtered(gap)[:, 0],
        **{f"scale 1/{s}": e for s, e in zip(scoring.SCALES, scales, strict=True)},
        "signed": scoring.signed(gap).mean(1),
        "darker": scoring.signed(gap).mean(1),
        "bound": bound[:, None, None],
    }


def _judge(name: str, shown: Tensor, typical: Tensor) -> tuple[Tensor, Tensor]:
    mean, spread = typical.mean(0), typical.std(0)
    z = (shown - mean) / (spread + scoring.FLOOR * spread.mean() + 1e-8)
    deviation = (-z).clamp_min(0) if name == "darker" else z.abs()
    return _score(deviation), deviation


def _score(deviation: Tensor) -> Tensor:
    return scoring.aggregate(deviation, TOP)


if __name__ == "__main__":
    main()
