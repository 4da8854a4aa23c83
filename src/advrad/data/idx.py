"""IDX files, the format of MNIST and of all that came after it (LeCun).

Two zero bytes, the type (8 is unsigned bytes), the number of dimensions, each as a big-endian
32-bit number, and then the bytes. Files may be gzipped.
"""

import gzip
import hashlib
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from advrad.errors import DataError

UNSIGNED = 8
IDX = {
    "train-images": "train-images-idx3-ubyte",
    "train-labels": "train-labels-idx1-ubyte",
    "test-images": "t10k-images-idx3-ubyte",
    "test-labels": "t10k-labels-idx1-ubyte",
}


def read_idx(path: Path) -> NDArray[np.uint8]:
    """The bytes of an IDX file in their shape. Raises DataError for anything else."""
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != UNSIGNED:
        raise DataError(f"{path} is no IDX file of bytes: expected the four numbers 0 0 8 N first")
    count = content[3]
    if len(content) < 4 + 4 * count:
        raise DataError(f"{path} is cut off: it ends before its shape does")
    shape = [int(side) for side in np.frombuffer(content[4 : 4 + 4 * count], ">u4")]
    body = np.frombuffer(content[4 + 4 * count :], np.uint8)
    if body.size != int(np.prod(shape, dtype=np.int64)):
        raise DataError(f"{path} is cut off: {body.size} bytes for a shape of {shape}")
    return body.reshape(shape)


def idx_folder(
    folder: Path, published: Mapping[str, str] | None = None
) -> dict[str, NDArray[np.uint8]]:
    """The four arrays of a folder of IDX files, gzipped or not.

    Arguments:
        published: md5 of each file's contents, by its name; None takes any.

    Raises DataError where a file is missing or is not the one that was published.
    """
    found = {}
    for part, name in IDX.items():
        near = [folder / end for end in (name, f"{name}.gz", name.replace("-idx", ".idx"))]
        path = next((p for p in near if p.is_file()), None)
        if path is None:
            raise DataError(f"{folder} holds no {name}, nor {name}.gz: expected four IDX files")
        if published is not None:
            content = path.read_bytes()
            content = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
            if hashlib.md5(content, usedforsecurity=False).hexdigest() != published[part]:
                raise DataError(f"{path} is not the file that was published: its md5 is another")
        found[part] = read_idx(path)
    return found
