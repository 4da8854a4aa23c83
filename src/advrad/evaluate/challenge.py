"""A certificate put to the test: an attack within the radius, on the very median it speaks of.

The attacker climbs the expectation of the score over the noise around the image, draw by draw,
within the l2 ball. Then the median at the attacked image is estimated from fresh draws. It is a
violation where even its interval, exact and with an error of its own, lies wholly outside the
bounds of the certificate: either the certificate is wrong, or something rare happened.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..attacks import L2, eot, pgd
from ..certify import Bounds, Ordered, Smoothing
from ..noise import AROUND, Draws, Noise
from .smoothed import Smoothed, drawn

ERROR = 1e-3  # of the interval of the attacked median, both sides together


@dataclass(frozen=True)
class Challenge:
    """How a certificate is challenged.

    Arguments:
        radius: l2, in the [0, 1] scale.
        steps: of the attack, with momentum and falling size.
        draws: of the noise at each step.
        samples: fresh draws that estimate the attacked median, 4,000 for small violations.
        seed: of the attack and of the fresh draws; another than the certificate's.
        batch: draws at once.
    """

    radius: float
    steps: int = 20
    draws: int = 8
    samples: int = 4000
    seed: int = 1
    batch: int = 64


@dataclass(frozen=True)
class Answer:
    """What came of it.

    Arguments:
        image: as it was attacked, (C, H, W).
        moved: l2 norm of the change.
        attacked: the draws around it, in order.
        interval: of the attacked median, with probability 1 - ERROR.
    """

    image: Tensor
    moved: float
    attacked: Ordered
    interval: Bounds

    def violates(self, bounds: Bounds) -> bool:
        """Whether the attacked median is certainly outside the bounds of a certificate."""
        return bool(self.interval.upper < bounds.lower or self.interval.lower > bounds.upper)


def challenge(
    smoothed: Smoothed,
    images: Sequence[Tensor],
    names: Sequence[str],
    defect: Sequence[bool],
    asked: Challenge,
) -> list[Answer]:
    """Raises the medians of good images and lowers those of defects, each (C, H, W)."""
    sign = torch.tensor([-1.0 if bad else 1.0 for bad in defect])
    sigma, detector = smoothed.way.sigma, smoothed.detector

    def score(x: Tensor, noise: Noise) -> Tensor:
        found = detector(x + sigma * noise(x, AROUND), noise, draws=1).score
        return sign.to(found).repeat(len(x) // len(sign)) * found

    x = torch.stack(list(images))
    objective = eot(score, asked.draws, Draws(asked.seed, names))
    found = pgd(
        objective, x, L2(asked.radius), steps=asked.steps, start="zero", keep="last",
        momentum=0.9, decay=True,
    )  # fmt: skip
    return [
        _answer(smoothed, clean, adv, name, asked)
        for clean, adv, name in zip(x, found, names, strict=True)
    ]


def _answer(smoothed: Smoothed, x: Tensor, adv: Tensor, name: str, asked: Challenge) -> Answer:
    way = replace(smoothed.way, samples=asked.samples, seed=asked.seed)
    smoothing: Smoothing = way.smoothing(asked.batch)
    around = drawn(smoothed.detector, smoothing, adv, f"attacked/{name}")
    interval = around.bounds(0.0, ERROR / 2)
    return Answer(adv, float((adv - x).norm()), around, interval)
