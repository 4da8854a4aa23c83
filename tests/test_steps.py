"""Every sampler against its formula, and all of them against what is true of Gaussian pixels."""

import math
from itertools import pairwise

import pytest
import torch
from oracles import Drawn, GaussianDenoiser, ones
from torch import Tensor

from advrad.diffusion import STEPS, VP, Cosine, Linear, Schedule, ddim, reconstruct
from advrad.diffusion.reconstruct import Step, descend, jump, ladder
from advrad.diffusion.steps import ddpm_large, ode, score, sde
from advrad.errors import UsageError
from advrad.noise import Noise, out

MEAN, STD = 0.3, 0.5
X = torch.linspace(-1.5, 1.5, 24, dtype=torch.float64).view(1, 1, 4, 6)
MANY = torch.zeros(64, 1, 16, 16, dtype=torch.float64)  # 16,384 pixels: std errs by 0.6 %


def still(like: Tensor, step: int) -> Tensor:
    return torch.zeros_like(like)


def true_score(x_t: Tensor, a_t: float) -> Tensor:
    """grad log N(x_t; sqrt(a) m, a v + 1 - a)."""
    return (math.sqrt(a_t) * MEAN - x_t) / (a_t * STD**2 + 1 - a_t)


def moves(name: str, a_t: float, a_s: float) -> tuple[float, float, float]:
    """What a step makes of x_t, of the score, and of one standard normal draw.

    As they stand in the papers for the score (Song et al., 2021, Eq. 4, 9, 13 with beta dt = u; Ho
    et al., 2020, Eq. 7 by Tweedie's formula; DDIM, Eq. 12), not as they are computed.
    """
    beta, u, root = 1 - a_t / a_s, math.log(a_s / a_t), math.sqrt(a_s / a_t)
    if name.startswith("ddpm"):
        variance = beta * (1 - a_s) / (1 - a_t) if name == "ddpm" or a_s == 1 else beta
        return root, beta * root, math.sqrt(variance)
    if name == "ddim":
        return root, root * (1 - a_t) - math.sqrt((1 - a_s) * (1 - a_t)), 0.0
    return (1 + u / 2, u, math.sqrt(u)) if name == "sde" else (1 + u / 2, u / 2, 0.0)


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("schedule", [Linear(), Cosine(), VP()], ids=repr)
@pytest.mark.parametrize(("t", "s"), [(1, 0), (100, 99), (100, 40), (300, 0), (900, 899)])
def test_a_step_is_its_formula(name: str, schedule: Schedule, t: int, s: int) -> None:
    a_t, a_s = schedule.alpha_bar(t), schedule.alpha_bar(s)
    of_x, of_score, of_noise = moves(name, a_t, a_s)
    expected = of_x * X + of_score * true_score(X, a_t) + of_noise
    got = STEPS[name](GaussianDenoiser(schedule, MEAN, STD), X, t, s, ones)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


def test_the_score_of_an_exact_denoiser_is_that_of_the_noisy_pixels() -> None:
    for t in (1, 100, 999):
        found = score(GaussianDenoiser(Linear(), MEAN, STD), X, t)
        torch.testing.assert_close(found, true_score(X, Linear().alpha_bar(t)))


@pytest.mark.parametrize("name", STEPS)
def test_mean_and_variance_at_the_end_follow_the_closed_form(name: str) -> None:
    """From one image at depth 300 in 30 jumps: every step is linear, so the moments are known."""
    schedule = Linear()
    a_k = schedule.alpha_bar(300)
    mean, variance, levels = math.sqrt(a_k) * -0.6, 1 - a_k, ladder(300, 30)
    for t, s in pairwise(levels):
        a_t = schedule.alpha_bar(t)
        of_x, of_score, of_noise = moves(name, a_t, schedule.alpha_bar(s))
        narrow = 1 / (a_t * STD**2 + 1 - a_t)
        slope = of_x - of_score * narrow
        mean = slope * mean + of_score * narrow * math.sqrt(a_t) * MEAN
        variance = slope**2 * variance + of_noise**2
    start, denoiser = torch.full_like(MANY, -0.6), GaussianDenoiser(schedule, MEAN, STD)
    got = reconstruct(denoiser, start, 300, 30, Drawn(3), step=STEPS[name])
    assert got.mean().item() == pytest.approx(mean, abs=5 * math.sqrt(variance / MANY.numel()))
    assert got.std().item() == pytest.approx(math.sqrt(variance), rel=0.03)


@pytest.mark.parametrize("name", STEPS)
def test_each_of_them_asks_for_noise_where_it_draws_and_nowhere_else(name: str) -> None:
    noise, levels = Drawn(0), ladder(100, 5)
    descend(GaussianDenoiser(Linear()), MANY[:1], 100, 5, noise, STEPS[name])
    own = {"ddim": [], "ode": [], "sde": levels[1:]}.get(name, levels[1:-1])
    assert noise.steps == [out(s) for s in own]


# --- DDIM between its ends ---


