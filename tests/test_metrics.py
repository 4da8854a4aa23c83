"""Rankings against exact pair counting, closed cases, and simulated coverage."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from advrad import metrics
from advrad.errors import DataError
from advrad.metrics import (
    auroc,
    average_precision,
    f1_max,
    false_alarm_rate,
    interval,
    miss_rate,
    roc_band,
    roc_curve,
)


def pairs(scores: NDArray, labels: NDArray) -> float:
    """AUROC by its definition: every pair is looked at."""
    gap = scores[labels][:, None] - scores[~labels]
    return float(((gap > 0) + (gap == 0) / 2).mean())


def precision_by_definition(scores: NDArray, labels: NDArray) -> float:
    total, before = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        marked = scores >= threshold
        recall = (marked & labels).sum() / labels.sum()
        total += (recall - before) * (marked & labels).sum() / marked.sum()
        before = recall
    return total


def f1_by_definition(scores: NDArray, labels: NDArray) -> tuple[float, float]:
    def f1(threshold: float) -> float:
        marked = scores >= threshold
        return 2 * (marked & labels).sum() / (marked.sum() + labels.sum())

    best = max(sorted(set(scores), reverse=True), key=f1)
    return f1(best), best


def random_case(seed: int) -> tuple[NDArray, NDArray]:
    """A few to sixty images, from no tie at all to little but ties, some below zero."""
    source = np.random.default_rng(seed)
    size = int(source.integers(2, 60))
    labels = source.random(size) < source.uniform(0.1, 0.9)
    labels[:2] = (True, False)
    scores = source.normal(labels * source.uniform(0, 2), 1)
    return np.round(scores, int(source.integers(0, 4))), labels


@pytest.mark.parametrize("seed", range(60))
def test_rankings_equal_their_definitions(seed: int) -> None:
    scores, labels = random_case(seed)
    assert auroc(scores, labels) == pytest.approx(pairs(scores, labels), abs=1e-14)
    expected = precision_by_definition(scores, labels)
    assert average_precision(scores, labels) == pytest.approx(expected, abs=1e-14)
    best = f1_max(scores, labels)
    assert best is not None
    value, threshold = f1_by_definition(scores, labels)
    assert best.value == pytest.approx(value, abs=1e-14)
    assert best.threshold == pytest.approx(threshold)


def test_auroc_is_exact_on_a_million_images() -> None:
    """Half of 10^12 ties: counted in whole numbers, so nothing is lost."""
    scores = np.zeros(1_000_000)
    scores[0] = 1
    labels = np.arange(1_000_000) % 2 == 0
    assert auroc(scores, labels) == 0.5 + 0.5 / 500_000


@pytest.mark.parametrize("seed", range(10))
def test_auroc_invariants(seed: int) -> None:
    scores, labels = random_case(seed)
    value = auroc(scores, labels)
    assert value is not None
    assert auroc(np.exp(scores), labels) == value
    assert auroc(-scores, labels) == pytest.approx(1 - value)
    assert auroc(scores, ~labels) == pytest.approx(1 - value)
    shuffled = np.random.default_rng(seed).permutation(len(scores))
    assert auroc(scores[shuffled], labels[shuffled]) == value


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_tensors_with_gradients_and_lists_are_the_same(dtype: torch.dtype) -> None:
    scores = torch.tensor([0.5, 1.5, 1.5, 3.0], dtype=dtype, requires_grad=True)
    labels = torch.tensor([False, False, True, True])
    assert auroc(scores, labels) == auroc([0.5, 1.5, 1.5, 3.0], [0, 0, 1, 1]) == 0.875


@pytest.mark.parametrize("labels", [[True] * 3, [False] * 3])
def test_one_class_alone_has_no_figure(labels: list[bool]) -> None:
    scores = [1.0, 2.0, 3.0]
    assert auroc(scores, labels) is None
    assert average_precision(scores, labels) is None
    assert f1_max(scores, labels) is None
    assert roc_curve(scores, labels) is None
    assert roc_band(scores, labels, np.linspace(0, 1, 3)) is None
    assert interval(auroc, scores, labels) is None
    assert (miss_rate(scores, labels, 2.0) is None) is (not labels[0])
    assert (false_alarm_rate(scores, labels, 2.0) is None) is labels[0]


@pytest.mark.parametrize(
    ("scores", "labels", "words"),
    [
        ([1.0, float("nan"), float("inf")], [0, 1, 1], "2 of 3 scores"),
        ([1.0, 2.0], [0, 1, 1], r"\(2,\).*\(3,\)"),
        ([[1.0], [2.0]], [[0], [1]], "one score and one label"),
        ([1.0, 2.0], [0, 2], "true .defect. or false"),
    ],
)
def test_what_cannot_be_ranked_is_refused(scores: list, labels: list, words: str) -> None:
    with pytest.raises(DataError, match=words):
        auroc(scores, labels)


def test_roc_curve_of_a_closed_case() -> None:
    curve = roc_curve([3.0, 2.0, 2.0, 1.0], [1, 1, 0, 0])
    assert curve is not None
    assert curve.false_alarm.tolist() == [0, 0, 0.5, 1]
    assert curve.detection.tolist() == [0, 0.5, 1, 1]
    assert curve.threshold.tolist() == [np.inf, 3, 2, 1]


@pytest.mark.parametrize("seed", range(20))
def test_area_under_the_roc_curve_is_the_auroc(seed: int) -> None:
    scores, labels = random_case(seed)
    curve = roc_curve(scores, labels)
    assert curve is not None
    area = np.trapezoid(curve.detection, curve.false_alarm)
    assert area == pytest.approx(auroc(scores, labels))


def test_a_score_on_the_threshold_is_ng() -> None:
    scores, labels = [1.0, 2.0, 2.0, 3.0], [0, 0, 1, 1]
    missed, alarmed = miss_rate(scores, labels, 2.0), false_alarm_rate(scores, labels, 2.0)
    assert missed is not None
    assert alarmed is not None
    assert (missed.hits, missed.total, missed.value) == (0, 2, 0.0)
    assert (alarmed.hits, alarmed.total, alarmed.value) == (1, 2, 0.5)
    above = false_alarm_rate(scores, labels, np.nextafter(2.0, 3.0))
    assert above is not None
    assert above.hits == 0
    with pytest.raises(DataError, match="threshold"):
        miss_rate(scores, labels, float("nan"))


def test_exact_rates_have_the_textbook_limits() -> None:
    none, some, every = metrics.rate(0, 10), metrics.rate(4, 20), metrics.rate(10, 10)
    assert none is not None
    assert some is not None
    assert every is not None
    assert (none.low, none.high) == pytest.approx((0, 1 - 0.025**0.1))
    assert (every.low, every.high) == pytest.approx((0.025**0.1, 1))
    assert (some.low, some.high) == pytest.approx((0.0573340, 0.4366140), abs=1e-6)


def unlisted(metric: Callable) -> Callable:
    """The same figure under a name that has no vectorised form."""
    return lambda scores, labels: metric(scores, labels)


@pytest.mark.parametrize("metric", [auroc, average_precision])
@pytest.mark.parametrize("seed", range(5))
def test_the_vectorised_bootstrap_equals_the_loop(metric: Callable, seed: int) -> None:
    scores, labels = random_case(100 + seed)
    quick = interval(metric, scores, labels, resamples=50, seed=seed)
    assert quick == pytest.approx(interval(unlisted(metric), scores, labels, 50, seed))


def test_the_bootstrap_does_not_depend_on_how_much_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, labels = random_case(7)
    whole = interval(auroc, scores, labels)
    monkeypatch.setattr(metrics, "CELLS", 100)
    assert interval(auroc, scores, labels) == whole
    assert interval(auroc, scores, labels, seed=1) != whole


def test_resamples_keep_the_size_of_each_class(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = set()

    def spy(scores: NDArray, labels: NDArray) -> float:
        sizes.add((len(labels), int(labels.sum())))
        return 0.5

    interval(spy, np.arange(9.0), np.arange(9) < 2, resamples=30)
    assert sizes == {(9, 2)}


def test_perfect_order_is_no_certainty() -> None:
    """Six good images and seventeen defects: every A above .025^(1/6) is possible."""
    scores, labels = np.arange(23.0), np.arange(23) >= 6
    assert interval(auroc, scores, labels) == (pytest.approx(0.025 ** (1 / 6)), 1.0)
    assert interval(auroc, -scores, labels) == (0.0, pytest.approx(1 - 0.025 ** (1 / 6)))
    low, high = interval(average_precision, scores, labels) or (0, 0)
    assert (low, high) == (1, 1)


def test_intervals_cover_the_truth() -> None:
    """AUROC of two unit normals one apart is Phi(1 / sqrt 2) = 0.7602; 95 % of 300 +- 4 sd."""
    source, covered = np.random.default_rng(0), 0
    labels = np.arange(90) < 40
    for trial in range(300):
        scores = source.normal(labels, 1)
        low, high = interval(auroc, scores, labels, resamples=300, seed=trial) or (1, 0)
        covered += low <= 0.7602499 <= high
    assert 0.95 - 4 * 0.0126 <= covered / 300 <= 0.99


def test_roc_band_holds_the_curve_and_is_exact_without_spread() -> None:
    grid = np.array([0.0, 0.5, 1.0])
    band = roc_band([3.0, 2.0, 1.0, 0.0], [1, 1, 0, 0], grid, resamples=20)
    assert band is not None
    assert band[0].tolist() == band[1].tolist() == [1, 1, 1]
    source = np.random.default_rng(1)
    labels = np.arange(200) < 100
    scores = source.normal(labels, 1)
    grid = np.linspace(0, 1, 21)
    low, high = roc_band(scores, labels, grid, resamples=200) or (grid, grid)
    curve = roc_curve(scores, labels)
    assert curve is not None
    reached = np.searchsorted(curve.false_alarm, grid, "right") - 1
    assert (low <= curve.detection[reached]).all()
    assert (curve.detection[reached] <= high).all()
    assert low[-1] == high[-1] == 1
    assert (high - low)[10] > 0.02


def swapped(values: NDArray, defect: NDArray) -> float:
    return pairs(values, ~defect)


def no_ties(values: NDArray, defect: NDArray) -> float:
    return float((values[defect][:, None] > values[~defect]).mean())


def half_more(values: NDArray, defect: NDArray) -> float:
    return float((values[defect][:, None] >= values[~defect]).mean())


@pytest.mark.parametrize("bug", [swapped, no_ties, half_more])
def test_the_oracle_would_catch_a_planted_bug(bug: Callable) -> None:
    cases = [random_case(seed) for seed in range(20)]
    assert any(abs(bug(*case) - pairs(*case)) > 1e-6 for case in cases)


def test_bad_resamples_are_refused() -> None:
    with pytest.raises(DataError, match="at least 1"):
        interval(average_precision, [1.0, 2.0, 3.0, 1.0], [0, 1, 0, 1], resamples=0)


def test_each_group_is_resampled_from_a_source_of_its_own() -> None:
    """With one source for both, equal sizes would move together and the interval would lie."""
    good, bad = next(metrics.draws([50, 50], 20, seed=0))
    assert abs(np.corrcoef(good.ravel(), bad.ravel())[0, 1]) < 0.15
