"""AutoAttack's composition, its rule and the one for classifiers that draw."""

import pytest
import torch
from affine import pictures, small_net
from torch import Tensor, nn

from advrad.attacks import L1, L2, Linf
from advrad.attacks.autoattack import (
    SUITES,
    autoattack,
    budget,
    cost,
    fixed_autoattack,
    suite,
)
from advrad.attacks.classification import undefended
from advrad.attacks.recipes import Recipe
from advrad.errors import UsageError
from advrad.noise import Draws, Noise, PerImage

QUICK = {
    "apgd-ce": Recipe("apgd", "cross-entropy", settings={"steps": 10}),
    "apgd-t": Recipe("apgd", "dlr", targets=3, settings={"steps": 10}),
    "fab-t": Recipe("fab", targets=3, settings={"steps": 10}),
    "square": Recipe("square", settings={"queries": 20}),
}
ONE = Recipe("apgd", "margin", settings={"steps": 1})


def names(count: int) -> list[str]:
    return [f"image {number}" for number in range(count)]


def labelled(count: int = 8) -> tuple[nn.Module, Tensor, Tensor]:
    net, x = small_net(), pictures(count=count)
    return net, x, net(x).argmax(1)


def coin(x: Tensor, noise: Noise) -> Tensor:
    """Right (class 0) with probability 0.7, whatever the image is."""
    right = noise(x[:, :1, :1, :1], 0).flatten() < 0.5244
    value = torch.where(right, 1.0, -1.0) + 1e-6 * x.flatten(1).sum(1)
    return torch.stack([value, -value, -value - 5], 1)


# the rule


def test_a_coin_stands_with_the_published_shares() -> None:
    """Clean and two attacks: 0.7^3, or the mean of the smallest of three shares of 20."""
    torch.manual_seed(0)
    x = torch.full((4000, 1, 1, 1), 0.5)
    labels, recipes = torch.zeros(4000).long(), {"one": ONE, "two": ONE}
    first = autoattack(coin, x, labels, Linf(0.1), recipes)
    fixed = fixed_autoattack(coin, x, labels, Linf(0.1), recipes)
    shares = torch.distributions.Binomial(20, torch.tensor(0.7)).sample((200_000, 3)) / 20
    assert first.accuracy["two"] == pytest.approx(0.7**3, abs=0.02)
    assert fixed.accuracy["two"] == pytest.approx(float(shares.amin(1).mean()), abs=0.01)
    assert fixed.accuracy["two"] == pytest.approx(0.61, abs=0.01)
    assert first.accuracy["clean"] == pytest.approx(0.7, abs=0.02)
    assert fixed.accuracy["clean"] == pytest.approx(0.7, abs=0.01)
    assert (first.rule, first.looks, fixed.rule, fixed.looks) == (
        "autoattack",
        1,
        "fixed-autoattack",
        20,
    )
    assert any("luck" in note for note in first.notes)
    assert not any("luck" in note for note in fixed.notes)


def test_without_draws_both_rules_are_one() -> None:
    net, x, labels = labelled()
    noises = Draws(0, names(8))
    both = [
        rule(undefended(net), x, labels, Linf(0.05), QUICK, noises=noises)
        for rule in (autoattack, fixed_autoattack)
    ]
    assert torch.equal(both[0].x, both[1].x)
    assert both[0].accuracy == both[1].accuracy
    assert both[1].looks == 1
    assert not both[1].random


def test_what_stands_is_what_was_looked_at() -> None:
    net, x, labels = labelled(24)
    lines: list[str] = []
    found = autoattack(undefended(net), x, labels, Linf(0.02), QUICK, report=lines.append)
    right = net(found.x).argmax(1) == labels
    assert torch.equal(found.correct, right.float())
    assert found.accuracy["square"] == float(right.float().mean())
    assert 0 < found.accuracy["square"] < 1
    assert (Linf(1).size(found.x - x) <= 0.02 * 1.0001).all()
    for row, name in enumerate(found.by):
        assert (name == "clean") == bool(right[row])
        assert torch.equal(found.x[row], x[row]) == (name == "clean")
    assert list(found.accuracy) == ["clean", *QUICK]
    falling = list(found.accuracy.values())
    assert falling == sorted(falling, reverse=True)
    assert len(lines) == 5
    assert lines[-1] == f"after square: {found.accuracy['square']:.1%}"


