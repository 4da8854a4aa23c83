"""The error map against sums by hand, and the paper's score to the letter."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from advrad import scoring
from advrad.scoring import aggregate, mean_filter, multiscale_error, scale_error, window

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

PAPER, DEVIATION, SIGNED = (scoring.SCORES[name] for name in ("paper", "deviation", "signed"))
TYPICAL = torch.full((1, 4, 4), 0.5)
SPREAD = torch.full((1, 4, 4), 0.1)


def test_the_scores_are_these() -> None:
    """A new score comes with tests of its own: add its name here."""
    assert set(scoring.SCORES) == {"paper", "deviation", "coarse", "signed"}


def test_the_coarse_view_leaves_the_finest_scale_out() -> None:
    gap = torch.rand(2, 3, 16, 16) - 0.5
    side = scoring.window(16)
    coarse, all_of_it = (scoring.SCORES[name].views(gap) for name in ("coarse", "deviation"))
    finest = mean_filter(gap.square().mean(1), side)[:, None]
    torch.testing.assert_close(4 * all_of_it, 3 * coarse + finest)
    assert scoring.SCORES["coarse"].judge is scoring.SCORES["deviation"].judge
    level = torch.full((1, 1, 16, 16), 0.5)
    middle = scoring.SCORES["coarse"].views(level)[..., 8, 8]
    assert float(middle) == pytest.approx(0.25)


def judge(error: Tensor) -> tuple[Tensor, Tensor]:
    """The paper's score and map, of errors (B, H, W) against a typical one of 0.5."""
    where = PAPER.judge(error[:, None], TYPICAL, SPREAD)
    return aggregate(where), where


def test_the_paper_looks_at_the_filtered_multiscale_error() -> None:
    gap = torch.randn(2, 3, 64, 64)
    expected = mean_filter(multiscale_error(gap, torch.zeros_like(gap)), 5)
    torch.testing.assert_close(PAPER.views(gap)[:, 0], expected)
    assert PAPER.views is DEVIATION.views


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
    assert torch.equal(
        PAPER.judge(error, TYPICAL, SPREAD), PAPER.judge(error, TYPICAL, 7 * SPREAD)
    )


# --- the normalised deviation ---


def test_the_normalised_deviation_is_that_by_hand() -> None:
    """|error - typical| / (spread + a tenth of the spread's mean over the image)."""
    error, typical, spread = torch.rand(3, 1, 4, 4), torch.rand(1, 4, 4), torch.rand(1, 4, 4)
    got = DEVIATION.judge(error, typical, spread)
    assert got.shape == (3, 4, 4)
    for b, row, column in np.ndindex(3, 4, 4):
        gap = abs(error[b, 0, row, column] - typical[0, row, column]).item()
        unit = spread[0, row, column].item() + 0.1 * spread.mean().item() + 1e-8
        assert got[b, row, column].item() == pytest.approx(gap / unit, rel=1e-5)


def test_every_view_is_normalised_by_its_own_spread_and_then_averaged() -> None:
    error, typical = torch.rand(2, 2, 4, 4), torch.rand(2, 4, 4)
    spread = torch.rand(2, 4, 4) * torch.tensor([1.0, 1000.0])[:, None, None]
    single = [
        DEVIATION.judge(error[:, k : k + 1], typical[k : k + 1], spread[k : k + 1])
        for k in range(2)
    ]
    got = DEVIATION.judge(error, typical, spread)
    torch.testing.assert_close(got, (single[0] + single[1]) / 2)
    plain = PAPER.judge(error, typical, spread)
    torch.testing.assert_close(plain, (error - typical).abs().mean(1))


def test_a_deviation_counts_more_where_good_images_agree() -> None:
    spread = torch.full((1, 4, 4), 1.0)
    spread[0, 1, 1] = 0.01
    got = DEVIATION.judge(torch.full((1, 1, 4, 4), 0.7), TYPICAL, spread)[0]
    assert got[1, 1] > 5 * got[0, 0]


def test_images_that_all_agree_give_a_finite_deviation() -> None:
    got = DEVIATION.judge(torch.rand(1, 1, 4, 4), TYPICAL, torch.zeros(1, 4, 4))
    assert torch.isfinite(got).all()


# --- the signed view ---


