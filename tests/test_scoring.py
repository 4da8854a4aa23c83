"""The error map against sums by hand, and the paper's score to the letter."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from advrad import scoring
from advrad.scoring import mean_filter, multiscale_error, scale_error, window

GAP = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
NOTHING = torch.zeros_like(GAP)


def shrink(length: int, scale: int) -> NDArray:
    """The matrix of an antialiased linear reduction: a triangle as wide as two new pixels."""
    old, new = np.arange(length) + 0.5, (np.arange(length // scale) + 0.5) * scale
    weight = np.maximum(0, 1 - np.abs(old - new[:, None]) / scale)
    return weight / weight.sum(1, keepdims=True)


def grow(length: int, scale: int) -> NDArray:
    """The matrix of a linear enlargement between pixel centres, constant beyond the outer ones."""
    places = (np.arange(length) + 0.5) / scale - 0.5
    old = np.arange(length // scale)
    return np.stack([np.interp(places, old, row) for row in np.eye(len(old))], 1)


def by_hand(gap: Tensor, scale: int) -> NDArray:
    down, up = shrink(gap.shape[-1], scale), grow(gap.shape[-1], scale)
    small = down @ gap.double().numpy() @ down.T
    return up @ np.square(small).mean(1) @ up.T


@pytest.mark.parametrize(
    ("size", "side"), [(256, 21), (128, 11), (64, 5), (32, 3), (512, 43), (192, 15), (8, 1)]
)
def test_the_window_is_the_odd_number_nearest_to_21_in_256(size: int, side: int) -> None:
    assert window(size) == side
    assert window(size) % 2 == 1
    assert abs(window(size) - 21 * size / 256) <= 1


@pytest.mark.parametrize("scale", [1, 2, 4, 8])
def test_the_error_at_a_scale_is_that_by_hand(scale: int) -> None:
    """Reduced, squared, averaged over channels, and brought back to the image's size."""
    got = scale_error(GAP, scale)
    assert got.shape == (2, 16, 16)
    np.testing.assert_allclose(got.numpy(), by_hand(GAP, scale), rtol=1e-4, atol=1e-6)


def test_the_multiscale_error_is_the_mean_of_its_four_scales() -> None:
    expected = np.mean([by_hand(GAP, scale) for scale in (1, 2, 4, 8)], 0)
    got = multiscale_error(GAP, NOTHING)
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-4, atol=1e-6)


def test_only_the_difference_counts() -> None:
    x = torch.rand(2, 3, 16, 16)
    got = multiscale_error(x, x - GAP)
    torch.testing.assert_close(got, multiscale_error(GAP, NOTHING), rtol=1e-4, atol=1e-5)
    assert not multiscale_error(x, x).any()
    torch.testing.assert_close(multiscale_error(NOTHING, GAP), multiscale_error(GAP, NOTHING))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_constant_gap_costs_its_square_at_every_scale(channels: int) -> None:
    gap = torch.full((1, channels, 16, 16), 0.5)
    got = multiscale_error(gap, torch.zeros_like(gap))
    torch.testing.assert_close(got, torch.full((1, 16, 16), 0.25))


def test_channels_are_averaged_not_summed() -> None:
    gap = torch.zeros(1, 3, 16, 16)
    gap[:, 1] = 3
    torch.testing.assert_close(
        multiscale_error(gap, torch.zeros_like(gap)), torch.full((1, 16, 16), 3.0)
    )


def test_an_image_is_scored_without_its_batch_mates() -> None:
    together, alone = multiscale_error(GAP, NOTHING), multiscale_error(GAP[1:], NOTHING[1:])
    assert torch.equal(together[1:], alone)


def test_the_mean_filter_averages_a_square() -> None:
    """One pixel of 9 becomes a square of ones of side 3; a sum would make it 9s."""
    error = torch.zeros(1, 7, 7)
    error[0, 3, 2] = 9
    expected = torch.zeros(1, 7, 7)
    expected[0, 2:5, 1:4] = 1
    torch.testing.assert_close(mean_filter(error, 3), expected)


def test_the_mean_filter_sees_zeros_outside() -> None:
    got = mean_filter(torch.ones(1, 9, 9), 5)[0]
    assert got[4, 4].item() == pytest.approx(1)
    assert got[0, 4].item() == pytest.approx(3 / 5)
    assert got[0, 0].item() == pytest.approx(9 / 25)


def test_a_window_of_1_changes_nothing() -> None:
    error = torch.rand(2, 5, 5)
    assert torch.equal(mean_filter(error, 1), error)


@pytest.mark.parametrize("side", [0, 2, 20])
def test_a_window_of_even_side_is_refused(side: int) -> None:
    with pytest.raises(ValueError, match=f"side {side}: expected an odd"):
        mean_filter(torch.rand(1, 30, 30), side)


# --- the paper's score ---

PAPER = scoring.SCORES["paper"]
TYPICAL = torch.full((1, 4, 4), 0.5)
SPREAD = torch.full((1, 4, 4), 0.1)


def judge(error: Tensor) -> tuple[Tensor, Tensor]:
    """Errors (B, H, W) against a typical one of 0.5."""
    return PAPER.judge(error[:, None], TYPICAL, SPREAD)


def test_the_paper_looks_at_the_filtered_multiscale_error() -> None:
    gap = torch.randn(2, 3, 64, 64)
    expected = mean_filter(multiscale_error(gap, torch.zeros_like(gap)), 5)
    torch.testing.assert_close(PAPER.views(gap)[:, 0], expected)


def test_the_paper_s_score_is_the_largest_deviation() -> None:
    error = torch.full((2, 4, 4), 0.5)
    error[0, 1, 2], error[0, 3, 3] = 0.7, 0.6
    score, where = judge(error)
    torch.testing.assert_close(score, torch.tensor([0.2, 0.0]))
    expected = torch.zeros(2, 4, 4)
    expected[0, 1, 2], expected[0, 3, 3] = 0.2, 0.1
    torch.testing.assert_close(where, expected)


def test_an_unusually_low_error_raises_the_paper_s_score() -> None:
    error = torch.full((1, 4, 4), 0.5)
    error[0, 0, 0], error[0, 1, 1] = 0.1, 0.8
    score, where = judge(error)
    assert score.item() == pytest.approx(0.4)
    assert where[0, 0, 0].item() == pytest.approx(0.4)


def test_the_paper_s_score_does_not_know_the_spread() -> None:
    error = torch.rand(2, 1, 4, 4)
    for one, other in zip(
        PAPER.judge(error, TYPICAL, SPREAD), PAPER.judge(error, TYPICAL, 7 * SPREAD), strict=True
    ):
        assert torch.equal(one, other)


def test_gradients_reach_the_gap() -> None:
    gap = torch.randn(1, 3, 16, 16).requires_grad_()
    views = PAPER.views(gap)
    PAPER.judge(views, torch.zeros(1, 16, 16), SPREAD.new_ones(1, 16, 16))[0].sum().backward()
    assert gap.grad is not None
    assert gap.grad.abs().sum() > 0
