"""The way in and back, against closed forms for an image that is known and for Gaussian pixels."""

import math
from itertools import pairwise

import pytest
import torch
from oracles import Drawn, GaussianDenoiser, KnownImage, KnowsEps, ones
from torch import Tensor

from advrad.diffusion import Cosine, EpsDenoiser, Linear, Schedule, reconstruct, sample
from advrad.diffusion.reconstruct import jump, ladder, missing
from advrad.noise import Fixed, out

X = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(1)).double() * 2 - 1
MANY = torch.zeros(64, 1, 16, 16, dtype=torch.float64)  # 16,384 pixels: std errs by 0.6 %


def test_ladders_go_down_to_0_in_as_many_jumps_as_asked() -> None:
    for depth in [*range(1, 60), 100, 999, 1000]:
        for shots in {*range(1, min(depth, 40) + 1), depth // 2 or 1, depth - 1 or 1, depth}:
            levels = ladder(depth, shots)
            assert (levels[0], levels[-1], len(levels)) == (depth, 0, shots + 1)
            gaps = [t - s for t, s in pairwise(levels)]
            assert min(gaps) >= 1
            assert max(gaps) - min(gaps) <= 1


def test_ladders_by_hand() -> None:
    assert ladder(100, 1) == [100, 0]
    assert ladder(100, 4) == [100, 75, 50, 25, 0]
    assert ladder(5, 5) == [5, 4, 3, 2, 1, 0]


@pytest.mark.parametrize(("t", "s"), [(2, 1), (100, 99), (100, 50), (1000, 1), (300, 299)])
@pytest.mark.parametrize("schedule", [Linear(), Cosine()], ids=repr)
def test_a_jump_is_the_posterior_with_the_ladder_s_betas(
    schedule: Schedule, t: int, s: int
) -> None:
    """Line 8 of Algorithms 1 and 3 as it should read: mean + Sigma^(1/2) z, not Sigma z.

    Mean and Sigma are those of Ho et al., Eq. 7, with beta = 1 - a_t / a_s between the levels.
    """
    a_t, a_s = schedule.alpha_bar(t), schedule.alpha_bar(s)
    beta = 1 - a_t / a_s
    x_0, x_t = X, torch.full_like(X, 0.7)
    mean = (
        math.sqrt(a_s) * beta / (1 - a_t) * x_0 + math.sqrt(1 - beta) * (1 - a_s) / (1 - a_t) * x_t
    )
    sigma = (1 - a_s) / (1 - a_t) * beta
    got = jump(KnownImage(schedule, x_0), x_t, t, s, ones)
    torch.testing.assert_close(got, mean + math.sqrt(sigma), rtol=1e-7, atol=1e-9)


def test_the_last_jump_is_the_estimate_and_draws_nothing() -> None:
    noise = Drawn(0)
    got = jump(KnownImage(Linear(), X), torch.randn_like(X), 100, 0, noise)
    assert torch.equal(got, X)
    assert not noise.steps


def test_eta_0_is_deterministic_and_keeps_the_noise_that_is_there() -> None:
    eps, noise, schedule = torch.randn_like(X), Drawn(0), Linear()

    def noisy(t: int) -> Tensor:
        a_t = schedule.alpha_bar(t)
        return math.sqrt(a_t) * X + math.sqrt(1 - a_t) * eps

    got = jump(KnownImage(schedule, X), noisy(500), 500, 200, noise, eta=0.0)
    torch.testing.assert_close(got, noisy(200))
    assert not noise.steps


@pytest.mark.parametrize("shots", [1, 2, 7, 50])
def test_who_knows_the_noise_gets_the_image_back_from_any_ladder(shots: int) -> None:
    denoiser = EpsDenoiser(KnowsEps(Linear(), X), Linear())
    got = reconstruct(denoiser, X, 50, shots, Drawn(0))
    torch.testing.assert_close(got, X, rtol=0, atol=1e-8)


def test_one_shot_is_its_closed_form() -> None:
    denoiser, a_k = GaussianDenoiser(Linear()), Linear().alpha_bar(100)
    eps = Drawn(5)(X, 100)
    x_k = math.sqrt(a_k) * X + math.sqrt(1 - a_k) * eps
    gain = math.sqrt(a_k) * 0.25 / (a_k * 0.25 + 1 - a_k)
    expected = 0.3 + gain * (x_k - math.sqrt(a_k) * 0.3)
    torch.testing.assert_close(reconstruct(denoiser, X, 100, 1, Drawn(5)), expected)


@pytest.mark.parametrize(("depth", "shots"), [(100, 1), (100, 10), (100, 100), (300, 3), (7, 7)])
def test_the_noise_is_asked_once_for_each_step_of_the_way(depth: int, shots: int) -> None:
    noise = Drawn(0)
    reconstruct(GaussianDenoiser(Linear()), X, depth, shots, noise)
    assert noise.steps == [depth, *(out(s) for s in ladder(depth, shots)[1:-1])]
    assert len(set(noise.steps)) == shots


def test_a_reused_draw_would_be_seen() -> None:
    """Gaussian pixels keep their variance only if the way out draws afresh at every level."""
    denoiser = GaussianDenoiser(Linear())
    x = 0.3 + 0.5 * Drawn(1)(MANY, 0).double()
    got = reconstruct(denoiser, x, 200, 200, Drawn(2))
    assert got.mean().item() == pytest.approx(0.3, abs=0.02)
    assert got.std().item() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("shots", [1, 3, 10, 50])
def test_mean_and_variance_follow_the_closed_form_for_any_shots(shots: int) -> None:
    denoiser, a_k = GaussianDenoiser(Linear()), Linear().alpha_bar(300)
    start = torch.full_like(MANY, -0.6)
    got = reconstruct(denoiser, start, 300, shots, Drawn(3))
    mean, variance = denoiser.descent(ladder(300, shots), math.sqrt(a_k) * -0.6, 1 - a_k)
    assert got.mean().item() == pytest.approx(mean, abs=5 * math.sqrt(variance / MANY.numel()))
    assert got.std().item() == pytest.approx(math.sqrt(variance), rel=0.03)


def test_full_shot_from_noise_has_the_mean_and_the_spread_of_the_data() -> None:
    got = sample(GaussianDenoiser(Linear()), MANY, noise=Drawn(4))
    assert got.mean().item() == pytest.approx(0.3, abs=0.02)
    assert got.std().item() == pytest.approx(0.5, abs=0.015)


def test_fewer_shots_are_narrower_than_the_data() -> None:
    """Long jumps lose variance even with the exact denoiser: 50 over 1000 steps give 0.44."""
    denoiser = GaussianDenoiser(Linear())
    spreads = [sample(denoiser, MANY, shots, Drawn(4)).std().item() for shots in (1, 10, 50, 200)]
    assert spreads == sorted(spreads)
    assert spreads[0] < 0.01
    assert spreads[2] == pytest.approx(0.44, abs=0.01)


def test_gradients_flow_to_the_image_by_the_closed_form() -> None:
    x = X.clone().requires_grad_()
    reconstruct(GaussianDenoiser(Linear()), x, 100, 1, Fixed(0)).sum().backward()
    a_k = Linear().alpha_bar(100)
    slope = GaussianDenoiser(Linear()).gain(100) * math.sqrt(a_k)
    torch.testing.assert_close(x.grad, torch.full_like(x, slope))


@pytest.mark.parametrize(("depth", "shots"), [(0, 1), (10, 0), (10, 11), (1001, 1), (-5, 1)])
def test_impossible_depths_and_shots_are_refused(depth: int, shots: int) -> None:
    with pytest.raises(ValueError, match="1 <= shots <= depth <= 1000"):
        reconstruct(GaussianDenoiser(Linear()), X, depth, shots)


@pytest.mark.parametrize("shots", [0, 1001])
def test_impossible_shots_of_a_sample_are_refused(shots: int) -> None:
    with pytest.raises(ValueError, match="1 <= shots <= depth <= 1000"):
        sample(GaussianDenoiser(Linear()), X, shots)


@pytest.mark.parametrize(("depth", "carried"), [(50, 0.1), (100, 0.24), (300, 0.5), (100, 0.0)])
def test_what_is_missing_makes_a_noisy_image_as_noisy_as_the_depth(
    depth: int, carried: float
) -> None:
    """Var x_k = a_k carried^2 + missing^2 = 1 - a_k, whatever was carried."""
    schedule = Linear()
    a_k = schedule.alpha_bar(depth)
    own = missing(schedule, depth, carried)
    assert a_k * carried**2 + own**2 == pytest.approx(1 - a_k)
    noisy = MANY + carried * Drawn(3)(MANY, 0)
    got = reconstruct(Echo(schedule), noisy, depth, 1, Drawn(0), carried)
    assert float(got.std()) == pytest.approx(math.sqrt(1 - a_k), rel=0.03)


def test_at_the_level_of_its_own_noise_nothing_is_added() -> None:
    schedule = Linear()
    carried = schedule.sigma(70)
    noisy = torch.randn_like(X)
    got = reconstruct(Echo(schedule), noisy, 70, 1, ones, carried)
    torch.testing.assert_close(got, math.sqrt(schedule.alpha_bar(70)) * noisy)


def test_a_noisy_image_cannot_be_taken_to_a_cleaner_level() -> None:
    first = Linear().level(0.5)  # alpha_bar = 1 / 1.25
    assert Linear().alpha_bar(first) <= 0.8 < Linear().alpha_bar(first - 1)
    told = rf"carry noise of 0\.5 are past level {first - 1} .*expected {first} or deeper"
    with pytest.raises(ValueError, match=told):
        reconstruct(Echo(Linear()), X, first - 1, 1, ones, 0.5)
    reconstruct(Echo(Linear()), X, first, 1, ones, 0.5)


class Echo:
    """A denoiser that gives back what it is given."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule

    def __call__(self, x_t: Tensor, t: int) -> Tensor:
        return x_t
