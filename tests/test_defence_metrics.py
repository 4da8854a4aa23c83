"""Figures of a table of right and wrong: closed forms of coins, and what must hold for any."""

import math
from collections import Counter
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.stats import binom, binomtest

from advrad import metrics
from advrad.errors import DataError
from advrad.evaluate.defence_metrics import (
    QUANTILE,
    SINGLE,
    Accuracy,
    average,
    figures,
    fixed_autoattack,
    in_percent,
    majority,
    mean_share,
    more_harm,
    one_shot,
    wilson,
    worst,
)

TABLES = arrays.arrays(bool, st.tuples(st.integers(1, 6), st.integers(1, 12)))
SMALL = np.array([[1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 1, 0]])  # three draws of four images


RIGHT = np.ones(4, int)  # their class: a draw that is right answers it


def coins(draws: int, images: int, right: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((draws, images)) < right


def voted(right: np.ndarray) -> Accuracy:
    """The majority vote between the right class and a single other."""
    return majority(right.astype(int), np.ones(right.shape[1], int))


def both(right: np.ndarray) -> dict[str, dict[str, float]]:
    return figures(right.astype(int), np.ones(right.shape[1], int))


def test_a_table_by_hand() -> None:
    assert one_shot(SMALL).value == 2 / 4
    assert average(SMALL).value == pytest.approx((3 + 1 + 2 + 0) / 12)
    assert worst(SMALL).value == 1 / 4
    assert majority(SMALL, RIGHT).value == 2 / 4
    assert fixed_autoattack([SMALL, 1 - SMALL]).value == pytest.approx((0 + 1 + 1 + 0) / 12)


@pytest.mark.parametrize(("right", "draws"), [(0.9, 10), (0.7, 5), (0.97, 20)])
def test_coins_have_the_closed_forms(right: float, draws: int) -> None:
    """An image that is right with chance p: the worst of N has p^N, the majority a binomial."""
    found = coins(draws, 20_000, right)
    expected = {
        one_shot: right,
        average: right,
        worst: right**draws,
        voted: binom.sf(draws // 2, draws, right),
    }
    for figure, share in expected.items():
        error = math.sqrt(share * (1 - share) / 20_000)
        assert figure(found).value == pytest.approx(share, abs=4 * error + 1e-12)


def test_a_tie_is_no_majority() -> None:
    assert majority([[1], [0]], [1]).value == 0
    assert majority([[1], [1], [0]], [1]).value == 1
    assert majority([[2], [2], [1], [1], [0]], [2]).value == 0


def test_the_majority_is_the_class_that_most_draws_answer() -> None:
    """Two of five are enough where the others disagree among themselves, and three may not be."""
    answers = np.array([[2, 0, 1], [2, 0, 1], [0, 0, 0], [1, 2, -1], [3, 2, -1]])
    assert majority(answers, [2, 2, 1]).value == pytest.approx(1 / 3)
    assert figures(answers, [2, 2, 1])["majority"] == majority(answers, [2, 2, 1]).as_dict()
    assert figures(answers, [2, 2, 1])["average"]["value"] == pytest.approx(6 / 15)


def test_the_majority_is_that_of_a_count_by_hand() -> None:
    source = np.random.default_rng(3)
    answers, labels = source.integers(-1, 4, (7, 300)), source.integers(0, 4, 300)
    expected = []
    for column, label in zip(answers.T, labels, strict=True):
        (first, most), *others = Counter(column.tolist()).most_common()
        expected.append(first == label and all(count < most for _, count in others))
    assert 0 < sum(expected) < 300
    assert majority(answers, labels).value == pytest.approx(np.mean(expected))


def test_labels_of_other_images_are_refused() -> None:
    with pytest.raises(DataError, match="expected \\(draws, images\\) and \\(images,\\)"):
        figures([[1, 0]], [1, 0, 1])


def test_fixed_autoattack_of_coins_and_of_the_rule_it_replaces() -> None:
    """p = 0.7, clean and two attacks that do nothing: 20 draws leave the mean of the least of
    three binomial shares, one draw each leaves p^3."""
    shares = np.arange(21) / 20
    below = binom.sf(np.arange(21) - 1, 20, 0.7) ** 3  # all three at least so many
    expected = float((below[1:] * np.diff(shares)).sum())
    found = fixed_autoattack([coins(20, 5000, 0.7, seed) for seed in range(3)])
    assert found.value == pytest.approx(expected, abs=0.005)
    assert expected == pytest.approx(0.61, abs=0.01)
    once = fixed_autoattack([coins(1, 5000, 0.7, seed) for seed in range(3)])
    assert once.value == pytest.approx(0.7**3, abs=0.02)


@given(TABLES)
def test_what_holds_for_any_table(right: np.ndarray) -> None:
    found = {name: both(right)[name] for name in SINGLE}
    assert found["worst"]["value"] <= found["average"]["value"] + 1e-12
    assert found["worst"]["value"] <= found["one_shot"]["value"]
    assert found["worst"]["value"] <= found["majority"]["value"]
    assert average(right).value <= (1 + voted(right).value) / 2 + 1e-12
    for each in found.values():
        assert 0 <= each["low"] <= each["value"] + 1e-12
        assert each["value"] <= each["high"] + 1e-12 <= 1 + 2e-12
    assert fixed_autoattack([right]).value == pytest.approx(average(right).value)
    assert fixed_autoattack([right, ~right]).value <= average(right).value + 1e-12
    assert len({one_shot(right[:1]).value, worst(right[:1]).value}) == 1


@given(TABLES)
def test_one_draw_makes_all_figures_one(right: np.ndarray) -> None:
    found = both(right[:1])
    assert all(found[name] == found["one_shot"] for name in SINGLE), "intervals as well"


@given(TABLES)
def test_more_draws_are_never_better_for_the_worst(right: np.ndarray) -> None:
    values = [worst(right[:n]).value for n in range(1, len(right) + 1)]
    assert values == sorted(values, reverse=True)


def test_counts_have_the_exact_interval() -> None:
    found, exact = one_shot([[1] * 30 + [0] * 10]), metrics.rate(30, 40)
    assert exact is not None
    assert (found.value, found.low, found.high) == (0.75, exact.low, exact.high)


@pytest.mark.parametrize(("share", "count"), [(0.5, 512), (0.03, 40), (0.0, 20), (1.0, 20)])
def test_wilson_solves_its_equation(share: float, count: int) -> None:
    for bound in wilson(share, count):
        if 0 < bound < 1:
            gap, unit = (share - bound) ** 2, bound * (1 - bound) / count
            assert gap == pytest.approx(QUANTILE**2 * unit, rel=1e-9, abs=1e-15)
    reference = binomtest(round(share * count), count).proportion_ci(method="wilson")
    if (share * count).is_integer():
        assert wilson(share, count) == pytest.approx((reference.low, reference.high), abs=1e-9)


def test_the_interval_of_a_mean_holds_the_truth_often_enough() -> None:
    """Images of which each has its own chance of being right, judged by ten draws."""
    source, held = np.random.default_rng(1), 0
    for _ in range(300):
        chances = source.beta(0.5, 0.5, 60)
        found = average(source.random((10, 60)) < chances)
        held += found.low <= 0.5 <= found.high
    assert held / 300 >= 0.94


def test_the_sign_test_has_the_chances_of_coins() -> None:
    ours, theirs = np.ones((1, 6), bool), np.zeros((1, 6), bool)
    assert more_harm(ours, theirs) == pytest.approx(1 / 64)
    assert more_harm(theirs, ours) == 1
    assert more_harm(ours, ours) == 1
    mixed = np.array([[0, 0, 0, 1, 1, 1]])  # worse on three of six, alike on the others
    assert more_harm(ours, mixed) == pytest.approx(1 / 8)
    opposite = np.array([[1, 1, 1, 0, 0, 0]])
    chances = [sum(toss) >= 3 for toss in product((0, 1), repeat=6)]
    assert more_harm(opposite, mixed) == pytest.approx(sum(chances) / len(chances))


@pytest.mark.parametrize("shape", [(4,), (0, 4), (3, 0)])
def test_what_is_no_table_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="expected \\(draws, images\\)"):
        average(np.ones(shape, bool))


def test_tables_of_other_images_are_refused() -> None:
    with pytest.raises(DataError, match="the same images"):
        fixed_autoattack([np.ones((2, 3)), np.ones((2, 4))])
    with pytest.raises(DataError, match="one or more"):
        fixed_autoattack([])


def test_percent() -> None:
    assert in_percent({"value": 0.473, "low": 0.43, "high": 0.516}) == "47.3 (43.0 to 51.6)"
    assert in_percent(None) == "n/a"
    assert mean_share([0.0, 1.0, 0.5]).value == 0.5
