"""One step is all of it where the score is linear."""

import pytest
import torch
from oracles import Counted, LinearScore

from advrad.attacks import BALLS, L1, fgsm

SHAPE = (1, 8, 8)


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.05), ("l2", 0.4), ("patch", 3)])
def test_one_step_is_the_optimum_of_a_linear_score(norm: str, eps: float) -> None:
    score, x = LinearScore(*SHAPE), torch.full((2, *SHAPE), 0.5)
    rise = score(fgsm(score, x, BALLS[norm](eps))) - score(x)
    torch.testing.assert_close(rise, torch.full((2,), score.gain(norm, eps)), rtol=1e-4, atol=0)


def test_in_the_l1_ball_the_step_is_shared_unless_it_is_asked_to_be_single() -> None:
    score, x = LinearScore(*SHAPE), torch.full((1, *SHAPE), 0.5)
    shared = score.weight.abs().flatten().topk(16).values.mean() * 0.4
    for share, gain in ((0.25, shared), (0.0, score.gain("l1", 0.4))):
        rise = score(fgsm(score, x, L1(0.4, share=share))) - score(x)
        assert float(rise) == pytest.approx(float(gain), rel=1e-4)


def test_the_step_is_the_published_one() -> None:
    x = torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(0))
    x = (1.4 * x - 0.2).clamp(0, 1)
    bent = lambda z: (z - 0.3).square().flatten(1).sum(1)
    expected = (x + 0.05 * (x - 0.3).sign()).clamp(0, 1)
    torch.testing.assert_close(fgsm(bent, x, BALLS["linf"](0.05)), expected)
    slope = (x - 0.3) / (x - 0.3).flatten(1).norm(dim=1)[:, None, None, None]
    torch.testing.assert_close(fgsm(bent, x, BALLS["l2"](0.4)), (x + 0.4 * slope).clamp(0, 1))


def test_it_costs_one_gradient() -> None:
    counted = Counted(LinearScore(*SHAPE))
    fgsm(counted, torch.rand(2, *SHAPE), BALLS["linf"](0.1))
    assert (counted.gradients, counted.forwards) == (1, 0)
