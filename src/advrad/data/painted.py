"""Folders of images that we make ourselves, in MVTec AD's layout.

train/good/000.png    test/good/000.png    test/stain/000.png    ground_truth/stain/000_mask.png
"""

from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from advrad.data import shapes
from advrad.images import write_png
from advrad.noise import PerImage


def save_good(folder: Path, split: str, number: int, x: Tensor) -> None:
    """Writes a good image (C, H, W) to the split "train" or "test"."""
    write_png(folder / split / "good" / f"{number:03d}.png", x)


def save_defect(folder: Path, kind: str, number: int, x: Tensor, mask: Tensor) -> None:
    """Writes a test image (C, H, W) with a defect, and its mask (H, W)."""
    write_png(folder / "test" / kind / f"{number:03d}.png", x)
    write_png(folder / "ground_truth" / kind / f"{number:03d}_mask.png", mask.float())


def places(name: str, count: int, rows: range, columns: range) -> Iterator[tuple[int, int]]:
    """`count` places (row, column) within the ranges, all different, drawn by the name."""
    seen: set[tuple[int, int]] = set()
    noise = PerImage(0, [name])
    for draw in range(100 * count):
        if len(seen) == count:
            return
        u, v = shapes.uniforms(noise, draw, 2)
        place = (
            rows[min(int(u * len(rows)), len(rows) - 1)],
            columns[min(int(v * len(columns)), len(columns) - 1)],
        )
        if place not in seen:
            seen.add(place)
            yield place
