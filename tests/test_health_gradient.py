"""Whether a gradient is true, against scores whose slope is known."""

from functools import partial

import pytest
import torch
from fakes import SIDE, DecoyMap, Fake, bright, level, pictures, with_gradient_of
from test_health import Nearest
from toys import SETTINGS, tiny

from advrad.attacks.ball import L1, L2, Ball, Linf, Patch
from advrad.attacks.strongest import SUITES
from advrad.detectors import Autoencoder, Detector
from advrad.evaluate import health_gradient
from advrad.evaluate.health import Sample
from advrad.evaluate.health_gradient import cost, true
from advrad.evaluate.health_subject import Subject
from advrad.evaluate.robustness import Assault

BALLS = [Linf(2 / 255), Linf(16 / 255), L2(0.2), L1(2.0), Patch(4)]


def subject(
    detector: Detector, ball: Ball | None = None, suite: str = "quick", black: bool = False
) -> Subject:
    x, defect, ids = pictures(4)
    x = (x - 0.3).clamp(0, 1) if black else x
    assault = Assault(detector.eval(), ball or Linf(8 / 255), SUITES[suite])
    return Subject(assault, Sample(x, x, defect, ids))


@pytest.mark.parametrize("ball", BALLS, ids=lambda ball: f"{ball.name}-{ball.eps:.2g}")
@pytest.mark.parametrize("black", [False, True])
def test_a_slope_that_is_known(ball: Ball, black: bool) -> None:
    """A linear score rises by what is promised, and by sqrt(D) times a random step's share."""
    found = health_gradient._Compass(subject(Fake(level), ball, black=black))
    for reading in found.readings("score", "exact"):
        assert reading.kept == pytest.approx(1, rel=0.02)
        assert SIDE / 4 < reading.beyond < 4 * SIDE


@pytest.mark.parametrize("factor", [-1.0, 1e-3, 0.2, 5.0, 1e30])
def test_another_length_or_sign(factor: float) -> None:
    lying = Fake(lambda x: with_gradient_of(level(x), factor * level(x)))
    held, words = true(subject(lying))
    assert not held
    assert f" {1 / factor:.3g} times as much as the gradient promises" in words


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_a_factor_that_kinks_may_make_is_let_pass(factor: float) -> None:
    assert true(subject(Fake(lambda x: with_gradient_of(level(x), factor * level(x)))))[0]


def decoy(seed: int, x: torch.Tensor) -> torch.Tensor:
    source = torch.Generator().manual_seed(seed)
    weight = torch.randn(1, 1, SIDE, SIDE, generator=source)
    return (weight * x).mean((1, 2, 3))[:, None, None].expand(-1, SIDE, SIDE)


@pytest.mark.parametrize("values", [bright, level])
def test_no_unrelated_gradient_passes(values: partial[torch.Tensor]) -> None:
    for seed in range(20):
        other = partial(decoy, seed)
        lying = Fake(lambda x, other=other: with_gradient_of(values(x), other(x)))
        assert not true(subject(lying))[0], seed


def test_a_map_of_something_else_is_climbed_by_nobody() -> None:
    """The suite climbs the score there, and that is looked at."""
    assert true(subject(DecoyMap(bright, lambda x: -bright(x))))[0]


@pytest.mark.parametrize("ball", BALLS, ids=lambda ball: f"{ball.name}-{ball.eps:.2g}")
@pytest.mark.parametrize("suite", ["quick", "strong"])
def test_honest_scores_with_kinks_and_rounding(ball: Ball, suite: str) -> None:
    kernel = torch.randn(6, 1, 3, 3, generator=torch.Generator().manual_seed(2))
    honest = {
        "one place": lambda x: (x - 0.3)[:, 0],
        "pieces": lambda x: torch.conv2d(x - 0.3, kernel).relu().amax(1),
        "bfloat16": lambda x: bright(x.bfloat16()).float(),
    }
    for name, values in honest.items():
        held, words = true(subject(Fake(values), ball, suite))
        assert held, (name, words)
    held, words = true(subject(Nearest(), ball, suite))
    assert held, words


@pytest.mark.parametrize(
    "detector",
    [
        tiny(steps=20, precision="bfloat16", top=0.0, draws=1),
        tiny(steps=20, score="paper", top=0.0, depth=(20, 50)),
        Autoencoder(**SETTINGS["autoencoder"]),
        Autoencoder(**SETTINGS["autoencoder"] | {"score": "ssim", "top": 0.0}),
    ],
    ids=["bfloat16", "ladder", "autoencoder", "ssim"],
)
def test_our_own_detectors(detector: Detector) -> None:
    x, defect, _ = pictures(30, seed=3)
    detector.fit([x[i] for i in range(30) if not defect[i]])
    for ball in (Linf(2 / 255), L2(0.2)):
        for suite in ("strong", "paper-bpda"):
            held, words = true(subject(detector, ball, suite))
            assert held, words


@pytest.mark.parametrize("suite", ["quick", "standard", "strong"])
def test_its_cost(suite: str) -> None:
    count = 0.0

    def counting(x: torch.Tensor) -> torch.Tensor:
        nonlocal count
        count += len(x) * (1.0 if x.requires_grad else 0.5)
        return bright(x)

    seen = subject(Fake(counting), suite=suite)
    true(seen)
    assert count == 4 * cost(seen)
