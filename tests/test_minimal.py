"""The smallest perturbation against distances on paper."""

import math

import numpy as np
import pytest
import torch
from oracles import Counted, LinearScore
from scipy.optimize import minimize
from torch import Tensor

from advrad.attacks import BALLS, L1, L2, Aim, Ball, Linf, Patch
from advrad.attacks.minimal import minimal
from advrad.errors import BlindAttackError, UsageError
from advrad.noise import PerImage

SHAPE = (1, 8, 8)
GREY = torch.full((3, *SHAPE), 0.5)
EACH: list[Ball] = [Linf(0.2), L2(1.0), L1(3.0)]


def pictures(count: int = 3) -> Tensor:
    """Images with many values at the edge of the box."""
    source = torch.Generator().manual_seed(0)
    return torch.randn(count, *SHAPE, generator=source).add(0.5).clamp(0, 1)


@pytest.mark.parametrize("part", [0.02, 0.3, 0.95])
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.3), ("l2", 0.8), ("l1", 0.45)])
def test_the_distance_of_a_linear_score_is_found(norm: str, eps: float, part: float) -> None:
    score = LinearScore(*SHAPE)
    threshold = score(GREY) + score.gain(norm, part * eps)
    found = minimal(score, GREY, BALLS[norm](eps), threshold=threshold)
    ratio = found.eps / (part * eps)
    assert ((ratio > 0.9999) & (ratio < 1.003)).all()
    assert (score(found.x) >= threshold).all()


def test_the_distance_inside_the_box_too() -> None:
    """In linf every value goes as far as its room, so the rise over eps is a known sum."""
    score, x = LinearScore(*SHAPE), pictures()
    room = torch.where(score.weight > 0, 1 - x, x)
    limits = torch.tensor([0.05, 0.2, 0.6])
    rise = (torch.minimum(room, limits[:, None, None, None]) * score.weight.abs()).flatten(1)
    found = minimal(score, x, Linf(0.9), threshold=score(x) + rise.sum(1))
    torch.testing.assert_close(found.eps, limits, rtol=3e-3, atol=0)


def test_the_distance_to_a_sphere_from_inside() -> None:
    """|x - c| >= r: r - |x - c|; from the very centre, where the gradient is zero, r."""
    centre = pictures(1) * 0.4 + 0.3
    direction = LinearScore(*SHAPE, seed=3).weight
    offsets = torch.tensor([0.0, 0.2, 0.4])[:, None, None, None] * direction / direction.norm()
    distance = lambda x: (x - centre).square().flatten(1).sum(1)
    found = minimal(distance, centre + offsets, L2(2.0), threshold=0.6**2)
    torch.testing.assert_close(found.eps, torch.tensor([0.6, 0.4, 0.2]), rtol=1e-2, atol=0)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_nearer_of_two_planes_is_found(norm: str) -> None:
    """Of max(f, g) each image has another one nearby, and starts where that one is ahead."""
    planes = [LinearScore(*SHAPE, seed=seed) for seed in (1, 2)]
    start = torch.stack([GREY[0], GREY[0]])
    near = torch.tensor([[0.05, 0.15], [0.15, 0.05]])

    def score(x: Tensor) -> Tensor:
        heights = [
            (plane(x) - plane(start)) / plane.gain(norm, 1) - gap
            for plane, gap in zip(planes, near.T, strict=True)
        ]
        return torch.stack(heights).amax(0)

    found = minimal(score, start, BALLS[norm](0.3), threshold=0.0)
    torch.testing.assert_close(found.eps, torch.tensor([0.05, 0.05]), rtol=1e-2, atol=0)


def test_the_edge_between_two_planes_is_found() -> None:
    """Over both at once, min(f, g): the distance by quadratic programming."""
    one, two = (LinearScore(1, 4, 4, seed=seed) for seed in (1, 2))
    x = torch.full((1, 1, 4, 4), 0.5)
    over = lambda y: torch.stack([one(y - x) - 0.5, two(y - x) - 0.6])
    weights = torch.stack([one.weight, two.weight]).flatten(1).double().numpy()
    best = minimize(
        lambda delta: (delta**2).sum(),
        np.zeros(16),
        constraints={"type": "ineq", "fun": lambda delta: weights @ delta - [0.5, 0.6]},
    )
    score = lambda x: over(x).amin(0)
    found = minimal(score, x, L2(1.5), threshold=0.0, steps=300)
    assert 0.999 < float(found.eps) / math.sqrt(best.fun) < 1.02


def test_nothing_and_everything() -> None:
    """0 where the clean image is over it, inf and the clean image where nothing in reach is."""
    score = LinearScore(*SHAPE)
    steps = torch.tensor([0.0, 0.05, 0.11])
    threshold = score(GREY) + score.gain("linf", 1) * steps
    found = minimal(score, GREY, Linf(0.1), threshold=threshold)
    assert float(found.eps[0]) == 0
    assert 0.05 <= float(found.eps[1]) < 0.0502
    assert float(found.eps[2]) == torch.inf
    assert torch.equal(found.x[[0, 2]], GREY[[0, 2]])
    below = minimal(score, GREY, Linf(0.1), threshold=-1e6)
    assert torch.equal(below.eps, torch.zeros(3))


