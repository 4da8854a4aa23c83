"""Images read when they are asked for, so that any number of them fits into memory.

What was decoded is kept while a budget of bytes lasts and is never thrown out again: images are
read in passes, where dropping the oldest would drop exactly what comes next. The budget, the kept
images and the fingerprints belong to the files, so that all parts of one set share them.
"""

import copy
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import overload

import torch
from torch import Tensor

from ..errors import DataError, ImageError
from ..images import Preprocess, dimensions, fingerprint
from .items import Item

CACHE_BYTES = 256 * 2**20
OVERHEAD = 1024  # bytes that a kept tensor takes besides its pixels, rounded up


class Images(Sequence[Tensor]):
    """Images as float32 (C, size, size) in [0, 1], by number; a slice or `subset` is a part.

    `items` and `labels` (True is a defect) are known at once, `ids` (sha256 of the files) and
    pixels come when asked for. With `skip_bad` every file is decoded once at the start, and the
    unreadable ones are left out of `items` and listed in `skipped`, with the reason; otherwise
    reading an unreadable file raises ImageError. Nobody gets hold of a kept tensor itself, so that
    a result may be changed in place.
    """

    def __init__(
        self,
        items: Iterable[Item],
        preprocess: Preprocess,
        skip_bad: bool = False,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self.items: tuple[Item, ...] = tuple(items)
        self.preprocess = preprocess
        self.skipped: list[tuple[Path, str]] = []
        self._kept = _Kept(preprocess, cache_bytes)
        self._digests: dict[Path, str] = {}
        if skip_bad:
            self._leave_out_bad()

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> "Images": ...
    def __getitem__(self, index: int | slice) -> "Tensor | Images":
        if isinstance(index, slice):
            return self.subset(range(*index.indices(len(self))))
        return self._kept(self.items[index].path)

    @property
    def labels(self) -> list[bool]:
        """Whether each image shows a defect."""
        return [item.defect for item in self.items]

    @property
    def ids(self) -> Sequence[str]:
        """The sha256 of each file, computed when first asked for; a repeated file once."""
        return _Ids(self.items, self._digest)

    @property
    def kept_bytes(self) -> int:
        """What the kept images take, shared by all parts of the set; never above the budget."""
        return self._kept.taken

    def mask(self, index: int) -> Tensor | None:
        """Where the image's defect is, (size, size) as bool, or None where no mask is known.

        Raises DataError where the mask's size is not the image's, ImageError if unreadable.
        """
        item = self.items[index]
        if item.mask is None:
            return None
        width, height, _ = dimensions(item.path)
        return self.preprocess.mask(item.mask, (height, width), of=item.path)

    def subset(self, indices: Iterable[int]) -> "Images":
        """The images with these numbers, in this order; what is kept is shared with this set."""
        part = copy.copy(self)
        part.items = tuple(self.items[index] for index in indices)
        return part

    def _digest(self, path: Path) -> str:
        if path not in self._digests:
            self._digests[path] = fingerprint(path)
        return self._digests[path]

    def _leave_out_bad(self) -> None:
        reasons: dict[Path, str] = {}
        for path in dict.fromkeys(item.path for item in self.items):
            try:
                self._kept(path)
            except ImageError as error:
                reasons[path] = error.why
        given, bad = self.items, [item.path for item in self.items if item.path in reasons]
        self.skipped.extend((path, reasons[path]) for path in bad)
        self.items = tuple(item for item in given if item.path not in reasons)
        if given and not self.items:
            path, why = self.skipped[0]
            raise DataError(f"none of {len(given)} images can be read; the first, {path}: {why}")


class _Kept:
    """Reads images, and keeps them as long as the budget lasts."""

    def __init__(self, read: Callable[[Path], Tensor], budget: int) -> None:
        self.taken = 0
        self._read, self._budget = read, budget
        self._images: dict[Path, Tensor] = {}
        self._lock = threading.Lock()

    def __call__(self, path: Path) -> Tensor:
        kept = self._images.get(path)
        if kept is not None:
            return kept.clone()
        x = self._read(path)
        size = x.nbytes + OVERHEAD
        with self._lock:
            if path not in self._images and self.taken + size <= self._budget:
                self._images[path] = x.clone()
                self.taken += size
        return x


class _Ids(Sequence[str]):
    """Fingerprints of the items' files, computed on access."""

    def __init__(self, items: Sequence[Item], digest: Callable[[Path], str]) -> None:
        self._items, self._digest = items, digest

    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self._digest(item.path) for item in self._items[index]]
        return self._digest(self._items[index].path)


def batches(images: Sequence[Tensor], size: int) -> Iterator[Tensor]:
    """One pass over the images in order, as (up to `size`, C, H, W); the last may be smaller."""
    if size < 1:
        raise ValueError(f"a batch holds at least one image, not {size}")
    for start in range(0, len(images), size):
        stop = min(start + size, len(images))
        yield torch.stack([images[index] for index in range(start, stop)])
