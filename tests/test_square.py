"""Square against optima on paper, its count of queries, and luck."""

import pytest
import torch
from oracles import Counted, LinearScore
from torch import Tensor

from advrad.attacks import BALLS, L1, L2, Ball, Linf, Patch
from advrad.attacks.square import search, share_at, square
from advrad.errors import UsageError
from advrad.noise import PerImage

SHAPE = (1, 8, 8)
GREY = torch.full((3, *SHAPE), 0.5)
EACH: list[Ball] = [Linf(0.1), L2(0.6), L1(2.0), Patch(3)]
VARIED: list[Ball] = [
    Linf(torch.tensor([0.0, 0.1, 1.0])),
    L2(torch.tensor([0.0, 0.5, 5.0])),
    L1(torch.tensor([0.0, 2.0, 30.0])),
    Patch(torch.tensor([0, 2, 6])),
]
both = pytest.mark.parametrize("ball", EACH + VARIED, ids=lambda b: f"{b.name}-{b.eps}")


def pictures(count: int = 3, channels: int = 2) -> Tensor:
    """Images with many values at the edge of the box, higher than wide."""
    source = torch.Generator().manual_seed(0)
    return torch.randn(count, channels, 9, 7, generator=source).add(0.5).clamp(0, 1)


class Remembers:
    """An objective without gradient that keeps everything it was asked, and the answers."""

    def __init__(self, score) -> None:
        self.score, self.asked, self.said = score, [], []

    def __call__(self, x: Tensor) -> Tensor:
        self.asked.append(x)
        self.said.append(torch.from_numpy(self.score(x).numpy()))
        return self.said[-1]


# how far it comes


def test_it_reaches_the_linear_optimum_in_linf() -> None:
    score = LinearScore(*SHAPE)
    rise = score(square(score, GREY, Linf(0.03))) - score(GREY)
    assert 0.999 < float(rise.min()) / score.gain("linf", 0.03) <= 1.0001


@pytest.mark.parametrize(("norm", "eps", "least"), [("l2", 0.3, 0.55), ("l1", 0.5, 0.35)])
def test_it_comes_far_in_l2_and_l1(norm: str, eps: float, least: float) -> None:
    """Its windows of 3 pixels and more do not fit weights of no order; 5,000 queries give .8."""
    score = LinearScore(*SHAPE)
    rise = score(square(score, GREY, BALLS[norm](eps), queries=700)) - score(GREY)
    assert least < float(rise.min()) / score.gain(norm, eps) <= 1.0001


def test_a_sticker_finds_its_place() -> None:
    """Stripes of contrast matter in one place only, and most of 16 searches get there."""
    score, x = LinearScore(1, 12, 12), torch.full((16, 1, 12, 12), 0.5)
    score.weight = 0.1 * score.weight
    score.weight[:, 6:9, 2:5] = torch.tensor([[1.0, -1.0, 1.0]] * 3)
    noise = PerImage(0, [*map(str, range(16))])
    rise = score(square(score, x, Patch(3), queries=1000, noise=noise)) - score(x)
    assert (rise > 0.99 * score.gain("patch", 3)).float().mean() > 0.6


@both
def test_the_best_that_was_tried_is_returned_inside_ball_and_box(ball: Ball) -> None:
    x = pictures()
    score = Remembers(LinearScore(*x.shape[1:]))
    adv = square(score, x, ball, queries=60)
    best = torch.stack(score.said).amax(0)
    assert torch.equal(score(adv), best)
    eps = torch.as_tensor(ball.eps).float().expand(3)
    for tried in score.asked:
        assert (ball.size(tried - x) <= eps * (1 + 1e-5)).all()
        assert tried.min() >= 0
        assert tried.max() <= 1
    assert torch.equal(adv[eps == 0], x[eps == 0])


@pytest.mark.parametrize("again", [False, True])
def test_a_value_that_is_no_number_is_the_lowest(again: bool) -> None:
    score = LinearScore(*SHAPE)

    def broken(x: Tensor) -> Tensor:
        return torch.where(score(x) <= score(GREY), torch.nan, score(x))

    assert (score(square(broken, GREY, Linf(0.1), queries=100, again=again)) > score(GREY)).all()


# what it asks for


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("queries", [1, 2, 3, 57])
def test_queries_are_counted(queries: int, again: bool) -> None:
    counted = Counted(LinearScore(*SHAPE))
    square(counted, GREY.clone().requires_grad_(), Linf(0.1), queries=queries, again=again)
    assert (counted.forwards, counted.gradients) == (queries, 0)


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("ball", EACH, ids=lambda b: b.name)
def test_an_image_does_not_depend_on_its_batch(ball: Ball, again: bool) -> None:
    x, names = pictures(), ["a", "b", "c"]
    score = LinearScore(*x.shape[1:])
    settings = {"queries": 60, "again": again}
    whole = square(score, x, ball, noise=PerImage(1, names), **settings)
    for row in range(3):
        alone = PerImage(1, names[row : row + 1])
        one = square(score, x[row : row + 1], ball, noise=alone, **settings)
        torch.testing.assert_close(one, whole[row : row + 1])
    twins, remembers = x[:1].expand(2, -1, -1, -1), Remembers(score)
    square(remembers, twins, ball, queries=2, noise=PerImage(1, names[:2]))
    assert not torch.equal(*remembers.asked[1])


