"""The certified class: which draws choose, which measure, and which are lost."""

import math

import pytest
import torch
from scipy import special
from torch import Tensor

from advrad.certify import ABSTAIN, Smoothing, certified_class
from advrad.certify.vote import least_share
from advrad.errors import UsageError
from advrad.noise import Noise

X = torch.full((1, 4, 4), 0.5)


def constant(x: Tensor, noise: Noise) -> Tensor:
    return torch.tensor([0.0, 0.0, 1.0]).expand(len(x), 3)


def test_a_constant_has_the_largest_radius_that_its_draws_allow() -> None:
    vote = certified_class(constant, X, "a", Smoothing(0.5, 400), alpha=0.01)
    assert vote.label == 2
    assert vote.radius == pytest.approx(0.5 * special.ndtri(0.01 ** (1 / 400)))


def test_the_radius_is_the_measuring_draws_own() -> None:
    """Bright draws say 1: Phi(1) of them; counted here from the draws themselves."""
    smoothing = Smoothing(0.2, 500, seed=4, batch=37)
    threshold = 0.5 - 0.2 / 4  # the mean of 16 values has the standard deviation 0.2 / 4

    def logits(x: Tensor, noise: Noise) -> Tensor:
        above = x.mean((1, 2, 3)) - threshold
        return torch.stack([-above, above], 1)

    drawn = smoothing.draws(lambda x, noise: x.mean((1, 2, 3)), X, "a")
    count = int((drawn > threshold).sum())
    vote = certified_class(logits, X, "a", smoothing, alpha=1e-2, selecting=20)
    assert vote.radius == pytest.approx(0.2 * special.ndtri(least_share(count, 500, 1e-2)))
    assert count / 500 == pytest.approx(special.ndtr(1.0), abs=0.05)


def test_the_draws_that_choose_are_others_than_those_that_measure() -> None:
    seen: list[Tensor] = []

    def logits(x: Tensor, noise: Noise) -> Tensor:
        seen.append(x.flatten(1))
        return constant(x, noise)

    certified_class(logits, X, "a", Smoothing(0.2, 30, batch=16), selecting=20)
    drawn = torch.cat(seen)
    assert len(drawn) == 50
    assert len(drawn.unique(dim=0)) == 50


def test_lost_draws_count_as_drawn_and_for_no_class() -> None:
    def logits(x: Tensor, noise: Noise) -> Tensor:
        found = constant(x, noise).clone()
        found[::2] = math.nan
        return found

    smoothing = Smoothing(0.2, 400, batch=40)
    assert certified_class(logits, X, "a", smoothing).label == ABSTAIN
    assert certified_class(constant, X, "a", smoothing).label == 2


def test_no_draws_to_choose_by_are_refused() -> None:
    with pytest.raises(UsageError, match="0 samples"):
        certified_class(constant, X, "a", Smoothing(0.2), selecting=0)
