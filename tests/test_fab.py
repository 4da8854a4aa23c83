"""FAB: exact where the boundary is a plane, the box included."""

import pytest
import torch
from affine import margins, pictures, planes, small_net

from advrad.attacks import BALLS, L2, Linf, fab
from advrad.attacks._plane import Plane, to_plane
from advrad.attacks.classification import rivals, targeted, targeted_margin, undefended
from advrad.attacks.fab import between
from advrad.attacks.recipes import WRONG
from advrad.errors import UsageError
from advrad.noise import PerImage, fresh

NORMS = ["linf", "l2", "l1"]


@pytest.mark.parametrize("norm", NORMS)
def test_of_an_affine_classifier_it_finds_the_nearest_boundary(norm: str) -> None:
    x = pictures(0.3, 0.7).double()
    weights = planes()[0].double()
    dual = torch.linalg.vector_norm(
        weights.flatten(1), {"linf": 1, "l2": 2, "l1": torch.inf}[norm], 1
    )
    expected = (-margins(x) / dual).amin(1)
    found = fab(margins, x, BALLS[norm](30 if norm == "l1" else 1), halvings=20)
    if norm == "l1":  # one value may not have room enough; a solver's way has
        ways = [
            to_plane(BALLS["l1"](30), x, Plane(w.expand_as(x), -margins(x)[:, k]))
            for k, w in enumerate(weights)
        ]
        expected = torch.stack([BALLS["l1"](30).size(way) for way in ways]).amin(0)
    torch.testing.assert_close(found.eps, expected, rtol=4e-3, atol=0)
    assert (found.eps >= (1 - 1e-6) * expected).all()
    torch.testing.assert_close(BALLS[norm](1).size(found.x - x), found.eps)
    assert (margins(found.x).amax(1) >= 0).all()


@pytest.mark.parametrize("norm", NORMS)
def test_at_the_box_as_well(norm: str) -> None:
    """The nearest point of a plane inside the box is known, and is found."""
    x = pictures(-0.6, 1.6).double()
    weights = planes()[0][:1].double()
    score = lambda z: (z * weights).flatten(1).sum(1)
    goal, ball = score(x) + 2.0, BALLS[norm](35 if norm == "l1" else 1)
    expected = ball.size(to_plane(ball, x, Plane(weights.expand_as(x), torch.full((8,), 2.0))))
    free = 2 / torch.linalg.vector_norm(weights, {"linf": 1, "l2": 2, "l1": torch.inf}[norm])
    assert (expected > 1.05 * free).any()
    found = fab(score, x, ball, threshold=goal, halvings=20)
    torch.testing.assert_close(found.eps, expected, rtol=4e-3, atol=0)
    assert (found.eps >= (1 - 1e-6) * expected).all()


@pytest.mark.parametrize(("bias", "share"), [(0.1, 0.1), (1.0, 0.25), (0.0, 0.0)])
def test_a_step_lies_between_the_two_ways_to_the_plane(bias: float, share: float) -> None:
    """By hand: the plane at 0.8, the iterate 0.1 below it and aside, the clean image 0.3 below."""
    x, adv = (torch.tensor(at).view(1, 1, 1, 2) for at in ([0.5, 0.5], [0.7, 0.6]))
    plane = Plane(torch.tensor([2.0, 0.0]).view(1, 1, 1, 2), torch.tensor([0.2]))
    found = between(L2(1), x, adv, plane, (bias, 1.05)).flatten()
    ahead, direct = torch.tensor([0.7 + 0.105, 0.6]), torch.tensor([0.5 + 0.315, 0.5])
    torch.testing.assert_close(found, (1 - share) * ahead + share * direct)


def test_what_is_further_away_than_eps_is_not_found() -> None:
    x = pictures(0.3, 0.7)
    near = fab(margins, x, L2(5)).eps
    middle = float(near.median())
    found = fab(margins, x, L2(middle))
    far = near > middle
    assert far.any()
    assert torch.equal(found.eps.isinf(), far)
    assert torch.equal(found.x[far], x[far])


def test_an_image_over_the_threshold_stays_as_it_is() -> None:
    x = pictures(0.3, 0.7)
    found = fab(margins, x, L2(5), threshold=-100.0)
    assert torch.equal(found.x, x)
    assert (found.eps == 0).all()


def test_a_restart_never_loses_and_leaves_a_dead_end() -> None:
    """From the clean image the slope leads away from a boundary that lies the other way."""
    x = torch.full((4, 1, 1, 2), 0.5)
    score = lambda z: (
        torch.where(z[:, 0, 0, 0] > 0.48, 0.1 * z[:, 0, 0, 0], 3 - 6 * z[:, 0, 0, 0]) - 0.3
    )
    settings = {"steps": 10, "noise": PerImage(0, list("abcd"))}
    once, often = (fab(score, x, Linf(0.4), restarts=n, **settings) for n in (1, 10))
    assert once.eps.isinf().all()
    assert (often.eps < 0.1).all()


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"restarts": 0}, {"bias": 2}, {"overshoot": 0.9}, {"backward": -1}]
)
def test_impossible_settings_are_refused(wrong: dict) -> None:
    with pytest.raises(UsageError):
        fab(margins, pictures(), L2(1), **wrong)


# another library


@pytest.mark.interop
@pytest.mark.parametrize("aimed", [True, False], ids=["FAB-T", "FAB"])
@pytest.mark.parametrize("norm", NORMS)
def test_it_finds_what_pyautoattack_s_finds(norm: str, aimed: bool) -> None:
    published = pytest.importorskip("pyautoattack.fab_pt")
    net, x = small_net(), pictures(count=12)
    labels = net(x).argmax(1)
    name = {"linf": "Linf", "l2": "L2", "l1": "L1"}[norm]
    theirs = published.FABAttack_PT(net, norm=name, n_iter=50, eps=100.0, device="cpu")
    theirs.target_class = 2
    adv = theirs.attack_single_run(x, labels, is_targeted=aimed)
    order = net(x).argsort(1, descending=True)[:, 1:]
    if aimed:
        drawn = targeted(undefended(net), labels, order[:, 0], targeted_margin)
    else:
        drawn = rivals(undefended(net), labels, order)
    ball = BALLS[norm]({"linf": 1, "l2": 6, "l1": 36}[norm])
    ours = fab(lambda z: drawn(z, fresh), x, ball, threshold=WRONG, steps=50, halvings=0)
    torch.testing.assert_close(ours.eps, ball.size(adv - x), rtol=2e-3, atol=1e-5)
