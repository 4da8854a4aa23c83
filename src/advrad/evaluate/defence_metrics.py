"""What one table of right and wrong says, in five figures that are not each other.

A defence that draws answers the same image now right and now wrong. Let the table (draws, images)
be true where draw i of image j is right. *One-shot* looks at the first draw, *average* at all of
them, *worst* asks that every draw is right and *majority* that the class which most of them
answer is (majority vote; as many answers for another class are wrong). A purifier may look
robust in one and fall in the next, and by mere repetition the worst of N goes to zero for any
defence that is ever wrong by chance; so every figure says its N and stands beside the clean one
of the same N.

The figure of Fixed-AutoAttack (Liu et al., 2024, https://arxiv.org/abs/2404.14309) keeps for each
image the smallest share of right draws that any attack has reached, and is the mean of those.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtrc

from .. import metrics
from ..errors import DataError

Table = NDArray[np.bool_]  # (draws, images), true where right
Answers = NDArray[np.int64]  # (draws, images), the class that each draw answers
QUANTILE = 1.959963984540054  # of the normal distribution, for 95 %
SINGLE = ("one_shot", "average", "worst", "majority")


@dataclass(frozen=True)
class Accuracy:
    """A share of images, from 0 to 1, with its 95 % interval."""

    value: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        """Plain JSON values."""
        return {"value": self.value, "low": self.low, "high": self.high}


def table(right: ArrayLike) -> Table:
    """The values as a table of draws by images. Raises DataError for any other shape."""
    found = np.asarray(right)
    if found.ndim != 2 or 0 in found.shape:
        raise DataError(
            f"a table of shape {found.shape}: expected (draws, images), at least one of each"
        )
    return found.astype(np.bool_)


def one_shot(right: ArrayLike) -> Accuracy:
    """Of the first draw alone."""
    return counted(table(right)[0])


def average(right: ArrayLike) -> Accuracy:
    """The mean over draws and images."""
    return mean_share(table(right).mean(0))


def worst(right: ArrayLike) -> Accuracy:
    """Images of which every draw is right: whoever may try N times never gets through."""
    return counted(np.asarray(table(right).all(0)))


def majority(answers: ArrayLike, labels: ArrayLike) -> Accuracy:
    """Images of which no other class is answered as often as their own, by majority vote.

    Of three or more classes that may be less than half of the draws. Whatever is no class, as
    where the logits are no numbers, counts as one more.
    """
    right, given = _judged(answers, labels), np.asarray(answers)
    votes = np.stack([(given == each).sum(0) for each in given])
    others = np.where(right, 0, votes)
    return counted(right.sum(0) > others.max(0))


def fixed_autoattack(tables: Sequence[ArrayLike]) -> Accuracy:
    """The mean over images of the smallest share of right draws in any of the tables.

    The clean images' table belongs to them, as an image is no worse attacked than left alone. The
    smallest of several estimates is chosen by the draws that it is told by: with few draws the
    figure lies a little below what fresh ones would give. Raises DataError for no table, and for
    tables of different images.
    """
    shares = [table(each).mean(0) for each in tables]
    if len({share.shape for share in shares}) != 1:
        raise DataError(
            f"tables of {[len(share) for share in shares]} images: expected one or more tables of "
            "the same images"
        )
    return mean_share(np.stack(shares).min(0))


def mean_share(shares: ArrayLike) -> Accuracy:
    """The mean of the images' shares of right draws, (images,); a count where all are 0 or 1."""
    found = np.asarray(shares, np.float64)
    if np.isin(found, (0, 1)).all():
        return counted(found == 1)
    value = float(found.mean())
    return Accuracy(value, *wilson(value, len(found)))


def figures(answers: ArrayLike, labels: ArrayLike) -> dict[str, dict[str, float]]:
    """The four figures of the classes that N draws answer, (draws, images), as JSON has them.

    Labels are the right classes, (images,); raises DataError for other shapes.
    """
    right = _judged(answers, labels)
    found = (one_shot(right), average(right), worst(right), majority(answers, labels))
    return {name: each.as_dict() for name, each in zip(SINGLE, found, strict=True)}


def wilson(share: float, count: int) -> tuple[float, float]:
    """The 95 % score interval of a share of `count`: all p with (share - p)^2 <= z^2 p (1-p) / n.

    Wilson, 1927 (https://doi.org/10.1080/01621459.1927.10502953). For the mean of values between
    0 and 1, whose variance is p (1 - p) at most, it is wide enough where they are not all 0 or 1.
    """
    weight = QUANTILE**2 / count
    centre = (share + weight / 2) / (1 + weight)
    half = math.sqrt(weight * share * (1 - share) + weight**2 / 4) / (1 + weight)
    return max(0.0, centre - half), min(1.0, centre + half)


def more_harm(ours: ArrayLike, theirs: ArrayLike) -> float:
    """The chance that an attack no better than ours does as much more harm than ours as theirs.

    Both tables are of the same images. The sign test: of the images that the two attacks differ
    on, by their share of right draws, each is theirs or ours by the toss of a coin; the chance is
    that of at least as many for them. 1 where they differ on none.
    """
    ahead = table(ours).mean(0) - table(theirs).mean(0)
    won, lost = int((ahead > 0).sum()), int((ahead < 0).sum())
    return float(bdtrc(won - 1, won + lost, 0.5)) if won else 1.0


def in_percent(found: Mapping[str, Any] | None) -> str:
    """`47.3 (43.0 to 51.6)` of a figure as JSON has it; n/a of none."""
    if found is None:
        return "n/a"
    value, low, high = (100 * found[name] for name in ("value", "low", "high"))
    return f"{value:.1f} ({low:.1f} to {high:.1f})"


def _judged(answers: ArrayLike, labels: ArrayLike) -> Table:
    """Which answers are right."""
    given, truth = np.asarray(answers), np.asarray(labels)
    if given.ndim != 2 or truth.shape != given.shape[1:]:
        raise DataError(
            f"answers of shape {given.shape} and labels of shape {truth.shape}: expected (draws, "
            "images) and (images,)"
        )
    return table(given == truth)


def counted(right: Table) -> Accuracy:
    """Of images, each right or wrong: the exact interval."""
    found = metrics.rate(int(right.sum()), len(right))
    assert found is not None
    return Accuracy(found.value, found.low, found.high)
