"""What a certificate costs: seconds for the draws of one image, and what smoothing adds to them.

    python benchmarks/certify.py [--samples 1000] [--rounds 5]

AdvRAD of preset fast at 64 px (untrained: the cost is the same), scored as `matched`, one depth.

- seconds for so many draws of one image; asked for: 1,000 in at most 5 on two cores;
- the same over bare forward passes of the denoiser in batches of the same size, in turns; asked
  for: at most 5 % more.
"""

import argparse

import torch
from common import keep, load_average, seconds, spread

from advrad.certify import ordered
from advrad.detectors import AdvRAD
from advrad.detectors.base import PLAIN
from advrad.evaluate.smoothed import Way, drawn
from advrad.noise import fresh

SIDE, BATCH, SIGMA = 64, 64, 0.12


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    detector, x = _subject()
    smoothing = Way(SIGMA, asked.samples, "matched").smoothing(BATCH)
    whole, bare, scored = [], [], []
    for _ in range(asked.rounds + 1):
        whole.append(seconds(lambda: drawn(detector, smoothing, x, "image")))
        scored.append(seconds(lambda: _scored(detector, x, asked.samples)))
        bare.append(seconds(lambda: _bare(detector, x, asked.samples)))
    keep(
        "certify",
        {
            "samples": asked.samples,
            "seconds": spread(whole[1:]),
            "to_bare_forward_passes": spread(
                [one / other for one, other in zip(whole[1:], bare[1:], strict=True)]
            ),
            "to_scoring_alone": spread(
                [one / other for one, other in zip(whole[1:], scored[1:], strict=True)]
            ),
            "rounds": asked.rounds,
            "load_average": load_average(),
        },
    )


def _subject() -> tuple[AdvRAD, torch.Tensor]:
    torch.manual_seed(0)
    detector = AdvRAD(size=SIDE, channels=1).eval().requires_grad_(False)
    good = torch.rand(4, 1, SIDE, SIDE)
    return detector.under_noise(good, PLAIN, sigma=SIGMA, scoring="matched"), good[0]


@torch.no_grad()
def _bare(detector: AdvRAD, x: torch.Tensor, samples: int) -> None:
    """As many passes of the denoiser alone."""
    for start in range(0, samples, BATCH):
        count = min(BATCH, samples - start)
        detector.denoiser(x.expand(count, *x.shape).contiguous(), detector.depths[0])


@torch.no_grad()
def _scored(detector: AdvRAD, x: torch.Tensor, samples: int) -> None:
    """As many scores of copies of the image, with noise that costs little."""
    found = []
    for start in range(0, samples, BATCH):
        count = min(BATCH, samples - start)
        copies = x.expand(count, *x.shape)
        noisy = copies + SIGMA * torch.randn_like(copies)
        found.append(detector(noisy, fresh, draws=1).score)
    ordered(torch.cat(found))


if __name__ == "__main__":
    main()
