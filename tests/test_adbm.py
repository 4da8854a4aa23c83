"""ADBM: the identities of its bridge, and an attack that stays where it may be."""

import math
from itertools import pairwise

import pytest
import torch
from purifying import classifier, images, network
from torch import Tensor

from advrad.diffusion import VP, EpsDenoiser, Linear, Schedule
from advrad.diffusion.loss import posterior_mean, undiffuse
from advrad.diffusion.reconstruct import jump, ladder
from advrad.errors import UsageError
from advrad.noise import Fixed
from advrad.purifiers import adbm
from advrad.purifiers.adbm import ADBM, EPS, START, k_in, k_out

LABELS = torch.tensor([0, 1, 2])
LEVELS, TOPS = torch.tensor([5, 60, 120]), torch.tensor([120, 120, 120])


def normal(seed: int, like: Tensor) -> Tensor:
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(seed)).to(like)


def bars(*times: float) -> list[Tensor]:
    """alpha_bar of the VP-SDE at these times."""
    return [VP().alpha_bars[round(1000 * t)] for t in times]


# --- the bridge ---


@pytest.mark.parametrize(
    ("t", "top", "expected"),
    [(0.01, 0.2, 0.0038), (0.05, 0.2, 0.0576), (0.10, 0.2, 0.2111), (0.20, 0.2, 0.8114),
     (0.05, 0.1, 0.2582), (0.10, 0.1, 0.9467)],
)  # fmt: skip
def test_k_in_has_the_computed_values(t: float, top: float, expected: float) -> None:
    assert float(k_in(*bars(t, top))) == pytest.approx(expected, abs=6e-5)


@pytest.mark.parametrize(("top", "expected"), [(0.2, 1.3882), (0.1, 2.9397)])
def test_k_out_has_the_computed_values(top: float, expected: float) -> None:
    assert float(k_out(*bars(top, top))) == pytest.approx(expected, abs=6e-5)


@pytest.mark.parametrize("schedule", [Linear(), VP()])
def test_the_bridge_leads_from_the_attacked_image_to_the_clean_one(schedule: Schedule) -> None:
    a = schedule.alpha_bars
    for top in (100, 200):
        torch.testing.assert_close(k_in(a[top], a[top]), a[top].sqrt(), rtol=1e-12, atol=0)
        assert k_in(a[0], a[top]) == 0
        t = torch.arange(1, top + 1)
        assert (k_in(a[t], a[top]).diff() > 0).all()
        expected = (1 - a[t]).sqrt() * k_out(a[t], a[top])
        torch.testing.assert_close(k_in(a[t], a[top]), expected, rtol=1e-12, atol=0)


def test_the_target_gives_the_clean_image_to_the_letter() -> None:
    x = (2 * images() - 1).double()
    gap, eps = 0.1 * normal(1, x), normal(2, x)
    method = ADBM(EpsDenoiser(torch.nn.Identity(), Linear()), classifier())
    x_t = method.bridge(x, gap, LEVELS, TOPS, eps)
    target = method.target(gap, LEVELS, TOPS, eps)
    found = undiffuse(Linear(), x_t, LEVELS, target)
    torch.testing.assert_close(found, x, rtol=0, atol=1e-12)
    wrong = undiffuse(Linear(), x_t, LEVELS, eps)
    assert (wrong - x).abs().max() > 0.1


def test_the_attacked_image_diffused_is_where_the_bridge_starts() -> None:
    x = (2 * images() - 1).double()
    gap, eps = 0.1 * normal(1, x), normal(2, x)
    method = ADBM(EpsDenoiser(torch.nn.Identity(), Linear()), classifier())
    a = Linear().alpha_bar(120)
    expected = math.sqrt(a) * (x + gap) + math.sqrt(1 - a) * eps
    torch.testing.assert_close(method.bridge(x, gap, TOPS, TOPS, eps), expected)


