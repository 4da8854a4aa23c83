"""DeepFool: of an affine classifier the answer is one step away."""

import pytest
import torch
from affine import margins, pictures, planes, small_net
from torch import Tensor

from advrad.attacks import BALLS, L2, Linf, deepfool, fab
from advrad.attacks.classification import likeliest, rivals, undefended
from advrad.errors import UsageError
from advrad.noise import fresh

NORMS = ["linf", "l2"]


@pytest.mark.parametrize("norm", NORMS)
def test_of_an_affine_classifier_one_step_is_the_answer(norm: str) -> None:
    x = pictures(0.3, 0.7).double()
    weights = planes()[0].double()
    dual = weights.flatten(1).norm(p=1 if norm == "linf" else 2, dim=1)
    distance, nearest = (-margins(x) / dual).min(1)
    assert len(nearest.unique()) > 1
    calls: list[int] = []

    def counted(z: Tensor) -> Tensor:
        calls.append(len(z))
        return margins(z)

    found = deepfool(counted, x, BALLS[norm](1 if norm == "linf" else 6), overshoot=0.02)
    assert len(calls) == 2
    torch.testing.assert_close(found.eps, 1.02 * distance)
    w = weights[nearest]
    way = w.sign() if norm == "linf" else w / w.flatten(1).norm(dim=1)[:, None, None, None]
    torch.testing.assert_close(found.x, x + 1.02 * distance[:, None, None, None] * way)


def test_without_overshoot_it_ends_on_the_boundary() -> None:
    x = pictures(0.3, 0.7).double()
    found = deepfool(margins, x, L2(6), threshold=-1e-9, overshoot=0.0)
    torch.testing.assert_close(
        margins(found.x).amax(1), torch.zeros(8).double(), rtol=0, atol=1e-8
    )


def test_what_is_further_away_than_eps_is_not_found() -> None:
    x = pictures(0.3, 0.7)
    near = deepfool(margins, x, Linf(1))
    found = deepfool(margins, x, Linf(float(near.eps.median())))
    far = near.eps > near.eps.median()
    assert far.any()
    assert torch.equal(found.eps.isinf(), far)
    assert torch.equal(found.x[far], x[far])
    assert torch.equal(found.x[~far], near.x[~far])


def test_on_a_bent_classifier_it_comes_near_to_fab() -> None:
    net, x = small_net(), pictures()
    labels = net(x).argmax(1)
    drawn = rivals(undefended(net), labels, likeliest(net(x), labels, 5))
    objective = lambda z: drawn(z, fresh)
    quick, best = deepfool(objective, x, L2(6)), fab(objective, x, L2(6))
    share = quick.eps / best.eps
    assert 1 < float(share.mean()) < 1.05
    assert (share > 0.98).all()


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"overshoot": -0.1}])
def test_impossible_settings_are_refused(wrong: dict) -> None:
    with pytest.raises(UsageError):
        deepfool(margins, pictures(), L2(1), **wrong)


@pytest.mark.interop
@pytest.mark.parametrize("norm", NORMS)
def test_it_is_foolbox_s(norm: str) -> None:
    foolbox = pytest.importorskip("foolbox")
    net, x = small_net(), pictures(count=12)
    labels = net(x).argmax(1)
    attack = {"linf": foolbox.attacks.LinfDeepFoolAttack, "l2": foolbox.attacks.L2DeepFoolAttack}
    wrapped = foolbox.PyTorchModel(net, bounds=(0, 1), device="cpu")
    theirs = attack[norm](steps=50).run(wrapped, x, foolbox.criteria.Misclassification(labels))
    drawn = rivals(undefended(net), labels, likeliest(net(x), labels, 5))
    ball = BALLS[norm](1 if norm == "linf" else 6)
    ours = deepfool(lambda z: drawn(z, fresh), x, ball)
    torch.testing.assert_close(ours.eps, ball.size(theirs - x), rtol=0.01, atol=2e-4)
