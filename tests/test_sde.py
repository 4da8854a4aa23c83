"""DiffPure in the paper's units: it is the chain at the levels that its times mean."""

import math

import pytest
import torch
from oracles import GaussianDenoiser
from purifying import images, network
from torch import Tensor

from advrad.diffusion import STEPS, VP, Linear
from advrad.errors import UsageError
from advrad.noise import Fixed
from advrad.purifiers import diffpure, ode, sde


@pytest.mark.parametrize(
    ("time", "dt", "depth", "shots"),
    [(0.1, 1e-3, 100, 100), (0.075, 1e-3, 75, 75), (0.1, 5e-3, 100, 20), (0.15, 0.01, 150, 15)],
)
def test_times_are_levels(time: float, dt: float, depth: int, shots: int) -> None:
    denoiser, x = GaussianDenoiser(VP()), 0.3 + 0.4 * images()
    for maker, name in ((sde, "sde"), (ode, "ode")):
        expected = diffpure(denoiser, depth, shots, step=STEPS[name], rounds=2)(x, Fixed(0))
        assert torch.equal(maker(denoiser, time, dt, rounds=2)(x, Fixed(0)), expected)


class Asked:
    """Remembers at which levels it was asked."""

    def __init__(self, steps: int = 1000) -> None:
        self.schedule, self.levels = VP(steps), list[int]()

    def __call__(self, x_t: Tensor, t: int) -> Tensor:
        self.levels.append(t)
        return x_t.tanh()


def test_the_network_is_asked_at_the_same_hundred_levels_in_the_backward_pass() -> None:
    denoiser = Asked()
    sde(denoiser)(images(1).requires_grad_(), Fixed(0)).sum().backward()
    assert denoiser.levels[:100] == list(range(100, 0, -1))
    assert denoiser.levels[100:] == list(range(1, 101))


def test_a_schedule_of_another_length_has_the_same_times() -> None:
    """Four times as many levels, the same steps: the same chain, with the same clock."""
    x = 0.3 + 0.4 * images().double()
    found = [
        diffpure(GaussianDenoiser(VP(steps)), steps // 10, 50, step=STEPS["ode"])(x, still)
        for steps in (1000, 4000)
    ]
    torch.testing.assert_close(*found)
    by_time = ode(GaussianDenoiser(VP(4000)), 0.1, 0.002)(x, still)
    assert torch.equal(by_time, found[1])


def still(like: Tensor, step: int) -> Tensor:
    return torch.zeros_like(like)


def test_without_noise_on_the_way_in_the_flow_undoes_the_fading_of_a_gaussian_image() -> None:
    """sqrt(a) x~ is mapped to its quantile among the data: mean + std (..) of the closed form."""
    denoiser, x = GaussianDenoiser(VP(4000)), 0.3 + 0.4 * images().double()
    a_k = VP().alpha_bar(100)
    y = math.sqrt(a_k) * (2 * x - 1 - 0.3) / math.sqrt(a_k * 0.25 + 1 - a_k)
    expected = (0.3 + 0.5 * y + 1) / 2
    found = ode(denoiser, 0.1, 1 / 4000)(x, still)
    torch.testing.assert_close(found, expected.clamp(0, 1), atol=1e-3, rtol=0)


@pytest.mark.parametrize("maker", [sde, ode])
@pytest.mark.parametrize(
    ("time", "dt", "words"),
    [
        (0.0, 1e-3, r"depth 0 \(t\* = 0\) puts in noise of 0"),
        (1.5, 1e-3, r"depth 1500 \(t\* = 1\.5\) is beyond the schedule, which ends with noise of"),
        (100.0, 1e-3, r"t\* = 100\) is beyond"),
        (0.1, 1e-4, r"dt 0\.0001 for t\* 0\.1: expected 0\.001, which is one level"),
        (0.1, 0.5, r"dt 0\.5 for t\* 0\.1: expected 0\.001"),
        (0.1, 0.0, r"dt 0 for t\* 0\.1"),
    ],
)
def test_impossible_times_are_refused(maker: object, time: float, dt: float, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        maker(network() if time == 0.1 else GaussianDenoiser(Linear()), time, dt)  # type: ignore[operator]
