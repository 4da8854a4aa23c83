"""The loop: its arithmetic, and that no interruption leaves a trace."""

import contextlib
import math
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import trainings
from safetensors.torch import load_file
from torch import Tensor, nn
from trainings import STEPS, equal, tiny, tiny_training, weights

from advrad.diffusion import Recipe, Step, train
from advrad.diffusion.batches import DrawnLoss
from advrad.diffusion.checkpoint import Checkpoint
from advrad.errors import DivergedError

SHORT = Recipe(12, rate=1e-2, warmup=3, decay=True, average=0.9)


class Parabola(nn.Module):
    """One number, pulled to 3."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.zeros(1))

    def loss(self, number: int) -> Tensor:
        return (self.value - 3).square().sum()


def uninterrupted(recipe: Recipe = SHORT) -> tuple[list[Tensor], list[float]]:
    module = tiny()
    losses = [step.loss for step in tiny_training(module, recipe=recipe)]
    return weights(module), losses


# --- the arithmetic ---


def test_the_rate_warms_up_and_falls_along_half_a_cosine() -> None:
    recipe = Recipe(110, rate=0.5, warmup=10, decay=True)
    assert [recipe.rate_at(n) for n in (1, 5, 10, 11)] == pytest.approx([0.05, 0.25, 0.5, 0.5])
    assert recipe.rate_at(61) == pytest.approx(0.25)
    assert recipe.rate_at(36) == pytest.approx(0.25 * (1 + math.cos(math.pi / 4)))
    assert 0 < recipe.rate_at(110) < 2e-4


def test_without_warm_up_and_decay_the_rate_is_constant() -> None:
    assert {Recipe(9, rate=0.1).rate_at(n) for n in range(1, 10)} == {0.1}
    assert Recipe(2, rate=0.1, warmup=8).rate_at(2) == pytest.approx(0.025)


def test_it_is_adam_by_hand() -> None:
    """Two steps of Kingma and Ba's Algorithm 1, at two rates."""
    module = Parabola()
    recipe = Recipe(2, rate=0.1, warmup=2, average=0, clip=0)
    steps = list(train(module, module.loss, recipe))
    value, first, second = 0.0, 0.0, 0.0
    for n, rate in ((1, 0.05), (2, 0.1)):
        slope = 2 * (value - 3)
        assert steps[n - 1].loss == pytest.approx((value - 3) ** 2, rel=1e-5)
        assert steps[n - 1].norm == pytest.approx(abs(slope), rel=1e-5)
        first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
        value -= rate * (first / (1 - 0.9**n)) / (math.sqrt(second / (1 - 0.999**n)) + 1e-8)
    assert module.value.item() == pytest.approx(value, rel=1e-5)


def test_gradients_are_clipped_and_their_own_norm_is_told() -> None:
    module, seen = Parabola(), []
    module.value.register_post_accumulate_grad_hook(lambda p: seen.append(p.grad))
    step = next(train(module, module.loss, Recipe(1, clip=0.5)))
    assert step.norm == pytest.approx(6)
    assert seen[0].item() == pytest.approx(-0.5, rel=1e-4)
    next(train(module, module.loss, Recipe(1, clip=0)))
    assert seen[1].item() == pytest.approx(2 * (module.value.item() - 3), rel=0.1)