@pytest.mark.parametrize("ball", EACH, ids=lambda b: b.name)
def test_what_is_returned_is_what_was_measured(ball: Ball) -> None:
    """Over the threshold by rank, in the box, at the distance said, within each image's eps."""
    score, x = LinearScore(*SHAPE), pictures()
    x[0] = 0.5
    ranked = lambda x: Aim(score(x), score(x).detach() ** 3)
    limits = torch.as_tensor(ball.eps) * torch.tensor([0.3, 1.0, 0.0])
    threshold = (score(x) + score.gain(ball.name, 0.1 * ball.eps)) ** 3
    found = minimal(ranked, x, ball.at(limits), threshold=threshold, steps=40)
    torch.testing.assert_close(found.eps[:2], ball.size(found.x - x)[:2])
    assert (found.eps[:2] <= limits[:2] * (1 + 1e-5)).all()
    assert (ranked(found.x).rank >= threshold)[:2].all()
    assert float(found.eps[2]) == torch.inf
    assert found.x.min() >= 0
    assert found.x.max() <= 1


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_a_rank_on_another_scale_than_what_is_climbed(scale: float) -> None:
    """The way that seems to be left is a thousand times too short, or too long."""
    score = LinearScore(*SHAPE)
    ranked = lambda x: Aim(score(x), scale * score(x).detach())
    threshold = scale * (score(GREY) + score.gain("linf", 0.1))
    for steps in (20, 100):
        found = minimal(ranked, GREY, Linf(0.3), threshold=threshold, steps=steps)
        torch.testing.assert_close(found.eps, torch.full((3,), 0.1), rtol=3e-3, atol=0)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_it_finds_as_near_as_a_bisection_over_apgd(norm: str) -> None:
    """On a small net, at a quarter of the cost."""
    from advrad.attacks import apgd

    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 6, 3), torch.nn.Tanh(), torch.nn.Flatten(), torch.nn.Linear(216, 1)
    )
    score, x = (lambda x: net(x)[:, 0]), torch.rand(8, *SHAPE)
    threshold = score(x).detach() + 0.2
    ball = BALLS[norm]({"linf": 0.5, "l2": 4.0, "l1": 20.0}[norm])
    low, high = torch.zeros(8), torch.full((8,), float(ball.eps))
    for _ in range(9):
        middle = (low + high) / 2
        reached = score(apgd(score, x, ball.at(middle), steps=45)).detach() >= threshold
        low, high = torch.where(reached, low, middle), torch.where(reached, middle, high)
    found = minimal(score, x, ball, threshold=threshold)
    assert ((found.eps / high) < 1.02).all()


@pytest.mark.parametrize(("steps", "halvings"), [(1, 0), (7, 5)])
def test_it_costs_what_it_says(steps: int, halvings: int) -> None:
    counted = Counted(LinearScore(*SHAPE))
    minimal(counted, GREY, Linf(0.1), threshold=1.0, steps=steps, halvings=halvings)
    assert (counted.gradients, counted.forwards) == (steps, 2 + halvings)


def test_the_side_of_a_sticker() -> None:
    """Whole pixels: the smallest square with enough weight in it, by trying them all."""
    score = LinearScore(*SHAPE)
    gains = [0.0, *(score.gain("patch", side) for side in range(1, 9))]
    wanted = torch.tensor([1, 4, 6])
    between = torch.tensor([(gains[side - 1] + gains[side]) / 2 for side in wanted])
    found = minimal(score, GREY, Patch(6), threshold=score(GREY) + between, steps=40)
    assert found.eps.tolist() == [1, 4, 6]
    assert (Patch(1).size(found.x - GREY) == wanted).all()
    beyond = score(GREY) + (gains[6] + gains[7]) / 2
    assert minimal(score, GREY, Patch(6), threshold=beyond).eps.tolist() == [math.inf] * 3


def test_sides_are_bisected() -> None:
    counted = Counted(LinearScore(*SHAPE))
    minimal(counted, GREY, Patch(8), threshold=2.0, steps=10)
    assert counted.gradients == 10 * 4


@pytest.mark.parametrize("ball", [*EACH, Patch(3)], ids=lambda b: b.name)
def test_an_image_does_not_depend_on_its_batch(ball: Ball) -> None:
    score, x, names = LinearScore(*SHAPE), pictures(), ["a", "b", "c"]
    threshold = score(x) + torch.tensor([0.1, 0.5, 1e6])
    whole = minimal(score, x, ball, threshold=threshold, steps=20, noise=PerImage(1, names))
    for row in range(3):
        some = slice(row, row + 1)
        noise, goal = PerImage(1, names[some]), threshold[some]
        one = minimal(score, x[some], ball, threshold=goal, steps=20, noise=noise)
        torch.testing.assert_close(one.x, whole.x[some])
        torch.testing.assert_close(one.eps, whole.eps[some])


def test_what_cannot_be_searched_is_refused() -> None:
    score = LinearScore(*SHAPE)
    with pytest.raises(UsageError, match="3 images"):
        minimal(score, GREY, Linf(0.1), threshold=torch.zeros(2))
    with pytest.raises(UsageError, match="steps 0"):
        minimal(score, GREY, Linf(0.1), threshold=0.0, steps=0)
    with pytest.raises(BlindAttackError):
        minimal(lambda x: score(x.detach()), GREY, Linf(0.1), threshold=100.0)


@pytest.mark.parametrize("threshold", [math.nan, torch.tensor([0.1, math.nan])])
def test_a_threshold_that_is_no_number_is_refused(threshold: float | Tensor) -> None:
    x = torch.full((2, 1, 8, 8), 0.5)
    with pytest.raises(UsageError, match="not a number"):
        minimal(LinearScore(1, 8, 8), x, Linf(0.1), threshold=threshold)
