"""The AUROC that remains whatever is done to each image within its radius.

For every defect i the smoothed score stays at or above L_i, for every good image j at or below
U_j. AUROC only depends on the order of each defect and each good image, so no attack brings it
below the share of pairs with L_i > U_j, ties counting half.

Each bound has the error alpha / N, one side for each of the N images; all of them hold together
with probability at least 1 - alpha (union bound), and with them the AUROC. One radius is one
statement. The largest radius at which the certified AUROC is still above some value is one
statement too: bounds only widen with the radius, so that it is wrong only where the bound at one
fixed radius is.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def certified_auroc(lower: ArrayLike, upper: ArrayLike) -> float | None:
    """Mean over pairs of [L_i > U_j] + [L_i = U_j] / 2; None where there is no pair.

    Arguments:
        lower: of the defects' scores, (D,).
        upper: of the good images' scores, (G,).

    Raises ValueError where one is nan.
    """
    low, high = _known(lower), np.sort(_known(upper))
    if not low.size or not high.size:
        return None
    below = np.searchsorted(high, low, "left") + np.searchsorted(high, low, "right")
    return float(below.mean() / 2 / high.size)


def swept_auroc(lower: ArrayLike, upper: ArrayLike) -> float | None:
    """The same as the area under a curve, by the trapezoid rule.

    At each threshold h, the defects that certainly reach it against the good images that may
    reach it: FPR(h) = share of U_j >= h, TPR(h) = share of L_i >= h.
    """
    low, high = _known(lower), _known(upper)
    if not low.size or not high.size:
        return None
    thresholds = np.unique(np.concatenate([low, high]))[::-1]
    sure, possible = ([0.0, *(np.mean(s >= h) for h in thresholds)] for s in (low, high))
    return float(np.trapezoid(sure, possible))


def worst(lower: ArrayLike, upper: ArrayLike, defect: ArrayLike) -> Floats:
    """Ranks whose plain AUROC is the certified one: of L of the defects, of U of the good ones.

    Bounds may be infinite, which ranks are not: a bootstrap goes over them, (N,) from (N,) each.
    """
    bounds = np.where(np.asarray(defect, dtype=bool), _known(lower), _known(upper))
    return np.unique(bounds, return_inverse=True)[1].astype(np.float64)


def _known(values: Any) -> Floats:
    found = np.asarray(values, dtype=np.float64).ravel()
    if np.isnan(found).any():
        raise ValueError("a bound is nan: expected numbers or infinities")
    return found