@pytest.mark.parametrize(("t", "s"), [(120, 119), (120, 60), (60, 1), (2, 1), (100, 0)])
def test_the_posterior_of_ddpm_stays_on_the_bridge(t: int, s: int) -> None:
    a, top = Linear().alpha_bars, Linear().alpha_bars[120]
    zero, one = torch.zeros(1).double(), k_in(a[t], top)[None]
    carried = posterior_mean(a[t], a[s], zero, one)
    torch.testing.assert_close(carried, k_in(a[s], top)[None], rtol=1e-12, atol=1e-15)


class KnowsImage:
    """A denoiser that is right."""

    def __init__(self, x_0: Tensor, schedule: Schedule) -> None:
        self.x_0, self.schedule = x_0, schedule

    def __call__(self, x_t: Tensor, t: int) -> Tensor:
        return self.x_0


def left_over(eta: float, t: int, s: int) -> float:
    """How much of the gap is in x_s after a jump from the bridge at t, with a perfect network."""
    a = VP().alpha_bars
    x_t = k_in(a[t], a[100]).reshape(1, 1, 1, 1)
    still = lambda like, step: torch.zeros_like(like)
    return float(jump(KnowsImage(torch.zeros_like(x_t), VP()), x_t, t, s, still, eta))


def test_the_deterministic_sampler_leaves_more_than_the_bridge_has() -> None:
    """Times the bridge's own: computed for 5 steps from T = 0.1."""
    a, levels = VP().alpha_bars, ladder(100, 5)
    jumps = list(pairwise(levels))[:-1]
    for (t, s), factor in zip(jumps, (1.25, 1.32, 1.46, 1.83), strict=True):
        own = float(k_in(a[s], a[100]))
        assert left_over(1.0, t, s) / own == pytest.approx(1, rel=1e-6)
        assert left_over(0.0, t, s) / own == pytest.approx(factor, abs=0.006)


# --- the attack ---


def test_the_attack_stays_in_its_ball_and_in_the_range_of_images() -> None:
    method, x = ADBM(network(), classifier()), 2 * images(3) - 1
    x[:, :, :4] = 1.0  # where half of the ball is no image
    for rounds in (0, 1, 3):
        own = ADBM(method.denoiser, method.classifier, rounds=rounds)
        gap = own.gap(x, LABELS, LEVELS, TOPS, eps=normal(1, x), start=normal(2, x))
        assert gap.abs().max() <= 16 / 255 + 1e-6
        assert (x + gap).abs().max() <= 1 + 1e-6
        assert not gap.requires_grad


def test_its_start_is_even_in_the_ball() -> None:
    x = torch.zeros(50, 1, 16, 16)
    method = ADBM(network(), classifier(), eps=0.1, rounds=0)
    levels = torch.full((50,), 9)
    gap = method.gap(x, levels, levels, levels, eps=x, start=normal(2, x)) / 0.2
    assert gap.abs().max() <= 1
    assert float(gap.square().mean()) == pytest.approx(1 / 3, abs=0.01)
    assert float(gap.abs().mean()) == pytest.approx(1 / 2, abs=0.01)


def test_three_rounds_raise_the_classifier_s_loss_at_the_same_noise() -> None:
    x = 2 * images(24) - 1
    labels, t, top = torch.arange(24) % 4, torch.full((24,), 60), torch.full((24,), 150)
    eps, start = normal(1, x), normal(2, x)
    found = []
    for rounds in range(4):
        method = ADBM(network(), classifier(), eps=2 / 255, rounds=rounds)
        gap = method.gap(x, labels, t, top, eps=eps, start=start)
        x_0 = undiffuse(
            Linear(), (x_t := method.bridge(x, gap, t, top, eps)), t,
            method.denoiser.predict(x_t, t).eps,
        )  # fmt: skip
        logits = method.classifier((x_0 + 1) / 2)
        found.append(torch.nn.functional.cross_entropy(logits, labels).item())
    assert found[3] > found[0]
    assert found[1] > found[0]