def test_impossible_settings_are_refused() -> None:
    score = LinearScore(*SHAPE)
    for settings in ({"queries": 0}, {"share": 0.0}, {"share": 1.1}):
        with pytest.raises(UsageError, match="expected"):
            square(score, GREY, Linf(0.1), **settings)


# luck


def held(queries: int, again: bool) -> Tensor:
    """What the best of so many draws of N(0, 1) is held to be worth, for 48 images."""
    source = torch.Generator().manual_seed(0)
    noise = lambda x: torch.randn(len(x), generator=source)
    x = torch.full((48, 1, 2, 2), 0.5)
    return search(noise, x, Linf(0.1), queries, 0.8, again=again).rank


@pytest.mark.parametrize("second", [5.0, -1.0])
def test_what_seems_better_is_tested_again(second: float) -> None:
    """Clean, proposal, clean again, proposal again, and if it has won, once more."""
    said = iter([0.0, 3.0, 1.0, second, 4.0])
    objective = Remembers(lambda x: torch.tensor([next(said)]))
    found = search(objective, GREY[:1], Linf(0.1), 5, 0.8, again=True)
    clean, first, held, rival, last = objective.asked
    assert torch.equal(held, clean)
    assert torch.equal(rival, first)
    assert not torch.equal(first, clean)
    assert torch.equal(last, first) == (second == 5)
    assert torch.equal(found.x, first if second == 5 else clean)
    assert float(found.rank) == (4.5 if second == 5 else 0.5)


def test_luck_does_not_add_up() -> None:
    """The largest of 1,500 draws is near 3.2; the truth is 0."""
    assert held(1500, again=False).mean() > 2.9
    short, long = held(300, again=True).mean(), held(1500, again=True).mean()
    assert long < 1.2
    assert long < short + 0.5


def test_testing_again_climbs_better_under_noise() -> None:
    score, x = LinearScore(*SHAPE), torch.full((16, *SHAPE), 0.5)
    source = torch.Generator().manual_seed(0)
    best = score.gain("linf", 0.03)
    noisy = lambda x: score(x) + 0.05 * best * torch.randn(len(x), generator=source)
    once, twice = (
        float((score(square(noisy, x, Linf(0.03), queries=1200, again=again)) - score(x)).mean())
        for again in (False, True)
    )
    assert twice > 0.7 * best
    assert twice > once + 0.1 * best


def test_without_noise_testing_again_only_costs() -> None:
    score = LinearScore(*SHAPE)
    found = search(score, GREY, Linf(0.03), 1500, 0.8, again=True)
    torch.testing.assert_close(found.rank, score(found.x))
    assert float((found.rank - score(GREY)).min()) > 0.99 * score.gain("linf", 0.03)


# the schedule


def test_the_published_schedule() -> None:
    """Of 10,000 queries; fewer run through it faster."""
    at = {0: 0, 10: 0, 11: 1, 50: 1, 51: 2, 201: 3, 501: 4, 1001: 5, 2001: 6, 4001: 7, 6001: 8}
    for query, halvings in (at | {8000: 8, 8001: 9, 9999: 9}).items():
        assert share_at(query, 10_000, 0.8) == 0.8 / 2**halvings
    assert share_at(101, 500, 0.8) == share_at(2020, 10_000, 0.8)


# another library


@pytest.mark.interop
@pytest.mark.parametrize(
    ("name", "ball"), [("Linf", Linf(0.03)), ("L2", L2(1.0)), ("L1", L1(15.0))]
)
def test_it_does_as_well_as_the_published_code(name: str, ball: Ball) -> None:
    """On the margin of two classes that never reaches zero, where the published code stops."""
    from pyautoattack.square import SquareAttack

    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 12, 5, padding=2, stride=2),
        torch.nn.Tanh(),
        torch.nn.Conv2d(12, 16, 3, padding=1, stride=2),
        torch.nn.Tanh(),
        torch.nn.Flatten(),
        torch.nn.Linear(16 * 16, 1),
    ).eval()
    x = torch.rand(48, 3, 16, 16) * 0.8 + 0.1
    score = lambda x: net(x)[:, 0].detach()
    two = lambda x: torch.stack([10 - score(x), torch.zeros(len(x))], 1)
    rises = []
    for seed in range(3):
        theirs = SquareAttack(two, norm=name, n_queries=400, eps=ball.eps, device="cpu")
        theirs.init_hyperparam(x)
        torch.manual_seed(seed)
        _, adv = theirs.attack_single_run(x, torch.zeros(len(x), dtype=torch.long))
        ours = square(score, x, ball, queries=402, noise=PerImage(seed, [*map(str, range(48))]))
        rises.append([float((score(each) - score(x)).mean()) for each in (adv, ours)])
    published, mine = torch.tensor(rises).mean(0)
    assert mine > 0.94 * published
