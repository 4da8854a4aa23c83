"""Expectations over draws: plain autograd, numbering, and what they cost in memory."""

import weakref

import pytest
import torch
from torch import Tensor

from advrad.attacks.gradient import value_and_gradient, value_of
from advrad.attacks.objective import Aim, Stacked, eot
from advrad.errors import BlindAttackError, UsageError
from advrad.noise import Draws, Noise, PerImage, fresh

IDS = ["a", "b", "c"]


def pictures(count: int = 3) -> Tensor:
    return torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(1))


def gradient(values: Tensor, x: Tensor) -> Tensor:
    return torch.autograd.grad(values.sum(), x)[0]


def shifted(x: Tensor, noise: Noise) -> Tensor:
    """Sum of (x + noise)^2, whose mean is sum of x^2 + 1."""
    return (x + noise(x, 3)).square().flatten(1).sum(1)


@pytest.mark.parametrize("rows", [1, 3, 7, 100])
@pytest.mark.parametrize("draws", [1, 5])
def test_value_and_gradient_are_the_mean_over_the_draws_as_plain_autograd_has_them(
    draws: int, rows: int
) -> None:
    x, noises = pictures(), Draws(4, IDS)
    plain = x.clone().requires_grad_()
    expected = torch.stack([shifted(plain, noises(k)) for k in range(draws)]).mean(0)
    slope = gradient(expected, plain)
    seen = value_and_gradient(eot(shifted, draws, noises, rows), x)
    torch.testing.assert_close(seen.climb, expected.detach())
    torch.testing.assert_close(seen.rank, expected.detach())
    torch.testing.assert_close(seen.gradient, slope)
    both = value_of(eot(shifted, draws, noises, rows), x)
    torch.testing.assert_close(both.rank, expected.detach())


def test_a_known_expectation_is_met() -> None:
    """Sum of x^2 + 16, gradient 2x: 2000 draws leave standard errors of 0.15 and 0.045."""
    torch.manual_seed(0)
    x = pictures()
    seen = value_and_gradient(eot(shifted, 2000, rows=300), x)
    assert (seen.climb - x.square().flatten(1).sum(1) - 16).abs().max() < 0.75
    assert (seen.gradient - 2 * x).abs().max() < 0.22


def test_each_call_takes_the_next_draws() -> None:
    asked: list[int] = []

    def noises(k: int) -> Noise:
        asked.append(k)
        return fresh

    objective = eot(shifted, 3, noises, rows=6)
    value_and_gradient(objective, pictures())
    assert asked == [0, 1, 2]
    value_of(objective, pictures())
    assert asked == [0, 1, 2, 3, 4, 5]
    other = eot(shifted, 3, noises)
    value_of(other, pictures())
    assert asked[6:] == [0, 1, 2]


def test_of_several_objectives_each_draw_takes_the_next_one() -> None:
    """Three forms, five draws a call: 0 1 2 0 1, and then 2 0 1 2 0."""
    noises, x = Draws(0, IDS), pictures()
    forms = [lambda z, noise, c=c: c * shifted(z, noise) for c in (1.0, 10.0, 100.0)]
    objective = eot(forms, 5, noises, rows=6)
    for numbers in (range(5), range(5, 10)):
        plain = x.clone().requires_grad_()
        parts = [forms[k % 3](plain, noises(k)) for k in numbers]
        expected = torch.stack(parts).mean(0)
        slope = gradient(expected, plain)
        seen = value_and_gradient(objective, x)
        torch.testing.assert_close(seen.climb, expected.detach())
        torch.testing.assert_close(seen.gradient, slope)
    assert value_of(eot(forms, 1, noises), x).rank.shape == (3,)


def test_one_blind_objective_of_several_is_not_passed_over() -> None:
    forms = [shifted, lambda x, noise: shifted(x.detach(), noise)]
    for order in (forms, forms[::-1]):
        with pytest.raises(BlindAttackError):
            value_and_gradient(eot(order, 4), pictures())


