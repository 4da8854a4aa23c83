"""Small pictures without any symmetry, and the tensors that their files must become."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
GREY = COLOUR[..., 0]
DEEP = RNG.integers(0, 65536, (5, 7), dtype=np.uint16)


def save(path: Path, array: np.ndarray, mode: str | None = None, **options: object) -> Path:
    Image.fromarray(array, mode).save(path, **options)
    return path


def expected(array: np.ndarray, white: int = 255) -> Tensor:
    planes = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
    return torch.from_numpy(planes.astype(np.float32) / white)
