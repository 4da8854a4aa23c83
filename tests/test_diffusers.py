"""The same steps as diffusers takes, draw for draw.

diffusers counts levels from 0, with alpha_bar(t + 1) of ours at its index t and 1 before it.
"""

from itertools import pairwise

import pytest
import torch
from oracles import Drawn
from torch import Tensor, nn

from advrad.diffusion import Cosine, Denoiser, EpsDenoiser, Linear, Schedule
from advrad.diffusion.reconstruct import descend, jump, ladder
from advrad.diffusion.steps import ddpm_large
from advrad.noise import Noise

pytestmark = pytest.mark.interop
diffusers = pytest.importorskip("diffusers")

NAMES = {Linear: "linear", Cosine: "squaredcos_cap_v2"}
SHAPE = (2, 3, 8, 8)


def betas(schedule: Schedule) -> dict:
    return {
        "num_train_timesteps": schedule.steps,
        "beta_start": 1e-4,
        "beta_end": 0.02,
        "beta_schedule": NAMES[type(schedule)],
        "clip_sample": False,
    }


class Bent(nn.Module):
    """Some smooth network that depends on place, value and level."""

    def forward(self, x_t: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        level = index[:, None, None, None] / 1000
        eps = torch.sin(2 * x_t + level) + 0.3 * x_t.roll(1, -1)
        return eps, torch.zeros_like(eps)


def ours(schedule: Schedule, x_t: Tensor, levels: list[int], noise: Noise, eta: float) -> Tensor:
    denoiser: Denoiser = EpsDenoiser(Bent(), schedule)
    for t, s in pairwise(levels):
        x_t = jump(denoiser, x_t, t, s, noise, eta)
    return x_t


def theirs(scheduler: object, x_t: Tensor, levels: list[int], **settings: object) -> Tensor:
    for t in levels[:-1]:
        eps, _ = Bent()(x_t, torch.full((len(x_t),), float(t - 1)))
        x_t = scheduler.step(eps, t - 1, x_t, **settings).prev_sample
    return x_t


@pytest.mark.parametrize("schedule", [Linear(), Cosine()], ids=repr)
def test_alpha_bars_are_theirs(schedule: Schedule) -> None:
    scheduler = diffusers.DDPMScheduler(**betas(schedule))
    expected = torch.cat([torch.ones(1), scheduler.alphas_cumprod])
    torch.testing.assert_close(schedule.alpha_bars.float(), expected, rtol=2e-4, atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shots", [1, 2, 5, 37, 100])
@pytest.mark.parametrize("schedule", [Linear(), Cosine()], ids=repr)
def test_ancestral_steps_are_those_of_ddpm(schedule: Schedule, shots: int, seed: int) -> None:
    scheduler = diffusers.DDPMScheduler(**betas(schedule), variance_type="fixed_small")
    levels = ladder(100, shots)
    scheduler.set_timesteps(timesteps=[t - 1 for t in levels[:-1]])
    start = torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed + 100))
    got = descend(EpsDenoiser(Bent(), schedule), start, 100, shots, Drawn(seed))
    expected = theirs(scheduler, start, levels, generator=Drawn(seed).source)
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3)
    assert (got - start).abs().mean() > 0.05


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shots", [1, 2, 5, 37, 99])
@pytest.mark.parametrize("schedule", [Linear(), Cosine()], ids=repr)
def test_ancestral_steps_with_the_larger_variance_are_those_of_ddpm(
    schedule: Schedule, shots: int, seed: int
) -> None:
    """By way of level 1: from a higher one diffusers draws noise in the jump to the image, too."""
    scheduler = diffusers.DDPMScheduler(**betas(schedule), variance_type="fixed_large")
    levels = [*(t + 1 for t in ladder(99, shots)), 0]
    scheduler.set_timesteps(timesteps=[t - 1 for t in levels[:-1]])
    start = torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed + 100))
    got, noise = start, Drawn(seed)
    for t, s in pairwise(levels):
        got = ddpm_large(EpsDenoiser(Bent(), schedule), got, t, s, noise)
    expected = theirs(scheduler, start, levels, generator=Drawn(seed).source)
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("depth", "shots"), [(200, 1), (200, 4), (100, 20), (40, 40), (1000, 8)])
def test_steps_are_those_of_ddim(depth: int, shots: int, eta: float, seed: int) -> None:
    schedule, stride = Linear(), depth // shots
    scheduler = diffusers.DDIMScheduler(**betas(schedule), set_alpha_to_one=True)
    scheduler.set_timesteps(1000 // stride)
    start = torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed + 100))
    levels = ladder(depth, shots)
    got = ours(schedule, start, levels, Drawn(seed), eta)
    expected = theirs(scheduler, start, levels, eta=eta, generator=Drawn(seed).source)
    scale = expected.abs().max().item()
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3 * max(1.0, scale))
