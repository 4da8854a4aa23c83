"""The log of a training, in step with its checkpoint."""

import json
from pathlib import Path

from ..diffusion import Step
from ..files import write_text


class TrainingLog:
    """One JSON row a step in `log.jsonl`: step, loss, norm of the gradient, seconds.

    Rows are written when the checkpoint is, so that a resumed training goes on in the right line
    and its seconds add up. Without a folder nothing is written.
    """

    def __init__(self, folder: Path | None, resume: bool = False) -> None:
        self.path = folder / "log.jsonl" if folder else None
        self.rows: list[str] = []
        self.elapsed = 0.0
        if self.path and resume and self.path.exists():
            self.rows = self.path.read_text().splitlines()

    def rewind(self, number: int) -> None:
        """Forgets what came after step `number`."""
        self.rows = self.rows[:number]
        self.elapsed = json.loads(self.rows[-1])["seconds"] if self.rows else 0.0

    def add(self, step: Step) -> None:
        """Takes one step in."""
        seconds = round(self.elapsed + step.seconds, 3)
        row = {"step": step.number, "loss": step.loss, "norm": step.norm, "seconds": seconds}
        self.rows.append(json.dumps(row))

    def write(self, number: int) -> None:
        """Makes the rows up to step `number` durable."""
        if self.path:
            write_text(self.path, "".join(row + "\n" for row in self.rows[:number]))
