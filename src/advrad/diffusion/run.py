"""The circumstances of a training: its seed, its folder, who watches it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from .batches import Images


class Progress(NamedTuple):
    """How far a fit has come: what it does, how many steps of how many, the loss if any."""

    stage: str
    done: int
    total: int
    loss: float | None = None


@dataclass(frozen=True)
class Run:
    """The circumstances of a fit, which are no property of the detector.

    Arguments:
        seed: of weights, batches and noise.
        tune: held-out good images on which settings are chosen.
        images: a fingerprint of the images; a checkpoint of others is refused.
        folder: where checkpoints and the log go; None keeps none.
        resume: whether to go on from a checkpoint that lies there.
        report: told of every step.
        count: told of floating-point operations, in parts; NaN where a part cannot be counted.
            None counts nothing.
        device: where the tensors live.
    """

    seed: int = 0
    tune: Images | None = None
    images: str = ""
    folder: Path | None = None
    resume: bool = False
    report: Callable[[Progress], None] = lambda progress: None
    count: Callable[[float], None] | None = None
    device: str = "cpu"

    def stage(self, name: str) -> Callable[[int, int], None]:
        """Reports how much of a stage is done, of how much."""
        return lambda done, total: self.report(Progress(name, done, total))


PLAIN = Run()
