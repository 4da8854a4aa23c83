"""Ranks by hand, refusals with the number they ask for, and false alarms counted."""

import json
import math

import numpy as np
import pytest

from advrad.calibrate import NG, OK, UNSURE, Calibration, calibrate, conformal, exact, needed
from advrad.errors import ModelError, UsageError


def scores(count: int) -> np.ndarray:
    """1, 2, ..., n in some order, so that the k-th smallest is k."""
    return np.random.default_rng(count).permutation(np.arange(1, count + 1)).astype(np.float32)


def above(rank: int) -> float:
    return float(np.nextafter(np.float32(rank), np.float32(np.inf)))


@pytest.mark.parametrize(
    ("count", "level", "rank"),
    [
        (19, 0.05, 19),
        (20, 0.05, 20),
        (38, 0.05, 38),
        (39, 0.05, 38),
        (99, 0.05, 95),
        (100, 0.05, 96),
        (99, 0.01, 99),
        (9, 0.1, 9),
        (9, 0.3, 7),
        (9, 0.7, 3),
        (1, 0.5, 1),
        (8, 1 / 9, 8),
        (6, 1 / 7, 6),
        (99, 0.07, 93),
        (99, 0.999, 1),
    ],
)
def test_the_threshold_lies_just_above_the_score_of_rank_k(
    count: int, level: float, rank: int
) -> None:
    """k = ceil((n + 1)(1 - level)); in floating point, 100 * (1 - 0.07) exceeds 93."""
    got = calibrate(scores(count), level, unsure_level=level)
    assert got.threshold == got.unsure == above(rank)
    assert got.threshold > rank
    assert np.float32(got.threshold) == got.threshold


@pytest.mark.parametrize("count", range(1, 60))
def test_n_images_hold_one_in_n_plus_1_and_no_less(count: int) -> None:
    assert calibrate(scores(count), 1 / (count + 1)).threshold == above(count)
    assert needed(1 / (count + 1)) == count
    with pytest.raises(UsageError, match=f"at least {count + 1} held-out.*there are {count}"):
        calibrate(scores(count), 1 / (count + 2))


def test_a_level_that_18_images_cannot_hold_asks_for_19() -> None:
    with pytest.raises(UsageError, match=r"0\.05 needs at least 19 .*are 18.*0\.0526") as caught:
        calibrate(scores(18), 0.05)
    assert caught.value.exit_code == 2
    assert calibrate(scores(19), 0.05).threshold == above(19)


@pytest.mark.parametrize(
    ("count", "level"), [(1, 1 / 2), (8, 1 / 9), (18, 1 / 19), (19, 0.05), (20, 0.05), (500, 0.05)]
)
def test_the_default_level_is_5_percent_or_what_the_images_hold(count: int, level: float) -> None:
    got = calibrate(scores(count))
    assert got.level == level
    assert got.threshold == above(math.ceil((count + 1) * (1 - exact(level))))
    assert got.count == count


def test_the_default_level_of_unsure_is_twice_that_of_ng() -> None:
    got = calibrate(scores(99), 0.05)
    assert got.unsure_level == pytest.approx(0.1)
    assert got.unsure == above(90)
    assert calibrate(scores(1)).unsure_level == 0.75


def test_a_level_of_unsure_below_that_of_ng_is_refused() -> None:
    with pytest.raises(UsageError, match=r"UNSURE, 0\.01, is below that of NG, 0\.05"):
        calibrate(scores(99), 0.05, 0.01)


@pytest.mark.parametrize("level", [0.0, 1.0, -0.1, 1.5, math.nan])
def test_levels_outside_0_and_1_are_refused(level: float) -> None:
    with pytest.raises(UsageError, match="between 0 and 1"):
        calibrate(scores(99), level, unsure_level=1.9)


@pytest.mark.parametrize("bad", [[], [1.0, math.nan], [math.inf]])
def test_scores_must_be_there_and_finite(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="at least one, all finite"):
        calibrate(bad)


def test_at_the_threshold_is_ng_and_just_below_is_not() -> None:
    got = calibrate(scores(99), 0.05, 0.1)
    assert got.verdict(got.threshold) == NG
    assert got.verdict(float(np.nextafter(np.float32(got.threshold), np.float32(0)))) == UNSURE
    assert got.verdict(95.0) == UNSURE  # the k-th score itself was not an alarm
    assert got.verdict(got.unsure) == UNSURE
    assert got.verdict(90.0) == OK
    assert got.verdict(-1e9) == OK
    for score in (math.nan, math.inf, -math.inf):
        assert got.verdict(score) == UNSURE


def false_alarms(count: int, level: float, ties: bool) -> float:
    """The share of new good images called NG, over many calibrations."""
    source = np.random.default_rng(1)
    alarms = 0
    for _ in range(4000):
        drawn = source.exponential(size=count + 1).astype(np.float32)
        drawn = np.round(drawn) if ties else drawn
        alarms += conformal(np.sort(drawn[:-1]), level) <= drawn[-1]
    return alarms / 4000


@pytest.mark.parametrize(("count", "level"), [(19, 0.05), (8, 1 / 9), (25, 0.2), (60, 0.1)])
def test_no_more_good_images_are_called_ng_than_promised(count: int, level: float) -> None:
    """Without ties the share is exactly (n + 1 - k) / (n + 1)."""
    rank = math.ceil((count + 1) * (1 - exact(level)))
    expected = (count + 1 - rank) / (count + 1)
    error = math.sqrt(expected * (1 - expected) / 4000)
    assert expected <= level + 1e-12
    assert false_alarms(count, level, ties=False) == pytest.approx(expected, abs=4 * error)
    assert false_alarms(count, level, ties=True) <= level + 4 * error


def test_the_images_of_the_calibration_are_called_ng_as_seldom() -> None:
    values = np.random.default_rng(0).normal(size=200).astype(np.float32)
    got = calibrate(values, 0.1)
    assert sum(got.verdict(float(v)) == NG for v in values) == 200 - math.ceil(201 * 0.9)


def test_it_comes_back_from_json() -> None:
    got = calibrate(scores(30) / 7, 0.06, approximate=True)
    assert Calibration.from_dict(json.loads(json.dumps(got.as_dict()))) == got


@pytest.mark.parametrize("change", [{"scores": None}, {"more": 1}])
def test_a_file_that_holds_no_calibration_is_refused(change: dict) -> None:
    values = calibrate(scores(30)).as_dict() | change
    with pytest.raises(ModelError, match=r"calibration\.json"):
        Calibration.from_dict(values)
    values = calibrate(scores(30)).as_dict()
    del values["threshold"]
    with pytest.raises(ModelError, match=r"calibration\.json"):
        Calibration.from_dict(values)


def test_the_promise_is_put_in_words() -> None:
    small = calibrate(scores(8)).sentence()
    assert small.startswith("At most 11.1% of good images are called NG, by 8 held-out")
    assert "more held-out good images would allow a lower bound" in small
    large = calibrate(scores(40)).sentence()
    assert large == "At most 5.0% of good images are called NG, by 40 held-out good images."
    assert "approximate" in calibrate(scores(40), approximate=True).sentence()
    assert "At most" not in calibrate(scores(40), approximate=True).sentence()
