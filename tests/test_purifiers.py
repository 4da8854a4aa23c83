"""What every purifier promises, and DiffPure's: exact denoisers and gradients, little memory."""

import math
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from holding import held
from purifying import READY, images, in_double, network, ready
from slopes import EXACT, disagreement
from torch import Tensor
from toys import names

from advrad import purifiers
from advrad.diffusion import STEPS, Denoiser, Linear, Schedule, ddim, reconstruct
from advrad.diffusion.recompute import Recomputed
from advrad.errors import UsageError
from advrad.noise import Fixed, Noise, PerImage, Split, redraw
from advrad.purifiers import ALL, Purifier, diffpure, surrogate

OTHERS = {"addt", "base", "detect", "stored", "training"}  # what purifiers are made or used by
STILL = {"defensegan", "denoised", "ode"}  # those that draw nothing on the way out


@dataclass
class Shrinks:
    """Every image is c x_t: the posterior mean of x_0 for independent pixels of one variance."""

    variance: float = 0.25
    schedule: Schedule = field(default_factory=Linear)

    def factor(self, t: int) -> float:
        a_t = self.schedule.alpha_bar(t)
        return math.sqrt(a_t) * self.variance / (a_t * self.variance + 1 - a_t)

    def __call__(self, x_t: Tensor, t: int) -> Tensor:
        return self.factor(t) * x_t


@pytest.fixture(params=READY)
def purify(request: pytest.FixtureRequest) -> Purifier:
    return ready(request.param)


# --- the table ---


def test_every_module_of_the_room_is_in_the_table() -> None:
    found = {module.name for module in pkgutil.iter_modules(purifiers.__path__)}
    methods = {name for name in found if not name.startswith("_")} - OTHERS
    assert {maker.__module__.rpartition(".")[2] for maker in ALL.values()} == methods
    assert all(name == maker.__name__ for name, maker in ALL.items())


def test_every_purifier_of_the_table_is_tried() -> None:
    assert READY.keys() == ALL.keys()


def test_images_come_out_as_they_went_in(purify: Purifier) -> None:
    x = images()
    found = purify(x, Fixed(0))
    assert found.shape == x.shape
    assert found.dtype == torch.float32
    assert found.min() >= 0
    assert found.max() <= 1


def test_its_noise_is_that_which_is_passed_in(purify: Purifier) -> None:
    x = images()
    before = torch.get_rng_state()
    assert torch.equal(purify(x, Fixed(0)), purify(x, Fixed(0)))
    assert not torch.equal(purify(x, Fixed(0)), purify(x, Fixed(1)))
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(purify(x), purify(x))


@pytest.mark.parametrize("name", READY)
def test_known_draws_give_the_same_image_to_the_bit(name: str) -> None:
    """Who knows both noises knows the result; of the forward noise alone where none else is."""
    x, purify = images(), ready(name)
    both = Split(PerImage(1, names(3)), PerImage(2, names(3)))
    assert torch.equal(purify(x, both), purify(x, both))
    assert torch.equal(purify(x, PerImage(1, names(3))), purify(x, PerImage(1, names(3))))
    assert torch.equal(purify(x, Split(Fixed(3), Fixed(3))), purify(x, Fixed(3)))
    other_in = purify(x, Split(Fixed(0), Fixed(1))), purify(x, Split(Fixed(2), Fixed(1)))
    assert not torch.equal(*other_in)
    other_out = purify(x, Split(Fixed(0), Fixed(1))), purify(x, Split(Fixed(0), Fixed(2)))
    assert torch.equal(*other_out) == (name in STILL)


