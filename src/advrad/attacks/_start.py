"""Where an attack by gradients begins."""

from torch import Tensor

from ..errors import UsageError
from ..noise import Noise, redraw
from .ball import Ball

STARTS = ("random", "zero")


def begin(x: Tensor, ball: Ball, start: str, noise: Noise, restart: int = 0) -> Tensor:
    """The first iterate: the clean image, or a random one in the ball and in [0, 1].

    Each restart has a draw of its own. Raises UsageError for any other name of a start.
    """
    if start not in STARTS:
        raise UsageError(f"start {start!r}: expected one of {', '.join(STARTS)}")
    if start == "zero":
        return x
    return ball.project(x + ball.random(x, redraw(noise, restart)), x)


def positive(**numbers: int) -> None:
    """Raises UsageError unless every number is 1 or more."""
    for name, number in numbers.items():
        if number < 1:
            raise UsageError(f"{name} {number}: expected 1 or more")
