"""Classifiers as objectives: losses by hand, noise that stays with its image, refusals."""

import pytest
import torch
from affine import pictures, small_net
from torch import Tensor

from advrad.attacks import eot
from advrad.attacks.classification import (
    Victim,
    examined,
    likeliest,
    rivals,
    some,
    targeted,
    targeted_dlr,
    targeted_margin,
    undefended,
    untargeted,
)
from advrad.attacks.objective import Aim, cross_entropy, dlr, margin
from advrad.errors import UsageError
from advrad.noise import Draws, Fixed, Noise, PerImage, Split, fresh, out, redraw

LOGITS = torch.tensor([[3.0, 1.0, -1.0, 0.0, 2.0], [0.0, 1.0, 5.0, 4.0, -2.0]])
LABELS = torch.tensor([0, 3])


def names(count: int) -> list[str]:
    return [f"image {number}" for number in range(count)]


def noisy(x: Tensor, noise: Noise) -> Tensor:
    """A defence that draws: the net behind a little noise in, and a little out."""
    return small_net()(x + 0.02 * noise(x, 3) + 0.01 * noise(x, out(0)))


# losses


def test_targeted_dlr_by_hand() -> None:
    """(z_t - z_y) / (z_1 - (z_3 + z_4) / 2), ordered 3 2 1 0 -1 and 5 4 1 0 -2."""
    found = targeted_dlr(LOGITS, LABELS, torch.tensor([3, 2]))
    torch.testing.assert_close(found, torch.tensor([(0 - 3) / (3 - 0.5), (5 - 4) / (5 - 0.5)]))


def test_targeted_dlr_knows_no_scale_and_no_offset() -> None:
    targets = torch.tensor([3, 2])
    scaled = targeted_dlr(1e3 * LOGITS - 7, LABELS, targets)
    torch.testing.assert_close(scaled, targeted_dlr(LOGITS, LABELS, targets))


def test_targeted_dlr_needs_four_classes() -> None:
    with pytest.raises(ValueError, match="four"):
        targeted_dlr(LOGITS[:, :3], torch.tensor([0, 1]), torch.tensor([1, 2]))


def test_the_likeliest_wrong_classes_in_their_order() -> None:
    assert likeliest(LOGITS, LABELS, 3).tolist() == [[4, 1, 3], [2, 1, 0]]


def test_the_nearest_target_s_margin_is_the_margin() -> None:
    best = likeliest(LOGITS, LABELS, 1)[:, 0]
    torch.testing.assert_close(targeted_margin(LOGITS, LABELS, best), margin(LOGITS, LABELS))


@pytest.mark.interop
def test_losses_are_pyautoattack_s() -> None:
    base = pytest.importorskip("pyautoattack.autopgd_base")
    source = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(50, 10, generator=source), torch.arange(50) % 10
    theirs = base.APGDAttack_targeted(lambda x: x, eps=1, device="cpu")
    theirs.y_target = likeliest(logits, labels, 3)[:, 2]
    mine = targeted_dlr(logits, labels, theirs.y_target)
    torch.testing.assert_close(mine, theirs.dlr_loss_targeted(logits, labels))
    plain = base.APGDAttack(lambda x: x, eps=1, device="cpu")
    torch.testing.assert_close(dlr(logits, labels), plain.dlr_loss(logits, labels))


# objectives


@pytest.mark.parametrize("loss", [cross_entropy, dlr, margin])
def test_a_loss_is_climbed_and_the_margin_ranks(loss) -> None:
    net, x = small_net(), pictures(count=4)
    labels = torch.tensor([0, 1, 2, 3])
    found = untargeted(undefended(net), labels, loss)(x, fresh)
    assert isinstance(found, Aim)
    torch.testing.assert_close(found.climb, loss(net(x), labels))
    torch.testing.assert_close(found.rank, margin(net(x), labels))
    assert ((found.rank > 0) == (net(x).argmax(1) != labels)).all()


def test_towards_a_target_any_wrong_class_ranks() -> None:
    net, x = small_net(), pictures(count=4)
    labels, aims = torch.tensor([0, 1, 2, 3]), torch.tensor([5, 4, 3, 2])
    found = targeted(undefended(net), labels, aims)(x, fresh)
    torch.testing.assert_close(found.climb, targeted_dlr(net(x), labels, aims))
    torch.testing.assert_close(found.rank, margin(net(x), labels))


def test_the_columns_of_rivals_are_margins_towards_each() -> None:
    net, x = small_net(), pictures(count=4)
    labels = torch.tensor([0, 1, 2, 3])
    order = likeliest(net(x), labels, 5)
    found = rivals(undefended(net), labels, order)(x, fresh)
    for number in range(5):
        expected = targeted_margin(net(x), labels, order[:, number])
        torch.testing.assert_close(found.climb[:, number], expected)
    torch.testing.assert_close(found.climb.amax(1), found.rank)


