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

    Sigmas and radii are taken to six significant digits, by which they are named everywhere.

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
        object.__setattr__(self, "sigmas", [as_named(sigma) for sigma in self.sigmas])
        object.__setattr__(self, "radii", [as_named(radius) for radius in self.radii])
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
        return needed_at(radius / sigma, each)

    def verdicts_need(self, radius: float, sigma: float, count: int) -> int | None:
        """The fewest draws with which any verdict of `count` images can be certain."""
        return needed_at(radius / sigma, self.alpha / count / 2)

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
            (sigma, radius): needed_at(radius / sigma, each)
            for sigma in self.sigmas
            for radius in self.radii
            if radius / sigma > most
        }


def as_named(value: float) -> float:
    """The number that `{value:g}` names, so that what is said is what was computed."""
    return float(f"{value:g}") + 0.0  # no minus before 0


def needed_at(shift: float, alpha: float) -> int | None:
    """`samples_needed`, for any shift: None where it is infinite too."""
    return samples_needed(shift, alpha) if math.isfinite(shift) else None


def needs(samples: int | None) -> str:
    """What a pair of sigma and radius needs, in words."""
    return f"needs {samples:,} samples" if samples else "needs more than a billion samples"
