"""How well anomaly maps point at the defect, in one pass and in bounded memory.

Pixel AUROC and PRO are the area under one curve, the defective pixels found against the good
pixels marked. In the AUROC each defective pixel weighs the same; in PRO each connected region
does, so its pixels weigh 1 / |region|, and the area stops at a false-alarm rate of 0.3 (Bergmann
et al., 2021, https://doi.org/10.1007/s11263-020-01400-4, section 6.1; regions touch at corners).

The curve is kept as a sorted table of distinct scores. While these fit, both figures are exact.
When they do not, neighbours are merged by dropping low bits of the scores' float32 pattern, as
few as will do; the curve then is known at every remaining entry and monotone in between, which
bounds the error of either area. The table depends on all pixels seen, not on their order.

Pixels of one image are no independent evidence: the interval resamples images, of which it keeps
32 quantiles each (about 1 kB an image).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label
from torch import Tensor

from .errors import DataError
from .metrics import RESAMPLES, Floats, draws, percentiles

LIMIT = 0.3  # the false-alarm rate up to which PRO is integrated
BINS = 1 << 18  # 262,144 thresholds, about 7 MB
SKETCH = 32  # quantiles kept of each image and class, for the interval alone


@dataclass(frozen=True)
class Area:
    """An area under the curve in [0, 1]; the exact one lies within `error` of it."""

    value: float
    error: float


@dataclass(frozen=True)
class _Sketch:
    """What the interval needs to know of one image's pixels of one class."""

    count: int
    quantiles: NDArray[np.float32]


class PixelMetrics:
    """Collects anomaly maps and masks, and knows pixel AUROC and PRO of all seen so far."""

    def __init__(self, bins: int = BINS) -> None:
        if bins < 256:
            raise DataError(f"{bins} bins were asked for: below 256 no curve is worth reading")
        self.bins = bins
        self._shift = 0
        self._keys = np.zeros(0, np.uint32)
        self._table = np.zeros((3, 0))  # good pixels, defective pixels, their weight in PRO
        self._waiting: list[tuple[NDArray[np.uint32], Floats]] = []
        self._sketches: list[tuple[_Sketch, _Sketch]] = []

    def add(self, anomaly: Tensor, mask: Tensor | None) -> None:
        """One map (H, W) and its mask (H, W) bool; None says that the image is good.

        A defective image that has no mask must not be added at all.
        """
        values = anomaly.detach().float().cpu().numpy()
        marks = np.zeros(values.shape, np.bool_) if mask is None else _marks(mask, values.shape)
        if bad := int((~np.isfinite(values)).sum()):
            raise DataError(f"{bad} of {values.size} pixels of an anomaly map are not finite")
        self._sketches.append((_sketch(values[~marks]), _sketch(values[marks])))
        self._waiting.append((_keys(values.ravel()), _weights(marks).ravel()))
        if sum(len(keys) for keys, _ in self._waiting) >= self.bins:
            self._merge()

    def auroc(self) -> Area | None:
        """Pixel AUROC; None without a defective or without a good pixel."""
        return self._area(column=1, limit=1.0)

    def pro(self, limit: float = LIMIT) -> Area | None:
        """The regions' mean overlap over false-alarm rates up to `limit`, divided by `limit`."""
        if not 0 < limit <= 1:
            raise DataError(
                f"PRO was asked for up to a false-alarm rate of {limit}, not in (0, 1]"
            )
        return self._area(column=2, limit=limit)

    def auroc_interval(
        self, resamples: int = RESAMPLES, seed: int = 0
    ) -> tuple[float, float] | None:
        """The 95 % bootstrap interval of pixel AUROC over images, good and defective ones apart.

        Linear in the images: each brings the mean placement of its pixels among all pixels of
        the other class, read at 32 quantiles. None with fewer than two defective images.
        """
        whole = self.auroc()
        defective = np.array([bad.count > 0 for _, bad in self._sketches], np.bool_)
        if whole is None or defective.sum() < 2:
            return None
        counts, sums = self._placements()
        groups = [
            part for part in (np.flatnonzero(defective), np.flatnonzero(~defective)) if part.size
        ]
        moved = []
        for chosen in draws([len(group) for group in groups], resamples, seed):
            rows = np.concatenate([g[c] for g, c in zip(groups, chosen, strict=True)], axis=1)
            means = sums[:, rows].sum(-1) / np.maximum(counts[:, rows].sum(-1), 1)
            moved.append((means - (sums.sum(-1) / counts.sum(-1))[:, None]).sum(0))
        low, high = percentiles(np.clip(whole.value + np.concatenate(moved), 0, 1))
        return low, high

    def _placements(self) -> tuple[Floats, Floats]:
        """Pixels and the sum of their placements, good and bad: two arrays (2, images)."""
        good, bad = self._table[0], self._table[1]
        below = (good.cumsum() - good / 2) / good.sum()
        above = 1 - (bad.cumsum() - bad / 2) / bad.sum()
        counts = np.array([[part.count for part in pair] for pair in self._sketches], np.float64)
        means = [
            [self._mean(part, there) for part, there in zip(pair, (above, below), strict=True)]
            for pair in self._sketches
        ]
        return counts.T, counts.T * np.array(means).T

    def _mean(self, part: _Sketch, placement: Floats) -> float:
        if not part.count:
            return 0.0
        places = np.searchsorted(self._keys, _keys(part.quantiles) >> np.uint32(self._shift))
        return float(placement[places].mean())

    def _area(self, column: int, limit: float) -> Area | None:
        self._merge()
        good, found = self._table[0, ::-1], self._table[column, ::-1]
        if not good.sum() or not found.sum():
            return None
        value, error = _trapezoids(_rise(good), _rise(found), limit)
        return Area(value, error if self._shift else 0.0)

    def _merge(self) -> None:
        if not self._waiting:
            return
        keys = np.concatenate([keys for keys, _ in self._waiting])
        weights = np.concatenate([weights for _, weights in self._waiting])
        self._waiting = []
        news = np.stack([weights == 0, weights > 0, weights])
        every = np.concatenate([self._keys, keys >> np.uint32(self._shift)])
        self._keys, self._table = _collapse(every, np.concatenate([self._table, news], axis=1))
        drop = 0
        while np.count_nonzero(np.diff(self._keys >> np.uint32(drop))) + 1 > self.bins:
            drop += 1
        if drop:
            self._keys, self._table = _collapse(self._keys >> np.uint32(drop), self._table)
            self._shift += drop


