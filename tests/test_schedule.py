"""alpha_bar against its table, its definition and its closed form."""

import math

import pytest
import torch

from advrad.diffusion import SCHEDULES, Cosine, Linear, Schedule

BOTH = [Linear(), Cosine(), Linear(100), Cosine(50)]


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
    assert {"linear": Linear, "cosine": Cosine} == SCHEDULES


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
