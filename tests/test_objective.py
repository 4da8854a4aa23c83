"""What is climbed: closed forms and plain autograd."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from advrad.attacks.objective import (
    aim,
    bpda,
    checked,
    cross_entropy,
    dlr,
    input_constant,
    log_sum_exp,
    margin,
    masked_sum,
    reconstruction_constant,
    top_mean,
)
from advrad.errors import UsageError


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def pictures(count: int = 3) -> Tensor:
    return torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(1))


def gradient(values: Tensor, x: Tensor) -> Tensor:
    return torch.autograd.grad(values.sum(), x)[0]


# surrogates


@pytest.mark.parametrize("share", [0.01, 0.05, 0.5])
def test_log_sum_exp_lies_between_mean_and_maximum_and_its_gradient_is_a_softmax(
    share: float,
) -> None:
    values = normal(3, 6, 5).requires_grad_()
    soft, flat = log_sum_exp(values, share), values.detach().flatten(1)
    tau = share * (flat.amax(1) - flat.mean(1))
    expected = [
        t * math.log(sum(math.exp(v / t) for v in row.tolist()) / 30)
        for row, t in zip(flat.double(), tau.double().tolist(), strict=True)
    ]
    torch.testing.assert_close(soft.detach(), torch.tensor(expected))
    assert (soft >= flat.mean(1)).all()
    assert (soft <= flat.amax(1)).all()
    weights = (flat / tau[:, None]).softmax(1).view_as(values)
    torch.testing.assert_close(gradient(soft, values), weights)


@pytest.mark.parametrize(("scale", "offset"), [(1e-8, 0.0), (1e8, 0.0), (1e-4, 10.0)])
def test_log_sum_exp_knows_no_scale_and_no_offset(scale: float, offset: float) -> None:
    values = normal(3, 6, 5).double()
    there = log_sum_exp((offset + scale * values).float())
    expected = offset + scale * log_sum_exp(values)
    assert (there - expected).abs().max() <= 0.02 * scale + 1e-6 * offset


def test_log_sum_exp_of_a_constant_map_is_the_constant() -> None:
    values = torch.full((2, 4, 4), 3.0, requires_grad=True)
    soft = log_sum_exp(values)
    torch.testing.assert_close(soft.detach(), torch.full((2,), 3.0))
    torch.testing.assert_close(gradient(soft, values), torch.full((2, 4, 4), 1 / 16))


def test_top_mean_and_masked_sum_by_hand() -> None:
    values = torch.arange(32.0).view(2, 4, 4)
    assert top_mean(values, 0.0).tolist() == [15, 31]
    assert top_mean(values, 0.25).tolist() == [13.5, 29.5]
    assert top_mean(values, 1.0).tolist() == [7.5, 23.5]
    mask = torch.zeros(2, 4, 4)
    mask[0, 0, 1:3], mask[1, 3, 3] = 1, 1
    assert masked_sum(values, mask).tolist() == [3, 31]


# classifiers


def test_losses_of_classifiers_by_hand() -> None:
    logits = torch.tensor([[4.0, 1.0, 2.0, 0.0], [0.0, 3.0, 1.0, 2.0]])
    labels = torch.tensor([0, 2])
    assert margin(logits, labels).tolist() == [-2, 2]
    torch.testing.assert_close(dlr(logits, labels), torch.tensor([-2 / 3, 2 / 2]))
    expected = [-math.log(math.exp(row[k]) / sum(map(math.exp, row)))
                for row, k in zip(logits.tolist(), labels.tolist(), strict=True)]  # fmt: skip
    torch.testing.assert_close(cross_entropy(logits, labels), torch.tensor(expected))


def test_the_ratio_does_not_change_with_scale_and_shift() -> None:
    logits, labels = normal(5, 4), torch.tensor([0, 1, 2, 3, 0])
    torch.testing.assert_close(dlr(7 * logits + 3, labels), dlr(logits, labels))


def test_the_ratio_needs_three_logits() -> None:
    with pytest.raises(ValueError, match="2 logits: the ratio needs three or more"):
        dlr(normal(2, 2), torch.tensor([0, 1]))


# aims


def test_a_tensor_climbs_and_ranks_itself_without_a_graph() -> None:
    x = pictures().requires_grad_()
    both = aim(x.sum((1, 2, 3)))
    assert torch.equal(both.climb, both.rank)
    assert both.climb.requires_grad
    assert not both.rank.requires_grad
    assert aim(both) is both


# approximations of the backward pass


def test_forward_is_exact_to_the_bit_and_backward_the_other_s() -> None:
    x = pictures().requires_grad_()
    through = bpda(lambda z: (z * 255).round() / 255, lambda z: 1e3 * z.sin())
    y = through(x)
    assert torch.equal(y, (x * 255).round() / 255)
    torch.testing.assert_close(gradient(y, x), 1e3 * x.detach().cos())


def test_the_exact_part_is_never_differentiated() -> None:
    seen: list[bool] = []

    def exact(z: Tensor) -> Tensor:
        seen.append((2 * z).requires_grad)
        return z

    bpda(exact, lambda z: z)(pictures().requires_grad_())
    assert seen == [False]


def bent(x: Tensor) -> Tensor:
    return x.square() + 0.1


@pytest.mark.parametrize(("view", "sign"), [(reconstruction_constant, 2), (input_constant, -2)])
def test_the_two_views_of_an_error_have_opposite_gradients(view, sign: int) -> None:
    x = pictures().requires_grad_()
    one, other = view(x, bent(x))
    assert torch.equal(one, x)
    assert torch.equal(other, bent(x))
    error = (one - other).square().flatten(1).sum(1)
    expected = sign * (x - bent(x)).detach()
    torch.testing.assert_close(gradient(error, x), expected)


def test_the_identity_through_the_reconstruction_would_see_nothing() -> None:
    """Why the two views are there at all."""
    x = pictures().requires_grad_()
    error = (x - bpda(bent, lambda z: z)(x)).square().flatten(1).sum(1)
    assert gradient(error, x).abs().max() == 0


def test_an_average_of_cross_entropies_is_torch_s() -> None:
    logits, labels = normal(5, 4), torch.tensor([0, 1, 2, 3, 0])
    torch.testing.assert_close(
        cross_entropy(logits, labels).mean(), F.cross_entropy(logits, labels)
    )


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e12, 1e30])
def test_the_smooth_maximum_goes_with_the_scale_of_the_map(scale: float) -> None:
    """A map in other units has the value in these units, and the same gradient."""

    def seen(factor: float) -> tuple[Tensor, Tensor]:
        x = torch.rand(2, 5, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
        value = log_sum_exp(factor * x)
        (gradient,) = torch.autograd.grad(value.sum(), x)
        return value.detach() / factor, gradient / factor

    for ours, plain in zip(seen(scale), seen(1.0), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("returned", [1.0, [1.0, 2.0], None])
def test_an_objective_that_returns_no_tensor_is_named(returned: object) -> None:
    with pytest.raises(UsageError, match=f"returned a {type(returned).__name__}"):
        checked(returned, torch.zeros(2, 1, 4, 4))  # type: ignore[arg-type]
