"""alpha_bar against its table, its definition and its closed form."""

import math

import pytest
import torch

from advrad.diffusion import SCHEDULES, VP, Cosine, Linear, Schedule

BOTH = [Linear(), Cosine(), Linear(100), Cosine(50), VP(), VP(37)]


@pytest.mark.parametrize("schedule", BOTH, ids=repr)
def test_level_0_is_clean_and_every_level_noisier(schedule: Schedule) -> None:
    bars = schedule.alpha_bars
    assert schedule.alpha_bar(0) == 1.0
    assert bars.dtype == torch.float64
    assert len(bars) == schedule.steps + 1
    assert (bars.diff() < 0).all()
    assert bars[-1] > 0


@pytest.mark.parametrize(
    ("t", "alpha_bar"),
    [
        (25, 0.99156),
        (50, 0.97102),
        (75, 0.93912),
        (100, 0.89702),
        (200, 0.65904),
        (300, 0.39642),
    ],
)
def test_linear_alpha_bar_is_that_of_the_table(t: int, alpha_bar: float) -> None:
    """An index that counts from 0 would give 0.9896 at 100."""
    assert Linear().alpha_bar(t) == pytest.approx(alpha_bar, abs=5e-6)


@pytest.mark.parametrize(
    ("t", "sigma"),
    [
        (25, 0.0923),
        (50, 0.1728),
        (75, 0.2546),
        (100, 0.3388),
        (145, 0.50),
        (200, 0.7193),
        (259, 1.00),
        (300, 1.234),
        (397, 2.00),
    ],
)
def test_linear_sigma_is_that_of_the_table(t: int, sigma: float) -> None:
    assert Linear().sigma(t) == pytest.approx(sigma, rel=5e-3)


@pytest.mark.parametrize("steps", [1000, 100])
def test_linear_betas_span_the_range_of_ho_et_al(steps: int) -> None:
    betas = Linear(steps).betas()
    assert betas[0].item() == pytest.approx(1e-4 * 1000 / steps)
    assert betas[-1].item() == pytest.approx(0.02 * 1000 / steps)
    torch.testing.assert_close(betas.diff(), betas.diff()[:1].expand(steps - 1))


@pytest.mark.parametrize("schedule", BOTH, ids=repr)
def test_alpha_bar_is_the_product_of_what_each_step_leaves(schedule: Schedule) -> None:
    product = 1.0
    for t, beta in enumerate(schedule.betas().tolist(), 1):
        product *= 1 - beta
        assert schedule.alpha_bar(t) == pytest.approx(product, rel=1e-12)


def test_cosine_is_its_closed_form_until_beta_is_capped() -> None:
    def f(t: int) -> float:
        return math.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2

    schedule = Cosine()
    for t in (1, 10, 250, 500, 998):
        assert schedule.alpha_bar(t) == pytest.approx(f(t) / f(0), rel=1e-9)
    assert schedule.betas().max().item() == 0.999


def test_alpha_bar_of_a_batch_is_that_of_each_image() -> None:
    schedule, t = Linear(), torch.tensor([1, 100, 1000, 0])
    like = torch.empty(4, 3, 2, 2, dtype=torch.float64)
    got = schedule.at(t, like)
    assert got.shape == (4, 1, 1, 1)
    assert got.dtype == torch.float64
    assert got.flatten().tolist() == [schedule.alpha_bar(int(i)) for i in t]


@pytest.mark.parametrize("t", [-1, 1001])
def test_levels_beyond_the_schedule_are_refused(t: int) -> None:
    with pytest.raises(ValueError, match=f"level {t} .* expected 0 to 1000"):
        Linear().alpha_bar(t)


def test_schedules_go_by_name() -> None:
    assert {"linear": Linear, "cosine": Cosine, "vp": VP} == SCHEDULES


@pytest.mark.parametrize("steps", [10, 1000, 4000])
def test_the_continuous_schedule_is_its_integral_at_every_time(steps: int) -> None:
    """exp(-0.1 t - 19.9 t^2 / 2); DiffPure's noise in the [0, 1] scale at t* = 0.1 is 0.170."""
    for t in (0.1, 0.3, 1.0):
        expected = math.exp(-0.1 * t - 19.9 * t**2 / 2)
        assert VP(steps).alpha_bar(round(t * steps)) == pytest.approx(expected, rel=1e-12)
    assert VP(steps).sigma(steps // 10) / 2 == pytest.approx(0.170, abs=5e-4)
    other = VP(steps, low=1.0, high=3.0).alpha_bar(steps)
    assert other == pytest.approx(math.exp(-2.0), rel=1e-12)


def test_the_discrete_schedule_is_near_the_continuous_one() -> None:
    """Their betas are the same but for where in the step they are taken."""
    for t in (10, 100, 500):
        assert Linear().alpha_bar(t) == pytest.approx(VP().alpha_bar(t), rel=0.01)


def test_a_time_in_the_papers_unit_is_a_level_however_it_was_rounded() -> None:
    assert [Linear().of_time(t) for t in (0.1, 0.075, 0.07, 0.0, 1.0)] == [100, 75, 70, 0, 1000]
    assert Linear(600).of_time(0.1) == 60
    for k in range(1001):
        single = float(torch.tensor(k / 1000, dtype=torch.float32))
        assert Linear().of_time(k / 1000) == Linear().of_time(single) == k


@pytest.mark.parametrize("schedule", BOTH, ids=repr)
def test_a_level_is_the_first_with_so_much_noise(schedule: Schedule) -> None:
    for t in (1, 7, schedule.steps // 2, schedule.steps):
        sigma = schedule.sigma(t)
        assert schedule.level(sigma) == t
        assert schedule.level(sigma * (1 - 1e-9)) == t
    assert schedule.level(0.0) == 0
    between = (schedule.sigma(3) + schedule.sigma(4)) / 2
    assert schedule.level(between) == 4
    with pytest.raises(ValueError, match="this schedule ends at"):
        schedule.level(schedule.sigma(schedule.steps) * 1.01)
