"""Votes against Clopper and Pearson, against the median's bounds, and over repetitions."""

import math

import pytest
import torch
from scipy import special, stats

from advrad.certify import ABSTAIN, certify, ordered, predict, ranks, settled, side
from advrad.certify.vote import least_share, votes, votes_needed
from advrad.errors import UsageError


@pytest.mark.parametrize(("count", "samples"), [(1, 10), (7, 10), (10, 10), (990, 1000), (0, 5)])
@pytest.mark.parametrize("alpha", [0.05, 1e-3])
def test_the_least_share_is_clopper_and_pearson_s(count: int, samples: int, alpha: float) -> None:
    interval = stats.binomtest(count, samples).proportion_ci(1 - 2 * alpha, method="exact")
    assert least_share(count, samples, alpha) == pytest.approx(interval.low, abs=1e-12)


def test_all_votes_for_one_give_alpha_to_the_1_over_n() -> None:
    """The share p with p^n = alpha; the largest radius that n votes can certify."""
    vote = certify(torch.tensor([0, 9]), torch.tensor([0, 1000]), 0.25, 1e-3)
    assert vote.label == 1
    assert vote.radius == pytest.approx(0.25 * special.ndtri(1e-3 ** (1 / 1000)))


def test_the_class_is_chosen_by_its_own_draws() -> None:
    """The draws that measure may not choose: here they are for another class."""
    assert certify(torch.tensor([5, 3]), torch.tensor([1, 99]), 1.0, 1e-3).label == ABSTAIN
    assert certify(torch.tensor([3, 5]), torch.tensor([1, 99]), 1.0, 1e-3).label == 1
    assert certify(torch.tensor([3, 5]), torch.tensor([50, 50]), 1.0, 1e-3).label == ABSTAIN


def test_lost_draws_count_against_the_class_that_is_certified() -> None:
    """40 % say 0, 1 % say 1 and the rest says nothing: there is no majority to certify."""
    labels = torch.tensor([0] * 400 + [1] * 10 + [-1] * 590)
    counted = votes(labels, 2)
    assert certify(counted, counted, 1.0, 1e-3).label == 0  # as if 410 had been drawn
    assert certify(counted, counted, 1.0, 1e-3, samples=1000).label == ABSTAIN
    most = votes(torch.tensor([0] * 900 + [-1] * 100), 2)
    found = certify(most, most, 1.0, 1e-3, samples=1000)
    assert found.radius == pytest.approx(special.ndtri(least_share(900, 1000, 1e-3)))
    with pytest.raises(UsageError, match="410 votes of 400 draws"):
        certify(counted, counted, 1.0, 1e-3, samples=400)


def test_a_majority_is_predicted_where_the_two_first_differ_enough() -> None:
    assert predict(torch.tensor([90, 10, 0]), 1e-3) == 0
    assert predict(torch.tensor([5, 55, 45]), 1e-3) == ABSTAIN
    assert predict(torch.tensor([0, 0]), 0.05) == ABSTAIN
    assert predict(torch.tensor([0, 5]), 0.07) == 1  # 2 / 2^5 = 0.0625
    assert predict(torch.tensor([0, 5]), 0.06) == ABSTAIN
    assert predict(torch.tensor([10]), 1e-2) == 0


def test_lost_draws_can_only_make_a_prediction_abstain() -> None:
    counted = torch.tensor([20, 1, 0])
    assert predict(counted, 1e-3) == predict(counted, 1e-3, lost=1) == 0
    assert predict(counted, 1e-3, lost=10) == predict(counted, 1e-3, lost=99) == ABSTAIN


@pytest.mark.parametrize("samples", [50, 1000])
@pytest.mark.parametrize("shift", [0.0, 0.3, 0.8, 1.7])
def test_a_side_says_what_the_bounds_of_the_median_say(samples: int, shift: float) -> None:
    """L >= threshold, U < threshold, and the radius, for every count of draws above."""
    alpha = 1e-3
    for above in range(samples + 1):
        draws = torch.tensor([0.0] * (samples - above) + [1.0] * above)
        bounds = ordered(draws).bounds(shift, alpha / 2)
        vote = side(above, samples - above, samples, 0.5, alpha)
        holds = vote.radius / 0.5 >= shift and vote.label != ABSTAIN
        assert (float(bounds.lower) >= 0.5) == (holds and vote.label == 1)
        assert (float(bounds.upper) < 0.5) == (holds and vote.label == 0)


def test_draws_that_are_lost_count_for_neither_side() -> None:
    assert side(600, 0, 1000, 1.0, 1e-3).label == 1
    assert side(500, 0, 1000, 1.0, 1e-3).label == ABSTAIN
    assert side(0, 600, 1000, 1.0, 1e-3).radius == side(600, 0, 1000, 1.0, 1e-3).radius


@pytest.mark.parametrize(("samples", "shift"), [(20, 0.0), (20, 0.5), (100, 1.0), (100, 2.5)])
def test_votes_needed_is_where_the_share_suffices(samples: int, shift: float) -> None:
    least = votes_needed(samples, shift, 0.01)
    enough = [least_share(k, samples, 0.01) >= special.ndtr(shift) for k in range(samples + 1)]
    assert enough == [k >= least for k in range(samples + 1)]


@pytest.mark.parametrize("shift", [0.0, 0.6])
def test_what_is_settled_is_what_all_draws_would_have_said(shift: float) -> None:
    """Every way to stop early, against every way to go on: none changes the answer."""
    samples, alpha = 24, 0.05
    for above in range(samples + 1):
        for below in range(samples + 1 - above):
            left = samples - above - below
            ends = set()
            for more in range(left + 1):
                vote = side(above + more, below + left - more, samples, 1.0, alpha)
                holds = vote.label != ABSTAIN and vote.radius >= shift
                ends.add(vote.label if holds else ABSTAIN)
            early = settled(above, below, samples, shift, alpha)
            if early is not None:
                assert ends == {early}
            elif left == 0:
                pytest.fail("all draws are in and nothing is said")
            else:
                assert len(ends) > 1


def test_a_vote_is_wrong_in_no_more_than_alpha_of_2000_repetitions() -> None:
    """Share 1/2 exactly, where any statement with a positive radius is wrong."""
    samples, alpha, times = 200, 0.05, 2000
    counts = torch.distributions.Binomial(samples, torch.tensor(0.5))
    torch.manual_seed(5)
    found = [side(int(k), samples - int(k), samples, 1.0, alpha) for k in counts.sample((times,))]
    wrong = sum(vote.label != ABSTAIN for vote in found)
    assert wrong <= alpha * times + 3.3 * math.sqrt(times * alpha * (1 - alpha))
    assert wrong > 0.2 * alpha * times


def test_votes_are_counted_by_class() -> None:
    assert votes(torch.tensor([2, 0, 2, -1, 2]), 4).tolist() == [1, 0, 3, 0]


def test_ranks_and_votes_mirror_each_other() -> None:
    """L >= h needs as many votes as draws remain from the lower rank on."""
    for shift in (0.0, 0.5, 1.5):
        lower, _ = ranks(300, shift, 1e-3)
        assert votes_needed(300, shift, 1e-3) == 300 - lower + 1


@pytest.mark.parametrize(
    ("given", "words"),
    [((5, 4, 0.1), "5 of 4"), ((-1, 4, 0.1), "-1 of 4"), ((0, 0, 0.1), "0 of 0"),
     ((1, 4, 0.0), "alpha 0"), ((1, 4, 1.5), "alpha 1.5")],
)  # fmt: skip
def test_impossible_counts_are_told(given: tuple[int, int, float], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        least_share(*given)