def test_what_climbs_and_what_ranks_are_averaged_apart() -> None:
    def drawn(x: Tensor, noise: Noise) -> Aim:
        value = (x + noise(x, 0)).flatten(1).sum(1)
        return Aim(value, 2 * value.detach() + 1)

    seen = value_and_gradient(eot(drawn, 4, Draws(0, IDS)), pictures())
    torch.testing.assert_close(seen.rank, 2 * seen.climb + 1)
    torch.testing.assert_close(seen.gradient, torch.ones_like(seen.gradient))


def test_an_expectation_is_differentiated_through_what_comes_before_it() -> None:
    x = pictures().requires_grad_()
    value = eot(shifted, 3, Draws(0, IDS))(x.square()).climb
    plain = torch.stack([shifted(x.square(), Draws(0, IDS)(k)) for k in range(3)]).mean(0)
    weight = torch.tensor([1.0, -2.0, 3.0])
    torch.testing.assert_close(gradient(weight * value, x), gradient(weight * plain, x))


def test_an_image_s_expectation_does_not_depend_on_its_batch() -> None:
    x = pictures()
    whole = value_and_gradient(eot(shifted, 4, Draws(0, IDS), rows=5), x)
    for i, name in enumerate(IDS):
        alone = value_and_gradient(eot(shifted, 4, Draws(0, [name])), x[i : i + 1])
        torch.testing.assert_close(alone.climb[0], whole.climb[i])
        torch.testing.assert_close(alone.gradient[0], whole.gradient[i])


def most_alive(draws: int, rows: int) -> int:
    """Numbers kept for the backward pass at once, at most."""
    alive, most = 0, 0

    class Kept:
        def __init__(self, tensor: Tensor) -> None:
            self.tensor = tensor

    def pack(tensor: Tensor) -> Kept:
        nonlocal alive, most
        kept, numbers = Kept(tensor), tensor.numel()
        alive += numbers
        most = max(most, alive)

        def gone() -> None:
            nonlocal alive
            alive -= numbers

        weakref.finalize(kept, gone)
        return kept

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept.tensor):
        value_and_gradient(eot(shifted, draws, rows=rows), pictures())
    return most


def test_memory_does_not_grow_with_draws() -> None:
    assert 0 < most_alive(64, 6) == most_alive(2, 6)
    assert most_alive(64, 12) == pytest.approx(2 * most_alive(64, 6), rel=0.2)


def test_a_batch_larger_than_the_rows_still_passes() -> None:
    assert value_of(eot(shifted, 2, rows=1), pictures()).rank.shape == (3,)


@pytest.mark.parametrize("draws", [0, -1])
def test_no_draws_are_refused(draws: int) -> None:
    with pytest.raises(UsageError, match=f"an expectation over {draws} draws"):
        eot(shifted, draws)


@pytest.mark.parametrize(
    "cut",
    [
        lambda x, noise: shifted(x.detach(), noise),
        lambda x, noise: torch.zeros(len(x), requires_grad=True) + x.detach().sum((1, 2, 3)),
    ],
)
def test_a_cut_gradient_is_seen_through_an_expectation(cut) -> None:
    with pytest.raises(BlindAttackError):
        value_and_gradient(eot(cut, 2), pictures())


@pytest.mark.parametrize("wrong", [lambda v: v.sum(), lambda v: v[:, None], lambda v: v[:3]])
def test_a_wrong_shape_is_seen_through_an_expectation(wrong) -> None:
    with pytest.raises(UsageError, match="expected one number an image"):
        value_of(eot(lambda x, noise: wrong(shifted(x, noise)), 2), pictures())


def test_stacked_noises_belong_to_the_copies_of_the_batch() -> None:
    parts = [PerImage(seed, IDS) for seed in (1, 2)]
    x = pictures()
    drawn = Stacked(parts)(x.repeat(2, 1, 1, 1), 7)
    assert torch.equal(drawn, torch.cat([part(x, 7) for part in parts]))
