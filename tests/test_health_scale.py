"""What counts as a difference between scores, in closed form."""

import math

import pytest
import torch
from torch import Tensor

from advrad.evaluate.health_scale import ULPS, apart, beaten, rounding, spread, tolerance

OURS = torch.tensor([0.0, 1.0, 0.2, 1.2])
DEFECT = [False, True, False, True]
SIGN = torch.tensor([1.0, -1.0, 1.0, -1.0])


def test_the_spread_is_the_median_difference_of_two() -> None:
    assert spread(torch.tensor([0.0, 1.0, 3.0])) == 2  # of 1, 2 and 3
    assert spread(torch.tensor([5.0])) == spread(torch.tensor([5.0, 5.0])) == 0
    assert spread(torch.tensor([0.0, 1.0, 2.0, 1e6])) < 1e6, "one outlier does not widen it"


@pytest.mark.parametrize(("factor", "offset"), [(-3.0, 0.0), (1e-15, 0.0), (2.0, 64.0)])
def test_a_tolerance_follows_the_unit_and_no_offset(factor: float, offset: float) -> None:
    scores = torch.tensor([0.25, 0.5, 2.0, 4.0], dtype=torch.double)
    moved = tolerance(factor * scores + offset, 0.1)
    assert moved == pytest.approx(abs(factor) * tolerance(scores, 0.1), rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rounding_is_that_of_the_numbers(dtype: torch.dtype) -> None:
    scores = torch.tensor([100.0, -200.0], dtype=dtype)
    assert rounding(scores) == ULPS * 200 * torch.finfo(dtype).eps


def test_the_same_infinity_differs_by_nothing() -> None:
    one = torch.tensor([1.0, math.inf, math.nan])
    assert apart(one, one.clone()) == 0
    assert apart(one[:2], torch.tensor([1.5, math.inf])) == 0.5
    assert apart(one[:2], one[:1].expand(2)) == math.inf


@pytest.mark.parametrize(
    ("gain", "expected"),
    [
        ([0.1, 0.1, 0.1, 0.1], True),
        ([0.1, 0.1, 9.0, 9.0], True),  # each of four is worse, whatever their mean's error
        ([0.1, -0.1, 0.1, -0.1], False),
        ([1.0, 1.0, 1.0, -2.9], False),
        ([1e-3] * 4, False),  # below what counts
        ([-0.1] * 4, False),
    ],
)
def test_who_is_beaten(gain: list[float], expected: bool) -> None:
    theirs = OURS + SIGN * torch.tensor(gain)
    assert beaten(OURS, theirs, DEFECT, 0.01)[0] is expected


def test_two_attacks_of_one_kind_may_differ_by_chance() -> None:
    theirs = OURS + SIGN * torch.tensor([0.1, 0.1, 9.0, 9.0])
    assert not beaten(OURS, theirs, DEFECT, 0.01, unanimous=False)[0]


@pytest.mark.parametrize("places", [[0, 2], [1, 3], [0]])
def test_one_class_has_no_auroc(places: list[int]) -> None:
    ours, defect = OURS[places], [DEFECT[i] for i in places]
    worse, words = beaten(ours, ours + SIGN[places], defect, 0.01)
    assert worse is (len(places) > 1)
    assert "AUROC" not in words


def lost(scores: Tensor, place: int) -> Tensor:
    return scores.index_fill(0, torch.tensor([place]), math.inf)


def test_an_image_without_a_number_is_left_out() -> None:
    assert beaten(lost(OURS, 0), OURS + SIGN, DEFECT, 0.01)[0]
    assert not beaten(lost(OURS, 0), OURS, DEFECT, 0.01)[0]
    assert not beaten(OURS * math.nan, OURS, DEFECT, 0.01)[0]
