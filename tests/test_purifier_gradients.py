"""The five ways in which attacks on purifiers have gone wrong, each planted and caught.

Kassis et al., 2025 (https://arxiv.org/abs/2411.16598), Section 3.2, found each of them in a
published evaluation: too few draws, other times in the backward pass, other noise in it, a guide
without a gradient, and a surrogate whose states are not the purifier's.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from purifying import images, in_double, network, ready
from slopes import EXACT, disagreement, unsteadiness
from torch import Tensor
from toys import names

from advrad.attacks import eot
from advrad.diffusion import Denoiser, Schedule
from advrad.diffusion import guide as guiding
from advrad.diffusion.reconstruct import jump
from advrad.noise import Draws, Fixed, Noise, redraw
from advrad.purifiers import Purifier, diffpure, surrogate

CAUGHT = 100 * EXACT
MODULE = importlib.import_module("advrad.purifiers.diffpure")
X = (0.3 + 0.4 * images(2)).double()


def wrong(purify: Purifier, noise: Noise | None = None) -> float:
    return disagreement(lambda x: purify(x, Fixed(0) if noise is None else noise), X)


# --- 1. too few draws ---


def unsteady(draws: int, noises: Callable[[int], Noise]) -> float:
    """Of the gradient's mean over draws, between calls."""
    purify, x = diffpure(network(), 100), images(1)
    weight = torch.randn(x.shape, generator=torch.Generator().manual_seed(3))
    drawn = lambda x, noise: (weight * purify(x, noise)).square().flatten(1).sum(1)
    objective = eot(drawn, draws, noises)

    def gradient() -> Tensor:
        own = x.clone().requires_grad_()
        value: Any = objective(own)
        return torch.autograd.grad(value.climb.sum(), own)[0]

    return unsteadiness(gradient, calls=24)


def test_more_draws_are_a_steadier_gradient_and_the_same_one_again_is_not() -> None:
    """The variance of a mean of n is a n-th; of one draw n times over it is what it was."""
    ids = names(1)
    honest = Draws(5, ids)
    single = unsteady(1, honest)
    assert single / 9 == pytest.approx(unsteady(9, honest), rel=0.4)
    planted = unsteady(9, lambda k: honest(k // 9))
    assert planted > single / 3


# --- 2. another time, 3. other noise, in the backward pass ---


@dataclass(frozen=True)
class Late:
    """Recomputes as `Recomputed` does, at a level that is `late` by some steps."""

    denoiser: Denoiser
    late: int

    @property
    def schedule(self) -> Schedule:
        return self.denoiser.schedule

    def __call__(self, x_t: Tensor, t: int) -> Tensor:
        return _Late.apply(x_t, self.denoiser, t, t + self.late)


class _Late(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_t: Tensor, denoiser: Denoiser, t: int, late: int) -> Tensor:
        ctx.denoiser, ctx.late = denoiser, late
        ctx.save_for_backward(x_t)
        with torch.no_grad():
            return denoiser(x_t, t)

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None, None, None]:
        x_t = ctx.saved_tensors[0].detach().requires_grad_()
        with torch.enable_grad():
            again = ctx.denoiser(x_t, ctx.late)
        return torch.autograd.grad(again, x_t, outer[0])[0], None, None, None


@pytest.mark.parametrize(("late", "right"), [(0, True), (1, False), (-1, False)])
def test_another_time_in_the_backward_pass_is_caught(
    late: int, right: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MODULE, "Recomputed", lambda denoiser: Late(denoiser, late))
    found = wrong(diffpure(in_double(network()), 60, 4))
    assert found < EXACT if right else found > 20 * EXACT


@dataclass(frozen=True)
class Restless:
    """A denoiser that draws for itself, which a denoiser must not."""

    denoiser: Denoiser

    @property
    def schedule(self) -> Schedule:
        return self.denoiser.schedule

    def __call__(self, x_t: Tensor, t: int) -> Tensor:
        return self.denoiser(x_t + 0.5 * torch.randn_like(x_t), t)


@pytest.mark.parametrize("recomputed", [False, True])
def test_other_noise_in_the_backward_pass_is_caught(
    recomputed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drawn once, it does no harm; drawn again where activations are, the slope is another's."""
    if not recomputed:
        monkeypatch.setattr(MODULE, "Recomputed", lambda denoiser: denoiser)
    purify = diffpure(Restless(in_double(network())), 60, 4)

    def seeded(x: Tensor) -> Tensor:
        torch.manual_seed(0)
        return purify(x, Fixed(0))

    found = disagreement(seeded, X)
    assert found > CAUGHT if recomputed else found < EXACT


# --- 4. the guide's own gradient ---


@pytest.mark.parametrize("name", ["gdmp", "agdm"])
@pytest.mark.parametrize("cut", ["x_t", "there", "both"])
def test_a_guide_that_is_a_constant_to_the_attack_is_caught(
    name: str, cut: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GDMP's own program detaches x_t; the way through the reference is lost as easily."""
    true, purify = guiding.slope, ready(name, double=True)
    assert wrong(purify) < EXACT

    def planted(energy: Any, x_t: Tensor, there: Tensor) -> Tensor:
        x_t = x_t if cut == "there" else x_t.detach()
        return true(energy, x_t, there if cut == "x_t" else there.detach())

    monkeypatch.setattr(guiding, "slope", planted)
    assert wrong(purify) > CAUGHT


# --- 5. a surrogate with other states ---


def test_a_surrogate_with_other_states_than_the_purifier_s_is_caught() -> None:
    """With as many steps as the purifier, a surrogate has the purifier's slopes or is wrong."""
    denoiser = in_double(network())
    exact = diffpure(denoiser, 60, 6)
    assert wrong(surrogate(exact, diffpure(denoiser, 60, 6))) < EXACT

    def slipped(denoiser: Denoiser, x_t: Tensor, t: int, s: int, noise: Noise) -> Tensor:
        """The next level's index with this level's image."""
        return jump(denoiser, x_t, max(s, 1), s - 10 if s > 10 else 0, noise)

    other_noise: Purifier = lambda x, noise: exact(x, redraw(noise, 1))
    for planted in (
        diffpure(denoiser, 60, 6, step=slipped),
        diffpure(denoiser, 50, 6),
        other_noise,
    ):
        assert wrong(surrogate(exact, planted)) > CAUGHT