def test_only_images_still_right_are_attacked() -> None:
    """Two are wrong at once, and after the first attack the suite ends where none is right."""
    net, x, labels = labelled()
    labels[:2] = (labels[:2] + 1) % 6
    seen: list[int] = []

    def watched(z: Tensor, noise: Noise) -> Tensor:
        if z.requires_grad:
            seen.append(len(z))
        return net(z)

    found = autoattack(watched, x, labels, Linf(0.3), QUICK)
    assert seen == [6] * 10
    assert list(found.accuracy) == ["clean", "apgd-ce"]
    assert found.accuracy["apgd-ce"] == 0
    assert found.by == ["clean"] * 2 + ["apgd-ce"] * 6
    assert torch.equal(found.x[:2], x[:2])


def test_the_smaller_share_is_kept_and_a_lucky_image_is_still_attacked() -> None:
    """Draws for which the clean image is right half the time, and the attacked one never."""

    def classify(x: Tensor, noise: Noise) -> Tensor:
        half = 0.3 * noise(x[:, :1, :1, :1], 0).flatten().sign()
        value = half + 4 * (x[:, 0, 0, 0] - 0.5)
        return torch.stack([value, -value, -value - 1], 1)

    x, labels = torch.full((16, 1, 1, 1), 0.5), torch.zeros(16).long()
    found = fixed_autoattack(
        classify, x, labels, Linf(0.1), {"one": Recipe("fgsm", draws=8)}, looks=10
    )
    assert 0.3 < found.accuracy["clean"] < 0.7
    assert found.accuracy["one"] == 0
    back = {"one": Recipe("fgsm"), "worse": Recipe("square", settings={"queries": 1})}
    again = fixed_autoattack(classify, x, labels, Linf(0.1), back, looks=10)
    assert set(again.by) == {"one"}


def test_an_image_s_result_does_not_depend_on_its_batch() -> None:
    net, x, labels = labelled()
    noises = lambda some: Draws(0, some)
    whole = autoattack(undefended(net), x, labels, Linf(0.02), QUICK, noises=noises(names(8)))
    part = slice(3, 5)
    alone = autoattack(
        undefended(net), x[part], labels[part], Linf(0.02), QUICK, noises=noises(names(8)[part])
    )
    torch.testing.assert_close(alone.x, whole.x[part], rtol=0, atol=1e-5)
    assert torch.equal(alone.correct, whole.correct[part])


def test_known_draws_are_shared_by_attack_and_evaluation() -> None:
    """Whoever knows the draw turns what fresh draws protect."""
    weight = 0.5

    def classify(x: Tensor, noise: Noise) -> Tensor:
        key = noise(x, 0).sign()
        value = weight - (key * (x - 0.5)).flatten(1).sum(1)
        return torch.stack([value, -value, -value - 1], 1)

    x, labels = torch.full((8, 1, 6, 6), 0.5), torch.zeros(8).long()
    recipes = {"apgd": Recipe("apgd", "margin", draws=4, settings={"steps": 10})}
    known = PerImage(0, names(8))
    sure = autoattack(classify, x, labels, Linf(0.02), recipes, noises=lambda k: known)
    blind = fixed_autoattack(classify, x, labels, Linf(0.02), recipes, noises=Draws(0, names(8)))
    assert not sure.random
    assert sure.accuracy["apgd"] == 0
    assert blind.accuracy["apgd"] > 0.9


# notes and refusals


def test_square_ahead_of_the_gradient_is_told() -> None:
    """The gradient leads the wrong way, values do not."""

    class Turned(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx, outer: Tensor) -> Tensor:
            return -outer

    net, x, labels = labelled()
    masked = lambda z, noise: net(Turned.apply(z))
    recipes = {
        "apgd": Recipe("apgd", settings={"steps": 5, "start": "zero"}),
        "square": Recipe("square", settings={"queries": 200}),
    }
    found = autoattack(masked, x, labels, Linf(0.05), recipes)
    assert found.accuracy["square"] < found.accuracy["apgd"]
    assert any("masked" in note for note in found.notes)
    assert not autoattack(undefended(net), x, labels, Linf(0.05), recipes).notes


