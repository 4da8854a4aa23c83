"""The way of an image through a diffusion model and back, once or several times."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ..diffusion import Denoiser, Schedule, reconstruct
from ..diffusion.reconstruct import Step, jump
from ..errors import UsageError
from ..noise import Noise, redraw

ROUND = 1 << 24  # draws between a round and the next: more than any caller counts


@dataclass(frozen=True)
class Chain:
    """What a diffusion model is made to do with an image.

    Arguments:
        schedule: of the model.
        depth: steps of noise that are put in.
        shots: jumps that lead back.
        step: how a jump is made, one of `diffusion.steps`.
        rounds: how often, each from the result of the one before.

    Raises UsageError where that cannot be, with the noise that was meant.
    """

    schedule: Schedule
    depth: int
    shots: int = 1
    step: Step = jump
    rounds: int = 1

    def __post_init__(self) -> None:
        top = self.schedule.steps
        if isinstance(self.depth, bool):
            raise UsageError(
                f"depth {self.depth}: expected a number of steps, {_range(self.schedule)}"
            )
        if not isinstance(self.depth, int):
            raise UsageError(
                f"depth {self.depth}: expected a number of steps; as t*, the share of the "
                f"schedule, that is {self.schedule.of_time(self.depth)} of its {top}"
            )
        if not 1 <= self.depth <= top:
            raise UsageError(
                f"{_meant(self.schedule, self.depth)}; expected {_range(self.schedule)}"
            )
        if not 1 <= self.shots <= self.depth:
            raise UsageError(
                f"depth {self.depth} in {self.shots} shots: expected 1 to {self.depth} shots"
            )
        if self.rounds < 1:
            raise UsageError(f"{self.rounds} rounds: expected 1 or more")

    @property
    def calls(self) -> int:
        """How often the network is called."""
        return self.shots * self.rounds

    def __call__(self, denoiser: Callable[[Noise], Denoiser], x: Tensor, noise: Noise) -> Tensor:
        """x (B, C, H, W) in [0, 1] after all rounds, clipped to [0, 1] at the end alone.

        Arguments:
            denoiser: the denoiser of a round, given the round's own noise.
        """
        y = 2 * x - 1
        for number in range(self.rounds):
            own = redraw(noise, number * ROUND)
            y = reconstruct(denoiser(own), y, self.depth, self.shots, own, step=self.step)
        return ((y + 1) / 2).clamp(0, 1)


PUBLISHED = {"gdmp": 0.036, "agdm": 0.07, "adbm": 0.1}  # t* of those that need no depth


def published(name: str, schedule: Schedule) -> int:
    """The depth that a purifier takes where none is asked for: its paper's share of the schedule,
    at least a level."""
    return max(1, schedule.of_time(PUBLISHED[name]))


def _meant(schedule: Schedule, depth: int) -> str:
    asked = f"depth {depth} (t* = {depth / schedule.steps:g})"
    if depth < 1:
        return f"{asked} puts in noise of 0, so that nothing would be purified"
    return f"{asked} is beyond the schedule, which ends with {_noise(schedule, schedule.steps)}"


def _range(schedule: Schedule) -> str:
    top = schedule.steps
    tenth = max(1, schedule.of_time(0.1))
    return (
        f"1 to {top}, where 1 is {_noise(schedule, 1)} and {tenth} (t* = {tenth / top:g}) is "
        f"{_noise(schedule, tenth)}"
    )


def _noise(schedule: Schedule, depth: int) -> str:
    return f"noise of {schedule.sigma(depth) / 2:.3g} for images in [0, 1]"
