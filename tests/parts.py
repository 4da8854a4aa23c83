"""A small data set of photographs, and the words that train a tiny model on it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from advrad.cli import main

TINY = ["--set=size=16", "--set=widths=4,8", "--set=patch=1", "--set=steps=6"]
TINY += ["--set=precision=float32", "--set=batch=4", "--set=draws=1", "--device=cpu"]


def make_parts(root: Path, train: int = 12, good: int = 4, defect: int = 5) -> Path:
    """MVTec's layout: grey stripes; a defect is a white square, with its mask."""
    rng = np.random.default_rng(7)

    def save(path: Path, square: bool = False) -> None:
        stripes = np.arange(20)[:, None] % 5 * 25 + rng.integers(40, 80, (20, 20))
        mask = np.zeros((20, 20), np.uint8)
        if square:
            mask[5:12, 6:13] = 255
            path_of_mask = root / "ground_truth" / "square" / f"{path.stem}_mask.png"
            path_of_mask.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(path_of_mask)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.maximum(stripes, mask).astype(np.uint8)).save(path)

    for number in range(train):
        save(root / "train" / "good" / f"{number:03}.png")
    for number in range(good):
        save(root / "test" / "good" / f"{number:03}.png")
    for number in range(defect):
        save(root / "test" / "square" / f"{number:03}.png", square=True)
    return root


def damage(folder: Path, kind: str) -> Path:
    """Puts an image that cannot be used into the folder."""
    path = folder / f"zz-{kind}.png"
    if kind == "zero":
        path.write_bytes(b"")
    elif kind == "noise":
        path.write_bytes(b"this is no picture at all")
    elif kind == "truncated":
        whole = next(iter(sorted(folder.glob("*.png")))).read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    elif kind == "huge":
        Image.new("1", (12_000, 12_000)).save(path)
    else:
        raise ValueError(kind)
    return path


DAMAGES = ("zero", "noise", "truncated", "huge")


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, Any, str]:
    """Exit code, the one JSON object on standard output, standard error."""
    code = main([*map(str, words), "--json"])
    out, err = capsys.readouterr()
    return code, json.loads(out), err
