"""What a fit is said to cost, against closed forms and against torch's own counter."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from toys import SETTINGS, good, tiny

from advrad.detectors import ALL, Run, build
from advrad.diffusion import Recipe, train
from advrad.diffusion.batches import DrawnLoss
from advrad.diffusion.flop import Counter, told

TRAIN = good(6)


def counted(name: str, **run: Any) -> float:
    parts: list[float] = []
    build(name, SETTINGS[name]).fit(TRAIN, Run(count=parts.append, **run))
    return sum(parts)


def test_a_layer_forward_and_backward() -> None:
    """2 n a b forward, as much for the weights' gradient, as much for the input's."""
    layer, x = nn.Linear(10, 20), torch.rand(5, 10, requires_grad=True)
    with Counter() as counter:
        layer(x).sum().backward()
    assert counter.flop == 3 * 2 * 5 * 10 * 20
    with Counter() as counter, torch.no_grad():
        torch.rand(7, 4) @ torch.rand(4)
        torch.rand(3, 4) + 1
    assert counter.flop == 2 * 7 * 4


def test_a_step_of_a_training_is_what_torch_counts() -> None:
    denoiser = tiny().denoiser
    loss = DrawnLoss(denoiser, TRAIN, 4, (1, 400))
    steps = train(denoiser, loss, Recipe(4))
    with FlopCounterMode(display=False) as theirs:
        next(steps)
    with Counter() as ours:
        next(steps)
    assert ours.flop == theirs.get_total_flops() > 0


def test_a_training_is_its_first_step_times_their_number() -> None:
    """And then a look at each good image: two draws of one pass each."""
    detector = tiny()
    loss = DrawnLoss(detector.denoiser, TRAIN, detector.settings.batch, detector.settings.levels)
    with Counter() as step:
        next(train(detector.denoiser, loss, Recipe(1)))
    with Counter() as look, torch.no_grad():
        detector.denoiser(2 * TRAIN - 1, 50)
    assert counted("advrad") == 8 * step.flop + 2 * look.flop


def test_a_detector_that_trains_nothing_costs_its_looks_at_good_images() -> None:
    detector = build("padim", SETTINGS["padim"])
    features: Any = detector.features
    with Counter() as one, torch.no_grad():
        features(TRAIN[:1].expand(1, 3, -1, -1))
    assert counted("padim") == pytest.approx(len(TRAIN) * one.flop)
    assert counted("patchcore") > len(TRAIN) * one.flop, "the choice of the memory counts too"


@pytest.mark.parametrize("name", ALL)
def test_every_detector_says_what_its_fit_costs(name: str) -> None:
    flop = counted(name)
    assert math.isfinite(flop)
    assert flop > 0 or name == "trivial"


def test_nothing_is_counted_unasked_and_a_finished_training_says_that_it_knows_not(
    tmp_path: Path,
) -> None:
    assert told(Run(), lambda: 3) == 3
    whole = counted("autoencoder", folder=tmp_path)
    assert whole > 0
    assert math.isnan(counted("autoencoder", folder=tmp_path, resume=True))