def test_an_image_is_purified_the_same_alone_and_in_any_batch(purify: Purifier) -> None:
    x, ids = images(), names(3)
    together = purify(x, PerImage(5, ids))
    for i in range(3):
        alone = purify(x[i : i + 1], PerImage(5, ids[i : i + 1]))
        torch.testing.assert_close(alone[0], together[i], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", READY)
def test_its_gradient_is_the_slope(name: str) -> None:
    purify, x = ready(name, double=True), 0.3 + 0.4 * images(2)
    assert disagreement(lambda x: purify(x, Fixed(0)), x) < EXACT
    assert disagreement(lambda x: purify(x, PerImage(4, names(2))), x) < EXACT


def test_no_parameter_gets_a_gradient_by_itself() -> None:
    denoiser, x = network().requires_grad_(True), images(1).requires_grad_()
    torch.autograd.grad(diffpure(denoiser, 60, 3)(x, Fixed(0)).sum(), x)
    assert all(parameter.grad is None for parameter in denoiser.parameters())


# --- DiffPure ---


def test_one_shot_in_closed_form() -> None:
    """sqrt(a) x~ + sqrt(1 - a) e, times c, for x~ in [-1, 1]; and back to [0, 1]."""
    denoiser, x, depth = Shrinks(), images(), 80
    a_k = denoiser.schedule.alpha_bar(depth)
    e = Fixed(3)(x, depth)
    mixed = math.sqrt(a_k) * (2 * x - 1) + math.sqrt(1 - a_k) * e
    expected = (denoiser.factor(depth) * mixed + 1) / 2
    torch.testing.assert_close(diffpure(denoiser, depth)(x, Fixed(3)), expected.clamp(0, 1))


class Bright:
    schedule = Linear()

    def __call__(self, x_t: Tensor, t: int) -> Tensor:
        return torch.full_like(x_t, 3.0)


def test_what_the_denoiser_says_beyond_an_image_is_clipped_at_the_end_alone() -> None:
    assert (diffpure(Bright(), 50)(images(), Fixed(0)) == 1).all()
    between = reconstruct(Bright(), 2 * images() - 1, 50, 5, Fixed(0))
    assert (between == 3).all()


@pytest.mark.parametrize("shots", [1, 4])
@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS.keys())
def test_it_is_the_reconstruction(step: Any, shots: int) -> None:
    denoiser, x = network(), images()
    y = reconstruct(denoiser, 2 * x - 1, 60, shots, Fixed(0), step=step)
    found = diffpure(denoiser, 60, shots, step=step)(x, Fixed(0))
    assert torch.equal(found, ((y + 1) / 2).clamp(0, 1))


