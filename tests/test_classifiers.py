"""Training classifiers: losses against closed forms, attacks inside, resumption, accuracy."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from advrad.attacks import L2, Linf
from advrad.attacks.objective import cross_entropy
from advrad.classifiers import LOSSES, Training, accuracy, right, train
from advrad.classifiers.losses import Inner, divergence, half_fgsm, madry, natural, still, trades
from advrad.classifiers.training import (
    _Rehearsed,
    _Step,
    fingerprint,
    measured,
    own_draws,
    untrained,
)
from advrad.data.labelled import Labelled, Part
from advrad.diffusion.run import Progress, Run
from advrad.errors import DivergedError, OtherTrainingError, UsageError
from advrad.networks import WideResNet
from advrad.noise import Fixed, Noise, fresh

X = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(1))
Y = torch.tensor([0, 1, 2, 0, 1, 2])


class Linear(nn.Module):
    """Logits W x + b, whose attacks can be written down."""

    def __init__(self, classes: int = 3, size: int = 16) -> None:
        super().__init__()
        self.layer = nn.Linear(size, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.flatten(1))


def inner(eps: float = 0.1, steps: int = 10) -> Inner:
    return Inner(Linf(eps), steps)


# --- the losses ---


def test_natural_is_minus_the_mean_log_probability() -> None:
    model = Linear()
    p = model(X).exp() / model(X).exp().sum(1, keepdim=True)
    expected = -sum(p[i, Y[i]].log() for i in range(6)) / 6
    assert natural(model, X, Y, inner(), fresh).item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_divergence_is_the_sum_over_classes() -> None:
    one, other = torch.randn(4, 5), torch.randn(4, 5)
    p, q = one.softmax(1), other.softmax(1)
    expected = [sum(p[i, k] * (p[i, k] / q[i, k]).log() for k in range(5)) for i in range(4)]
    assert torch.allclose(divergence(one, other), torch.stack(expected), atol=1e-6)
    theirs = F.kl_div(q.log(), p, reduction="none").sum(1)
    assert torch.allclose(divergence(one, other), theirs, atol=1e-6)
    assert torch.equal(divergence(one, one), torch.zeros(4))
    assert not torch.allclose(divergence(one, other), divergence(other, one), atol=1e-3)


def test_the_divergence_of_two_classes_in_closed_form() -> None:
    """For logits (a, 0) and (b, 0): sigma(a) (a - b) - softplus(a) + softplus(b)."""
    a, b = torch.tensor([0.3, -2.0, 30.0]), torch.tensor([1.0, 4.0, -30.0])
    zero = torch.zeros(3)
    found = divergence(torch.stack([a, zero], 1), torch.stack([b, zero], 1))
    expected = a.sigmoid() * (a - b) - F.softplus(a) + F.softplus(b)
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-6)


def two_classes() -> Linear:
    """Logits (w x, 0): a loss rises along -w or along w, so a box is left at a corner."""
    model = Linear(2)
    with torch.no_grad():
        model.layer.weight[1] = 0
        model.layer.bias.zero_()
    return model


INSIDE = 0.3 + 0.4 * X  # no corner of a ball of 0.1 leaves [0, 1]


def test_madry_on_two_classes_is_the_loss_at_the_corner() -> None:
    model, y, eps = two_classes(), torch.tensor([0, 1, 0, 1, 0, 1]), 0.1
    w = model.layer.weight[0].detach()
    sign = 1 - 2.0 * y
    lowered = sign * (INSIDE.flatten(1) @ w) - eps * w.abs().sum()
    expected = F.softplus(-lowered).mean()
    assert madry(model, INSIDE, y, inner(eps), fresh).item() == pytest.approx(
        expected.item(), rel=1e-5
    )


def test_madry_in_l2_is_the_loss_along_the_weights() -> None:
    model, y, eps = two_classes(), torch.tensor([0, 1, 0, 1, 0, 1]), 0.25
    w = model.layer.weight[0].detach()
    plain = (1 - 2.0 * y) * (INSIDE.flatten(1) @ w)
    least, most = (F.softplus(-z).mean().item() for z in (plain, plain - eps * w.norm()))
    found = madry(model, INSIDE, y, Inner(L2(eps), 20), fresh).item()
    assert least + 0.98 * (most - least) < found < most * (1 + 1e-5)


def test_trades_on_two_classes_in_closed_form() -> None:
    """The divergence from z to z' is convex in z', so its most lies at one of two corners."""
    model, y, eps, beta = two_classes(), torch.tensor([0, 1, 0, 1, 0, 1]), 0.1, 3.0
    w = model.layer.weight[0].detach()
    z = INSIDE.flatten(1) @ w

    def kl(a: Tensor, b: Tensor) -> Tensor:
        return a.sigmoid() * (a - b) - F.softplus(a) + F.softplus(b)

    most = torch.maximum(*(kl(z, z + sign * eps * w.abs().sum()) for sign in (-1, 1)))
    least = torch.minimum(*(kl(z, z + sign * eps * w.abs().sum()) for sign in (-1, 1)))
    plain = F.softplus(-(1 - 2.0 * y) * z).mean()
    found = trades(model, INSIDE, y, inner(eps, 20), Fixed(0), beta).item()
    assert (plain + beta * least.mean()).item() * (1 - 1e-5) <= found
    assert found <= (plain + beta * most.mean()).item() * (1 + 1e-5)
    fixed = [trades(model, INSIDE, y, inner(eps, 20), Fixed(s), beta).item() for s in range(8)]
    assert max(fixed) > (plain + beta * (least + 0.5 * (most - least)).mean()).item()


@pytest.mark.parametrize("beta", [0.0, 6.0])
def test_trades_without_a_perturbation_is_natural(beta: float) -> None:
    model = Linear()
    found = trades(model, X, Y, inner(0.0), fresh, beta)
    assert found.item() == natural(model, X, Y, inner(0.0), fresh).item()
    slope = torch.autograd.grad(found, model.layer.weight)[0]
    own = torch.autograd.grad(natural(model, X, Y, inner(), fresh), model.layer.weight)[0]
    assert torch.allclose(slope, own, atol=1e-6)


def test_the_gradient_of_trades_goes_through_both_arguments() -> None:
    """Against finite differences, the attacked image held; cutting either is another number."""
    model, held = Linear().double(), {}

    class Known(Inner):
        def raised(self, objective: object, x: Tensor, noise: Noise) -> Tensor:
            return held.setdefault("x", (x + 0.1 * torch.randn_like(x)).clamp(0, 1))

    x, attack = X.double(), Known(Linf(0.1))
    value = lambda: trades(model, x, Y, attack, fresh, 5.0)
    slope = torch.autograd.grad(value(), model.layer.weight)[0]
    direction, step = torch.randn_like(slope), 1e-6
    ends = []
    for sign in (1, -1):
        with torch.no_grad():
            model.layer.weight += sign * step * direction
            ends.append(value().item())
            model.layer.weight -= sign * step * direction
    expected = (ends[0] - ends[1]) / (2 * step)
    assert (slope * direction).sum().item() == pytest.approx(expected, rel=1e-5)
    for cut in (lambda a, b: (a.detach(), b), lambda a, b: (a, b.detach())):
        loss = (
            F.cross_entropy(model(x), Y) + 5 * divergence(*cut(model(x), model(held["x"]))).mean()
        )
        wrong = torch.autograd.grad(loss, model.layer.weight)[0]
        assert abs((wrong * direction).sum().item() - expected) > 1e-3


def test_fgsm_training_is_the_mean_of_both() -> None:
    model = Linear()
    w = model.layer.weight.detach()
    p = model(X).softmax(1)
    slope = (p - F.one_hot(Y, 3).float()) @ w
    x_adv = (X + 0.3 * slope.sign().view_as(X)).clamp(0, 1)
    expected = (F.cross_entropy(model(X), Y) + F.cross_entropy(model(x_adv), Y)) / 2
    found = half_fgsm(model, X, Y, inner(0.3), fresh)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


# --- the attack inside ---


@pytest.mark.parametrize("ball", [Linf(0.1), L2(0.5)], ids=lambda b: b.name)
def test_the_attack_raises_the_loss_and_stays_in_ball_and_box(ball: Linf | L2) -> None:
    model = Linear()
    objective: Callable[[Tensor], Tensor] = lambda z: cross_entropy(model(z), Y)
    x_adv = Inner(ball, 10).raised(objective, X, fresh)
    assert (objective(x_adv) > objective(X)).all()
    assert (ball.size(x_adv - X) <= float(ball.eps) * (1 + 1e-5)).all()
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1
    assert not x_adv.requires_grad


@pytest.mark.parametrize("loss", ["fgsm", "pgd", "trades"])
def test_the_attack_meets_the_network_as_it_is_used(loss: str) -> None:
    """Its statistics are not those of attacked images on the way, its parameters get no gradient
    from the attack, and dropout is off while it is made."""
    model = WideResNet(shape=[1, 4, 4], classes=3, depth=10, width=1).train()
    seen: list[tuple[bool, int]] = []
    hook = model.register_forward_hook(lambda m, i, o: seen.append((m.training, len(i[0]))))
    value = LOSSES[loss](model, X, Y, inner(steps=3), fresh)
    hook.remove()
    in_training = [rows for training, rows in seen if training]
    assert in_training == {"fgsm": [12], "pgd": [6], "trades": [6, 6]}[loss]
    assert int(model.norm.num_batches_tracked) == len(in_training)
    assert len(seen) > len(in_training)
    assert model.training
    assert all(p.grad is None for p in model.parameters())
    value.backward()
    assert all(p.grad is not None for p in model.parameters())


def test_still_comes_back_whatever_happens() -> None:
    model = nn.Dropout().train()
    inside = []

    def fail() -> None:
        with still(model):
            inside.append(model.training)
            raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        fail()
    assert inside == [False]
    assert model.training


# --- the training ---


def stripes(count: int, seed: int, classes: int = 3, side: int = 12) -> Part:
    """Bright stripes at a place that tells the class, under noise."""
    source = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    images = torch.randint(0, 90, (count, 1, side, side), generator=source)
    for image, label in zip(images, labels, strict=True):
        image[:, int(label) * 4 : int(label) * 4 + 3] += 120
    return Part(images.to(torch.uint8), labels)


DATA = Labelled("stripes", ("a", "b", "c"), stripes(60, 1), stripes(30, 2))
TINY = {"depth": 10, "width": 1}
WRN = Training("wrn", TINY, steps=8, batch=7, rate=1e-2)
A = Training("a", {}, steps=8, batch=7, rate=1e-2)


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def test_it_learns() -> None:
    before = untrained(DATA, WRN).eval()
    after, cost = train(DATA, replace(WRN, steps=40, batch=20))
    assert accuracy(before, DATA.test).value < 0.8
    assert accuracy(after, DATA.test).value > 0.95
    assert not after.training
    assert cost["training_seconds"] > 0


def test_training_under_attack_gives_robustness() -> None:
    """At a radius at which a stripe can nearly be painted out, natural training leaves less."""
    eps, found = 0.2, {}
    x, y = next(DATA.test.batches())
    for loss in ("natural", "pgd", "trades"):
        wanted = Training("wrn", TINY, loss, steps=30, batch=20, rate=1e-2, eps=eps, attack=3)
        model = train(DATA, wanted).classifier
        x_adv = inner(eps, 10).raised(lambda z, m=model: cross_entropy(m(z), y), x, Fixed(0))
        found[loss] = (model(x_adv).argmax(1) == y).float().mean().item()
    assert found["pgd"] >= found["natural"] + 0.1
    assert found["trades"] >= found["natural"] + 0.1


@pytest.mark.parametrize("wanted", [WRN, A], ids=["statistics", "dropout"])
@pytest.mark.parametrize("loss", ["natural", "trades"])
def test_a_training_that_is_stopped_goes_on_bit_by_bit(
    wanted: Training, loss: str, tmp_path: Path
) -> None:
    wanted = replace(wanted, loss=loss, eps=0.1, attack=2, steps=4, views=("mirrors", "shifts"))
    whole = train(DATA, wanted, Run(seed=3)).classifier

    class Stop(BaseException):
        pass

    def interrupt(progress: Progress) -> None:
        if progress.done == 2:
            raise Stop

    with pytest.raises(Stop):
        train(DATA, wanted, Run(seed=3, folder=tmp_path, report=interrupt))
    torch.manual_seed(99)
    resumed = train(DATA, wanted, Run(seed=3, folder=tmp_path, resume=True)).classifier
    assert same(state(resumed), state(whole))
    other = train(DATA, wanted, Run(seed=4)).classifier
    assert not same(state(other), state(whole))


def test_an_interruption_inside_a_step_leaves_the_statistics(tmp_path: Path) -> None:
    """Ctrl-C falls into the loss: what a forward pass has counted then must not count twice."""
    wanted = replace(WRN, steps=4)
    whole = train(DATA, wanted, Run(seed=3)).classifier
    calls = iter(range(1, 100))

    class Stop(BaseException):
        pass

    def interrupt(module: nn.Module, x: object, y: object) -> None:
        if isinstance(module, WideResNet) and next(calls) == 3:
            raise Stop

    hook = nn.modules.module.register_module_forward_hook(interrupt)
    with pytest.raises(Stop):
        train(DATA, wanted, Run(seed=3, folder=tmp_path))
    hook.remove()
    resumed = train(DATA, wanted, Run(seed=3, folder=tmp_path, resume=True)).classifier
    assert same(state(resumed), state(whole))
    assert int(resumed.norm.num_batches_tracked) == 4


def test_statistics_wait_for_the_end_of_a_step() -> None:
    model = WideResNet(shape=[1, 4, 4], classes=3, depth=10, width=1)
    rehearsed, before = _Rehearsed(model), state(model)
    rehearsed.begin()
    found = rehearsed(X)
    assert same(state(model), before)
    rehearsed.finish()
    plain = WideResNet(shape=[1, 4, 4], classes=3, depth=10, width=1).train()
    plain.load_state_dict(before)
    assert torch.equal(plain(X), found)
    assert same(state(plain), state(model))


def test_dropout_s_masks_belong_to_the_source() -> None:
    outside = torch.get_rng_state()
    masks = []
    for seed in (1, 1, 2):
        with own_draws(torch.Generator().manual_seed(seed), "cpu"):
            masks.append(F.dropout(torch.ones(50)))
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])
    assert torch.equal(torch.get_rng_state(), outside)


def test_other_images_and_other_settings_are_refused(tmp_path: Path) -> None:
    wanted = replace(WRN, steps=2)
    train(DATA, wanted, Run(folder=tmp_path))
    again = Run(folder=tmp_path, resume=True)
    train(DATA, wanted, again)
    with pytest.raises(OtherTrainingError, match="rate"):
        train(DATA, replace(wanted, rate=1e-3), again)
    changed = replace(DATA.train, labels=DATA.train.labels.flip(0))
    assert fingerprint(changed) != fingerprint(DATA.train)
    with pytest.raises(OtherTrainingError, match="images"):
        train(replace(DATA, train=changed), wanted, again)


def test_a_radius_grows_over_its_share_of_the_steps() -> None:
    wanted = Training("wrn", TINY, "pgd", steps=100, eps=0.4, growth=0.5)
    step = _Step(untrained(DATA, wanted), DATA.train, wanted, Run())
    found = [float(step._inner(n).ball.eps) for n in (1, 25, 50, 51, 100)]
    assert found == pytest.approx([0.008, 0.2, 0.4, 0.4, 0.4])
    flat = _Step(untrained(DATA, wanted), DATA.train, replace(wanted, growth=0), Run())
    assert float(flat._inner(1).ball.eps) == pytest.approx(0.4)


def test_the_network_takes_its_normalisation_from_the_data() -> None:
    network = untrained(DATA, WRN)
    x, _ = next(DATA.train.batches(60))
    assert network.params["mean"] == pytest.approx([x.mean().item()], abs=1e-5)
    spread = x.double().std(correction=0).item()
    assert network.params["deviation"] == pytest.approx([spread], abs=1e-5)
    own = replace(WRN, settings={**TINY, "mean": [0.0]})
    assert untrained(DATA, own).params["mean"] == [0.0]
    black = Part(torch.zeros(3, 2, 4, 4, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64))
    assert measured(black)["deviation"] == pytest.approx([1 / 255] * 2, abs=1e-6)


def test_a_rate_beyond_all_measure_is_told() -> None:
    with pytest.raises(DivergedError, match="diverged at step"):
        train(DATA, replace(A, rate=math.inf))


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"loss": "mixup"}, "loss=mixup: expected one of natural, fgsm, pgd, trades"),
        ({"norm": "l1"}, "norm=l1: expected one of linf, l2"),
        ({"views": ("blur",)}, "views=blur: expected one of"),
        ({"steps": 0}, "steps=0: expected 1 or more"),
        ({"batch": 0}, "batch=0"),
        ({"attack": 0}, "attack=0"),
        ({"rate": math.nan}, "rate=nan"),
        ({"beta": -1.0}, "beta=-1"),
        ({"growth": 1.5}, "growth=1.5: expected a share"),
        ({"loss": "trades"}, r"loss=trades .* set eps, as 0.3 for MNIST or 8/255 for CIFAR-10"),
        ({"loss": "pgd", "eps": -0.1}, "eps=-0.1"),
        ({"network": "vgg"}, "unknown classifier 'vgg'"),
        ({"settings": {"shape": [1, 4, 4]}}, "shape is that of the data"),
    ],
)
def test_impossible_settings_are_told(setting: dict, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        train(DATA, replace(WRN, **setting))


# --- accuracy ---


def test_accuracy_counts_and_tells_its_interval() -> None:
    part = Part(torch.arange(10, dtype=torch.uint8)[:, None, None, None], torch.arange(10) % 2)

    def classify(x: Tensor) -> Tensor:
        value = (255 * x.flatten()).round()
        logits = torch.stack([1 - value % 2, value % 2], 1)  # right, but for the first three
        logits[value < 3] = 1 - logits[value < 3]
        logits[value == 9] = math.nan
        return logits

    expected = [False] * 3 + [True] * 6 + [False]
    for batch in (1, 3, 500):
        assert right(classify, part, batch).tolist() == expected
    found = accuracy(classify, part)
    assert (found.hits, found.total) == (6, 10)
    assert found.low == pytest.approx(0.2624, abs=1e-3)  # Clopper and Pearson's tables
    assert found.high == pytest.approx(0.8784, abs=1e-3)