def test_eta_1_has_the_moments_of_ddpm_and_eta_0_no_spread() -> None:
    for eta, name in ((1.0, "ddpm"), (0.0, "ddim")):
        for t, s in ((200, 150), (50, 49), (7, 0)):
            denoiser = GaussianDenoiser(Linear(), MEAN, STD)
            mean, one = (ddim(eta)(denoiser, X, t, s, noise) for noise in (still, ones))
            a_t, a_s = Linear().alpha_bar(t), Linear().alpha_bar(s)
            of_x, of_score, std = moves(name, a_t, a_s)
            torch.testing.assert_close(mean, of_x * X + of_score * true_score(X, a_t))
            torch.testing.assert_close(one - mean, torch.full_like(X, std), atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("eta", [0.0, 0.3, 0.7, 1.0])
def test_any_eta_keeps_the_marginal_of_an_image_that_is_known(eta: float) -> None:
    """q(x_s | x_0) has variance 1 - a_s whatever eta is (DDIM, Appendix B)."""
    denoiser = GaussianDenoiser(Linear(), 0.4, 0.0)  # the image is 0.4 everywhere
    a_t, a_s = Linear().alpha_bar(300), Linear().alpha_bar(200)
    x_t = math.sqrt(a_t) * 0.4 + math.sqrt(1 - a_t) * Drawn(1)(MANY, 0).double()
    got = ddim(eta)(denoiser, x_t, 300, 200, Drawn(2))
    assert got.mean().item() == pytest.approx(math.sqrt(a_s) * 0.4, abs=0.02)
    assert got.std().item() == pytest.approx(math.sqrt(1 - a_s), rel=0.02)


@pytest.mark.parametrize("eta", [-0.1, 1.5, math.nan])
def test_another_eta_is_refused(eta: float) -> None:
    with pytest.raises(UsageError, match=r"expected 0 \(deterministic\) to 1"):
        ddim(eta)


# --- the differential equations ---


def flow(x_k: Tensor, a_k: float) -> Tensor:
    """Where the probability flow leads: the same quantile of the data as of the noisy pixels."""
    quantile = (x_k - math.sqrt(a_k) * MEAN) / math.sqrt(a_k * STD**2 + 1 - a_k)
    return MEAN + STD * quantile


def errors(step: Step, exact: Tensor, shots: list[int]) -> list[float]:
    """The largest error at the end, from level 400 of 4000 in so many steps, without noise."""
    denoiser = GaussianDenoiser(VP(4000), MEAN, STD)
    ends = [descend(denoiser, X, 400, n, still, step) for n in shots]
    return [(end - exact).abs().max().item() for end in ends]


def test_the_probability_flow_goes_to_the_exact_map_with_the_first_order() -> None:
    found = errors(ode, flow(X, VP().alpha_bar(100)), [25, 50, 100, 200, 400])
    assert found[-1] < 1e-3
    for coarse, fine in pairwise(found):
        assert 1.85 < coarse / fine < 2.15


def test_the_sde_goes_to_the_posterior_s_mean_with_the_first_order() -> None:
    """From one x_k the exact reverse process arrives at p(x_0 | x_k)."""
    exact = GaussianDenoiser(VP(4000), MEAN, STD)(X, 400)
    found = errors(sde, exact, [25, 50, 100, 200, 400])
    assert found[-1] < 2e-3
    for coarse, fine in pairwise(found):
        assert 1.8 < coarse / fine < 2.2


def test_the_sde_draws_noise_in_its_last_step_too() -> None:
    """sqrt(du) z, with du = log(a_0 / a_t)."""
    denoiser, noise = GaussianDenoiser(VP(), MEAN, STD), Drawn(3)
    drawn = sde(denoiser, X, 5, 0, noise) - sde(denoiser, X, 5, 0, still)
    expected = math.sqrt(-math.log(VP().alpha_bar(5))) * Drawn(3)(X, out(0))
    torch.testing.assert_close(drawn, expected.to(drawn), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("step", [jump, ddpm_large, sde])
def test_many_steps_from_one_noisy_image_have_the_posterior_s_spread(step: Step) -> None:
    """Var(x_0 | x_k) = v (1 - a) / (a v + 1 - a)."""
    schedule = VP(1000)
    a_k = schedule.alpha_bar(200)
    x_k = torch.full_like(MANY, 0.8)
    got = descend(GaussianDenoiser(schedule, MEAN, STD), x_k, 200, 200, Drawn(1), step)
    exact = STD * math.sqrt((1 - a_k) / (a_k * STD**2 + 1 - a_k))
    assert got.std().item() == pytest.approx(exact, rel=0.03)


@pytest.mark.parametrize("step", [jump, ddpm_large, sde, ddim(0.0), ode])
def test_data_that_are_diffused_come_back_as_data(step: Step) -> None:
    x = MEAN + STD * Drawn(1)(MANY, 0).double()
    got = reconstruct(GaussianDenoiser(VP(), MEAN, STD), x, 200, 200, Drawn(2), step=step)
    assert got.mean().item() == pytest.approx(MEAN, abs=0.02)
    assert got.std().item() == pytest.approx(STD, abs=0.02)


def test_the_clock_s_step_is_the_paper_s_to_the_second_order() -> None:
    """Nie et al.'s beta(t) dt at the start of each step, with times as floats, beside log a_s/a_t.

    Both have the same draws. The two agree the better, the shorter the step.
    """
    schedule, draws = VP(), Drawn(5)
    drawn = {out(s): draws(X, s).double() for s in range(200)}
    known: Noise = lambda like, step: drawn[step]

    def literal(shots: int) -> Tensor:
        x, dt = X, 0.2 / shots
        for i in range(shots):
            t = 0.2 - i * dt
            beta = 0.1 + 19.9 * t
            a_t = math.exp(-0.1 * t - 19.9 * t**2 / 2)
            z = known(x, out(200 - (i + 1) * 200 // shots))
            x = x + beta * dt * (x / 2 + true_score(x, a_t)) + math.sqrt(beta * dt) * z
        return x

    denoiser = GaussianDenoiser(schedule, MEAN, STD)
    apart = [
        (descend(denoiser, X, 200, n, known, sde) - literal(n)).abs().max().item()
        for n in (50, 200)
    ]
    assert apart[1] < 0.01
    assert apart[1] < apart[0] / 2