def test_it_ends_with_the_averaged_weights() -> None:
    last, averaged = Parabola(), Parabola()
    values = [0.0]
    for _ in train(last, last.loss, Recipe(30, rate=0.1, average=0)):
        values.append(last.value.item())
    list(train(averaged, averaged.loss, Recipe(30, rate=0.1, average=0.8)))
    expected = values[0]
    for n, value in enumerate(values[1:], 1):
        decay = min(0.8, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * value
    assert averaged.value.item() == pytest.approx(expected, rel=1e-5)
    assert last.value.item() == values[-1]


def test_steps_count_from_1_and_time_goes_on() -> None:
    module = Parabola()
    steps = list(train(module, module.loss, Recipe(5)))
    assert [step.number for step in steps] == [1, 2, 3, 4, 5]
    seconds = [step.seconds for step in steps]
    assert seconds == sorted(seconds)


def test_a_denoiser_learns_an_image_that_is_always_the_same() -> None:
    """Its noise can then be told exactly: the loss falls towards 0."""
    denoiser = tiny()
    loss = DrawnLoss(denoiser, torch.full((4, 1, 8, 8), 0.8), 4, (100, 300))
    losses = [step.loss for step in train(denoiser, loss, Recipe(150, rate=1e-2))]
    assert sum(losses[-10:]) < 0.2 * sum(losses[:10])


# --- interruptions ---


@pytest.mark.parametrize("stop", range(1, 13))
def test_a_training_closed_after_any_step_goes_on_bit_by_bit(tmp_path: Path, stop: int) -> None:
    path = tmp_path / "c.safetensors"
    expected, losses = uninterrupted()
    seen = []
    with contextlib.closing(tiny_training(tiny(), Checkpoint(path), SHORT)) as steps:
        for step in steps:
            seen.append(step.loss)
            if step.number == stop:
                break
    module = tiny()  # a new process would start from these weights
    seen += [step.loss for step in tiny_training(module, Checkpoint(path), SHORT)]
    assert seen == losses
    assert equal(weights(module), expected)


def test_a_finished_training_only_gives_back_its_weights(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    first, again = tiny(), tiny()
    list(tiny_training(first, Checkpoint(path), SHORT))
    assert not list(tiny_training(again, Checkpoint(path), SHORT))
    assert equal(weights(first), weights(again))
    assert equal(weights(first), uninterrupted()[0])


def test_the_clock_asks_for_saves_and_whoever_logs_has_seen_the_step(tmp_path: Path) -> None:
    """Otherwise a log written with the checkpoint would lack the checkpoint's own step."""
    events: list[tuple[str, int]] = []
    checkpoint = Checkpoint(tmp_path / "c.safetensors", seconds=0.0)
    checkpoint.restored = lambda number: events.append(("restored", number))
    checkpoint.saving = lambda number: events.append(("saving", number))
    for step in tiny_training(tiny(), checkpoint, Recipe(3)):
        events.append(("seen", step.number))
    each = [(what, number) for number in (1, 2, 3) for what in ("seen", "saving")]
    assert events == [("restored", 0), *each]


def test_a_patient_clock_saves_only_at_the_end(tmp_path: Path) -> None:
    saved: list[int] = []
    checkpoint = Checkpoint(tmp_path / "c.safetensors", seconds=1e9, saving=saved.append)
    list(tiny_training(tiny(), checkpoint, Recipe(4)))
    assert saved == [4]


class Stop(BaseException):
    """Ctrl-C."""


@pytest.mark.parametrize("error", [Stop, ValueError])
def test_what_the_loss_raises_loses_no_step(tmp_path: Path, error: type[BaseException]) -> None:
    """Ctrl-C nearly always falls into the loss; an unreadable image always does."""
    path, module, expected = tmp_path / "c.safetensors", tiny(), uninterrupted()[0]
    calls = iter(range(1, 100))

    def interrupt(*_: object) -> None:
        if next(calls) == 8:
            raise error

    hook = module.network.register_forward_hook(interrupt)
    saved: list[int] = []
    with pytest.raises(error):
        list(tiny_training(module, Checkpoint(path, saving=saved.append), SHORT))
    assert saved == [7]
    hook.remove()
    module = tiny()
    numbers = [step.number for step in tiny_training(module, Checkpoint(path), SHORT)]
    assert numbers == [8, 9, 10, 11, 12]
    assert equal(weights(module), expected)


# --- divergence ---


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_loss_that_is_no_number_stops_at_the_last_good_step(
    tmp_path: Path, bad: float, where: str
) -> None:
    path, before = tmp_path / "c.safetensors", tiny()
    for _ in zip(range(5), tiny_training(before, recipe=SHORT), strict=False):
        good = weights(before)
    module = tiny()
    parameter = next(module.parameters())
    calls = iter(range(1, 100))

    def spoil(value: Tensor) -> Tensor:
        return value * bad if next(calls) == 6 else value

    if where == "gradient":
        parameter.register_hook(spoil)
    else:
        module.network.register_forward_hook(lambda m, i, o: (spoil(o[0]), o[1]))
    seen: list[Step] = []
    with pytest.raises(DivergedError, match=r"diverged at step 6: .*expected finite") as caught:
        seen.extend(tiny_training(module, Checkpoint(path), SHORT))
    assert caught.value.exit_code == 4
    assert equal(weights(module), good)
    assert all(torch.isfinite(value).all() for value in load_file(path).values())
    module = tiny()
    assert next(tiny_training(module, Checkpoint(path), SHORT)).number == 6


def test_a_divergence_at_the_first_step_writes_nothing(tmp_path: Path) -> None:
    path, module = tmp_path / "c.safetensors", Parabola()
    with pytest.raises(DivergedError, match="step 1"):
        list(train(module, lambda n: module.loss(n) * math.nan, Recipe(3), Checkpoint(path)))
    assert not path.exists()
    assert module.value.item() == 0


# --- kill -9 ---


def start(path: Path) -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    script = [sys.executable, trainings.__file__, str(path)]
    return subprocess.Popen(script, stdout=subprocess.PIPE, text=True, env=environment)


def rows(text: str) -> dict[int, str]:
    """Loss by step; a last line that the kill cut is left out."""
    return {
        int(row.split()[0]): row.split()[1] for row in text.splitlines(True) if row[-1] == "\n"
    }


def run_killed(path: Path, kills: int, chance: random.Random) -> list[dict[int, str]]:
    """What every process printed, the last of which came to the end."""
    printed = []
    for _ in range(kills):
        with start(path) as process:
            first = process.stdout.readline()
            time.sleep(chance.uniform(0, 0.3 / kills))
            process.send_signal(signal.SIGKILL)
            printed.append(rows(first + process.stdout.read()))
    with start(path) as process:
        printed.append(rows(process.stdout.read()))
    assert process.returncode == 0
    return printed


@pytest.mark.parametrize("kills", [2, pytest.param(25, marks=pytest.mark.slow)])
def test_killed_at_any_moment_it_goes_on_bit_by_bit(tmp_path: Path, kills: int) -> None:
    path, expected = tmp_path / "c.safetensors", tiny()
    losses = {s.number: s.loss.hex() for s in tiny_training(expected)}
    printed = run_killed(path, kills, random.Random(kills))
    for seen in printed:
        assert seen.items() <= losses.items()
    assert set().union(*printed) == set(range(1, STEPS + 1))
    module = tiny()
    assert not list(tiny_training(module, Checkpoint(path, "tiny")))
    assert equal(weights(module), weights(expected))
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