def test_labels_and_targets_go_with_their_images_into_every_draw_of_an_expectation() -> None:
    x, labels = pictures(count=3), torch.tensor([0, 1, 2])
    noises, aims = Draws(0, names(3)), torch.tensor([3, 4, 5])
    for drawn in (untargeted(noisy, labels), targeted(noisy, labels, aims)):
        found = eot(drawn, 6, noises)(x)
        singles = [drawn(x, noises(k)) for k in range(6)]
        for number in range(2):
            expected = torch.stack([each[number] for each in singles]).mean(0)
            torch.testing.assert_close(found[number], expected)


# some images of a batch


@pytest.mark.parametrize(
    "noise",
    [
        PerImage(3, names(5)),
        Split(PerImage(3, names(5)), Fixed(4)),
        redraw(PerImage(3, names(5)), 2),
        Fixed(1),
    ],
    ids=["per image", "split", "redrawn", "fixed"],
)
@pytest.mark.parametrize("step", [4, out(2)])
def test_an_image_keeps_its_noise_when_others_leave(noise: Noise, step: int) -> None:
    x, rows = pictures(count=5), torch.tensor([1, 4])
    left = some(noise, rows, 5)
    assert torch.equal(left(x[rows], step), noise(x, step)[rows])
    once_more = some(left, torch.tensor([1]), 2)
    assert torch.equal(once_more(x[4:], step), noise(x, step)[4:])


def test_a_victim_s_images_keep_labels_and_draws() -> None:
    x, labels = pictures(count=5), torch.arange(5)
    victim = Victim(noisy, labels, Draws(1, names(5)), True, 6)
    rows = torch.tensor([3, 0])
    some_of_it = victim.at(rows)
    assert len(some_of_it) == 2
    torch.testing.assert_close(some_of_it.logits(x[rows], 2, 3), victim.logits(x, 2, 3)[rows])
    assert torch.equal(some_of_it.correct(x[rows], 0, 9), victim.correct(x, 0, 9)[rows])


def test_the_share_of_right_looks_by_hand() -> None:
    """Right under draws 0, 3 and 4 of five."""
    classify = lambda x, noise: noise(x[:, :2, 0, 0], 0)
    rights = [True, False, False, True, True]
    noises = lambda k: lambda like, step: torch.tensor([[1.0, 0.0] if rights[k] else [0.0, 1.0]])
    victim = Victim(classify, torch.tensor([0]), noises, True, 2)
    x = torch.zeros(1, 2, 1, 1)
    assert float(victim.correct(x, 0, 5)) == pytest.approx(0.6)
    assert float(victim.correct(x, 1, 2)) == 0


# what is asked first


def test_a_network_is_found_to_be_deterministic_and_a_defence_random() -> None:
    x = pictures(count=4)
    labels = small_net()(x).argmax(1)
    assert not examined(undefended(small_net()), x, labels).random
    assert examined(noisy, x, labels).random
    assert examined(noisy, x, labels, Draws(0, names(4))).random
    assert examined(noisy, x, labels).classes == 6


def test_known_draws_make_a_defence_deterministic() -> None:
    x = pictures(count=4)
    known = PerImage(0, names(4))
    assert not examined(noisy, x, torch.zeros(4).long(), lambda k: known).random


def test_one_random_image_is_enough() -> None:
    x = pictures(count=4)
    last = torch.tensor([0.0, 0, 0, 1])[:, None]
    classify = lambda z, noise: small_net()(z) + 1e-3 * last * noise(z[:, 0, 0, :6], 0)
    assert examined(classify, x, torch.zeros(4).long()).random


@pytest.mark.parametrize("end", [lambda z: z.softmax(1), lambda z: z.softmax(1).double()])
def test_probabilities_are_refused(end) -> None:
    with pytest.raises(UsageError, match=r"probabilities.*remove it|remove"):
        examined(undefended(lambda x: end(small_net()(x))), pictures(), torch.zeros(8).long())


@pytest.mark.parametrize(
    "end", [lambda z: z.log_softmax(1), lambda z: z.sigmoid(), lambda z: z / z.sum(1, True)]
)
def test_what_only_looks_like_probabilities_is_not(end) -> None:
    examined(undefended(lambda x: end(small_net()(x))), pictures(), torch.zeros(8).long())


@pytest.mark.parametrize(
    "end",
    [lambda z: z[:, 0], lambda z: z[:2], lambda z: z.tolist(), lambda z: z * torch.nan],
    ids=["one", "short", "list", "nan"],
)
def test_what_is_no_logits_is_refused(end) -> None:
    with pytest.raises(UsageError):
        examined(undefended(lambda x: end(small_net()(x))), pictures(), torch.zeros(8).long())


@pytest.mark.parametrize(
    "labels",
    [torch.full((8,), 6), torch.full((8,), -1), torch.zeros(7).long(), torch.zeros(8)],
    ids=["beyond", "negative", "short", "floats"],
)
def test_labels_that_are_no_classes_are_refused(labels: Tensor) -> None:
    with pytest.raises(UsageError, match="labels"):
        examined(undefended(small_net()), pictures(), labels)


def test_images_out_of_range_are_refused() -> None:
    with pytest.raises(UsageError, match=r"\[0, 1\]"):
        examined(undefended(small_net()), 2 * pictures() - 1, torch.zeros(8).long())
