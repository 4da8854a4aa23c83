"""What counts as a difference between scores: neither an offset nor a factor may change a verdict.

A score has no unit. A difference is measured in the spread of the clean scores, and what floats
round away of a score of that size comes on top.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .. import metrics

ULPS = 16.0  # units in the last place that sums in another order may differ by
SAME = 1e-2  # spreads, between two runs of one batch
BATCHED = 5e-2  # spreads, between a score alone and in a batch: bfloat16 sums in another order
GAIN = 1e-2  # spreads that an attack must do better by to count as better
SURE = 2.0  # standard errors of a paired difference that count as one, of many images
ALL = 4  # images that may speak with one voice


def spread(scores: Tensor) -> float:
    """The median difference between two of the scores (N,); 0 where there are fewer than two."""
    if len(scores) < 2:
        return 0.0
    row, column = torch.triu_indices(len(scores), len(scores), 1)
    values = scores.detach().double().cpu()
    return float((values[row] - values[column]).abs().median())


def rounding(scores: Tensor) -> float:
    """What floats of this kind may round away of the largest of the scores (N,)."""
    return ULPS * torch.finfo(scores.dtype).eps * float(scores.abs().max())


def tolerance(scores: Tensor, share: float) -> float:
    """A share of the spread of the scores (N,), and their rounding."""
    return share * spread(scores) + rounding(scores)


def apart(one: Tensor, other: Tensor) -> float:
    """The largest difference between scores of the same images; the same infinity differs by 0."""
    same = (one == other) | (one.isnan() & other.isnan())
    differences = (one.double() - other.double()).abs()
    return float(torch.where(same, 0.0, differences).max())


def beaten(
    ours: Tensor, theirs: Tensor, defect: Sequence[bool], least: float, *, unanimous: bool = True
) -> tuple[bool, str]:
    """Whether the attack that ought to be weaker does more harm, beyond what chance explains.

    The differences are paired, image by image, in the direction of harm. They count where the
    AUROC is no higher, their mean is above `least`, and that mean is above two standard errors
    (more for a few images) or, where `unanimous`, each of four images or more is above `least`.
    An image that either has driven to where there is no number is left out.
    """
    known = ours.isfinite() & theirs.isfinite()
    if not bool(known.any()):
        return False, "no image has a finite score under both"
    ours, theirs, defects = ours[known], theirs[known], np.array(defect)[known.numpy()]
    sign = torch.from_numpy(np.where(defects, -1.0, 1.0))
    gain = (sign * (theirs.double() - ours.double())).numpy()
    mean, error = float(gain.mean()), math.inf
    if len(gain) > 1:
        error = float(gain.std(ddof=1) / math.sqrt(len(gain)))
    surely = mean > SURE * (1 + 2 / max(len(gain) - 1, 1)) * error
    every = unanimous and len(gain) >= ALL and float(gain.min()) > least
    areas = [metrics.auroc(scores, defects) for scores in (theirs, ours)]
    worse = areas[0] is None or areas[1] is None or areas[0] <= areas[1]
    words = f"{mean:+.3g} ± {error:.2g} an image"
    if areas[0] is not None:
        words = f"AUROC {areas[0]:.3f} against {areas[1]:.3f}, {words}"
    return worse and mean > least and (surely or every), words
