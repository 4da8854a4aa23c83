"""Scores and maps that an attack has driven to where there is no number.

Whoever brings a detector to answer inf or nan has won: such a score counts as the worst of its
class, a good image above and a defect below all others, and so do such pixels. It is counted, and
told beside the figures. In a file it stands as null.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Value = float | None
Floats = NDArray[np.float64]


def lost(score: Value) -> bool:
    """Whether it is no finite number."""
    return score is None or not math.isfinite(score)


def worst(scores: Sequence[Value], labels: Sequence[bool] | NDArray[np.bool_]) -> Floats:
    """The scores, those that are lost beyond all others on the wrong side, finite, (N,)."""
    most = float(np.finfo(np.float64).max)
    return np.array(
        [
            (-most if defect else most) if lost(score) else score
            for score, defect in zip(scores, labels, strict=True)
        ],
        np.float64,
    )


def worst_map(values: Tensor, mask: Tensor | None) -> Tensor:
    """A map (H, W), its lost pixels lowest where the mask has a defect and highest elsewhere."""
    most = torch.finfo(torch.float32).max
    filled = torch.full_like(values, most, dtype=torch.float32)
    if mask is not None:
        filled = torch.where(mask.to(values.device).bool(), -most, filled)
    return torch.where(values.isfinite(), values.float(), filled)


def in_words(score: Value) -> str:
    """Four digits, or that there is no number."""
    return "no number" if lost(score) else f"{score:.4g}"


def told(count: int) -> str:
    """What a reader has to know of so many images; empty for none."""
    if not count:
        return ""
    whose = "1 image has" if count == 1 else f"{count} images have"
    return f"{whose} no finite score under attack: counted as the worst of the class"
