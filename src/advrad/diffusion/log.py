"""The log of a training, in step with its checkpoint."""

import json
import time
from pathlib import Path
from typing import Any

from ..errors import ModelError
from ..files import write_text
from .train import Step


class TrainingLog:
    """One JSON row a step in `log.jsonl`: step, loss, norm of the gradient, seconds, CPU seconds.

    Rows are written just before the checkpoint is, so that a resumed training goes on in the right
    line and its seconds add up. Without a folder nothing is written.
    """

    def __init__(self, folder: Path | None, resume: bool = False) -> None:
        self.path = folder / "log.jsonl" if folder else None
        self.rows: list[str] = []
        self.last: dict[str, Any] = {"step": 0, "seconds": 0.0, "cpu_seconds": 0.0}
        self._before, self._started = self.last, time.process_time()
        if self.path and resume and self.path.exists():
            self.rows = self.path.read_text().splitlines()

    def rewind(self, number: int) -> None:
        """Forgets what came after step `number`."""
        self.rows = self.rows[:number]
        if self.rows:
            try:
                self.last = self._before = json.loads(self.rows[-1])
            except ValueError as error:
                raise ModelError(
                    f"{self.path} is damaged in line {len(self.rows)} ({error}): remove it, the "
                    "training goes on without its first part"
                ) from error

    def add(self, step: Step) -> None:
        """Takes one step in."""
        used = time.process_time() - self._started
        self.last = {
            "step": step.number,
            "loss": step.loss,
            "norm": step.norm,
            "seconds": round(self._before["seconds"] + step.seconds, 3),
            "cpu_seconds": round(self._before["cpu_seconds"] + used, 3),
        }
        self.rows.append(json.dumps(self.last))

    def write(self, number: int) -> None:
        """Makes the rows up to step `number` durable."""
        if self.path:
            write_text(self.path, "".join(row + "\n" for row in self.rows[:number]))

    def spent(self) -> dict[str, float]:
        """Wall and CPU seconds of all steps so far, over every resumption."""
        names = ("seconds", "cpu_seconds")
        return {f"training_{name}": self.last[name] for name in names}
