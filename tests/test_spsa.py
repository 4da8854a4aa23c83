"""SPSA: its estimate of a gradient, exactly where that can be, and what it reaches."""

from itertools import product

import pytest
import torch
from oracles import Counted, Drawn, LinearScore
from torch import Tensor

from advrad.attacks import BALLS, L1, L2, Aim, Ball, Linf, Patch
from advrad.attacks.spsa import DIRECTION, slope, spsa
from advrad.errors import UsageError
from advrad.noise import PerImage

SHAPE = (1, 8, 8)
GREY = torch.full((3, *SHAPE), 0.5)
EACH: list[Ball] = [Linf(0.1), L2(0.6), L1(2.0), Patch(3)]


def every(like: Tensor, step: int) -> Tensor:
    """All 16 directions of four values, one after the other."""
    signs = list(product([-1.0, 1.0], repeat=4))
    return torch.tensor(signs[step - DIRECTION]).view(1, 1, 2, 2).expand_as(like)


def test_over_all_directions_the_slope_is_the_gradient() -> None:
    score = LinearScore(1, 2, 2)
    x = torch.full((2, 1, 2, 2), 0.5)
    found = slope(lambda x: score(x) + 7, x, 16, 0.1, every)
    torch.testing.assert_close(found, score.weight.expand_as(x))


def test_the_slope_of_a_quadratic_is_exact_too() -> None:
    """Even terms cancel within each pair."""
    x = torch.tensor([0.2, 0.4, 0.5, 0.7]).view(1, 1, 2, 2)
    found = slope(lambda x: x.square().flatten(1).sum(1), x, 16, 0.1, every)
    torch.testing.assert_close(found, 2 * x)


def test_a_value_at_the_edge_of_the_box_counts_for_half() -> None:
    score, x = LinearScore(1, 2, 2), torch.tensor([0.0, 0.5, 1.0, 0.5]).view(1, 1, 2, 2)

    def inside(x: Tensor) -> Tensor:
        assert x.min() >= 0
        assert x.max() <= 1
        return score(x)

    half = torch.tensor([0.5, 1.0, 0.5, 1.0]).view(1, 1, 2, 2)
    torch.testing.assert_close(slope(inside, x, 16, 0.1, every), half * score.weight[None])


def test_the_slope_is_unbiased_and_as_uncertain_as_on_paper() -> None:
    """The error of one sample has the variance |g|^2 - g_i^2 in value i."""
    score, x = LinearScore(1, 4, 4), torch.full((4000, 1, 4, 4), 0.5)
    g = score.weight
    one = slope(score, x, 1, 0.05)
    spread = (g.square().sum() - g.square()).sqrt()
    error = (one.mean(0) - g) / (spread / 4000**0.5)
    assert float(error.abs().max()) < 4
    torch.testing.assert_close(one.std(0), spread, rtol=0.06, atol=0)
    many = slope(score, x[:400], 16, 0.05)
    torch.testing.assert_close(many.std(0), spread / 4, rtol=0.2, atol=0)


def test_the_slope_is_that_of_what_is_climbed() -> None:
    score, x = LinearScore(1, 2, 2), torch.full((1, 1, 2, 2), 0.5)
    found = slope(lambda x: Aim(score(x), score(x).detach().sin()), x, 16, 0.1, every)
    torch.testing.assert_close(found, score.weight[None])


def test_every_pair_of_every_step_has_its_own_direction() -> None:
    noise = Drawn(0)
    spsa(LinearScore(*SHAPE), GREY, Linf(0.1), steps=3, samples=5, noise=noise)
    assert len(noise.steps) == len(set(noise.steps)) == 15


@pytest.mark.parametrize(
    ("norm", "eps", "least"),
    [("linf", 0.03, 0.9), ("l2", 0.3, 0.94), ("l1", 0.4, 0.75)],
)
def test_it_comes_near_the_linear_optimum(norm: str, eps: float, least: float) -> None:
    score = LinearScore(*SHAPE)
    rise = score(spsa(score, GREY, BALLS[norm](eps))) - score(GREY)
    assert least < float(rise.min()) / score.gain(norm, eps) <= 1.0001


@pytest.mark.parametrize(("steps", "samples"), [(1, 1), (3, 5)])
def test_it_costs_what_it_says(steps: int, samples: int) -> None:
    counted = Counted(LinearScore(*SHAPE))
    spsa(counted, GREY.clone().requires_grad_(), Linf(0.1), steps=steps, samples=samples)
    assert (counted.forwards, counted.gradients) == (1 + steps * (2 * samples + 1), 0)


@pytest.mark.parametrize("ball", EACH, ids=lambda b: b.name)
def test_the_best_iterate_in_ball_and_box_is_returned(ball: Ball) -> None:
    """No gradient, values at the edge, and a rank that need not be what is climbed."""
    source = torch.Generator().manual_seed(0)
    x = torch.randn(4, *SHAPE, generator=source).add(0.5).clamp(0, 1)
    score, ranks = LinearScore(*SHAPE), []

    def objective(x: Tensor) -> Aim:
        value = torch.from_numpy(score(x).numpy())
        ranks.append((10 * value).sin())
        return Aim(value, ranks[-1])

    adv = spsa(objective, x, ball, steps=9, samples=3)
    iterates = torch.stack(ranks[0:1] + ranks[7::7])
    torch.testing.assert_close(objective(adv).rank, iterates.amax(0))
    assert (ball.size(adv - x) <= ball.eps * (1 + 1e-5)).all()
    assert adv.min() >= 0
    assert adv.max() <= 1


@pytest.mark.parametrize("ball", EACH, ids=lambda b: b.name)
def test_an_image_does_not_depend_on_its_batch(ball: Ball) -> None:
    score, names = LinearScore(*SHAPE), ["a", "b", "c"]
    settings = {"steps": 5, "samples": 3}
    whole = spsa(score, GREY, ball, noise=PerImage(1, names), **settings)
    assert not torch.equal(whole[0], whole[1])
    for row in range(3):
        alone = PerImage(1, names[row : row + 1])
        one = spsa(score, GREY[row : row + 1], ball, noise=alone, **settings)
        torch.testing.assert_close(one, whole[row : row + 1])


def test_impossible_settings_are_refused() -> None:
    for settings in ({"steps": 0}, {"samples": 0}, {"sigma": 0.0}, {"sigma": -0.1}):
        with pytest.raises(UsageError, match="expected"):
            spsa(LinearScore(*SHAPE), GREY, Linf(0.1), **settings)
