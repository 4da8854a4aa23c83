"""What no change of a given size can do to the median of a score under Gaussian noise.

Let z be standard normal noise and Q_q(x) the q-quantile of f(x + sigma z), with f any function,
random or not. For every change d of the image with l2 norm at most r,

    Q_{Phi(-r / sigma)}(x)  <=  median of f(x + d + sigma z)  <=  Q_{Phi(r / sigma)}(x)

(Chiang et al., 2020, Lemma 1 with q = 1/2, https://arxiv.org/abs/2007.03730). The reason is that
Phi^-1 of the probability of any event under the noise changes by at most |d| / sigma (Cohen et
al., 2019; Salman et al., 2019, Lemma 1, https://arxiv.org/abs/1906.04584). Randomness inside f is
covered, where each draw of the noise has one of its own: what counts is the probability of
f > h, which is still a function of the noisy image with values in [0, 1].

The quantiles are not known, but order statistics of n draws bound them whatever their
distribution: how many draws lie below a quantile is binomial. Where n is too small for that, the
bound is infinite, and true.

Everything is along the first dimension, so that maps and blocks of maps are bounded as scores are.
"""

import math
from typing import NamedTuple

import torch
from scipy import special, stats
from torch import Tensor

from ..errors import UsageError

MANY = 10**9  # draws that nobody makes


class Bounds(NamedTuple):
    """`lower <= median <= upper`, each with its own error alpha; infinite where none is had."""

    lower: Tensor
    upper: Tensor


class Ordered(NamedTuple):
    """n draws of a score in order, (n, ...) twice; they differ where a draw is not finite.

    Arguments:
        low: with such a draw as -inf, for lower bounds.
        high: with it as +inf, for upper bounds.
        lost: how many there were, (...).
    """

    low: Tensor
    high: Tensor
    lost: Tensor

    @property
    def median(self) -> Tensor:
        """The empirical median of the finite draws, (...); nan where there are none."""
        known = torch.where(torch.isfinite(self.low), self.low, math.nan)
        count = len(known) - self.lost
        pair = torch.stack([self.lost + (count - 1) // 2, self.lost + count // 2])
        return known.gather(0, pair.clamp_max(len(known) - 1)).mean(0)

    def bounds(self, shift: float, alpha: float) -> Bounds:
        """Bounds of the median under every change of l2 norm up to shift * sigma, (...) each.

        Each holds with probability at least 1 - alpha by itself; for both together give half.
        """
        lowest, highest = ranks(len(self.low), shift, alpha)
        least = torch.full_like(self.low[0], -math.inf)
        return Bounds(
            self.low[lowest - 1] if lowest else least,
            self.high[highest - 1] if highest <= len(self.high) else -least,
        )


def ordered(scores: Tensor) -> Ordered:
    """Sorts draws (n, ...) along the first dimension. Raises ValueError where there are none."""
    if not scores.ndim or not len(scores):
        raise ValueError(f"draws of shape {tuple(scores.shape)}: expected (n, ...) with n >= 1")
    finite = torch.isfinite(scores)
    low, high = (torch.where(finite, scores, end).sort(0).values for end in (-math.inf, math.inf))
    return Ordered(low, high, (~finite).sum(0))


def ranks(samples: int, shift: float, alpha: float) -> tuple[int, int]:
    """Which order statistics bound the median, counted from 1; (0, n + 1) where none does.

    The lower one is the largest k with P[Bin(n, Phi(-shift)) <= k - 1] <= alpha: if fewer than k
    draws lie below the quantile then the k-th is not below it. The upper one is its mirror.

    Arguments:
        samples: draws, n.
        shift: radius over sigma, r / sigma >= 0.
        alpha: the error of each of the two, in (0, 1).

    Raises UsageError for values outside these ranges.
    """
    _check(samples, shift, alpha)
    share = special.ndtr(-shift)
    lower = int(stats.binom.ppf(alpha, samples, share))  # near it; the tails decide
    while lower > 0 and stats.binom.cdf(lower - 1, samples, share) > alpha:
        lower -= 1
    while lower < samples and stats.binom.cdf(lower, samples, share) <= alpha:
        lower += 1
    return lower, samples + 1 - lower


def largest_shift(samples: int, alpha: float, rank: int = 1) -> float:
    """The largest r / sigma at which the lower bound is the order statistic `rank`, or above.

    Rank 1 gives the largest that n draws can bound at all, Phi^-1(alpha^(1 / n)): the widest
    statement is that not all draws lie on one side of the quantile. Negative where not even the
    median itself is bounded. Raises UsageError where the rank is none of 1 to n.
    """
    _check(samples, 0.0, alpha)
    if not 1 <= rank <= samples:
        raise UsageError(f"rank {rank} of {samples} draws: expected 1 to {samples}")
    return float(-special.ndtri(special.betainccinv(rank, samples - rank + 1, alpha)))


def samples_needed(shift: float, alpha: float) -> int | None:
    """The fewest draws that bound anything at r / sigma = shift: log alpha / log Phi(shift).

    None where that is `MANY` or more. Raises UsageError as `ranks` does.
    """
    _check(1, shift, alpha)
    each = special.log_ndtr(shift)  # of a draw that it lies on the one side; 0 far out
    count = math.log(alpha) / each if each else math.inf
    return max(1, math.ceil(count - 1e-9)) if count < MANY else None


def _check(samples: int, shift: float, alpha: float) -> None:
    if samples < 1:
        raise UsageError(f"{samples} samples: expected one or more")
    if not 0 <= shift < math.inf:
        raise UsageError(f"radius / sigma = {shift:g}: expected a finite number from 0 on")
    if not 0 < alpha < 1:
        raise UsageError(f"alpha {alpha:g}: expected a number between 0 and 1")
