"""Guidance against the conditional mean that it stands for, and its gradient against slopes."""

import math
from collections.abc import Callable

import pytest
import torch
from oracles import Drawn, GaussianDenoiser, ones
from slopes import EXACT, disagreement
from torch import Tensor

from advrad.diffusion import Guided, Linear
from advrad.diffusion import guide as guiding
from advrad.diffusion.guide import Energy, slope
from advrad.noise import Noise

MEAN, STD, TAU = 0.3, 0.5, 0.2
X = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(1)).double() * 2 - 1
Y = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(2)).double() * 2 - 1


def still(like: Tensor, step: int) -> Tensor:
    return torch.zeros_like(like)


def apart(x_t: Tensor, there: Tensor) -> Tensor:
    return (x_t - there).square().flatten(1).sum(1)


def bent(x_t: Tensor, there: Tensor) -> Tensor:
    """No quadratic, so that its slope has a slope of both."""
    return (x_t.sin() * there.cos()).flatten(1).sum(1) + 0.3 * apart(x_t, there).square()


def guided(
    energy: Energy = apart,
    scale: Callable[[int], float] = lambda t: 1.0,
    reference: Tensor = Y,
    noise: Noise = still,
) -> Guided:
    return Guided(GaussianDenoiser(Linear(), MEAN, STD), energy, scale, reference, noise)


@pytest.mark.parametrize("t", [1, 50, 300])
def test_guided_by_an_observation_it_is_the_mean_under_that_observation(t: int) -> None:
    """With E = -log p(y | x_t), y = x_0 + TAU n, the estimate must be E[x_0 | x_t, y].

    p(x_0 | x_t) is Gaussian with mean mu and variance w, and so p(y | x_t) = N(mu, w + TAU^2) and
    E[x_0 | x_t, y] = mu + w / (w + TAU^2) (y - mu).
    """
    exact, a_t = GaussianDenoiser(Linear(), MEAN, STD), Linear().alpha_bar(t)
    w = STD**2 * (1 - a_t) / (a_t * STD**2 + 1 - a_t)

    def surprise(x_t: Tensor, there: Tensor) -> Tensor:
        observed = there / math.sqrt(a_t)
        return apart(exact(x_t, t), observed) / (2 * (w + TAU**2))

    mu = exact(X, t)
    expected = mu + w / (w + TAU**2) * (Y - mu)
    torch.testing.assert_close(guided(surprise)(X, t), expected)


def test_the_reference_is_diffused_to_the_level_that_is_asked_for() -> None:
    a_t, noise, seen = Linear().alpha_bar(70), Drawn(0), list[Tensor]()

    def energy(x_t: Tensor, there: Tensor) -> Tensor:
        seen.append(there)
        return apart(x_t, there)

    guided(energy, noise=noise)(X, 70)
    assert noise.steps == [70]
    expected = math.sqrt(a_t) * Y + math.sqrt(1 - a_t) * Drawn(0)(Y, 70)
    torch.testing.assert_close(seen[0], expected)


def test_the_pull_is_the_score_s_in_the_unit_of_x_0() -> None:
    """x_0 - s(t) (1 - a) / sqrt(a) 2 (x_t - there)."""
    for t, s in ((1, 3.0), (100, 0.5)):
        a_t = Linear().alpha_bar(t)
        there = math.sqrt(a_t) * Y + math.sqrt(1 - a_t)
        plain = GaussianDenoiser(Linear(), MEAN, STD)(X, t)
        expected = plain - s * (1 - a_t) / math.sqrt(a_t) * 2 * (X - there)
        found = guided(scale=lambda level, t=t, s=s: s if level == t else math.nan, noise=ones)
        torch.testing.assert_close(found(X, t), expected)


def test_an_image_is_guided_by_itself_alone() -> None:
    one = Guided(GaussianDenoiser(Linear()), bent, lambda t: 1.0, Y[:1], still)
    torch.testing.assert_close(one(X[:1], 60), guided(bent)(X, 60)[:1] * 1.0)


def test_it_is_differentiable_to_the_image_and_to_the_reference() -> None:
    assert disagreement(lambda x: guided(bent)(x, 60), X) < EXACT
    assert disagreement(lambda y: guided(bent, reference=y)(X, 60), Y) < EXACT
    both = lambda x: guided(bent, reference=x.roll(1, -1))(x, 60)
    assert disagreement(both, X) < EXACT


def test_the_way_from_the_image_into_its_own_reference_is_not_followed_inside() -> None:
    """The energy falls with x_t while the reference stays: a slope along both is another one."""
    with torch.no_grad():
        expected = guided(bent, reference=X)(X, 60)
    x = X.clone().requires_grad_()
    torch.testing.assert_close(guided(bent, reference=x)(x, 60), expected)
    assert disagreement(lambda x: guided(bent, reference=x)(x, 60), X) < EXACT


@pytest.mark.parametrize("followed", ["neither", "the image", "the reference"])
def test_its_slope_has_a_graph_where_one_is_wanted_and_none_elsewhere(followed: str) -> None:
    x = X.clone().requires_grad_(followed == "the image")
    y = Y.clone().requires_grad_(followed == "the reference")
    found = slope(bent, x, y)
    assert found.requires_grad == (followed != "neither")
    with torch.no_grad():
        again = slope(bent, x, y)
    assert not again.requires_grad
    torch.testing.assert_close(found, again)
    assert not X.requires_grad
    assert x.grad is None


def test_third_derivatives_are_right_too() -> None:
    """What a search through the gradient of the result would need."""

    def gradient(x: Tensor) -> Tensor:
        own = x if x.requires_grad else x.clone().requires_grad_()
        with torch.enable_grad():
            value = guided(bent)(own, 60).square().sum()
            return torch.autograd.grad(value, own, create_graph=x.requires_grad)[0]

    assert disagreement(gradient, X) < EXACT


def test_the_guide_s_graph_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = list[int]()

    def counted(x_t: Tensor, there: Tensor) -> Tensor:
        calls.append(1)
        return bent(x_t, there)

    x = X.clone().requires_grad_()
    value = guided(counted)(x, 60).sum()
    before = len(calls)
    value.backward()
    assert len(calls) > before
    monkeypatch.setattr(guiding, "recomputed", lambda function, *given: function(*given))
    plain = X.clone().requires_grad_()
    guided(bent)(plain, 60).sum().backward()
    torch.testing.assert_close(x.grad, plain.grad)
