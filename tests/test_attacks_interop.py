"""The same attacks in other libraries, on a score dressed up as a classifier of two classes.

Foolbox and pyautoattack raise the cross-entropy of class 0, whose logits are (0, score): that loss
rises with the score alone.
"""

import pytest
import torch
from torch import Tensor, nn

from advrad.attacks import BALLS, Objective, apgd, fgsm, pgd
from advrad.attacks.ball import L1
from advrad.attacks.objective import cross_entropy

pytestmark = pytest.mark.interop

SHAPE = (1, 12, 12)
EPS = {"linf": 0.05, "l2": 0.5, "l1": 3.0}
NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}


class TwoClasses(nn.Module):
    """Logits (0, score), the score being the largest value of a small bent map."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.look = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.Tanh(), nn.Conv2d(8, 1, 3, padding=1)
        )
        self.requires_grad_(False)
        for weights in self.look[::2]:
            weights.weight *= 3

    def forward(self, x: Tensor) -> Tensor:
        score = self.look(x).square().flatten(1).logsumexp(1) - 5
        return torch.stack([torch.zeros_like(score), score], 1)


def pictures(low: float, high: float) -> Tensor:
    x = torch.rand(6, *SHAPE, generator=torch.Generator().manual_seed(1))
    return low + (high - low) * x


def loss(model: nn.Module) -> Objective:
    return lambda x: cross_entropy(model(x), torch.zeros(len(x), dtype=torch.long))


def rise(model: nn.Module, adv: Tensor, x: Tensor) -> Tensor:
    return loss(model)(adv) - loss(model)(x)


# Foolbox


def foolbox_s(name: str, model: nn.Module, x: Tensor, eps: float, **settings: object) -> Tensor:
    foolbox = pytest.importorskip("foolbox")
    wrapped = foolbox.PyTorchModel(model.eval(), bounds=(0, 1), device="cpu")
    attack = getattr(foolbox.attacks, name)(random_start=False, **settings)
    labels = torch.zeros(len(x), dtype=torch.long)
    return attack.run(wrapped, x, foolbox.criteria.Misclassification(labels), epsilon=eps)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_pgd_is_foolbox_s_step_by_step_away_from_the_box(norm: str) -> None:
    model, x, eps = TwoClasses(), pictures(0.4, 0.6), EPS[norm]
    name = {"linf": "LinfPGD", "l2": "L2PGD"}[norm]
    theirs = foolbox_s(name, model, x, eps, steps=20, abs_stepsize=2.5 * eps / 20)
    settings = {"steps": 20, "size": 2.5 * eps / 20, "start": "zero", "keep": "last"}
    ours = pgd(loss(model), x, BALLS[norm](eps), **settings)
    assert (rise(model, ours, x) > 0).all()
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)
    torch.testing.assert_close(rise(model, ours, x), rise(model, theirs, x), rtol=1e-3, atol=0)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_at_the_box_pgd_is_no_weaker_than_foolbox_s(norm: str) -> None:
    model, x, eps = TwoClasses(), pictures(-1, 2).clamp(0, 1), EPS[norm]
    name = {"linf": "LinfPGD", "l2": "L2PGD"}[norm]
    theirs = foolbox_s(name, model, x, eps, steps=40, abs_stepsize=2.5 * eps / 40)
    settings = {"steps": 40, "size": 2.5 * eps / 40, "start": "zero", "keep": "last"}
    ours = pgd(loss(model), x, BALLS[norm](eps), **settings)
    assert (rise(model, ours, x) >= 0.99 * rise(model, theirs, x)).all()


def test_fgsm_is_foolbox_s() -> None:
    model, x = TwoClasses(), pictures(0, 1)
    theirs = foolbox_s("FGSM", model, x, EPS["linf"])
    ours = fgsm(loss(model), x, BALLS["linf"](EPS["linf"]))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


# pyautoattack


def their_apgd(
    model: nn.Module, x: Tensor, norm: str, start: Tensor | None = None, restarts: int = 1
) -> Tensor:
    base = pytest.importorskip("pyautoattack.autopgd_base")
    attack = base.APGDAttack(
        model,
        n_iter=100,
        norm=NORMS[norm],
        eps=EPS[norm],
        n_restarts=restarts,
        seed=0,
        device="cpu",
    )
    labels = torch.zeros(len(x), dtype=torch.long)
    if start is None:
        return attack.perturb(x, labels, best_loss=True)
    attack.init_hyperparam(x)
    return attack.attack_single_run(x, labels, x_init=start)[0]


inside = pytest.mark.parametrize("low", [0.4, 0.0], ids=["inside", "at the box"])


@inside
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_from_the_same_start_apgd_climbs_as_far_as_pyautoattack_s(norm: str, low: float) -> None:
    model, x = TwoClasses(), pictures(low, 1 - low)
    theirs = rise(model, their_apgd(model, x, norm, x), x)
    assert (theirs > 0.5).all()
    ours = rise(model, apgd(loss(model), x, BALLS[norm](EPS[norm]), start="zero"), x)
    torch.testing.assert_close(ours, theirs, rtol=0.01, atol=0)


@inside
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_from_random_starts_apgd_reaches_the_loss_of_pyautoattack_s(norm: str, low: float) -> None:
    torch.manual_seed(0)
    model, x = TwoClasses(), pictures(low, 1 - low)
    theirs = loss(model)(their_apgd(model, x, norm, restarts=4)).mean()
    ours = loss(model)(apgd(loss(model), x, BALLS[norm](EPS[norm]), restarts=4)).mean()
    assert float(ours) == pytest.approx(float(theirs), rel=0.01)


def test_sparse_apgd_is_no_weaker_than_pyautoattack_s() -> None:
    torch.manual_seed(0)
    model, x = TwoClasses(), pictures(0.0, 1.0)
    theirs = their_apgd(model, x, "l1")
    ours = apgd(loss(model), x, BALLS["l1"](EPS["l1"]))
    assert float(rise(model, ours, x).mean()) >= 0.95 * float(rise(model, theirs, x).mean())


@pytest.mark.parametrize("eps", [0.5, 4.0, 20.0])
def test_the_projection_on_l1_ball_and_box_is_pyautoattack_s(eps: float) -> None:
    base = pytest.importorskip("pyautoattack.autopgd_base")
    x, moved = pictures(0, 1), pictures(-1, 1)
    theirs = x + moved + base.L1_projection(x, moved, eps)
    torch.testing.assert_close(L1(eps).project(x + moved, x), theirs, rtol=0, atol=1e-5)
