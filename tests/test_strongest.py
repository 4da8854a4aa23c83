"""Suites: nothing of ours is stronger for the same passes, the cost is exact, the map may lie."""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from fakes import SIDE, Fake, bright, pictures
from test_robustness import Linear
from torch import Tensor, nn

from advrad.adapters import ModuleDetector
from advrad.attacks import BALLS, Ball, Linf, Patch, apgd, pgd
from advrad.attacks.objective import log_sum_exp
from advrad.attacks.strongest import SUITES, Part, Suite, Target, run
from advrad.detectors.base import Anomaly
from advrad.errors import BlindAttackError
from advrad.evaluate.robustness import Assault
from advrad.noise import Draws, Noise, PerImage, fresh

X, DEFECT, IDS = pictures(6)
SIGN = torch.tensor([-1.0 if each else 1.0 for each in DEFECT])
STEPS = 80
WIDE = Linf(8 / 255)

# --- the same passes, other attackers ---


class Filters:
    """Maps of fixed random filters on 3 x 32 x 32, and scores made of them."""

    def __init__(self) -> None:
        source = torch.Generator().manual_seed(0)
        self.weight = torch.randn(3, 32, 32, generator=source)
        shapes = (8, 3, 3, 3), (1, 8, 3, 3)
        self.kernels = [torch.randn(shape, generator=source) / 3 for shape in shapes]
        self.x = 0.2 + 0.6 * torch.rand(2, 3, 32, 32, generator=source)

    def map(self, x: Tensor) -> Tensor:
        for place, kernel in enumerate(self.kernels):
            x = nn.functional.conv2d(x.relu() if place else x, kernel, padding=1)
        return x[:, 0].square()

    def linear(self, x: Tensor) -> Tensor:
        return (self.weight * x).flatten(1).sum(1)

    def smooth(self, x: Tensor) -> Tensor:
        return log_sum_exp(self.map(x), 0.1)

    def square(self, x: Tensor) -> Tensor:
        return self.map(x).flatten(1).mean(1)

    def lowered(self, x: Tensor) -> Tensor:
        return -self.map(x).flatten(1).amax(1)


FILTERS = Filters()
EPS = {"linf": 2 / 255, "l2": 0.2, "l1": 12.0, "patch": 8.0}


