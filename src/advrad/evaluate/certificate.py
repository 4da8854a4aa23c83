"""What is asked of a certificate, and what so many draws can give."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ..certify import largest_shift, samples_needed
from ..errors import UsageError
from .clean import Evaluation
from .smoothed import Way


@dataclass(frozen=True)
class Certificate:
    """What is asked of a certificate.

    Arguments:
        sigmas: standard deviations of the noise, in the [0, 1] scale; each is a statement of its
            own.
        radii: l2 norms up to which a change is looked at, in the same scale.
        samples: draws an image.
        alpha: probability that anything said of all images together, at one sigma and radius, is
            wrong.
        scorings: of the detector's `SCORINGS`; the first of them where none is given.
        block: side in pixels of the blocks whose regions are certified; 0 for none.
        evaluation: seed, draws at once, device, limit, bad files.

    Raises UsageError for numbers that are impossible or repeated.
    """

    sigmas: Sequence[float] = (0.06, 0.12, 0.25)
    radii: Sequence[float] = (0.05, 0.1, 0.2)
    samples: int = 1000
    alpha: float = 0.001
    scorings: Sequence[str] = ()
    block: int = 0
    evaluation: Evaluation = field(default_factory=lambda: Evaluation(batch=64))

    def __post_init__(self) -> None:
        for name, values in (("sigma", self.sigmas), ("radius", self.radii)):
            if not values or len({f"{value:g}" for value in values}) < len(values):
                raise UsageError(
                    f"{name} {list(values)}: expected one or more, each once (to six digits)"
                )
        for radius in self.radii:
            if not 0 <= radius < float("inf"):
                raise UsageError(f"radius {radius:g}: expected a finite l2 norm from 0 on")
        if not 0 < self.alpha < 1:
            raise UsageError(f"alpha {self.alpha:g}: expected a number between 0 and 1")
        if self.block < 0:
            raise UsageError(f"block {self.block}: expected a side in pixels, or 0 for no regions")
        self.ways(())

    def places(self, size: int) -> int:
        """Blocks of an image of this side; 0 where no regions are asked for."""
        return math.ceil(size / self.block) ** 2 if self.block else 0

    def regions_need(self, radius: float, sigma: float, count: int, size: int) -> int | None:
        """The fewest draws with which any block of any of `count` images can be certain."""
        each = self.alpha / count / 2 / self.places(size)
        return samples_needed(radius / sigma, each)

    def ways(self, scorings: Iterable[str]) -> list[Way]:
        """Every sigma under every scoring."""
        found = [
            Way(sigma, self.samples, scoring, self.evaluation.seed)
            for sigma in self.sigmas
            for scoring in scorings or ("plain",)
        ]
        for way in found:
            way.smoothing(self.evaluation.batch)  # refuses what is impossible
        return found

    def impossible(self, count: int) -> dict[tuple[float, float], int | None]:
        """Pairs of sigma and radius that so few draws cannot bound for `count` images, with the
        draws that each would need; None for a billion or more."""
        each = self.alpha / count
        most = largest_shift(self.samples, each)
        return {
            (sigma, radius): samples_needed(radius / sigma, each)
            for sigma in self.sigmas
            for radius in self.radii
            if radius / sigma > most
        }


def needs(samples: int | None) -> str:
    """What a pair of sigma and radius needs, in words."""
    return f"needs {samples:,} samples" if samples else "needs more than a billion samples"
