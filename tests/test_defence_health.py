"""The health of a defence before any attack: gradients and answers, with faults planted."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from defences import cut, defended, images, lock, noisy, plane, rounding, trial
from purifying import READY, classifier, ready
from purifying import images as photographs
from torch import Tensor

from advrad.attacks.gradient import value_and_gradient
from advrad.errors import BlindAttackError
from advrad.evaluate.defence_gradient import true_gradient
from advrad.evaluate.defence_modes import Defence, Logits
from advrad.evaluate.defence_steady import STEADY, steady
from advrad.evaluate.defended import defend
from advrad.evaluate.health import FAILED, NOT_RUN, PASSED, Check
from advrad.noise import Noise, PerImage

Purify = Callable[[Tensor, Noise], Tensor]


class Part(torch.autograd.Function):
    """The identity, whose gradient is lost where the mask is 0."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Tensor) -> Tensor:
        ctx.save_for_backward(mask)
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return grads[0] * ctx.saved_tensors[0], None


def hiding(kept: float) -> Purify:
    """The identity, with this share of the pixels' gradient."""
    drawn = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    return lambda x, noise: Part.apply(x, (drawn < kept).to(x).expand_as(x))  # type: ignore[no-any-return, no-untyped-call]


def two_faced(x: Tensor, noise: Noise) -> Tensor:
    """Noise that nobody sees who differentiates; the gradient is right."""
    return x if torch.is_grad_enabled() else x + 0.2 * noise(x, 3)


def steep(x: Tensor, noise: Noise) -> Tensor:
    """Other slopes for who differentiates, and the same values."""
    return x + 0.5 * (x - x.detach()) * noise(x, 3)


def told(logits: Logits, x: Tensor, labels: Tensor, seed: int = 0) -> Check:
    ids = [str(i) for i in range(len(x))]
    return true_gradient(
        logits, x, labels, PerImage(seed, ids), directions=PerImage(seed + 1, ids)
    )


class TestTrueGradient:
    @pytest.mark.parametrize("purify", [None, noisy(), lock(3), hiding(1.0)])
    def test_an_honest_one(self, purify: Purify | None) -> None:
        examples = images(plane(), 16)
        found = told(Defence(plane(), purify).logits, examples.x, examples.labels)
        assert found.status == PASSED, found.words

    @pytest.mark.parametrize("purify", [hiding(0.3), hiding(0.8), two_faced, steep])
    def test_one_that_is_not_the_purifiers_own(self, purify: Purify) -> None:
        examples = images(plane(), 16)
        found = told(Defence(plane(), purify).logits, examples.x, examples.labels)
        assert found.status == FAILED, found.words

    @pytest.mark.parametrize("purify", [rounding(), rounding(64, slope=1e-4)])
    def test_steps_have_none(self, purify: Purify) -> None:
        examples = images(plane(), 16)
        found = told(Defence(plane(), purify).logits, examples.x, examples.labels)
        assert found.status == FAILED, found.words

    def test_how_far_apart_is_said_in_units_of_the_true_one(self) -> None:
        """A gradient twice as long is as far away as the true one is long."""
        examples = images(plane(), 16)
        twice = Defence(plane(), lambda x, noise: 2 * x - x.detach()).logits
        found = told(twice, examples.x, examples.labels)
        assert found.words.startswith("1 of its length away")

    def test_what_is_lost_in_rounding_is_not_judged(self) -> None:
        examples = images(plane(), 16)
        dull = Defence(plane(), lambda x, noise: 0.5 + 1e-9 * x).logits
        assert told(dull, examples.x, examples.labels).status == NOT_RUN

    @pytest.mark.parametrize("name", READY)
    def test_every_purifier_of_the_library_is_honest(self, name: str) -> None:
        x, network = photographs(2), classifier()
        found = told(Defence(network, ready(name)).logits, x, network(x).argmax(1))
        assert found.status != FAILED, found.words
        assert found.status == PASSED or name == "defensegan", "an untrained one hears little"

    @pytest.mark.parametrize("kept", [0.3, 0.15])
    def test_a_defence_that_hides_its_gradient_is_suspect(self, kept: float) -> None:
        network = plane()
        asked = trial(modes=["full", "bpda"], eps=[0.04], health=True, steps=10)
        full, bpda = defend(defended(hiding(kept), network), images(network, 24), asked)["rows"]
        assert full["health"]["verdict"] == "suspect"
        assert full["health"]["checks"]["gradient_true"]["status"] == FAILED
        assert bpda["health"]["checks"]["gradient_true"]["status"] == NOT_RUN


def mixing(x: Tensor, noise: Noise) -> Tensor:
    return x + 0.6 * (x.mean(0, keepdim=True) - x)


def restless(x: Tensor, noise: Noise) -> Tensor:
    return x + 0.05 * torch.randn_like(x)


class Recalling:
    """Gives every image a part of the brightest that it has ever seen, once it was seen twice."""

    def __init__(self) -> None:
        self.calls, self.brightest = 0, 0.0

    def __call__(self, x: Tensor, noise: Noise) -> Tensor:
        self.calls += 1
        kept = self.brightest if self.calls > 2 else 0.0
        self.brightest = max(self.brightest, float(x.max()))
        return x + 0.3 * kept


class TestSteady:
    def found(self, purify: Purify | None, count: int = 12) -> dict[str, str]:
        x = images(plane(), 12).x[:count]
        ids = [str(i) for i in range(count)]
        checks = steady(Defence(plane(), purify).logits, x, ids, lambda some: PerImage(0, some))
        assert tuple(checks) == STEADY
        return {name: check.status for name, check in checks.items()}

    @pytest.mark.parametrize("purify", [None, noisy(), rounding(), cut])
    def test_an_honest_one(self, purify: Purify | None) -> None:
        assert set(self.found(purify).values()) == {PASSED}

    def test_one_that_mixes_its_batch(self) -> None:
        assert self.found(mixing) == dict(zip(STEADY, (PASSED, FAILED, PASSED), strict=True))
        assert self.found(mixing, 1)["batch_independent"] == NOT_RUN

    def test_one_that_remembers(self) -> None:
        assert self.found(Recalling())["stateless"] == FAILED

    def test_one_that_draws_by_itself(self) -> None:
        assert self.found(restless) == dict(zip(STEADY, (FAILED, NOT_RUN, NOT_RUN), strict=True))

    def test_a_defence_that_mixes_its_batch_is_suspect(self) -> None:
        network = plane()
        asked = trial(modes=["full"], eps=[0.02], health=True)
        [row] = defend(defended(mixing, network), images(network), asked)["rows"]
        assert row["health"]["verdict"] == "suspect"
        assert row["health"]["checks"]["batch_independent"]["status"] == FAILED


def test_the_refusal_of_a_cut_gradient_speaks_of_no_detector() -> None:
    with pytest.raises(BlindAttackError, match="something in what is attacked cuts it"):
        value_and_gradient(lambda x: x.detach().flatten(1).sum(1), images(plane()).x)
