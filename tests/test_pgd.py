"""PGD against optima on paper, its cost, and what each of its settings does."""

from itertools import pairwise

import pytest
import torch
from oracles import Counted, LinearScore
from torch import Tensor

from advrad.attacks import BALLS, L2, Aim, Linf, pgd
from advrad.errors import BlindAttackError, UsageError
from advrad.noise import PerImage

SHAPE = (1, 8, 8)
GREY = torch.full((3, *SHAPE), 0.5)


def share(norm: str, eps: float, **settings) -> float:
    """Of the optimum that is reached, by the image that comes least far."""
    torch.manual_seed(0)
    score = LinearScore(*SHAPE)
    rise = score(pgd(score, GREY, BALLS[norm](eps), **settings)) - score(GREY)
    return float(rise.min()) / score.gain(norm, eps)


@pytest.mark.parametrize("start", ["random", "zero"])
@pytest.mark.parametrize("steps", [20, 40, 100])
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.05), ("l2", 0.4), ("patch", 3)])
def test_the_optimum_of_a_linear_score_is_reached(
    norm: str, eps: float, steps: int, start: str
) -> None:
    assert 0.999 <= share(norm, eps, steps=steps, start=start) <= 1.0001


def test_the_published_step_size_stops_short_after_a_random_start_in_l2() -> None:
    """Why the default reaches five radii."""
    torch.manual_seed(0)
    score, x = LinearScore(3, 32, 32), torch.full((3, 3, 32, 32), 0.5)

    def reached(size: float, start: str) -> float:
        adv = pgd(score, x, L2(0.2), size=size * 0.2 / 40, start=start)
        return float((score(adv) - score(x)).min()) / score.gain("l2", 0.2)

    assert 0.95 < reached(2.5, "random") < 0.995
    assert reached(2.5, "zero") > 0.999
    assert reached(5, "random") > 0.999


def test_the_optimum_inside_the_box_too() -> None:
    """A linear score at the border: by a linear program in linf, by hand."""
    score = LinearScore(*SHAPE)
    x = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(0)).round()
    room = torch.where(score.weight > 0, 1 - x, x).clamp_max(0.3)
    expected = (room * score.weight.abs()).flatten(1).sum(1)
    adv = pgd(score, x, Linf(0.3))
    torch.testing.assert_close(score(adv) - score(x), expected)


def test_the_l2_radius_is_used_up_at_the_border() -> None:
    """The best (w / 2m cut to its room) of the Lagrangian, m by bisection."""
    score = LinearScore(*SHAPE)
    x = torch.rand(1, *SHAPE, generator=torch.Generator().manual_seed(0))
    room = torch.where(score.weight > 0, 1 - x, x)
    low, high = 0.0, 1e3
    for _ in range(60):
        factor = (low + high) / 2
        size = float(torch.minimum(factor * score.weight.abs(), room).norm())
        low, high = (factor, high) if size < 2 else (low, factor)
    best = float((torch.minimum(low * score.weight.abs(), room) * score.weight.abs()).sum())
    rise = float(score(pgd(score, x, L2(2.0), steps=100)) - score(x))
    assert 0.999 * best < rise <= best * 1.0001


@pytest.mark.parametrize("restarts", [1, 3])
@pytest.mark.parametrize("steps", [1, 7])
@pytest.mark.parametrize(
    ("settings", "forwards"),
    [({}, 1), ({"start": "zero"}, 0), ({"keep": "last"}, 0)],
    ids=["random", "zero", "last"],
)
def test_it_costs_what_it_says(settings, forwards: int, steps: int, restarts: int) -> None:
    counted = Counted(LinearScore(*SHAPE))
    pgd(counted, GREY, Linf(0.1), steps=steps, restarts=restarts, **settings)
    assert counted.gradients == steps * restarts
    assert counted.forwards == restarts + forwards


class Scripted:
    """Ranks of the iterates as they come, under a score that goes on rising."""

    def __init__(self, *ranks: float) -> None:
        self.ranks, self.seen = list(ranks), []

    def __call__(self, x: Tensor) -> Aim:
        rank = self.ranks[len(self.seen)]
        self.seen.append(x.detach().clone())
        return Aim(x.flatten(1).sum(1), torch.full((len(x),), rank))


@pytest.mark.parametrize("place", range(6))
def test_the_iterate_that_ranks_highest_is_kept(place: int) -> None:
    """Clean, start, three after steps with a gradient, and the last: each may be it."""
    ranks = [0.0] * 6
    ranks[place] = 1.0
    objective = Scripted(*ranks)
    adv = pgd(objective, GREY, Linf(0.1), steps=4)
    assert len(objective.seen) == 6
    assert torch.equal(objective.seen[0], GREY)
    assert torch.equal(adv, objective.seen[place])


