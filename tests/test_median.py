"""Order statistics against the binomial by hand, the Gaussian in closed form, and coverage."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy import special
from torch import Tensor

from advrad.certify import largest_shift, ordered, ranks, samples_needed
from advrad.errors import UsageError

INF = math.inf


@pytest.mark.parametrize(
    ("sigma", "samples", "one_sided", "two_sided"),
    [
        (0.25, 1000, (173, 828), (170, 831)),
        (0.25, 100, (10, 91), (9, 92)),
        (0.12, 1000, (28, 973), (27, 974)),
        (0.12, 100, (0, 101), (0, 101)),
    ],
)
def test_ranks_of_the_table(
    sigma: float, samples: int, one_sided: tuple[int, int], two_sided: tuple[int, int]
) -> None:
    """Radius 0.2, error 0.001: for one side, and for either of two."""
    assert ranks(samples, 0.2 / sigma, 1e-3) == one_sided
    assert ranks(samples, 0.2 / sigma, 1e-3 / 2) == two_sided


@pytest.mark.parametrize("samples", [1, 2, 7, 10, 25])
@pytest.mark.parametrize("alpha", [0.5, 0.1, 0.01, 0.0009])
def test_ranks_at_radius_0_by_counting_coins(samples: int, alpha: float) -> None:
    """P[Bin(n, 1/2) <= k - 1] as a fraction; the largest k for which it is at most alpha."""
    tails = [
        sum(Fraction(math.comb(samples, j), 2**samples) for j in range(k))
        for k in range(samples + 1)
    ]
    lower = max(k for k in range(samples + 1) if tails[k] <= Fraction(alpha))
    assert ranks(samples, 0.0, alpha) == (lower, samples + 1 - lower)


@pytest.mark.parametrize(("samples", "shift"), [(30, 0.4), (200, 1.3), (1000, 0.0), (1000, 2.4)])
@pytest.mark.parametrize("alpha", [0.05, 1e-3, 5e-6])
def test_a_rank_is_the_last_one_whose_tail_is_at_most_alpha(
    samples: int, shift: float, alpha: float
) -> None:
    """The tail as a regularised incomplete beta function, another route than the sum."""
    share = special.ndtr(-shift)

    def tail(k: int) -> float:  # P[Bin(n, share) <= k - 1]
        return float(special.betainc(samples - k + 1, k, 1 - share)) if k else 0.0

    lower, upper = ranks(samples, shift, alpha)
    assert tail(lower) <= alpha < tail(lower + 1)
    assert lower + upper == samples + 1


@pytest.mark.parametrize(
    ("samples", "alone", "of_200"),
    [(100, 1.50, 1.20), (1000, 2.46, 2.25), (10_000, 3.20, 3.03)],
)
def test_the_largest_shift(samples: int, alone: float, of_200: float) -> None:
    """Phi^-1(alpha^(1/n)) at error 0.001 for one image, and 5e-6 for each of 200."""
    for alpha, expected in ((1e-3, alone), (5e-6, of_200)):
        most = largest_shift(samples, alpha)
        assert most == pytest.approx(special.ndtri(alpha ** (1 / samples)), rel=1e-9)
        assert round(most, 2) == expected
        assert ranks(samples, most * (1 - 1e-9), alpha)[0] == 1
        assert ranks(samples, most * (1 + 1e-9), alpha)[0] == 0
        assert samples_needed(most * (1 - 1e-9), alpha) == samples
        assert samples_needed(most * (1 + 1e-6), alpha) == samples + 1


@pytest.mark.parametrize("rank", [1, 2, 90, 173, 450])
def test_a_rank_serves_up_to_its_largest_shift(rank: int) -> None:
    most = largest_shift(1000, 1e-3, rank)
    assert ranks(1000, most * (1 - 1e-9), 1e-3)[0] == rank
    assert ranks(1000, most * (1 + 1e-9), 1e-3)[0] == rank - 1
    with pytest.raises(UsageError, match="rank 0 of 1000"):
        largest_shift(1000, 1e-3, 0)


def test_too_few_draws_bound_nothing_and_that_is_true() -> None:
    bounds = ordered(torch.arange(9.0)).bounds(0.0, 1e-3)
    assert (float(bounds.lower), float(bounds.upper)) == (-INF, INF)
    assert samples_needed(0.0, 1e-3) == 10  # 2^-10 < 0.001 < 2^-9
    assert samples_needed(7.0, 1e-3) is None
    assert samples_needed(100.0, 1e-3) is None
    ten = ordered(torch.arange(10.0)).bounds(0.0, 1e-3)
    assert (float(ten.lower), float(ten.upper)) == (0.0, 9.0)
    assert largest_shift(9, 1e-3) < 0


@pytest.mark.parametrize("shape", [(), (3,), (2, 4)])
def test_bounds_are_order_statistics_place_by_place(shape: tuple[int, ...]) -> None:
    source = torch.Generator().manual_seed(3)
    draws = torch.randn(100, *shape, generator=source)
    found = ordered(draws)
    bounds = found.bounds(0.8, 1e-3)
    assert bounds.lower.shape == bounds.upper.shape == found.median.shape == shape
    ranked = draws.sort(0).values
    assert torch.equal(bounds.lower, ranked[9])
    assert torch.equal(bounds.upper, ranked[90])
    assert torch.allclose(found.median, torch.quantile(draws, 0.5, dim=0))


def test_bounds_widen_with_the_radius_and_narrow_with_the_draws() -> None:
    draws = torch.randn(4000, generator=torch.Generator().manual_seed(0))
    widths = []
    for shift in (0.0, 0.1, 0.5, 1.0, 2.0, 4.0):
        bounds = ordered(draws).bounds(shift, 1e-3)
        assert bounds.lower <= bounds.upper
        widths.append(float(bounds.upper - bounds.lower))
    assert widths == sorted(widths)
    assert widths[-1] == INF
    of = [ordered(draws[:n]).bounds(0.5, 1e-3) for n in (40, 100, 400, 1000, 4000)]
    narrowing = [float(bounds.upper - bounds.lower) for bounds in of]
    assert narrowing == sorted(narrowing, reverse=True)
    assert narrowing[0] < INF


@pytest.mark.parametrize("radius", [0.0, 0.1, 0.25, 0.5])
def test_a_linear_score_is_bounded_by_its_closed_form(radius: float) -> None:
    """f = w.x: every change within r moves the median by at most r |w|, and the quantiles at
    Phi(+-r / sigma) are those ends exactly. An order statistic of rank k is at Phi^-1(k / n) up
    to the standard error of a quantile, sqrt(q (1 - q) / n) / density."""
    source = torch.Generator().manual_seed(1)
    w, x = (torch.randn(8, generator=source, dtype=torch.float64) for _ in range(2))
    sigma, samples = 0.25, 100_000
    z = torch.randn(samples, 8, generator=source, dtype=torch.float64)
    bounds = ordered((x + sigma * z) @ w).bounds(radius / sigma, 1e-3)
    centre, norm = float(w @ x), float(w.norm())
    exact = centre - radius * norm, centre + radius * norm
    for bound, end, rank in zip(bounds, exact, ranks(samples, radius / sigma, 1e-3), strict=True):
        q = rank / samples
        place = special.ndtri(q)
        density = math.exp(-(place**2) / 2) / math.sqrt(2 * math.pi)
        error = sigma * norm * math.sqrt(q * (1 - q) / samples) / density
        assert abs(float(bound) - centre - sigma * norm * place) < 4 * error
        assert abs(float(bound) - end) < 8 * error
    assert bounds.lower < exact[0] < exact[1] + 1e-12 < bounds.upper + 1e-12


@pytest.mark.parametrize("shift", [0.0, 0.5])
@pytest.mark.parametrize("noisy", [False, True])
def test_each_side_fails_in_no_more_than_alpha_of_2000_repetitions(
    shift: float, noisy: bool
) -> None:
    """f(x + sigma z) = z + e: the moved median is +-shift where the score has no noise of its own;
    with e ~ N(0, 1) too it is the same, since the sum is symmetric about the change, while the
    bound is looser: a change of shift moves the quantile of a wider distribution by less."""
    samples, alpha, times = 120, 0.05, 2000
    source = torch.Generator().manual_seed(7)
    draws = torch.randn(samples, times, generator=source)
    if noisy:
        draws = draws + torch.randn(samples, times, generator=source)
    bounds = ordered(draws).bounds(shift, alpha)
    missed = [int((bounds.lower > -shift).sum()), int((bounds.upper < shift).sum())]
    margin = alpha * times + 3.3 * math.sqrt(times * alpha * (1 - alpha))
    assert max(missed) <= margin
    if not noisy:
        tight = 0.2 * alpha * times  # and it is not by far too wide: a rank further would miss
        assert min(missed) > tight


def test_a_bound_one_rank_too_bold_is_caught_by_coverage() -> None:
    """The planted bug: rank k + 4 in the place of k, which is right for four times the error."""
    samples, alpha, times = 120, 0.05, 2000
    draws = torch.randn(samples, times, generator=torch.Generator().manual_seed(7))
    bold = ordered(draws).low[ranks(samples, 0.5, alpha)[0] - 1 + 4]
    margin = alpha * times + 3.3 * math.sqrt(times * alpha * (1 - alpha))
    assert int((bold > -0.5).sum()) > margin


def test_the_mean_has_no_such_certificate() -> None:
    """The counter-example to a certificate of the mean: 1.01 h with probability 0.7, else 0.

    P[f > h] = 0.7 would claim a mean above h within 0.52 sigma; at radius 0 it is 0.707 h. The
    median is 1.01 h, and is certified.
    """
    h = 2.0
    source = torch.Generator().manual_seed(0)
    z = torch.randn(20_000, generator=source)
    draws = torch.where(z < special.ndtri(0.7), 1.01 * h, 0.0)
    assert float(draws.mean()) == pytest.approx(0.707 * h, rel=0.02)
    bounds = ordered(draws).bounds(0.45, 1e-3)
    assert float(bounds.lower) == pytest.approx(1.01 * h)


@pytest.mark.parametrize("bad", [math.nan, INF, -INF])
def test_a_draw_that_is_not_finite_only_ever_widens(bad: float) -> None:
    draws = torch.arange(100.0)
    spoilt = draws.clone()
    spoilt[[3, 50, 97]] = bad
    found, clean = ordered(spoilt), ordered(draws).bounds(0.3, 1e-3)
    assert int(found.lost) == 3
    bounds = found.bounds(0.3, 1e-3)
    assert float(bounds.lower) <= float(clean.lower)
    assert float(bounds.upper) >= float(clean.upper)
    lower, upper = ranks(100, 0.3, 1e-3)
    rest = np.delete(np.arange(100.0), [3, 50, 97])
    assert float(bounds.lower) == rest[lower - 1 - 3]  # three of them stand below it
    assert float(bounds.upper) == rest[upper - 1]
    assert float(found.median) == np.median(rest)


def test_draws_that_are_never_finite_have_no_median_and_no_bounds() -> None:
    found = ordered(torch.full((50, 2), math.nan))
    assert torch.isnan(found.median).all()
    bounds = found.bounds(0.0, 0.01)
    assert (bounds.lower == -INF).all()
    assert (bounds.upper == INF).all()


@pytest.mark.parametrize("count", range(1, 8))
def test_the_median_of_any_number_of_finite_draws(count: int) -> None:
    draws = torch.full((9,), math.nan)
    values = torch.tensor([5.0, 1.0, 4.0, 2.0, 8.0, 9.0, 3.0])[:count]
    draws[:count] = values
    assert float(ordered(draws).median) == np.median(values.numpy())


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((0, 0.0, 0.1), "0 samples"),
        ((10, -0.1, 0.1), "radius / sigma"),
        ((10, INF, 0.1), "radius / sigma"),
        ((10, 0.0, 0.0), "alpha 0"),
        ((10, 0.0, 1.0), "alpha 1"),
    ],
)
def test_impossible_values_are_told(given: tuple[int, float, float], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        ranks(*given)


@pytest.mark.parametrize("draws", [torch.tensor(1.0), torch.empty(0), torch.empty(0, 3)])
def test_no_draws_are_refused(draws: Tensor) -> None:
    with pytest.raises(ValueError, match="draws of shape"):
        ordered(draws)
