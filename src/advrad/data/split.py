"""Who learns, who tunes, who calibrates, who is tested.

A split that the data do not bring is drawn by the split's own seed, from the images' names alone:
the same on every machine, whatever order the files come in. Images are ranked by a hash of seed
and name, so that adding one image moves few of the others.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from advrad.data.items import Item
from advrad.errors import DataError


@dataclass(frozen=True)
class Parts:
    """Indices into the good training images, each sorted.

    With `approximate` the images that tune a setting also calibrate the threshold (or even
    train), and the bound on false alarms is then an approximate one.
    """

    train: tuple[int, ...]
    tune: tuple[int, ...]
    calibrate: tuple[int, ...]
    approximate: bool


def divide(count: int, seed: int) -> Parts:
    """How training divides `count` good images.

    From 60 images on the three parts are disjoint: 15 % calibrate, 10 % tune. With fewer the
    same images tune and calibrate; with fewer than 4 all images do everything.
    """
    if count < 1:
        raise DataError("no good images to divide: training needs at least one")
    if count < 4:
        everything = tuple(range(count))
        return Parts(everything, everything, everything, approximate=True)
    held, tuned = _sizes(count)
    order = np.argsort(np.random.default_rng(seed).random(count), kind="stable").tolist()
    calibrate, rest = order[:held], order[held:]
    tune, train = (rest[:tuned], rest[tuned:]) if tuned else (calibrate, rest)
    return Parts(
        tuple(sorted(train)), tuple(sorted(tune)), tuple(sorted(calibrate)), approximate=not tuned
    )


def draw(names: Sequence[str], seed: int, share: float = 0.6) -> tuple[list[int], list[int]]:
    """Indices for training and for testing, both sorted; each gets one if there are two."""
    ranked = sorted(range(len(names)), key=lambda i: (_rank(seed, names[i]), names[i]))
    count = int(share * len(names) + 0.5)
    count = max(1, min(count, len(names) - 1)) if names else 0
    return sorted(ranked[:count]), sorted(ranked[count:])


def limit(items: Sequence[Item], count: int, seed: int) -> tuple[Item, ...]:
    """At most `count` items in their order, half good and half defective as far as they go."""
    good = [i for i, item in enumerate(items) if not item.defect]
    defect = [i for i, item in enumerate(items) if item.defect]
    wanted = min(len(defect), max(count // 2, count - len(good)))
    chosen = _first(items, defect, wanted, seed) + _first(items, good, count - wanted, seed)
    return tuple(items[i] for i in sorted(chosen))


def _sizes(count: int) -> tuple[int, int]:
    if count >= 60:
        return round(0.15 * count), round(0.10 * count)
    return (max(8, round(0.15 * count)) if count >= 16 else max(1, count // 4)), 0


def _first(items: Sequence[Item], indices: list[int], count: int, seed: int) -> list[int]:
    def rank(i: int) -> tuple[bytes, int]:
        return _rank(seed, "/".join(items[i].path.parts[-2:])), i

    return sorted(indices, key=rank)[: max(0, count)]


def _rank(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}/{name}".encode("utf-8", "surrogateescape")).digest()
