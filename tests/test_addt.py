"""ADDT: its weights, its ranks, and a search that touches nothing but delta."""

import math
from collections.abc import Callable

import pytest
import torch
from purifying import SIDE, classifier, images, network
from torch import Tensor
from toys import names

from advrad.diffusion import VP, EpsDenoiser, Linear
from advrad.noise import Fixed, Noise, PerImage, redraw
from advrad.purifiers.addt import ADDT, ORDERED, REACH, Unranked, mixed, ranked, share

LABELS = torch.tensor([0, 1, 2])
LEVELS = torch.tensor([1, 40, 300])


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def addt(rounds: int = 5) -> ADDT:
    return ADDT(network(), classifier(), rounds)


# --- lambda and the mixed noise ---


def test_the_share_of_the_attack_is_the_published_one() -> None:
    """The papers' t is one less than the number of steps of noise."""
    found = {0: 0.3, 20: 0.3, 50: 0.170, 100: 0.088, 200: 0.042, 500: 0.0087, 999: 0.0002}
    for t, expected in found.items():
        weight = share(Linear(), torch.tensor([t + 1]), torch.zeros(1, 1, 1, 1))
        assert weight.item() == pytest.approx(expected, abs=0.0006 if t < 500 else 6e-5)


def test_where_it_is_not_clipped_it_is_an_offset_of_0_03_on_the_image() -> None:
    for schedule in (Linear(), VP()):
        t = torch.arange(40, 900, 50)
        a_t = schedule.at(t, torch.zeros(1))
        offset = share(schedule, t, a_t) * (1 - a_t).sqrt() / a_t.sqrt()
        torch.testing.assert_close(offset, torch.full_like(offset, 0.03))


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.9])
def test_mixed_noise_has_unit_variance(weight: float) -> None:
    eps, delta = normal(2, 3, 200, 200), normal(2, 3, 200, 200, seed=1)
    found = mixed(eps, delta, torch.tensor(weight))
    assert float(found.var()) == pytest.approx(1, abs=0.01)
    assert float((found * delta).mean()) == pytest.approx(weight, abs=0.01)
    assert float((found * eps).mean()) == pytest.approx(math.sqrt(1 - weight**2), abs=0.01)


# --- ranks ---


def test_values_are_those_of_the_noise_and_the_order_is_that_of_the_gradient() -> None:
    order, z = normal(3, 2, 5, 7), normal(3, 2, 5, 7, seed=1)
    found = ranked(order, z)
    for image in range(3):
        for channel in range(2):
            own, wanted = found[image, channel].flatten(), order[image, channel].flatten()
            assert torch.equal(own.sort().values, z[image, channel].flatten().sort().values)
            assert torch.equal(own.argsort(), wanted.argsort())


def test_ranks_alone_count() -> None:
    order, z = normal(2, 1, 4, 4), normal(2, 1, 4, 4, seed=1)
    assert torch.equal(ranked(order, z), ranked(100 * order.exp() - 3, z))
    assert torch.equal(ranked(-order, z), -ranked(order, -z))
    assert torch.equal(ranked(z, z), z)


def test_a_gradient_of_nothing_leaves_the_noise_its_values() -> None:
    z = normal(1, 1, 4, 4)
    found = ranked(torch.zeros(1, 1, 4, 4), z)
    assert torch.equal(found.flatten().sort().values, z.flatten().sort().values)


def test_an_image_has_the_same_delta_alone_and_in_a_batch() -> None:
    x, ids = 2 * images() - 1, names(3)
    together = addt().delta(x, LABELS, LEVELS, PerImage(2, ids))
    for i in range(3):
        one = slice(i, i + 1)
        alone = addt().delta(x[one], LABELS[one], LEVELS[one], PerImage(2, ids[one]))
        agree = (alone[0] == together[i]).float().mean()
        assert agree > 0.9  # neighbours in rank may change places by a rounding


# --- the search ---


def test_delta_is_gaussian_and_misleads_more_than_noise_does() -> None:
    method, x = addt(), (2 * images(40) - 1).clamp(-0.9, 0.9)
    labels, t = torch.arange(40) % 4, torch.full((40,), 15)
    delta = method.delta(x, labels, t, PerImage(3, names(40)))
    assert float(delta.mean()) == pytest.approx(0, abs=0.05)
    assert float(delta.std()) == pytest.approx(1, abs=0.05)
    eps, other = normal(40, 1, SIDE, SIDE), normal(40, 1, SIDE, SIDE, seed=1)
    with torch.no_grad():
        misled, before = (
            method.doubt(x, labels, t, method.mixed(d, t, eps)) for d in (delta, other)
        )
    assert (misled > before).float().mean() > 0.9