def test_rounds_follow_one_another_without_a_clip_and_with_draws_of_their_own() -> None:
    denoiser, x, asked = Shrinks(), images(), list[int]()

    def noise(like: Tensor, step: int) -> Tensor:
        asked.append(step)
        return PerImage(4, names(len(like)))(like, step)

    found = diffpure(denoiser, 300, 2, rounds=3)(x, noise)
    assert len(set(asked)) == len(asked) == 6
    y = 2 * x - 1
    for number in range(3):
        y = reconstruct(denoiser, y, 300, 2, redraw(noise, number << 24))
    assert torch.equal(found, ((y + 1) / 2).clamp(0, 1))
    first = set(asked[:2])
    assert torch.equal(diffpure(denoiser, 300, 2)(x, noise), diffpure(denoiser, 300, 2)(x, noise))
    assert set(asked[-2:]) == first


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ((0,), r"depth 0 \(t\* = 0\) puts in noise of 0, so that nothing would be purified; exp"),
        ((-5,), r"depth -5 \(t\* = -0\.005\) puts in noise of 0"),
        ((1001,), r"depth 1001 \(t\* = 1\.001\) is beyond the schedule, which ends with noise of"),
        (
            (0,),
            r"1 to 1000, where 1 is noise of 0\.005 for images in \[0, 1\] and 100 \(t\* = 0\.1",
        ),
        ((1001,), r"100 \(t\* = 0\.1\) is noise of 0\.169 for images"),
        ((5, 6), "depth 5 in 6 shots: expected 1 to 5 shots"),
        ((5, 0), "depth 5 in 0 shots"),
    ],
)
def test_depth_and_shots_out_of_range_are_refused(settings: tuple[int, ...], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        diffpure(Shrinks(), *settings)


def test_a_depth_in_the_paper_s_unit_is_told_in_steps() -> None:
    with pytest.raises(UsageError, match=r"depth 0\.1: expected a number of steps; .* 100 of its"):
        diffpure(Shrinks(), 0.1)  # type: ignore[arg-type]


def test_a_truth_value_is_no_depth() -> None:
    with pytest.raises(UsageError, match="depth True: expected a number of steps, 1 to 1000"):
        diffpure(Shrinks(), True)


def test_no_rounds_are_refused() -> None:
    with pytest.raises(UsageError, match="0 rounds: expected 1 or more"):
        diffpure(Shrinks(), 5, rounds=0)


def test_more_depth_leaves_less_of_a_perturbation_and_of_the_content() -> None:
    """The contrast that is left is sqrt(a_k) c_k exactly, and falls with the depth."""
    denoiser = Shrinks()
    x = 0.5 + 0.1 * (images() - 0.5)
    moved = x + 0.01
    left = [
        float((diffpure(denoiser, k)(moved, Fixed(0)) - diffpure(denoiser, k)(x, Fixed(0))).mean())
        for k in (10, 50, 100, 200)
    ]
    exact = [
        0.01 * math.sqrt(denoiser.schedule.alpha_bar(k)) * denoiser.factor(k)
        for k in (10, 50, 100, 200)
    ]
    assert left == pytest.approx(exact, rel=1e-3)
    assert left == sorted(left, reverse=True)


# --- a surrogate ---


def slope(purify: Purifier, x: Tensor, noise: Noise) -> Tensor:
    x = x.clone().requires_grad_()
    (found,) = torch.autograd.grad(purify(x, noise).square().sum(), x)
    return found


@pytest.mark.parametrize("name", READY)
def test_a_surrogate_of_as_many_steps_is_the_purifier(name: str) -> None:
    purify, x, noise = ready(name), images(), PerImage(0, names(3))
    same = surrogate(purify, ready(name))
    with torch.no_grad():
        assert torch.equal(same(x, noise), purify(x, noise))
    torch.testing.assert_close(slope(same, x, noise), slope(purify, x, noise))


def test_a_surrogate_has_the_value_of_one_and_the_slope_of_the_other() -> None:
    """2 y dy/dx of sum y^2: y of the one, dy/dx of the other."""
    exact, coarse = (diffpure(Shrinks(), 200, shots, step=STEPS["ode"]) for shots in (50, 2))
    x, noise = 0.4 + 0.2 * images(), lambda like, step: 0.05 * Fixed(0)(like, step)
    both = surrogate(exact, coarse)
    assert torch.equal(both(x, noise), exact(x, noise))
    of_coarse = slope(coarse, x, noise) / (2 * coarse(x, noise))
    torch.testing.assert_close(slope(both, x, noise), 2 * exact(x, noise) * of_coarse)
    gap = (slope(both, x, noise) / slope(exact, x, noise) - 1).abs()
    assert gap.min() > 1e-3


def test_both_chains_of_a_surrogate_draw_the_same_noise_at_the_levels_that_both_visit() -> None:
    asked: dict[int, list[int]] = {}
    for shots in (20, 5):
        asked[shots] = steps = []

        def noise(like: Tensor, step: int, steps: list[int] = steps) -> Tensor:
            steps.append(step)
            return torch.zeros_like(like)

        diffpure(Shrinks(), 100, shots)(images(1), noise)
    assert set(asked[5]) < set(asked[20])
    assert asked[5][0] == asked[20][0] == 100


# --- recomputing ---


WEIGHTS = pytest.mark.parametrize("learnt", [False, True])  # whether they get a gradient too


@WEIGHTS
def test_recomputing_changes_no_number_and_no_gradient(learnt: bool) -> None:
    denoiser, x = network().requires_grad_(learnt), images()
    plain, again = x.clone().requires_grad_(), x.clone().requires_grad_()
    one = reconstruct(denoiser, plain, 60, 4, Fixed(0))
    two = reconstruct(Recomputed(denoiser), again, 60, 4, Fixed(0))
    assert torch.equal(one, two)
    one.square().sum().backward()
    two.square().sum().backward()
    assert plain.grad is not None
    torch.testing.assert_close(again.grad, plain.grad)


def test_weights_that_learn_get_their_gradient_through_a_recomputed_chain() -> None:
    denoiser, x = network().requires_grad_(True), images()
    slopes = []
    for used in (denoiser, Recomputed(denoiser)):
        denoiser.zero_grad()
        reconstruct(used, x, 60, 4, Fixed(0)).square().sum().backward()
        slopes.append([parameter.grad for parameter in denoiser.parameters()])
    assert any(slope is not None and slope.abs().max() > 0 for slope in slopes[0])
    torch.testing.assert_close(*slopes)


@WEIGHTS
def test_recomputing_changes_no_second_derivative(learnt: bool) -> None:
    """The slope of the gradient's norm, for an attack on it or a search inside it."""
    denoiser, x = network().requires_grad_(learnt), images()

    def curvature(used: Denoiser) -> Tensor:
        own = x.clone().requires_grad_()
        value = reconstruct(used, own, 60, 3, Fixed(0)).square().sum()
        (first,) = torch.autograd.grad(value, own, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), own)
        return second

    expected = curvature(denoiser)
    assert expected.abs().max() > 0
    torch.testing.assert_close(curvature(Recomputed(denoiser)), expected)


