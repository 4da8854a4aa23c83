"""Elastic-Net: its shrinkage in closed form, its rules, another library."""

import math

import pytest
import torch
from affine import margins, pictures, planes, small_net
from torch import Tensor

from advrad.attacks import L1, L2, Linf, elasticnet, fab
from advrad.attacks.classification import undefended, untargeted
from advrad.attacks.elasticnet import Box, shrunk
from advrad.attacks.objective import margin
from advrad.errors import UsageError
from advrad.noise import fresh

EVERYWHERE = L2(6)


def best(x: Tensor) -> Tensor:
    return margins(x).amax(1)


def test_shrinkage_is_the_minimum_of_what_it_stands_for() -> None:
    """argmin over the box of (v - z)^2 / 2 + beta |v - x|, by a fine grid."""
    source = torch.Generator().manual_seed(0)
    x = torch.rand(200, 1, 1, 1, generator=source, dtype=torch.float64)
    z = x + 0.8 * (2 * torch.rand(x.shape, generator=source, dtype=torch.float64) - 1)
    box = Box((x - 0.4).clamp_min(0), (x + 0.4).clamp_max(1))
    grid = torch.linspace(0, 1, 4001, dtype=torch.float64)
    cost = (grid - z).square() / 2 + 0.1 * (grid - x).abs()
    cost = torch.where((grid < box.low) | (grid > box.high), torch.inf, cost)
    found = shrunk(z, x, 0.1, box)
    torch.testing.assert_close(found.flatten(), grid[cost.flatten(1).argmin(1)], rtol=0, atol=3e-4)
    assert (found == x).any()
    assert (found == box.low).any()


def test_shrinkage_by_hand() -> None:
    x = torch.full((1, 1, 1, 5), 0.5)
    z = torch.tensor([0.55, 0.7, 0.2, 1.3, -0.9]).view_as(x)
    box = Box(torch.zeros_like(x), torch.ones_like(x))
    expected = torch.tensor([0.5, 0.6, 0.3, 1.0, 0.0])
    torch.testing.assert_close(shrunk(z, x, 0.1, box).flatten(), expected)


def test_the_first_steps_are_the_paper_s() -> None:
    """Three steps of FISTA by hand, on a linear score that only the third one reaches."""
    w = planes()[0][0]
    x = pictures(0.3, 0.7)
    score = lambda z: (w * z).flatten(1).sum(1)
    c, beta, rate = 4.0, 0.02, 0.03
    box = Box(torch.zeros_like(x), torch.ones_like(x))
    downhill = lambda z: 2 * (z - x) - c * w
    one = shrunk(x + rate * c * w, x, beta, box)
    two = shrunk(one - rate * (2 / 3) ** 0.5 * downhill(one), x, beta, box)
    ahead = two + (two - one) / 4
    three = shrunk(ahead - rate * (1 / 3) ** 0.5 * downhill(ahead), x, beta, box)
    goal = (score(ahead) + score(three)) / 2
    assert (score(two) < score(ahead)).all()
    assert (score(ahead) < score(three)).all()
    settings = {"threshold": goal, "c": c, "searches": 1, "steps": 3, "rate": rate, "beta": beta}
    found = elasticnet(score, x, L2(6), **settings)
    torch.testing.assert_close(found.x, three)
    torch.testing.assert_close(found.eps, (three - x).flatten(1).norm(dim=1))


def test_c_is_raised_tenfold_until_it_crosses_and_then_bisected() -> None:
    """Of one value the way ends at 2 (z - x) = c, where beta is 0: 0.03 away takes c = 0.06.

    A search's second look is one step of rate * c away, which tells its c.
    """
    x, steps, rate = torch.full((1, 1, 1, 1), 0.2), 120, 0.05
    looks: list[float] = []

    def score(z: Tensor) -> Tensor:
        if z.requires_grad:
            looks.append(z.item())
        return z[:, 0, 0, 0]

    settings = {"threshold": 0.23, "steps": steps, "rate": rate, "beta": 0.0, "c": 1e-3}
    assert elasticnet(score, x, L2(1), searches=2, **settings).eps.item() == math.inf
    looks.clear()
    assert 0.03 <= elasticnet(score, x, L2(1), searches=6, **settings).eps.item() < 0.031
    tried = [(look - 0.2) / rate for look in looks[1::steps]]
    low, high, expected = 0.0, math.inf, [1e-3]
    for c in tried[:-1]:
        low, high = (low, c) if c > 0.075 else (c, high)
        expected.append(10 * c if high == math.inf else (low + high) / 2)
    assert tried == pytest.approx(expected, rel=1e-3)
    assert tried[:4] == pytest.approx([0.001, 0.01, 0.1, 0.055], rel=1e-3)


