"""What an attacker knows: the gradients of each mode, and whose noise is whose."""

import pytest
import torch
from defences import PIXELS, REVERSE, SIDE, images, noisy, plane
from torch import Tensor

from advrad.attacks.recipes import SPAN, START
from advrad.errors import UsageError
from advrad.evaluate.defence_modes import MODES, Defence, attacked, attacker, evaluation
from advrad.noise import Noise, fresh

IDS = ["one", "two", "three"]
LIKE = torch.zeros(3, 1, SIDE, SIDE)
STEPS = {"forward": 7, "reverse": REVERSE}


def half(x: Tensor, noise: Noise) -> Tensor:
    return x / 2


def drawn(noises: object, step: int, count: int = 12) -> set[bytes]:
    """What a source of draws gives at a step, of each image apart."""
    found = [noises(k)(LIKE, step) for k in range(count)]  # type: ignore[operator]
    return {row.numpy().tobytes() for each in found for row in each}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("part", STEPS)
def test_the_evaluation_shares_with_the_attacker_what_is_known_and_nothing_else(
    mode: str, part: str
) -> None:
    judge = drawn(evaluation(MODES[mode], 5, IDS), STEPS[part])
    attacks = [drawn(attacker(MODES[mode], 5, IDS, name), STEPS[part]) for name in ("a", "b")]
    if getattr(MODES[mode], part):
        assert judge == attacks[0] == attacks[1]
        assert len(judge) == len(IDS), "one draw of each image, again and again"
    else:
        assert len(judge) == len(attacks[0]) == 12 * len(IDS), "each draw another"
        assert not judge & attacks[0]
        assert not judge & attacks[1]
        assert not attacks[0] & attacks[1]


def test_known_noise_is_that_of_both_in_all_modes_that_know_it() -> None:
    both = evaluation(MODES["dw_both"], 5, IDS)(0)
    for mode, part in (("dw_forward", 7), ("dw_reverse", REVERSE)):
        assert torch.equal(evaluation(MODES[mode], 5, IDS)(4)(LIKE, part), both(LIKE, part))


@pytest.mark.parametrize("mode", MODES)
def test_what_an_attack_draws_for_itself_is_not_the_defences(mode: str) -> None:
    asked = MODES[mode]
    judge = drawn(evaluation(asked, 5, IDS), 7)
    own = attacker(asked, 5, IDS, "a")
    for k in (START, 3 * SPAN + START):
        assert not judge & {row.numpy().tobytes() for row in own(k)(LIKE, 7)}


def test_an_images_noise_does_not_depend_on_its_batch_and_does_on_the_seed() -> None:
    whole = evaluation(MODES["full"], 5, IDS)(2)(LIKE, 7)
    alone = evaluation(MODES["full"], 5, IDS[1:2])(2)(LIKE[:1], 7)
    assert torch.equal(whole[1:2], alone)
    assert not torch.equal(whole, evaluation(MODES["full"], 6, IDS)(2)(LIKE, 7))


@pytest.mark.parametrize(
    ("mode", "share"), [("transfer", 1.0), ("bpda", 1.0), ("full", 0.5), ("surrogate", 0.25)]
)
def test_the_gradient_of_each_mode_before_a_plane(mode: str, share: float) -> None:
    """Of x / 2 before w.x - b: w alone, the identity's w, w / 2; of x / 4 as surrogate w / 4."""
    classifier = plane()
    x = images(classifier).x.requires_grad_()
    defence = Defence(classifier, half, coarse=lambda x, noise: x / 4)
    logits = attacked(MODES[mode], defence)(x, fresh)
    height = logits[:, 1] - logits[:, 0]
    (gradient,) = torch.autograd.grad(height.sum(), x)
    expected = (share * classifier.weight).expand(len(x), PIXELS)
    torch.testing.assert_close(gradient.flatten(1), expected)


def test_bpda_has_the_values_of_the_defence_and_transfer_those_of_the_classifier() -> None:
    classifier = plane()
    x, noise = images(classifier).x, evaluation(MODES["full"], 0, [str(i) for i in range(12)])(0)
    defence = Defence(classifier, noisy())
    expected = defence.logits(x, noise)
    assert torch.equal(attacked(MODES["bpda"], defence)(x, noise), expected)
    assert torch.equal(attacked(MODES["full"], defence)(x, noise), expected)
    assert torch.equal(attacked(MODES["transfer"], defence)(x, noise), classifier(x))
    assert not torch.equal(expected, classifier(x))


def test_a_surrogate_that_is_the_purifier_has_its_gradient() -> None:
    classifier = plane()
    defence = Defence(classifier, noisy(), coarse=noisy())
    noise = evaluation(MODES["full"], 0, [str(i) for i in range(12)])(0)
    found = []
    for mode in ("surrogate", "full"):
        x = images(classifier).x.requires_grad_()
        logits = attacked(MODES[mode], defence)(x, noise)
        found.append(torch.autograd.grad(logits[:, 1].sum(), x)[0])
    assert torch.equal(*found)


def test_a_surrogate_that_is_missing_is_told() -> None:
    with pytest.raises(UsageError, match="coarser purifier"):
        attacked(MODES["surrogate"], Defence(plane(), half))


def test_no_mode_is_said_to_be_weaker_than_one_that_knows_less() -> None:
    order = list(MODES)
    for name, mode in MODES.items():
        assert all(order.index(weaker) < order.index(name) for weaker in mode.weaker)