def test_the_signed_view_keeps_the_sign_and_the_amount() -> None:
    gap = torch.full((1, 3, 32, 32), 0.25) * torch.tensor([1.0, 2.0, 3.0])[:, None, None]
    for sign in (1, -1):
        expected = torch.full((1, 2, 32, 32), sign * 0.5)
        torch.testing.assert_close(SIGNED.views(sign * gap), expected)


@pytest.mark.parametrize(("view", "scale"), [(0, 8), (1, 16)])
def test_the_signed_view_is_the_gap_at_a_scale_by_hand(view: int, scale: int) -> None:
    gap = torch.randn(2, 3, 32, 32)
    down, up = shrink(32, scale), grow(32, scale)
    expected = up @ (down @ gap.double().numpy().mean(1) @ down.T) @ up.T
    np.testing.assert_allclose(SIGNED.views(gap)[:, view].numpy(), expected, atol=1e-6)


def test_the_signed_view_is_linear_and_so_averages_noise_out() -> None:
    one, other = torch.randn(2, 1, 3, 32, 32)
    together = SIGNED.views((one + other) / 2)
    torch.testing.assert_close(together, (SIGNED.views(one) + SIGNED.views(other)) / 2)


def test_the_signed_score_is_the_normalised_one() -> None:
    assert SIGNED.judge is DEVIATION.judge


# --- from a map to a score ---


@pytest.mark.parametrize(
    ("top", "count"), [(0.0, 1), (0.01, 1), (0.04, 4), (0.1, 10), (0.37, 37), (1.0, 100)]
)
def test_the_score_is_the_mean_of_the_largest_share(top: float, count: int) -> None:
    deviation = torch.stack([torch.randperm(100), 3 * torch.randperm(100)]).reshape(2, 10, 10)
    largest = np.arange(99, 99 - count, -1)
    expected = [largest.mean(), 3 * largest.mean()]
    assert aggregate(deviation.float(), top).tolist() == pytest.approx(expected)


def test_the_smallest_share_is_one_pixel_and_by_default_the_largest_one() -> None:
    deviation = torch.rand(3, 5, 7)
    assert torch.equal(aggregate(deviation), deviation.amax((1, 2)))
    assert torch.equal(aggregate(deviation, 1e-9), deviation.amax((1, 2)))


@pytest.mark.parametrize("top", [0.0, 0.1, 1.0])
def test_the_score_does_not_know_where_nor_with_whom(top: float) -> None:
    deviation = torch.rand(3, 6, 6)
    shuffled = deviation.flatten(1)[:, torch.randperm(36)].reshape(3, 6, 6)
    torch.testing.assert_close(aggregate(shuffled, top), aggregate(deviation, top))
    torch.testing.assert_close(aggregate(deviation[1:2], top), aggregate(deviation, top)[1:2])


def test_the_gradient_goes_in_equal_parts_to_the_largest_share() -> None:
    deviation = torch.arange(20.0).reshape(1, 4, 5).requires_grad_()
    aggregate(deviation, 0.2).sum().backward()
    expected = torch.zeros(20)
    expected[-4:] = 0.25
    torch.testing.assert_close(deviation.grad.flatten(), expected)


@pytest.mark.parametrize("name", scoring.SCORES)
@pytest.mark.parametrize("top", [0.0, 0.25])
def test_gradients_reach_the_gap(name: str, top: float) -> None:
    score = scoring.SCORES[name]
    gap = torch.randn(2, 3, 32, 32).requires_grad_()
    views = score.views(gap)
    typical = torch.zeros(views.shape[1:])
    aggregate(score.judge(views, typical, typical + 1), top).sum().backward()
    assert gap.grad is not None
    assert torch.isfinite(gap.grad).all()
    assert (gap.grad.flatten(1).abs().sum(1) > 0).all()


def test_where_good_images_do_not_vary_the_unit_is_the_typical_error() -> None:
    """A single good image has no spread; its own error must not be divided by next to nothing."""
    error, typical = torch.rand(2, 1, 4, 4), torch.rand(1, 4, 4)
    got = DEVIATION.judge(error, typical, torch.zeros(1, 4, 4))
    torch.testing.assert_close(got, (error - typical).abs()[:, 0] / (typical.mean() + 1e-8))
