"""Certified AUROC: pairs by hand, the sweep of thresholds, sklearn's AUROC of the worst scores."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from advrad import metrics
from advrad.certify import certified_auroc, swept_auroc, worst

INF = math.inf
bounds = st.lists(st.sampled_from([-INF, -1.0, 0.0, 0.5, 1.0, 2.0, INF]), min_size=1, max_size=12)


def by_pairs(lower: list[float], upper: list[float]) -> float:
    pairs = [(low, high) for low in lower for high in upper]
    return sum((low > high) + (low == high) / 2 for low, high in pairs) / len(pairs)


@given(lower=bounds, upper=bounds)
def test_it_counts_pairs_and_equals_the_sweep_and_the_auroc_of_the_worst_scores(
    lower: list[float], upper: list[float]
) -> None:
    expected = by_pairs(lower, upper)
    assert certified_auroc(lower, upper) == pytest.approx(expected, abs=1e-12)
    assert swept_auroc(lower, upper) == pytest.approx(expected, abs=1e-12)
    defect = np.array([True] * len(lower) + [False] * len(upper))
    scores = worst([*lower, *upper], [*lower, *upper], defect)
    assert metrics.auroc(scores, defect) == pytest.approx(expected, abs=1e-12)


def test_infinite_bounds_are_worth_nothing() -> None:
    assert certified_auroc([-INF, -INF], [0.0, 1.0]) == 0.0
    assert certified_auroc([5.0], [INF]) == 0.0
    assert certified_auroc([1.0, 3.0], [2.0, 0.0]) == 0.75


def test_the_worst_scores_take_one_side_of_each_image() -> None:
    found = worst([1.0, 9.0, -INF], [5.0, 6.0, INF], [True, False, True])
    assert found.tolist() == [1.0, 2.0, 0.0]


def test_no_defects_or_no_good_ones_give_no_figure() -> None:
    assert certified_auroc([], [1.0]) is None
    assert swept_auroc([1.0], []) is None


def test_a_bound_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="nan"):
        certified_auroc([math.nan], [1.0])
