"""The training of a network as a run: with log and checkpoint, told to whoever watches."""

import contextlib
import json
from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import Generator, Tensor, nn

from ..noise import Noise
from .checkpoint import Checkpoint
from .flop import told
from .log import TrainingLog
from .run import Progress, Run
from .train import Recipe, train

Made = TypeVar("Made")


def drawn(seed: int, make: Callable[[], Made]) -> Made:
    """A network with the weights that belong to the seed; no other randomness moves."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def short(steps: int, rate: float) -> Recipe:
    """Of a training of minutes: a few steps of warm-up, then down along half a cosine."""
    return Recipe(steps, rate, warmup=min(20, steps // 5), decay=True, average=0.99)


def noise_of(source: Generator) -> Noise:
    """A new draw at every call, from the source of a training step, so that the step can be
    repeated."""
    return lambda like, step: torch.randn(like.shape, generator=source).to(like)


def learn(
    module: nn.Module,
    loss: Callable[[int], Tensor],
    recipe: Recipe,
    run: Run,
    trained: Mapping[str, Any],
    after: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Trains the module, or goes on where the run resumes; returns the seconds it took.

    Arguments:
        loss: of step number 1, 2, ..., see `train`.
        trained: the settings that the weights depend on; a checkpoint of others is refused.
        after: called after every step: where buffers change that a step repeated must find as
            they were.
    """
    log, checkpoint = TrainingLog(run.folder, run.resume), _checkpoint(run, trained)
    if checkpoint:
        checkpoint.saving, checkpoint.restored = log.write, log.rewind
    with contextlib.closing(train(module, loss, recipe, checkpoint)) as steps:
        first = told(run, lambda: next(steps, None), recipe.steps)
        for step in chain([first] if first else [], steps):
            after()
            log.add(step)
            run.report(Progress("training", step.number, recipe.steps, step.loss))
    return log.spent()


def _checkpoint(run: Run, trained: Mapping[str, Any]) -> Checkpoint | None:
    if run.folder is None:
        return None
    path = run.folder / "checkpoint.safetensors"
    if not run.resume:
        path.unlink(missing_ok=True)
    return Checkpoint(path, json.dumps({**trained, "seed": run.seed, "images": run.images}))