def test_one_round_is_a_step_along_the_sign_through_bridge_and_network() -> None:
    method, x = ADBM(network(), classifier(), rounds=1), 0.5 * (2 * images() - 1)
    eps, start = normal(1, x), normal(2, x)
    reach = 16 / 255
    gap = (reach * (2 * torch.special.ndtr(start) - 1)).requires_grad_()
    a_t, a_top = (Linear().at(t, x) for t in (LEVELS, TOPS))
    k = a_top * (1 - a_t) / ((1 - a_top) * a_t.sqrt())
    x_t = a_t.sqrt() * x + k * gap + (1 - a_t).sqrt() * eps
    said = method.denoiser.predict(x_t, LEVELS).eps
    x_0 = (x_t - (1 - a_t).sqrt() * said) / a_t.sqrt()
    loss = torch.nn.functional.cross_entropy(method.classifier((x_0 + 1) / 2), LABELS)
    (slope,) = torch.autograd.grad(loss, gap)
    expected = (gap + reach * slope.sign()).clamp(-reach, reach)
    found = method.gap(x, LABELS, LEVELS, TOPS, eps=eps, start=start)
    torch.testing.assert_close(found, expected)


def test_the_loss_is_the_error_of_the_target_at_the_noise_of_the_attack() -> None:
    method, x, noise = ADBM(network(), classifier()), 2 * images() - 1, Fixed(3)
    eps, start = noise(x, EPS), noise(x, START)
    gap = method.gap(x, LABELS, LEVELS, TOPS, eps=eps, start=start)
    predicted = method.denoiser.predict(method.bridge(x, gap, LEVELS, TOPS, eps), LEVELS).eps
    target = method.target(gap, LEVELS, TOPS, eps)
    expected = (target - predicted).square().mean((1, 2, 3))
    torch.testing.assert_close(method.error(x, LABELS, LEVELS, TOPS, noise), expected)


def test_its_noise_is_asked_once_for_each_thing() -> None:
    """Else the attack would see another noise than the loss, where every call draws anew."""
    asked: list[int] = []

    def counting(like: Tensor, step: int) -> Tensor:
        asked.append(step)
        return Fixed(0)(like, step)

    ADBM(network(), classifier()).error(2 * images() - 1, LABELS, LEVELS, TOPS, counting)
    assert asked == [EPS, START]


# --- the purifier ---


def test_the_published_sampler_visits_five_levels() -> None:
    asked: list[int] = []

    class Asks:
        schedule = Linear()

        def __call__(self, x_t: Tensor, t: int) -> Tensor:
            asked.append(t)
            return 0 * x_t

    with torch.no_grad():
        adbm(Asks())(images(), Fixed(0))
    assert asked == [100, 80, 60, 40, 20]


def test_eta_decides_whether_noise_is_drawn_on_the_way() -> None:
    x, denoiser = images(), network()
    asked: list[int] = []

    def counting(like: Tensor, step: int) -> Tensor:
        asked.append(step)
        return Fixed(0)(like, step)

    adbm(denoiser)(x, counting)
    assert asked == [100]
    asked.clear()
    adbm(denoiser, eta=1.0)(x, counting)
    assert asked == [100, -81, -61, -41, -21]


def test_what_is_out_of_range_is_refused() -> None:
    for settings in ({"depth": 0}, {"depth": 1001}, {"shots": 101}, {"shots": 0}, {"eta": 1.5}):
        with pytest.raises(UsageError, match="expected"):
            adbm(network(), **settings)


def test_a_depth_beyond_the_longest_bridge_is_refused_by_its_share_of_the_schedule() -> None:
    adbm(network(), 200)
    with pytest.raises(UsageError, match="depth 201 of 1000: expected at most 200"):
        adbm(network(), 201)
    short = EpsDenoiser(network().network, Linear(100))
    adbm(short, 20)
    with pytest.raises(UsageError, match=r"depth 100 of 100: expected at most 20, from"):
        adbm(short, 100)


def test_without_a_depth_it_is_a_tenth_of_the_schedule() -> None:
    short = EpsDenoiser(network().network, Linear(100))
    x = images()
    assert torch.equal(adbm(short)(x, Fixed(0)), adbm(short, 10)(x, Fixed(0)))
