"""Thresholds with a stated bound, from good images alone.

Of n good images that the model has not seen, take the k-th smallest score, k = ceil((n + 1)
(1 - level)), and call NG whatever lies above it. If a new good image is exchangeable with those n,
it is called NG with probability at most level, whatever the detector and the distribution
(split conformal prediction; Vovk et al., 2005; Lei et al., 2018, Theorem 2.2,
https://arxiv.org/abs/1604.04173). n images cannot hold a level below 1 / (n + 1).
"""

import math
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from .errors import ModelError, UsageError

OK, UNSURE, NG = "OK", "UNSURE", "NG"


@dataclass(frozen=True)
class Calibration:
    """Where OK ends and NG begins.

    Arguments:
        threshold: a score at or above it is NG.
        unsure: a score at or above it, and below the threshold, is UNSURE.
        level: bound on the false alarms of `threshold`; `unsure_level` of `unsure`.
        count: how many good images were scored.
        approximate: whether those images also chose a setting or trained the model, so that the
            bound is no guarantee.
        scores: their scores, from low to high.
    """

    threshold: float
    unsure: float
    level: float
    unsure_level: float
    count: int
    approximate: bool
    scores: tuple[float, ...]

    def verdict(self, score: float) -> str:
        """OK, UNSURE or NG; a score that is no finite number is UNSURE."""
        if not math.isfinite(score):
            return UNSURE
        if score >= self.threshold:
            return NG
        return UNSURE if score >= self.unsure else OK

    def sentence(self) -> str:
        """What the threshold promises, in words."""
        held = (
            f"At most {self.level:.1%} of good images are called NG"
            if not self.approximate
            else f"About {self.level:.1%} of good images or fewer are called NG (approximate: the "
            "images of the calibration also chose a setting or trained the model)"
        )
        small = "; more held-out good images would allow a lower bound" if self.count < 19 else ""
        return f"{held}, by {self.count} held-out good image{'s' * (self.count > 1)}{small}."

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Calibration":
        """The inverse of `as_dict`. Raises ModelError where something is missing."""
        try:
            return cls(**{**values, "scores": tuple(values["scores"])})
        except (KeyError, TypeError) as error:
            raise ModelError(f"calibration.json does not hold a calibration: {error}") from error


def calibrate(
    scores: "np.typing.ArrayLike",
    level: float | None = None,
    unsure_level: float | None = None,
    approximate: bool = False,
) -> Calibration:
    """Thresholds from the scores of held-out good images, (n,).

    Arguments:
        level: bound on false alarms of NG; max(0.05, 1 / (n + 1)) by default.
        unsure_level: the same for UNSURE, at least `level`; the larger of twice the level by
            default.

    Raises UsageError where a level lies outside (0, 1) or below what n images can hold, and
    ValueError where scores are missing or not finite.
    """
    ordered = np.sort(np.asarray(scores, dtype=np.float32).ravel())
    count = len(ordered)
    if not count or not np.isfinite(ordered).all():
        raise ValueError(f"{count} scores: expected at least one, all finite")
    level = max(0.05, 1 / (count + 1)) if level is None else level
    wide = min(2 * level, (1 + level) / 2)
    unsure_level = wide if unsure_level is None else unsure_level
    threshold = conformal(ordered, level)
    if unsure_level < level:
        raise UsageError(f"the level of UNSURE, {unsure_level:g}, is below that of NG, {level:g}")
    return Calibration(
        threshold=threshold,
        unsure=conformal(ordered, unsure_level),
        level=level,
        unsure_level=unsure_level,
        count=count,
        approximate=approximate,
        scores=tuple(float(score) for score in ordered),
    )


def conformal(ordered: "np.typing.NDArray[np.float32]", level: float) -> float:
    """The least float32 above the k-th smallest of n sorted scores, k = ceil((n + 1)(1 - level)).

    Raises UsageError where k is above n, with the n that the level needs.
    """
    if not 0 < level < 1:
        raise UsageError(f"a false-alarm level of {level:g}: expected a number between 0 and 1")
    count = len(ordered)
    rank = math.ceil((count + 1) * (1 - exact(level)))
    if rank > count:
        raise UsageError(
            f"a false-alarm level of {level:g} needs at least {needed(level)} held-out good "
            f"images and there are {count}: give more images, or a level of "
            f"{1 / (count + 1):.4f} or above"
        )
    return float(np.nextafter(ordered[max(rank, 1) - 1], np.float32(np.inf)))


def needed(level: float) -> int:
    """The least number of good images that holds a level: 1 / level - 1, rounded up."""
    return math.ceil(1 / exact(level) - 1)


def exact(level: float) -> Fraction:
    """The fraction that was meant: 1 / (n + 1) for small n, or the decimal as it is written."""
    near = Fraction(level).limit_denominator(10**6)
    return near if math.isclose(near, level, rel_tol=1e-12) else Fraction(level)