def test_recomputing_agrees_with_differences_to_both_orders() -> None:
    used = Recomputed(in_double(network()))
    x = images(1).double()[..., :4, :4].clone().requires_grad_()
    work = lambda x: reconstruct(used, x, 60, 3, Fixed(0)).square()
    assert torch.autograd.gradcheck(work, x, atol=1e-6)
    assert torch.autograd.gradgradcheck(work, x, atol=1e-5)


@WEIGHTS
def test_a_chain_needs_the_memory_of_its_images_and_not_of_its_activations(learnt: bool) -> None:
    denoiser, x = network().requires_grad_(learnt), images(1)
    chain = lambda used, shots: held(lambda x: reconstruct(used, x, 60, shots, Fixed(0)), x)
    image = x.numel() * x.element_size()
    assert chain(denoiser, 6) - chain(denoiser, 1) > 5 * 50 * image
    assert chain(Recomputed(denoiser), 6) <= 6 * image


MAKERS: dict[str, tuple[Callable[[Any, int], Purifier], int]] = {
    "ddpm": (lambda denoiser, n: diffpure(denoiser, 60, n), 1),
    "ddim": (lambda denoiser, n: diffpure(denoiser, 60, n, step=ddim()), 1),
    "rounds": (lambda denoiser, n: diffpure(denoiser, 60, 1, rounds=n), 1),
    "sde": (lambda denoiser, n: purifiers.sde(denoiser, 0.06, 0.06 / n), 1),
    "ode": (lambda denoiser, n: purifiers.ode(denoiser, 0.06, 0.06 / n), 1),
    "gdmp": (lambda denoiser, n: purifiers.gdmp(denoiser, 60, n, rounds=1), 2),
}


@pytest.mark.parametrize("name", MAKERS)
def test_a_step_more_costs_an_image_and_no_more(name: str) -> None:
    """x_t for the network's own second run, and under a guide the reference at its level."""
    make, tensors = MAKERS[name]
    x, denoiser = images(2), network()
    few, many = (held(lambda x, n=n: make(denoiser, n)(x, Fixed(0)), x) for n in (3, 12))
    assert few < many <= few + 9 * tensors * x.numel() * x.element_size()


class Counts:
    """A denoiser that is no line, so that its backward pass needs what it was given."""

    def __init__(self) -> None:
        self.schedule, self.asked = Linear(), list[int]()

    def __call__(self, x_t: Tensor, t: int) -> Tensor:
        self.asked.append(t)
        return x_t.tanh()


def test_one_shot_is_not_computed_twice_and_a_chain_is_at_the_same_levels() -> None:
    for shots, asked in ((1, [60]), (4, [60, 45, 30, 15, 15, 30, 45, 60])):
        denoiser = Counts()
        diffpure(denoiser, 60, shots)(images().requires_grad_(), Fixed(0)).sum().backward()
        assert denoiser.asked == asked
    with torch.no_grad():
        denoiser = Counts()
        diffpure(denoiser, 60, 4)(images(), Fixed(0))
    assert denoiser.asked == [60, 45, 30, 15]
