"""What no change of a given size can do to a vote under Gaussian noise.

A classifier, or a score with a threshold, votes once for each noisy copy of an image. If a class
has at least the share p > 1/2 of the votes, it keeps the majority under every change of l2 norm
below sigma Phi^-1(p) (Cohen et al., 2019, Theorem 1 and Algorithm 1,
https://arxiv.org/abs/1902.02918). The share is bounded from the count by Clopper and Pearson's
exact interval.

Where there are two sides and both are looked at, `side` needs no draws to choose one: each side
gets half of the error. Then it says exactly what the bounds of the median say at that threshold.
"""

from typing import NamedTuple

import torch
from scipy import special, stats
from torch import Tensor

from ..errors import UsageError

ABSTAIN = -1


class Vote(NamedTuple):
    """The class that was certified, or ABSTAIN; and the l2 radius up to which it holds."""

    label: int
    radius: float


def certify(
    selected: Tensor, counted: Tensor, sigma: float, alpha: float, samples: int | None = None
) -> Vote:
    """The majority's class and radius (Cohen et al., 2019, CERTIFY).

    Arguments:
        selected: votes by class of the draws that choose the class, (K,).
        counted: votes by class of other draws, which measure its share, (K,).
        sigma: of the noise, in the unit of the radius.
        alpha: probability that what is said is wrong.
        samples: draws behind `counted`, where some were lost: those count for no class, but they
            count. All that are in it by default.

    The error holds only where the two are draws of their own: never of the same seed.

    Raises UsageError where more were counted than drawn.
    """
    label, total = int(selected.argmax()), int(counted.sum())
    samples = total if samples is None else samples
    if total > samples or not samples:
        raise UsageError(
            f"{total} votes of {samples} draws: expected no more, and a draw at least"
        )
    share = least_share(int(counted[label]), samples, alpha)
    if share <= 0.5:
        return Vote(ABSTAIN, 0.0)
    return Vote(label, float(sigma * special.ndtri(share)))


def predict(counted: Tensor, alpha: float, lost: int = 0) -> int:
    """The majority's class, or ABSTAIN where the two first are too close (Cohen et al., PREDICT).

    Of the draws for either of the two, the first has more than half: a binomial test on the votes
    by class (K,). All `lost` draws count as votes for the second, so that they can only make it
    abstain.
    """
    first, *others = sorted((int(votes) for votes in counted), reverse=True)
    against = lost + max(others, default=0)
    sure = first > against and stats.binomtest(first, first + against, 0.5).pvalue <= alpha
    return int(counted.argmax()) if sure else ABSTAIN


def side(above: int, below: int, samples: int, sigma: float, alpha: float) -> Vote:
    """On which side of a threshold the median stays, and up to which l2 radius.

    Arguments:
        above, below: how many draws reached the threshold, and how many did not; what is missing
            to `samples` was no finite number and counts for neither.
        samples: draws.
        sigma: of the noise.
        alpha: of the statement as a whole; either side gets a half.

    Returns 1 (at or above), 0 (below) or ABSTAIN.
    """
    for label, count in ((1, above), (0, below)):
        share = least_share(count, samples, alpha / 2)
        if share >= 0.5:
            return Vote(label, float(sigma * special.ndtri(share)))
    return Vote(ABSTAIN, 0.0)


def least_share(count: int, samples: int, alpha: float) -> float:
    """The lower bound of a probability from a count, exact (Clopper and Pearson, 1934).

    The p with P[Bin(n, p) >= count] = alpha. Raises UsageError where the numbers are impossible.
    """
    if not 0 <= count <= samples or not samples:
        raise UsageError(f"{count} of {samples} draws: expected 0 to n of n, n at least 1")
    if not 0 < alpha < 1:
        raise UsageError(f"alpha {alpha:g}: expected a number between 0 and 1")
    return float(special.betaincinv(count, samples - count + 1, alpha)) if count else 0.0


def settled(
    above: int, below: int, samples: int, shift: float, alpha: float, lost: int = 0
) -> int | None:
    """What the rest of the draws cannot change: the side at r / sigma = shift once all are in.

    `above` and `below` count the draws so far, `lost` those that were no finite number. 1, 0 or
    ABSTAIN where every outcome of the remaining ones gives the same, None while they could decide.
    Nothing is spent by looking: the answer is the one that all draws would have given (curtailed
    sampling).
    """
    least = votes_needed(samples, shift, alpha / 2)
    left = samples - above - below - lost
    if above >= least:
        return 1
    if below >= least:
        return 0
    return ABSTAIN if max(above, below) + left < least else None


def votes_needed(samples: int, shift: float, alpha: float) -> int:
    """The fewest votes of n whose share is at least Phi(shift) with error alpha; n + 1 if none."""
    share = special.ndtr(shift)
    count = int(stats.binom.isf(alpha, samples, share)) + 1
    while count > 0 and stats.binom.sf(count - 2, samples, share) <= alpha:
        count -= 1
    return min(count, samples + 1)


def votes(labels: Tensor, classes: int) -> Tensor:
    """How many draws chose each class, (n,) integers -> (K,); labels below zero count for none,
    so that `certify` must be told how many were drawn."""
    return torch.bincount(labels[labels >= 0], minlength=classes)
