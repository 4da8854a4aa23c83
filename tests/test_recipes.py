"""Attacks on classifiers by name: what they cost, what they reach, what they leave alone."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from affine import pictures, small_net
from torch import Tensor

from advrad.attacks import L1, L2, Linf
from advrad.attacks.classification import Victim, examined, undefended
from advrad.attacks.recipes import RECIPES, WRONG, Recipe, run
from advrad.errors import UsageError
from advrad.noise import Draws, Noise, fresh

SMALL = {
    "fgsm": {},
    "pgd": {"steps": 7},
    "pgd-unseen": {"steps": 3},
    "apgd-ce": {"steps": 9, "restarts": 2},
    "apgd-dlr": {"steps": 9, "start": "zero"},
    "apgd-t": {"steps": 5},
    "fab-t": {"steps": 5, "restarts": 2},
    "square": {"queries": 12},
    "deepfool": {"steps": 6},
    "elastic-net": {"searches": 2, "steps": 4},
}


def small(name: str, **changes) -> Recipe:
    return replace(RECIPES[name], settings=SMALL[name], **changes)


def names(count: int) -> list[str]:
    return [f"image {number}" for number in range(count)]


class Stubborn:
    """A classifier of five classes whose class no small change turns; it counts its passes."""

    def __init__(self, random: bool) -> None:
        self.random, self.passes = random, Counter[str]()

    def __call__(self, x: Tensor, noise: Noise) -> Tensor:
        self.passes["gradients" if x.requires_grad else "forwards"] += len(x)
        if self.random:
            x = x + 0.01 * noise(x, 0)
        flat = x.flatten(1)
        return torch.cat([flat[:, :1] + 100, flat[:, 1:5]], 1)


def test_every_recipe_has_a_small_one() -> None:
    assert set(SMALL) == set(RECIPES)


@pytest.mark.parametrize("random", [False, True], ids=["deterministic", "random"])
@pytest.mark.parametrize("draws", [1, 3])
@pytest.mark.parametrize("name", RECIPES)
def test_the_cost_is_what_is_told(name: str, draws: int, random: bool) -> None:
    x, labels, recipe = pictures(count=2), torch.zeros(2).long(), small(name, draws=draws)
    if name == "square":
        recipe = replace(recipe, draws=1)
    classify = Stubborn(random)
    victim = Victim(classify, labels, Draws(0, names(2)), random, 5)
    adv = run(recipe, victim, x, L2(0.3))
    assert (L2(1).size(adv - x) <= 0.3001).all()
    told = recipe.cost(5, random)
    columns = 4 if name == "deepfool" and not random else 1
    assert classify.passes["gradients"] * columns == 2 * told.gradients
    assert classify.passes["forwards"] == 2 * told.forwards


BY_GRADIENTS = ["fgsm", "pgd", "apgd-ce", "apgd-dlr", "apgd-t", "fab-t", "deepfool"]


@pytest.mark.parametrize("name", BY_GRADIENTS)
def test_two_planes_are_crossed_where_that_is_possible_and_only_there(name: str) -> None:
    """The distance of each image's nearest boundary is known: half of it fails, twice it works."""
    weights = torch.randn(5, 36, generator=torch.Generator().manual_seed(1))
    x = pictures(0.4, 0.6)
    logits = lambda z: z.flatten(1) @ weights.T
    labels = logits(x).argmax(1)
    gaps = logits(x).gather(1, labels[:, None]) - logits(x)
    duals = (weights[labels][:, None] - weights[None]).abs().sum(2)
    near = torch.where(duals > 0, gaps / duals, torch.inf).amin(1)
    victim = examined(undefended(logits), x, labels)
    for share, left in ((0.9, 1.0), (1.3, 0.0)):
        recipe = (
            RECIPES[name] if name == "fgsm" else replace(RECIPES[name], settings={"steps": 40})
        )
        adv = run(recipe, victim, x, Linf(share * near))
        right = float((logits(adv).argmax(1) == labels).float().mean())
        if name == "fgsm" and share > 1:
            assert right < 0.5  # its one step may lead to another plane
        else:
            assert right == left