def test_single_draws_of_a_random_classifier_are_told() -> None:
    x, labels = torch.full((4, 1, 1, 1), 0.5), torch.zeros(4).long()
    notes = fixed_autoattack(coin, x, labels, Linf(0.1), {"one": ONE}).notes
    assert any("single draws" in note for note in notes)
    eot = {"one": Recipe("apgd", draws=3, settings={"steps": 1})}
    assert not fixed_autoattack(coin, x, labels, Linf(0.1), eot).notes


def test_probabilities_are_refused_before_anything_is_attacked() -> None:
    net, x, labels = labelled()
    with pytest.raises(UsageError, match="logits"):
        autoattack(lambda z, noise: net(z).softmax(1), x, labels, Linf(0.1), QUICK)


def test_impossible_requests_are_refused() -> None:
    net, x, labels = labelled()
    with pytest.raises(UsageError, match="autoattack-standard"):
        suite("autoattack-plus", Linf(0.1))
    with pytest.raises(UsageError, match="looks"):
        fixed_autoattack(undefended(net), x, labels, Linf(0.1), QUICK, looks=0)


# suites and what they cost


def test_the_suites_are_autoattack_s() -> None:
    standard, rand = (suite(name, Linf(0.1)) for name in SUITES)
    assert list(standard) == ["apgd-ce", "apgd-t", "fab-t", "square"]
    assert [each.targets for each in standard.values()] == [0, 9, 9, 0]
    assert [each.resolved(False).get("steps") for each in standard.values()] == [100] * 3 + [None]
    assert standard["square"].settings["queries"] == 5000
    assert list(rand) == ["apgd-ce", "apgd-dlr"]
    assert [(each.draws, each.settings["steps"]) for each in rand.values()] == [(20, 100)] * 2
    sparse = suite("autoattack-standard", L1(12))
    assert sparse["apgd-ce"].settings["restarts"] == 5
    assert sparse["apgd-t"].targets == 5


def test_the_budget_is_counted_and_printed() -> None:
    standard, rand = (suite(name, L2(0.5)) for name in SUITES)
    assert cost(standard, 10).gradients == 100 + 900 + 900
    assert cost(rand, 10, random=True).gradients == 2 * 100 * 20
    assert cost(rand, 10, random=True, looks=20).forwards == 5 + 20 * 3 + 2 * 20 * 2
    words = budget(rand, 10, random=True, looks=20)
    assert words.startswith("apgd-ce, apgd-dlr: at most 4,000 evaluations with a gradient and 145")


def test_the_budget_is_what_a_stubborn_classifier_takes() -> None:
    passes = {True: 0, False: 0}

    def classify(x: Tensor, noise: Noise) -> Tensor:
        passes[x.requires_grad] += len(x)
        return torch.cat([100 + x.flatten(1)[:, :1], x.flatten(1)[:, 1:5]], 1)

    x = pictures(count=2)
    found = autoattack(classify, x, torch.zeros(2).long(), Linf(0.1), QUICK)
    assert found.accuracy["square"] == 1
    told = cost(QUICK, 5)
    assert (passes[True], passes[False]) == (2 * told.gradients, 2 * told.forwards)


# another library


def decided(count: int) -> tuple[nn.Module, Tensor, Tensor]:
    """A net of ten classes, bent, and images with the classes it gives them."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, 12, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(12 * 16, 10),
        ).requires_grad_(False)
    x = torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    return net.eval(), x, net(x).argmax(1)


@pytest.mark.slow
@pytest.mark.interop
@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.012), ("L2", 0.09)])
def test_robust_accuracy_is_pyautoattack_s(norm: str, eps: float) -> None:
    """Within one image of 200."""
    published = pytest.importorskip("pyautoattack")
    net, x, labels = decided(200)
    theirs = published.AutoAttack(net, norm=norm, eps=eps, seed=0, device="cpu")
    adv, _ = theirs.run_standard_evaluation(x, labels, batch_size=200)
    right = (net(adv).argmax(1) == labels).float().mean()
    ball = {"Linf": Linf, "L2": L2}[norm](eps)
    noises = Draws(0, names(200))
    found = autoattack(
        undefended(net), x, labels, ball, suite("autoattack-standard", ball), noises=noises
    )
    assert 0.2 < float(right) < 0.8
    assert abs(found.accuracy["square"] - float(right)) <= 1 / 200 + 1e-6
