"""Transfer: what is found against one objective, judged by another."""

from functools import partial

import pytest
import torch
from oracles import Counted, LinearScore

from advrad.attacks import BALLS, Aim, Linf, fgsm, pgd
from advrad.attacks.transfer import transfer
from advrad.errors import BlindAttackError, UsageError
from advrad.noise import PerImage

SHAPE = (1, 6, 6)
GREY = torch.full((3, *SHAPE), 0.5)


@pytest.mark.parametrize("norm", sorted(BALLS))
def test_to_itself_it_is_the_attack(norm: str) -> None:
    score, ball = LinearScore(*SHAPE), BALLS[norm](1)
    attack, noise = partial(pgd, steps=5), PerImage(0, ["a", "b", "c"])
    expected = attack(score, GREY, ball, noise=noise)
    found = transfer(score, GREY, ball, source=score, attack=attack, noise=noise)
    assert torch.equal(found, expected)


def test_it_cannot_do_better_than_the_attack_and_nearly_as_well_on_a_sibling() -> None:
    score, sibling = LinearScore(*SHAPE), LinearScore(*SHAPE)
    sibling.weight = score.weight + 0.1 * LinearScore(*SHAPE, seed=1).weight
    found = transfer(score, GREY, Linf(0.1), source=sibling, attack=fgsm)
    rise = (score(found) - score(GREY)) / score.gain("linf", 0.1)
    assert ((rise > 0.9) & (rise <= 1.0001)).all()


def test_where_the_source_misleads_the_clean_image_stays() -> None:
    """The source agrees on the first image only; it is the rank that is compared."""
    score, sign = LinearScore(*SHAPE), torch.tensor([1.0, -1.0, -1.0])
    source = lambda x: sign * score(x)
    target = lambda x: Aim(-score(x), score(x).detach())
    found = transfer(target, GREY, Linf(0.1), source=source, attack=fgsm)
    assert torch.equal(found[1:], GREY[1:])
    assert float(score(found[:1]) - score(GREY[:1])) > 0.99 * score.gain("linf", 0.1)


def test_the_target_is_asked_twice_and_never_for_a_gradient() -> None:
    target, source = (Counted(LinearScore(*SHAPE)) for _ in range(2))
    transfer(target, GREY, Linf(0.1), source=source, attack=partial(pgd, steps=7))
    assert (target.forwards, target.gradients, source.gradients) == (2, 0, 7)


def test_what_cannot_be_attacked_is_refused() -> None:
    score = LinearScore(*SHAPE)
    with pytest.raises(BlindAttackError):
        transfer(score, GREY, Linf(0.1), source=lambda x: score(x.detach()), attack=fgsm)
    with pytest.raises(UsageError, match="eps"):
        transfer(score, GREY, Linf(-0.1), source=score, attack=fgsm)
