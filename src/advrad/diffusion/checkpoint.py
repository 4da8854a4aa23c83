"""The state of a training on disk, whole or not at all.

One file holds weights, buffers, averages, the optimiser's moments and the step; it is written
beside, made durable, and renamed over the old one, so that a process killed at any moment leaves
the last state or the one before. A signature of settings and data refuses to continue another
training.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ..errors import ModelError, OtherTrainingError
from ..files import sweep, write_bytes
from .ema import Average

MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass
class Checkpoint:
    """Where a training keeps its state.

    Arguments:
        path: the file, `*.safetensors`.
        signature: settings and data as one string; another one in the file is refused.
        seconds: least time between two saves by the clock; slow saves are rarer, so that they
            take no more than a twentieth of the time. 0 saves after every step.
        saving: called with the step before each save: a log written then never lacks a step
            that the checkpoint has.
        restored: called with the step from which a training goes on.
    """

    path: Path
    signature: str = ""
    seconds: float = 20.0
    saving: Callable[[int], None] = lambda number: None
    restored: Callable[[int], None] = lambda number: None
    _last: float = field(default_factory=time.monotonic, repr=False)
    _took: float = field(default=0.0, repr=False)

    def due(self) -> bool:
        """Whether the clock asks for a save."""
        least = max(self.seconds, 20 * self._took) if self.seconds else 0.0
        return time.monotonic() - self._last >= least

    def save(
        self, number: int, module: nn.Module, average: Average, optimizer: torch.optim.Optimizer
    ) -> None:
        """Writes the state after update `number`."""
        start = time.monotonic()
        self.saving(number)
        tensors = {f"module/{n}": p.detach() for n, p in module.named_parameters()}
        tensors |= {f"buffer/{name}": value for name, value in _buffers(module).items()}
        tensors |= {f"average/{name}": value for name, value in average.values.items()}
        for name, parameter in module.named_parameters():
            tensors |= _moments(name, optimizer.state.get(parameter, {}), number)
        head = {"number": str(number), "updates": str(average.updates), "of": self.signature}
        payload = {name: value.contiguous().cpu() for name, value in tensors.items()}
        write_bytes(self.path, save(payload, head))
        self._last = time.monotonic()
        self._took = self._last - start

    def restore(
        self, module: nn.Module, average: Average, optimizer: torch.optim.Optimizer
    ) -> int:
        """Loads the state, where there is one, and returns the number of its last update, or 0."""
        sweep(self.path)
        if not self.path.exists():
            self.restored(0)
            return 0
        head, tensors = self._read()
        if head.get("of") != self.signature:
            raise OtherTrainingError(
                f"{self.path} belongs to a training with other settings or other images: resume "
                f"with the same ones, or start anew without --resume. {self._difference(head)}"
            )
        try:
            number, average.updates = int(head["number"]), int(head["updates"])
            _fill(module, average, optimizer, number, tensors)
        except (KeyError, ValueError, RuntimeError) as error:
            raise ModelError(
                f"{self.path} does not fit this network ({error}): remove it to start anew"
            ) from error
        self.restored(number)
        return number

    def _read(self) -> tuple[dict[str, str], dict[str, Tensor]]:
        try:
            with safe_open(self.path, "pt") as file:
                return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise ModelError(
                f"{self.path} cannot be read as a checkpoint ({error}): remove it to start anew"
            ) from error

    def _difference(self, head: dict[str, str]) -> str:
        try:
            ours, theirs = json.loads(self.signature), json.loads(head.get("of", ""))
            changed = [k for k in ours if ours[k] != theirs.get(k)]
        except (ValueError, TypeError, AttributeError):
            return ""
        return "Changed: " + ", ".join(
            f"{name} ({theirs.get(name)!r} there, {ours[name]!r} here)"
            if len(str(ours[name])) < 40
            else name
            for name in changed
        )


@torch.no_grad()
def _fill(
    module: nn.Module,
    average: Average,
    optimizer: torch.optim.Optimizer,
    number: int,
    tensors: dict[str, Tensor],
) -> None:
    """Copies the tensors into place, each laid out in memory like its parameter.

    A checkpoint of an earlier advrad holds no buffers; those it knew are constants.
    """
    for name, buffer in _buffers(module).items():
        buffer.copy_(tensors.get(f"buffer/{name}", buffer))
    for name, parameter in module.named_parameters():
        parameter.copy_(tensors[f"module/{name}"])
        average.values[name].copy_(tensors[f"average/{name}"])
        moved = tensors.get(f"step/{name}", torch.tensor(float(number)))
        if moved:
            optimizer.state[parameter] = {
                "step": moved,
                **{m: torch.empty_like(parameter).copy_(tensors[f"{m}/{name}"]) for m in MOMENTS},
            }


def _moments(name: str, state: dict[str, Tensor], number: int) -> dict[str, Tensor]:
    """The optimiser's state of one parameter after update `number`, and how often it has moved
    where that is not every time."""
    moved = state.get("step", torch.tensor(0.0))
    often = {} if int(moved) == number else {f"step/{name}": moved}
    return often | {f"{moment}/{name}": state[moment] for moment in MOMENTS if moment in state}


def _buffers(module: nn.Module) -> dict[str, Tensor]:
    """What the module keeps beside its parameters, by name."""
    kept = module.state_dict()
    return {name: buffer for name, buffer in module.named_buffers() if name in kept}