@pytest.mark.parametrize("score", ["linear", "smooth", "square", "lowered"])
@pytest.mark.parametrize("norm", BALLS)
def test_no_attacker_of_ours_does_better_with_the_same_passes(norm: str, score: str) -> None:
    """Of a lowered maximum every attacker finds another valley: there a larger share is left."""
    value: Callable[[Tensor], Tensor] = getattr(FILTERS, score)
    ball, noise = BALLS[norm](EPS[norm]), PerImage(0, ["a", "b"])

    def rise(adv: Tensor) -> float:
        return float((value(adv) - value(FILTERS.x)).mean())

    def judge(x: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        return value(x), value(x)[:, None, None].expand(-1, 4, 4)

    target = Target([judge], torch.ones(2), False, Draws(0, ["a", "b"]))
    [part] = SUITES["quick"].parts
    assert part.cost(False).gradients == STEPS
    quick = rise(run(part, target, FILTERS.x, ball, 0))
    others = (
        rise(attack(value, FILTERS.x, ball, steps=STEPS, start=start, noise=noise))
        for attack in (pgd, apgd)
        for start in ("random", "zero")
    )
    assert quick >= (0.85 if score == "lowered" else 0.95) * max(others)


# --- what it costs ---


class Counting(Linear):
    """Counts what is asked of it, in images and draws: with a gradient, and without."""

    def __init__(self, draws: int) -> None:
        super().__init__(draws, loud=0.1 * draws)
        self.gradients = self.forwards = 0

    def forward(self, x: Tensor, noise: Noise = fresh, draws: int | None = None) -> Anomaly:
        passes = len(x) * (max(1, self.taken) if draws is None else draws)
        seen = x.requires_grad and torch.is_grad_enabled()
        self.gradients += passes * seen
        self.forwards += passes * (not seen)
        return super().forward(x, noise, draws)


def shortened(suite: Suite) -> Suite:
    """A tenth of the steps, and a few queries."""

    def settings(part: Part) -> dict[str, Any]:
        given = part.settings
        return {k: v // 10 if k in ("steps", "queries") else v for k, v in given.items()}

    parts = tuple(replace(part, settings=settings(part), view="exact") for part in suite.parts)
    return replace(suite, parts=parts, known=suite.known // 20, resubmit=suite.resubmit // 4)


@pytest.mark.parametrize("eps", [0.0, 0.01])
@pytest.mark.parametrize(("draws", "of_source"), [(0, None), (1, None), (3, None), (2, 2), (0, 0)])
@pytest.mark.parametrize("name", SUITES)
def test_the_cost_is_what_is_spent(
    name: str, draws: int, of_source: int | None, eps: float
) -> None:
    """To the pass: attack, comparison, scoring, known draw, resubmission; and what is told."""
    told: list[int] = []
    detector = Counting(draws).eval()
    source = None if of_source is None else Counting(of_source).eval()
    suite = shortened(SUITES[name])
    assault = Assault(detector, Linf(eps), suite, 3, source, told.append)
    assault(X[:2], DEFECT[:2], IDS[:2])
    assert (detector.gradients, detector.forwards) == tuple(2 * n for n in assault.cost)
    if source is not None:
        assert (source.gradients, source.forwards) == tuple(2 * n for n in assault.source_cost)
        assert (source.gradients > 0) == (name == "strong" and eps > 0)
    assert sum(told) == 2 * assault.total


# --- a map that is not the score's ---


class Pair(nn.Module):
    """The score of `bright`, beside whatever map."""

    def __init__(self, values: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.values, self.idle = values, nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return bright(x).flatten(1).amax(1), self.values(x)


FOREIGN: dict[str, Callable[[Tensor], Tensor]] = {
    "detached": lambda x: bright(x).detach(),
    "upside down": lambda x: -bright(x),
    "of something else": lambda x: torch.sin(50 * x)[:, 0].roll(5, 2),
}


def attacked(values: Callable[[Tensor], Tensor], ball: Ball = WIDE) -> Tensor:
    detector = ModuleDetector(Pair(values), size=SIDE, channels=1)
    found = Assault(detector, ball, SUITES["quick"])(X, DEFECT, IDS)
    return SIGN * (found.scores.attacked - found.scores.clean)


@pytest.mark.parametrize("ball", [Linf(8 / 255), Patch(4)], ids=["linf", "patch"])
@pytest.mark.parametrize("name", FOREIGN)
def test_the_score_is_climbed_where_the_map_does_not_serve(
    name: str, ball: Ball, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        moved = attacked(FOREIGN[name], ball)
    assert "score is climbed in" in caplog.text
    assert len(caplog.records) == 1
    [part] = SUITES["quick"].parts
    suite = Suite((replace(part, aim="score"),))
    found = Assault(Fake(bright).eval(), ball, suite)(X, DEFECT, IDS)
    assert torch.equal(moved, SIGN * (found.scores.attacked - found.scores.clean))
    assert bool((moved > 0).all())


def test_a_map_that_serves_is_climbed(caplog: pytest.LogCaptureFixture) -> None:
    """The same as the detector's own, to the bit, and nothing is said."""
    moved = attacked(bright)
    found = Assault(Fake(bright).eval(), Linf(8 / 255), SUITES["quick"])(X, DEFECT, IDS)
    assert torch.equal(moved, SIGN * (found.scores.attacked - found.scores.clean))
    assert not caplog.records


def test_who_is_blind_is_named() -> None:
    cut, score = (
        ModuleDetector(module, size=SIDE, channels=1)
        for module in (
            lambda x: (bright(x).amax((1, 2)).detach(), bright(x).detach()),
            lambda x: (bright(x).amax((1, 2)).detach(), bright(x)),
        )
    )
    with pytest.raises(BlindAttackError, match="neither the map nor the score"):
        Assault(cut, Linf(0.01), SUITES["quick"])(X, DEFECT, IDS)
    with pytest.raises(BlindAttackError, match=r"score does not depend.*its map does"):
        Assault(score, Linf(0.01), SUITES["paper-pgd"])(X, DEFECT, IDS)
    assert Assault(score, Linf(0.01), SUITES["quick"])(X, DEFECT, IDS) is not None