def test_the_last_iterate_is_kept_if_asked_for_even_if_it_ranks_lower() -> None:
    objective = Scripted(5, 4, 3, 2, 1)
    adv = pgd(objective, GREY, Linf(0.1), steps=4, start="zero", keep="last")
    assert torch.equal(adv, objective.seen[-1])
    assert not torch.equal(adv, objective.seen[0])


def test_of_several_last_iterates_the_best_is_kept() -> None:
    objective = Scripted(9, 9, 1, 9, 9, 3, 9, 9, 2)
    adv = pgd(objective, GREY, L2(0.1), steps=2, keep="last", restarts=3)
    assert torch.equal(adv, objective.seen[5])


def test_restarts_begin_elsewhere_and_the_first_is_the_single_run() -> None:
    def starts(restarts: int) -> list[Tensor]:
        objective = Scripted(*[0.0] * 20)
        noise = PerImage(0, ["a", "b", "c"])
        pgd(objective, GREY, Linf(0.1), steps=1, restarts=restarts, noise=noise)
        return objective.seen[1::2]

    one, two, three = starts(3)
    assert torch.equal(starts(1)[0], one)
    assert not torch.equal(one, two)
    assert not torch.equal(two, three)


def test_the_papers_recipe_by_hand() -> None:
    """Zero start, last iterate, 100 steps of 2.5 eps / 100, on a score with a curve."""
    centre = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(0))
    score = lambda x: (x - centre).square().flatten(1).sum(1).neg()
    adv = GREY.clone()
    for _ in range(100):
        step = 2.5 * 0.1 / 100 * (centre - adv).sign()
        adv = (adv + step).clamp(GREY - 0.1, GREY + 0.1).clamp(0, 1)
    found = pgd(score, GREY, Linf(0.1), steps=100, size=2.5 * 0.1 / 100, start="zero", keep="last")
    torch.testing.assert_close(found, adv)


def moves(gradients: list[float], **settings) -> list[float]:
    """How far each step goes where the gradient is told, one number for all values."""
    seen: list[float] = []

    def objective(x: Tensor) -> Tensor:
        seen.append(float(x.detach().mean()))
        return gradients[min(len(seen), len(gradients)) - 1] * x.flatten(1).sum(1)

    pgd(objective, GREY, Linf(0.5), steps=len(gradients), size=0.01, start="zero", **settings)
    return [round(b - a, 5) for a, b in pairwise(seen)]


def test_the_step_falls_linearly_if_asked_to() -> None:
    assert moves([1, 1, 1, 1]) == [0.01] * 4
    assert moves([1, 1, -1, 1], decay=True) == [0.01, 0.0075, -0.005, 0.0025]


def test_momentum_keeps_the_direction_and_forgets_how_large_gradients_are() -> None:
    """1, 0.5 - 1 < 0 at 0.5; 1, 0.8 + 1 = 1.8, 1.44 - 1 > 0, 0.352 - 1 < 0 at 0.8."""
    assert moves([1, -1e-6], momentum=0.5) == [0.01, -0.01]
    assert moves([1, 1e6, -1e9, -1e-9], momentum=0.8) == [0.01, 0.01, 0.01, -0.01]
    assert moves([1, 1, -1, -1]) == [0.01, 0.01, -0.01, -0.01]


def test_a_step_size_for_each_image() -> None:
    size = torch.tensor([0.0, 0.01, 0.02])
    score = LinearScore(*SHAPE)
    adv = pgd(score, GREY, Linf(0.5), steps=3, size=size, start="zero")
    moved = (adv - GREY).flatten(1).abs()
    torch.testing.assert_close(moved, 3 * size[:, None].expand_as(moved))


def test_the_true_score_chooses_among_iterates_that_a_surrogate_leads() -> None:
    """The surrogate overshoots: the best true score lies on the way."""
    score = LinearScore(*SHAPE)

    def objective(x: Tensor) -> Aim:
        value = score(x) - score(GREY)
        return Aim(value, -(value - 1).abs().detach())

    adv = pgd(objective, GREY, L2(0.4), steps=200, start="zero")
    torch.testing.assert_close(score(adv) - score(GREY), torch.ones(3), rtol=0, atol=0.05)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps 0: expected 1 or more"),
        ({"restarts": 0}, "restarts 0: expected 1 or more"),
        ({"start": "clean"}, "start 'clean': expected one of random, zero"),
        ({"momentum": 1.0}, "momentum 1: expected a share"),
        ({"keep": "first"}, "keep 'first': expected best or last"),
    ],
)
def test_impossible_settings_are_refused(settings, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        pgd(LinearScore(*SHAPE), GREY, Linf(0.1), **settings)


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.05), ("l2", 0.4)])
def test_momentum_and_decay_reach_the_optimum_too(norm: str, eps: float) -> None:
    settings = {"steps": 40, "momentum": 0.9, "decay": True, "size": 0.5 * eps}
    assert 0.999 <= share(norm, eps, **settings) <= 1.0001