def test_targets_are_tried_in_their_order_until_one_did() -> None:
    """The likeliest class is out of reach; the second is near; the third is never aimed at."""
    aimed: list[int] = []

    def classify(x: Tensor, noise: Noise) -> Tensor:
        a, b = x[:, 0, 0, 0], x[:, 0, 0, 1]
        right, blocked = torch.zeros_like(a), -0.1 - 0.001 * a
        open_, far = -0.2 + (a - 0.5), -0.3 - b
        if x.requires_grad:
            aimed.append(len(x))
        return torch.stack([right, blocked, open_, far], 1)

    x = torch.full((3, 1, 1, 2), 0.5)
    victim = examined(classify, x, torch.zeros(3).long())
    adv = run(small("fab-t"), victim, x, Linf(0.3))
    assert (classify(adv, fresh).argmax(1) == 2).all()
    assert len(aimed) == 2 * 5 * 2  # two targets, five steps, two restarts


def test_images_already_lost_are_not_attacked_towards_targets() -> None:
    net, x = small_net(), pictures()
    labels = net(x).argmax(1)
    labels[:3] = (labels[:3] + 1) % 6
    victim = examined(undefended(net), x, labels)
    adv = run(small("apgd-t"), victim, x, Linf(0.05))
    assert torch.equal(adv[:3], x[:3])
    assert (adv[3:] != x[3:]).any()


def test_an_image_is_attacked_alone_as_in_a_batch() -> None:
    """With its own eps and its own noise, however many others are still right."""
    x, noises = pictures(count=4), Draws(0, names(4))
    classify = lambda z, noise: small_net()(z + 0.01 * noise(z, 0))
    labels = small_net()(x).argmax(1)
    labels[0] = (labels[0] + 1) % 6  # lost before: the others move up
    eps = torch.tensor([0.01, 0.01, 0.02, 0.04])
    recipe = small("apgd-t", draws=2)
    whole = run(recipe, Victim(classify, labels, noises, True, 6), x, Linf(eps))
    for number in range(1, 4):
        one = slice(number, number + 1)
        alone = Victim(classify, labels[one], Draws(0, names(4)[one]), True, 6)
        torch.testing.assert_close(run(recipe, alone, x[one], Linf(eps[one])), whole[one])


def test_a_recipe_s_own_settings_come_before_those_of_random_classifiers() -> None:
    assert RECIPES["pgd"].resolved(random=True)["keep"] == "last"
    assert RECIPES["pgd"].resolved(random=False)["keep"] == "best"
    kept = replace(RECIPES["pgd"], settings={"keep": "best"})
    assert kept.resolved(random=True)["keep"] == "best"
    assert RECIPES["square"].resolved(random=True)["again"]
    assert RECIPES["fab-t"].resolved(random=False)["threshold"] == WRONG


@pytest.mark.parametrize(("name", "classes"), [("apgd-dlr", 2), ("apgd-t", 3)])
def test_too_few_classes_for_a_ratio_are_refused(name: str, classes: int) -> None:
    logits = lambda z: z.flatten(1)[:, :classes] * 3
    x = pictures(count=2)
    victim = examined(undefended(logits), x, torch.zeros(2).long())
    with pytest.raises(UsageError, match="margin"):
        run(RECIPES[name], victim, x, Linf(0.1))


def test_two_classes_are_enough_for_the_others() -> None:
    logits = lambda z: z.flatten(1)[:, :2] * 3
    x = pictures(count=3)
    labels = logits(x).argmax(1)
    victim = examined(undefended(logits), x, labels)
    for name in ("apgd-ce", "fab-t", "deepfool"):
        ball = L2(2.0) if name == "deepfool" else L1(2.0)
        adv = run(small(name), victim, x, ball)
        assert (logits(adv).argmax(1) != labels).all()


@pytest.mark.parametrize(
    "wrong",
    [
        {"attack": "newton"},
        {"loss": "hinge"},
        {"loss": "cross-entropy", "targets": 3},
        {"targets": 31},
        {"targets": -1},
        {"draws": 0},
    ],
)
def test_a_recipe_that_means_nothing_is_refused(wrong: dict) -> None:
    with pytest.raises(UsageError, match="expected"):
        Recipe(**{"attack": "apgd"} | wrong)