def test_each_rule_keeps_what_is_smallest_by_itself() -> None:
    x = pictures(0.3, 0.7)
    settings = {"steps": 60, "searches": 6, "c": 1e-2, "beta": 0.02}
    both, sparse = (
        elasticnet(best, x, EVERYWHERE, rule=rule, **settings).x - x
        for rule in ("elastic-net", "l1")
    )
    size = lambda d: d.flatten(1).abs().sum(1)
    net = lambda d: 0.02 * size(d) + d.flatten(1).square().sum(1)
    assert (size(sparse) <= size(both)).all()
    assert (net(both) <= net(sparse)).all()
    assert (size(sparse) < size(both)).any()


def test_a_larger_beta_changes_fewer_values() -> None:
    x = pictures(0.3, 0.7)
    some, few = (
        (elasticnet(best, x, EVERYWHERE, c=1.0, beta=beta, searches=4, steps=50).x != x)
        .flatten(1)
        .sum(1)
        for beta in (1e-3, 3e-2)
    )
    assert (few > 0).all()
    assert (few < some).all()
    assert few.sum() < 0.8 * some.sum()


def test_kappa_asks_for_more() -> None:
    x = pictures(0.3, 0.7)
    plain, sure = (
        elasticnet(best, x, EVERYWHERE, kappa=kappa, c=0.1, searches=5, steps=50)
        for kappa in (0.0, 0.5)
    )
    assert (best(sure.x) >= 0.5).all()
    assert (sure.eps > plain.eps).all()


def test_an_l_inf_ball_bounds_every_step_and_others_only_the_choice() -> None:
    x, settings = pictures(0.3, 0.7), {"c": 0.1, "searches": 5, "steps": 60}
    wide = elasticnet(best, x, EVERYWHERE, **settings)
    reach = 1.5 * fab(best, x, Linf(1)).eps
    assert (Linf(1).size(wide.x - x) > reach).all()
    tight = elasticnet(best, x, Linf(reach), **settings)
    assert (tight.eps <= reach * (1 + 1e-5)).all()
    lengths = elasticnet(best, x, L2(float(wide.eps.median())), **settings).eps
    assert torch.equal(lengths.isfinite(), wide.eps <= wide.eps.median())
    sums = elasticnet(best, x, L1(36), **settings)
    torch.testing.assert_close(sums.x, wide.x)


@pytest.mark.parametrize(
    "wrong",
    [{"rule": "l0"}, {"searches": 0}, {"steps": 0}, {"c": 0.0}, {"beta": -1.0}, {"rate": 0.0}],
)
def test_impossible_settings_are_refused(wrong: dict) -> None:
    with pytest.raises(UsageError):
        elasticnet(best, pictures(), EVERYWHERE, **wrong)


@pytest.mark.interop
@pytest.mark.parametrize("rule", ["elastic-net", "l1"])
def test_it_is_foolbox_s(rule: str) -> None:
    foolbox = pytest.importorskip("foolbox")
    net, x = small_net(), pictures(count=12)
    labels = net(x).argmax(1)
    attack = foolbox.attacks.EADAttack(
        binary_search_steps=6,
        steps=60,
        initial_stepsize=0.02,
        initial_const=1e-2,
        regularization=5e-3,
        decision_rule={"elastic-net": "EN", "l1": "L1"}[rule],
        abort_early=False,
    )
    wrapped = foolbox.PyTorchModel(net, bounds=(0, 1), device="cpu")
    theirs = attack.run(wrapped, x, foolbox.criteria.Misclassification(labels))
    drawn = untargeted(undefended(net), labels, margin)
    settings = {"searches": 6, "steps": 60, "rate": 0.02, "c": 1e-2, "beta": 5e-3}
    ours = elasticnet(lambda z: drawn(z, fresh), x, EVERYWHERE, rule=rule, **settings)
    torch.testing.assert_close(ours.eps, L2(6).size(theirs - x), rtol=5e-3, atol=0)
