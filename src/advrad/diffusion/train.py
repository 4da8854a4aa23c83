"""The training loop, the only one. What is learnt is decided by the loss it is given.

The loop is a generator: it yields after every step, and whoever iterates decides about progress,
logs and stopping. All randomness belongs to the loss, which is asked for a step by its number; so
a training that resumes from a checkpoint is the training that was never interrupted, bit by bit.
"""

import math
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..errors import DivergedError
from .checkpoint import Checkpoint
from .ema import Average


@dataclass(frozen=True)
class Recipe:
    """How a module is trained.

    Arguments:
        steps: number of updates.
        rate: learning rate of Adam after the warm-up.
        warmup: steps over which the rate grows linearly from 0.
        decay: whether the rate falls to 0 along half a cosine after the warm-up.
        average: decay of the averaged weights; 0 keeps the last ones.
        clip: largest norm of the gradient; 0 does not clip.
        momenta: Adam's beta_1 and beta_2.
    """

    steps: int
    rate: float = 1e-4
    warmup: int = 0
    decay: bool = False
    average: float = 0.999
    clip: float = 1.0
    momenta: tuple[float, float] = (0.9, 0.999)

    def rate_at(self, step: int) -> float:
        """The learning rate of update number `step`, counted from 1."""
        if step <= self.warmup:
            return self.rate * step / self.warmup
        if not self.decay:
            return self.rate
        done = (step - self.warmup - 1) / max(1, self.steps - self.warmup)
        return self.rate * (1 + math.cos(math.pi * done)) / 2


class Step(NamedTuple):
    """One update: its number from 1, the loss, the gradient's norm, seconds since the start."""

    number: int
    loss: float
    norm: float
    seconds: float


def train(
    module: nn.Module,
    loss: Callable[[int], Tensor],
    recipe: Recipe,
    checkpoint: Checkpoint | None = None,
) -> Generator[Step, None, None]:
    """Updates the module and yields after each step; ends with the averaged weights in it.

    Arguments:
        loss: the scalar loss of step number 1, 2, ...; it alone draws randomness. A parameter
            that it does not depend on is left as it is, so that players can take turns.
        checkpoint: where the state is kept. The training goes on from it where it holds one,
            saves by its clock, at the end, when the iteration is closed, and when the loss raises.

    Raises DivergedError, with the module and the checkpoint at the last good step, when the loss
    or its gradient is not finite.
    """
    average = Average(module, recipe.average)
    optimizer = torch.optim.Adam(module.parameters(), recipe.rate, recipe.momenta)
    first = checkpoint.restore(module, average, optimizer) + 1 if checkpoint else 1
    start, number = time.monotonic(), first - 1

    def save() -> None:
        if checkpoint and number >= first:
            checkpoint.save(number, module, average, optimizer)

    for number in range(first, recipe.steps + 1):
        try:
            value, norm = _gradient(module, loss, optimizer, recipe, number)
        except BaseException:  # Ctrl-C too: no weight has changed yet
            number -= 1
            save()
            raise
        optimizer.step()
        average.update(module)
        try:
            yield Step(number, value, norm, time.monotonic() - start)
        except GeneratorExit:
            save()
            raise
        if number == recipe.steps or (checkpoint and checkpoint.due()):
            save()
    if recipe.average:
        average.copy_to(module)


def _gradient(
    module: nn.Module,
    loss: Callable[[int], Tensor],
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    number: int,
) -> tuple[float, float]:
    """Sets rate and clipped gradients; returns the loss and the norm before clipping."""
    optimizer.param_groups[0]["lr"] = recipe.rate_at(number)
    optimizer.zero_grad(set_to_none=True)
    objective = loss(number)
    objective.backward()
    norm = float(nn.utils.clip_grad_norm_(module.parameters(), recipe.clip or math.inf))
    value = objective.item()
    if not (math.isfinite(value) and math.isfinite(norm)):
        raise DivergedError(
            f"training diverged at step {number}: the loss is {value:.4g} and the norm of its "
            f"gradient {norm:.4g}, expected finite numbers. The state before that step is kept; "
            "lower the learning rate (rate) or look for damaged images"
        )
    return value, norm