def test_rounds_add_their_gradients_up() -> None:
    """By hand: delta is rebuilt from the ranks of the sum, with neither step nor projection."""
    method, noise = addt(3), Fixed(1)
    x = 2 * images() - 1
    delta, total = redraw(noise, 3)(x, ORDERED), torch.zeros_like(x)
    for k in range(3):
        own = redraw(noise, k)
        at = delta.clone().requires_grad_()
        n = method.mixed(at, LEVELS, own(x, 0))
        total += torch.autograd.grad(method.doubt(x, LABELS, LEVELS, n).sum(), at)[0]
        delta = ranked(total, own(x, ORDERED))
    torch.testing.assert_close(method.delta(x, LABELS, LEVELS, noise), delta)


def test_the_network_is_to_predict_all_of_the_mixed_noise() -> None:
    method, x, noise = addt(1), 2 * images() - 1, Fixed(4)
    n = method.mixed(method.delta(x, LABELS, LEVELS, noise), LEVELS, redraw(noise, 1)(x, 0))
    a_t = Linear().at(LEVELS, x)
    predicted = method.denoiser.predict(a_t.sqrt() * x + (1 - a_t).sqrt() * n, LEVELS).eps
    expected = (n - predicted).square().mean((1, 2, 3))
    torch.testing.assert_close(method.error(x, LABELS, LEVELS, noise), expected)


Search = Callable[[ADDT, Tensor, Noise], object]


def leaves_parameters_alone(search: Search) -> bool:
    """Whether no parameter of network and classifier has a gradient after it."""
    method = addt()
    parameters = [*method.denoiser.parameters(), *method.classifier.parameters()]
    for parameter in parameters:
        parameter.requires_grad_(True)
    search(method, 2 * images() - 1, Fixed(0))
    return all(parameter.grad is None for parameter in parameters)


def with_backward(method: ADDT, x: Tensor, noise: Noise) -> None:
    """As the published EDM variant: five backward passes, and the classifier's loss stays in the
    network's gradients."""
    delta = noise(x, 0)
    for _ in range(5):
        at = delta.clone().requires_grad_()
        method.doubt(x, LABELS, LEVELS, method.mixed(at, LEVELS, noise(x, 1))).sum().backward()
        delta = ranked(at.grad, noise(x, 2))


def test_the_search_puts_no_gradient_into_any_parameter() -> None:
    assert leaves_parameters_alone(lambda m, x, noise: m.delta(x, LABELS, LEVELS, noise))
    assert not leaves_parameters_alone(with_backward)


def test_the_loss_teaches_the_network_as_if_delta_were_a_constant() -> None:
    method, x, noise = addt(2), 2 * images() - 1, Fixed(0)
    parameters = [p.requires_grad_() for p in method.denoiser.network.leave.parameters()]
    delta = method.delta(x, LABELS, LEVELS, noise)
    n = method.mixed(delta, LEVELS, redraw(noise, 2)(x, 0))
    a_t = Linear().at(LEVELS, x)
    predicted = method.denoiser.predict(a_t.sqrt() * x + (1 - a_t).sqrt() * n, LEVELS).eps
    expected = torch.autograd.grad((n - predicted).square().mean(), parameters)
    found = torch.autograd.grad(method.error(x, LABELS, LEVELS, noise).mean(), parameters)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


# --- the ablation ---


def test_without_ranks_delta_is_an_attack_within_its_ball_and_the_image_s_range() -> None:
    method, x = Unranked(network(), classifier()), 2 * images(20) - 1
    labels, t = torch.arange(20) % 4, torch.full((20,), 15)
    delta = method.delta(x, labels, t, Fixed(0))
    assert delta.abs().max() <= REACH + 1e-6
    assert (x + delta).abs().max() <= 1 + 1e-6
    eps = normal(20, 1, SIDE, SIDE)
    with torch.no_grad():
        misled, before = (
            method.doubt(x, labels, t, method.mixed(d, t, eps)) for d in (delta, 0 * delta)
        )
    assert misled.mean() > before.mean()


def test_without_ranks_a_round_is_a_step_of_four_grey_levels_and_the_ball_has_eight() -> None:
    """Of 255, which are 8 / 255 and 16 / 255 in [-1, 1]; from grey, where no image ends."""
    x = torch.zeros(3, 1, SIDE, SIDE)
    one, many = (
        Unranked(network(), classifier(), rounds).delta(x, LABELS, LEVELS, Fixed(0)).abs()
        for rounds in (1, 6)
    )
    torch.testing.assert_close(one, torch.full_like(x, 8 / 255))
    assert float(many.max()) == pytest.approx(16 / 255)


def test_without_ranks_the_noise_carries_ten_times_the_attack_at_most() -> None:
    method = Unranked(EpsDenoiser(network().network, Linear()), classifier())
    one, t = torch.ones(3, 1, 2, 2), torch.tensor([1, 200, 500])
    found = method.mixed(one, t, torch.zeros(3, 1, 2, 2))[:, 0, 0, 0]
    a_t = Linear().alpha_bars[t].float()
    torch.testing.assert_close(found, (a_t / (1 - a_t)).sqrt().clamp(max=10))
    assert found[0] == 10
