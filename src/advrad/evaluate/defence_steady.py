"""Whether a defence gives an image one answer under one noise, whoever else is there.

An answer that depends on the rest of the batch, or on what was asked before, has no figure: it
changes with the size of the batch, and an attacker who fills it decides for others.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..noise import Noise
from .defence_modes import Logits
from .health import FAILED, NOT_RUN, PASSED, Check

NEAR = 1e-2  # of the largest logit, by which batches of other sizes may differ in rounding
STEADY = ("repeatable", "batch_independent", "stateless")
COST = 5  # images that pass, for each one looked at


@torch.no_grad()
def steady(
    logits: Logits, x: Tensor, ids: Sequence[str], noise: Callable[[Sequence[str]], Noise]
) -> dict[str, Check]:
    """The checks of STEADY.

    Arguments:
        logits: the defence.
        x, ids: images (B, C, H, W) in [0, 1] and their names.
        noise: of images with these names, the same for each in whatever batch it stands.
    """
    known = noise(ids)
    one, other = logits(x, known), logits(x, known)
    found = {"repeatable": _repeatable(one, other)}
    if found["repeatable"].status == FAILED:
        lost = Check(NOT_RUN, "the same noise gives other logits anyway")
        return found | dict.fromkeys(STEADY[1:], lost)
    backwards = range(len(x) - 1, -1, -1)
    alone = torch.cat([logits(x[i : i + 1], noise(ids[i : i + 1])) for i in backwards]).flip(0)
    logits(1 - x, known)
    again = logits(x, known)
    found["batch_independent"] = (
        _compared(one, alone, "alone in the place of together")
        if len(x) > 1
        else Check(NOT_RUN, "a single image has no batch")
    )
    found["stateless"] = _compared(one, again, "before and after other images")
    return found


def _repeatable(one: Tensor, other: Tensor) -> Check:
    """Known draws, and a run that goes on, need one answer to one noise."""
    apart = int((one.argmax(1) != other.argmax(1)).sum())
    held = torch.allclose(one, other, rtol=1e-3, atol=1e-3, equal_nan=True)
    words = "the same noise twice: " + (
        "the same logits" if held else f"other logits, another class for {apart} images; "
        "something draws beside the noise that it is given"
    )  # fmt: skip
    return Check(PASSED if held else FAILED, words)


def _compared(one: Tensor, other: Tensor, how: str) -> Check:
    apart = int((one.argmax(1) != other.argmax(1)).sum())
    largest = float((one - other).abs().nan_to_num(0).max())
    near = NEAR * float(one.abs().nan_to_num(0, 0, 0).max())
    words = (
        f"{how}, the logits of {len(one)} images differ by up to {largest:.3g}, expected: at most "
        f"{near:.3g}; another class for {apart}"
    )
    return Check(PASSED if largest <= near else FAILED, words)