def test_the_first_steps_with_momentum_by_hand() -> None:
    """f = a x + b y: gradients 3 and 1, in units of their mean 1.5 and 0.5; steps 1, 1/2."""
    weight = torch.tensor([3.0, 1.0]).view(1, 1, 1, 2)
    x = torch.full((1, 1, 1, 2), 0.5)
    adv = pgd(
        lambda y: (weight * y).flatten(1).sum(1),
        x,
        L2(0.3),
        steps=2,
        size=0.01,
        start="zero",
        keep="last",
        momentum=0.5,
        decay=True,
    )
    unit = torch.tensor([3.0, 1.0]) / 10**0.5
    torch.testing.assert_close(adv.flatten(), 0.5 + 0.01 * (1 + 0.5) * unit)


def test_momentum_remembers_the_way() -> None:
    """The gradient turns round after the first step; with momentum 0.9 the second goes on."""
    signs = iter([1.0, -1.0, 0.0])

    def turning(y: Tensor) -> Tensor:
        return next(signs) * y.flatten(1).sum(1)

    x = torch.full((1, 1, 1, 2), 0.5)
    settings = {"steps": 2, "size": 0.01, "start": "zero", "keep": "last"}
    again = pgd(turning, x, Linf(0.3), **settings)
    torch.testing.assert_close(again, x)
    still = iter([1.0, -1.0, 0.0])
    gone = pgd(lambda y: next(still) * y.flatten(1).sum(1), x, Linf(0.3), **settings, momentum=0.9)
    assert torch.allclose(gone, x)  # 0.9 - 1 < 0: one step back
    three = iter([1.0, 1.0, -1.0, 0.0])
    gone = pgd(
        lambda y: next(three) * y.flatten(1).sum(1),
        x,
        Linf(0.3),
        **settings | {"steps": 3},
        momentum=0.9,
    )
    torch.testing.assert_close(gone, x + 0.03)  # 0.9 * 1.9 - 1 > 0: still forward


def test_a_random_objective_is_climbed_farther_with_momentum_and_decay() -> None:
    """Gradients under heavy noise, eighty of them: many small steps with a memory do better."""
    score = LinearScore(1, 16, 16)
    x = torch.full((4, 1, 16, 16), 0.5)

    def noisy(seed: int):
        source = torch.Generator().manual_seed(seed)

        def objective(y: Tensor) -> Tensor:
            junk = torch.randn(y.shape, generator=source) * 4
            return score(y) + (junk * y).flatten(1).sum(1)

        return objective

    def rise(**settings) -> float:
        adv = pgd(
            noisy(0), x, Linf(0.02), steps=80, keep="last", noise=PerImage(0, "abcd"), **settings
        )
        return float((score(adv) - score(x)).mean()) / score.gain("linf", 0.02)

    assert rise(momentum=0.9, decay=True, size=0.01) > rise() + 0.1


@pytest.mark.parametrize("momentum", [-0.1, 1.0, float("nan")])
def test_impossible_momentum_is_refused(momentum: float) -> None:
    with pytest.raises(UsageError, match="momentum"):
        pgd(LinearScore(*SHAPE), GREY, Linf(0.1), momentum=momentum)


@pytest.mark.parametrize("keep", ["best", "last"])
def test_an_image_that_strays_to_where_there_is_no_number_keeps_what_it_had(keep: str) -> None:
    """Of root(0.5 - rise), made small, all images walk over the edge at once."""
    x = torch.full((2, 1, 4, 4), 0.5)
    rise = lambda y: (y - x).flatten(1).sum(1)
    objective = lambda y: -(0.5 - rise(y)).sqrt()
    found = pgd(objective, x, Linf(0.2), steps=10, start="zero", keep=keep, size=0.02)
    assert (rise(found) > 0).all()
    assert objective(found).isfinite().all()
    with pytest.raises(BlindAttackError):
        pgd(lambda y: objective(y) * torch.nan, x, Linf(0.2), steps=3)
