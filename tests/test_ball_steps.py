"""Steps of a ball, its starts, and the sticker's places: closed forms and distributions."""

import pytest
import torch
from scipy import stats
from torch import Tensor

from advrad.attacks.ball import L1, L2, Ball, Linf, Patch

SHAPE = (3, 6, 5)
EACH = [Linf(0.07), L2(0.4), L1(0.9), Patch(3)]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def pictures(count: int = 4, seed: int = 0) -> Tensor:
    """Images of which many values lie on the border of the box."""
    return normal(count, *SHAPE, seed=seed).add(0.5).clamp(0, 1)


# steps and sizes


@pytest.mark.parametrize("scale", [1e-36, 1e-20, 1.0, 1e20])
@pytest.mark.parametrize("ball", EACH, ids=lambda b: b.name)
def test_a_step_has_size_1_whatever_the_gradient_s_scale(ball: Ball, scale: float) -> None:
    gradient = normal(4, *SHAPE)
    step = ball.steepest(scale * gradient)
    size = 3 if isinstance(ball, Patch) else 1
    torch.testing.assert_close(ball.size(step), torch.full((4,), float(size)))
    torch.testing.assert_close(step, ball.steepest(gradient), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("ball", EACH, ids=lambda b: b.name)
def test_no_gradient_no_step_and_no_nan(ball: Ball) -> None:
    gradient = normal(2, *SHAPE)
    gradient[1] = 0
    step = ball.steepest(gradient)
    assert step.isfinite().all()
    assert step[0].any()
    assert not step[1].any()
    assert not ball.clip(0 * gradient).any()
    assert ball.size(0 * gradient).tolist() == [0, 0]


def test_steepest_steps_gain_the_dual_norm() -> None:
    gradient = normal(4, *SHAPE)
    size = gradient.flatten(1).abs()
    single = L1(1, share=0.0)
    gains = {Linf(1): size.sum(1), L2(1): gradient.flatten(1).norm(dim=1), single: size.amax(1)}
    for ball, gain in gains.items():
        found = (gradient * ball.steepest(gradient)).flatten(1).sum(1)
        torch.testing.assert_close(found, gain)


def test_the_l1_step_takes_the_share_that_is_asked_for_image_by_image() -> None:
    share = torch.tensor([0.0, 0.1, 0.5, 1.0])
    gradient = normal(4, *SHAPE)
    step = L1(1, share=share).steepest(gradient).flatten(1)
    assert (step != 0).sum(1).tolist() == [1, 9, 45, 90]
    for row, size in zip(step, gradient.flatten(1).abs(), strict=True):
        assert size[row != 0].min() >= size[row == 0].max() if (row == 0).any() else True
    few = torch.zeros(1, *SHAPE)
    few[0, 0, 0, :2] = torch.tensor([1.0, -2.0])
    assert L1(1, share=0.5).steepest(few)[0, 0, 0, :2].tolist() == [0.5, -0.5]


def test_size_of_tiny_numbers_is_not_zero() -> None:
    assert float(L2(1).size(torch.full((1, 1, 3, 3), 1e-30))) == pytest.approx(3e-30)


# starts


def test_linf_starts_are_uniform() -> None:
    drawn = Linf(0.3).random(torch.zeros(20, 3, 16, 16)).flatten().numpy()
    assert stats.kstest(drawn, stats.uniform(-0.3, 0.6).cdf).pvalue > 1e-3


@pytest.mark.parametrize("ball", [L2(0.3), L1(0.3)], ids=lambda b: b.name)
def test_starts_are_uniform_in_the_ball(ball: Ball) -> None:
    """(size / eps)^n is uniform in n dimensions, in all of them and in all directions alike."""
    torch.manual_seed(0)
    drawn = ball.random(torch.zeros(4000, 1, 1, 2))
    share = (ball.size(drawn) / 0.3) ** 2
    assert stats.kstest(share.numpy(), "uniform").pvalue > 1e-3
    one, two = drawn.flatten(1).T
    assert stats.ks_2samp(one.numpy(), two.numpy()).pvalue > 1e-3
    assert stats.ks_2samp(one.numpy(), -one.numpy()).pvalue > 1e-3
    assert abs(float(((one > 0) == (two > 0)).float().mean()) - 0.5) < 0.04
    # the share of the ball where the first value is the larger part of it: a half
    assert abs(float((one.abs() > two.abs()).float().mean()) - 0.5) < 0.04


def test_the_first_value_of_an_l1_start_is_distributed_as_in_the_ball() -> None:
    """In two dimensions |v| <= 1 has the density 1 - |v|; in the l2 disc it is the semicircle."""
    torch.manual_seed(0)
    first = L1(1.0).random(torch.zeros(4000, 1, 1, 2))[:, 0, 0, 0].numpy()
    assert stats.kstest(first, stats.triang(0.5, -1, 2).cdf).pvalue > 1e-3
    first = L2(1.0).random(torch.zeros(4000, 1, 1, 2))[:, 0, 0, 0].numpy()
    assert stats.kstest(first, stats.semicircular.cdf).pvalue > 1e-3


def test_a_start_s_noise_is_asked_for_apart_from_any_draw_s() -> None:
    asked: list[int] = []

    def listening(like: Tensor, step: int) -> Tensor:
        asked.append(step)
        return torch.randn_like(like)

    for ball in EACH:
        asked.clear()
        ball.random(pictures(), listening)
        assert len(set(asked)) == len(asked)
        assert min(asked) > 1 << 32


# the sticker


def test_a_sticker_starts_anywhere_with_equal_chances() -> None:
    torch.manual_seed(0)
    drawn = Patch(2).random(torch.zeros(3000, 1, 4, 3))[:, 0]
    corners = [(r, c) for r in range(3) for c in range(2)]
    counts = [int((drawn[:, r : r + 2, c : c + 2] != 0).all(2).all(1).sum()) for r, c in corners]
    assert sum(counts) == 3000
    assert stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("side", [1, 2, 3, 5, 6, 20])
def test_the_sticker_s_best_places_by_brute_force(side: int) -> None:
    gradient, ball = normal(4, *SHAPE), Patch(side)
    high, wide = min(side, 6), min(side, 5)
    for weight, found in (
        (gradient.abs(), ball.steepest(gradient)),
        (gradient.square(), ball.clip(gradient)),
    ):
        for image, kept in zip(weight.sum(1), found, strict=True):
            sums = image.unfold(0, high, 1).unfold(1, wide, 1).sum((2, 3))
            there = (kept != 0).any(0)
            assert int(there.sum()) == high * wide
            assert float(image[there].sum()) == pytest.approx(float(sums.max()), rel=1e-5)
        assert torch.equal(found != 0, found * weight != 0)


def test_the_sticker_goes_where_the_box_lets_it() -> None:
    """White stays white: what cannot become brighter does not attract it."""
    x = torch.ones(1, 1, 4, 4)
    x[..., 3, 3] = 0.5
    adv = x + 0.4
    adv[..., 0, 0] += 5
    moved = Patch(1).project(adv, x) - x
    assert moved.nonzero().tolist() == [[0, 0, 3, 3]]


def test_the_size_of_a_sticker_is_the_side_of_its_square() -> None:
    delta = torch.zeros(4, *SHAPE)
    delta[1, 2, 5, 4] = 1e-9
    delta[2, 0, 1, 1], delta[2, 1, 3, 2] = 1, -1
    delta[3, 0, :, 0] = 1
    assert Patch(1).size(delta).tolist() == [0, 1, 3, 6]
