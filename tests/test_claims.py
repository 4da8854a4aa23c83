"""A published claim that does not hold, and what holds in its place.

Theorem 5.1 of the paper takes P[A(x + d) > h] >= p > 1/2 under Gaussian noise d of scale sigma,
and concludes that the *mean* of A stays above h within the radius sigma Phi^-1(p). It is the
median that does. Nothing in this library certifies a mean.
"""

import pytest
import torch
from scipy.stats import norm
from torch import Tensor

H, SIGMA, P = 1.0, 0.25, 0.7
RADIUS = SIGMA * norm.ppf(P)
NOISE = SIGMA * torch.randn(200_000, generator=torch.Generator().manual_seed(0))


def score(x: Tensor) -> Tensor:
    """1.01 h where x lies below the radius, else 0: 1.01 h with probability 0.7 at x = 0."""
    return torch.where(x < RADIUS, 1.01 * H, 0.0)


def test_the_premise_holds_and_promises_a_radius() -> None:
    assert (score(NOISE) > H).float().mean().item() == pytest.approx(P, abs=0.005)
    assert pytest.approx(0.524 * SIGMA, rel=1e-3) == RADIUS


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
def test_the_mean_lies_below_the_threshold_within_the_radius_even_at_0(share: float) -> None:
    moved = score(NOISE + share * RADIUS)
    expected = 1.01 * H * norm.cdf((1 - share) * RADIUS / SIGMA)
    assert moved.mean().item() == pytest.approx(expected, abs=0.005)
    assert moved.mean() < H


def test_the_median_stays_above_within_the_radius_and_not_beyond() -> None:
    for share in (0.0, 0.5, 0.95):
        assert score(NOISE + share * RADIUS).median() > H
    assert score(NOISE + 1.05 * RADIUS).median() < H