def _collapse(keys: NDArray[np.uint32], table: Floats) -> tuple[NDArray[np.uint32], Floats]:
    """Equal keys become one, their columns added up; keys come out ascending."""
    order = keys.argsort(kind="stable")
    keys, table = keys[order], table[:, order]
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    return keys[starts], np.add.reduceat(table, starts, axis=1)


def _keys(values: NDArray[np.float32]) -> NDArray[np.uint32]:
    """Whole numbers in the order of the float32 values; minus zero is zero."""
    bits = (values.astype(np.float32) + np.float32(0)).view(np.uint32)
    negative = (bits >> np.uint32(31)).astype(np.bool_)
    return np.where(negative, ~bits, bits | np.uint32(1 << 31))


def _weights(marks: NDArray[np.bool_]) -> Floats:
    """1 / |region| on each region of the mask (corners touch), 0 elsewhere."""
    regions, _ = label(marks, structure=np.ones((3, 3)))
    sizes = np.bincount(regions.ravel()).astype(np.float64)
    sizes[0] = np.inf
    return np.asarray(1 / sizes)[regions]


def _rise(steps: Floats) -> Floats:
    """From 0 to 1 in the given steps."""
    total = steps.cumsum()
    return np.concatenate([[0.0], total / total[-1]])


def _trapezoids(x: Floats, y: Floats, limit: float) -> tuple[float, float]:
    """The area under (x, y) up to `limit`, divided by it, and a bound of its error.

    Between two points the true curve is monotone, so it stays in their box: at most half the box
    away from the trapezoid, and at most the whole box where `limit` cuts it.
    """
    last = int(np.searchsorted(x, limit, "right")) - 1
    dx, dy = np.diff(x[: last + 1]), np.diff(y[: last + 1])
    area = float((dx * (y[:last] + y[1 : last + 1])).sum() / 2)
    error = float((dx * dy).sum() / 2)
    if last + 1 < len(x):
        rest, step = limit - x[last], y[last + 1] - y[last]
        area += float(rest * (y[last] + step * rest / (x[last + 1] - x[last]) / 2))
        error += float(rest * step)
    return area / limit, error / limit


def _sketch(values: NDArray[np.float32]) -> _Sketch:
    places = ((np.arange(SKETCH) + 0.5) / SKETCH * values.size).astype(np.int64)
    kept = np.sort(values)[places] if values.size else values
    return _Sketch(values.size, kept)


def _marks(mask: Tensor, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    if tuple(mask.shape) != shape:
        raise DataError(f"a mask of shape {tuple(mask.shape)} for an anomaly map of shape {shape}")
    return mask.cpu().numpy().astype(np.bool_)
