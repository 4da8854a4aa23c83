"""The training of a detector's network: with log and checkpoint, told to whoever watches."""

import contextlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from ..diffusion import Recipe, train
from ..diffusion.checkpoint import Checkpoint
from ._log import TrainingLog
from .base import Progress, Run


def short(steps: int, rate: float) -> Recipe:
    """Of a training of minutes: a few steps of warm-up, then down along half a cosine."""
    return Recipe(steps, rate, warmup=min(20, steps // 5), decay=True, average=0.99)


def learn(
    module: nn.Module,
    loss: Callable[[int], Tensor],
    recipe: Recipe,
    run: Run,
    trained: Mapping[str, Any],
) -> dict[str, float]:
    """Trains the module, or goes on where the run resumes; returns the seconds it took.

    Arguments:
        loss: of step number 1, 2, ..., see `train`.
        trained: the settings that the weights depend on; a checkpoint of others is refused.
    """
    log, checkpoint = TrainingLog(run.folder, run.resume), _checkpoint(run, trained)
    if checkpoint:
        checkpoint.saving, checkpoint.restored = log.write, log.rewind
    with contextlib.closing(train(module, loss, recipe, checkpoint)) as steps:
        for step in steps:
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
