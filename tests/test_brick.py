"""Data sets that are made: what is written is what was promised, the same every time."""

import hashlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from advrad.data import brick, defects, load, painted, textures
from advrad.errors import MissingExtraError, UsageError
from advrad.images import read
from advrad.noise import PerImage


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def wall(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("skimage", reason="extra [data]")
    folder = tmp_path_factory.mktemp("brick")
    brick.write(folder)
    return folder


def found_at(photo: np.ndarray, crop: np.ndarray, known: np.ndarray) -> list[tuple[int, int]]:
    """Where in the photo the crop's `known` pixels lie, value for value."""
    windows = np.lib.stride_tricks.sliding_window_view(photo, crop.shape)
    where = np.argwhere(known)
    match = np.ones(windows.shape[:2], dtype=bool)
    for row, column in where[:: max(1, len(where) // 40)]:
        match &= windows[:, :, row, column] == crop[row, column]
    places = [(int(row), int(column)) for row, column in np.argwhere(match)]
    return [place for place in places if (windows[place] == crop)[known].all()]


def levels(path: Path) -> np.ndarray:
    return (read(path)[0] * 255).round().to(torch.uint8).numpy()


def test_brick_has_the_promised_layout(wall: Path) -> None:
    dataset = load(str(wall))
    bad = [item for item in dataset.test if item.defect]
    assert (dataset.layout, len(dataset.train), len(dataset.test), len(bad)) == (
        "mvtec",
        80,
        80,
        40,
    )
    assert all(item.mask is not None for item in bad)
    assert {item.kind for item in bad} == set(defects.ALL)
    assert "CC0" in (wall / "NOTICE").read_text()
    contents = list(digests(wall).values())
    assert len(contents) == len(set(contents)), "an image is there twice"


def test_brick_train_and_test_share_no_pixel_and_masks_cover_the_change(wall: Path) -> None:
    """Every crop is looked up in the photograph; a defective one by its unmasked pixels."""
    photo = brick._photo()[0].mul(255).round().to(torch.uint8).numpy()
    dataset = load(str(wall))
    for item in (*dataset.train, *dataset.test):
        crop = levels(item.path)
        assert crop.shape == (128, 128)
        known = np.ones_like(crop, dtype=bool) if item.mask is None else levels(item.mask) == 0
        places = found_at(photo, crop, known)
        assert len(places) == 1, f"{item.path} is in the photograph {len(places)} times"
        row, column = places[0]
        assert (column + 128 <= brick.BORDER) if item in dataset.train else column >= brick.BORDER
        if item.defect:
            moved = crop != photo[row : row + 128, column : column + 128]
            assert moved.sum() > 0.7 * (~known).sum(), "a mask where hardly anything changed"


def test_brick_is_the_same_every_time(wall: Path, tmp_path: Path) -> None:
    brick.write(tmp_path)
    assert digests(tmp_path) == digests(wall)


def test_brick_without_scikit_image_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(MissingExtraError, match=r"advrad\[data\]"):
        brick.write(tmp_path)
    assert not list(tmp_path.iterdir())


def test_places_are_all_different_and_within_range() -> None:
    found = list(painted.places("x", 12, range(3, 6), range(4)))
    assert set(found) == {(row, column) for row in range(3, 6) for column in range(4)}
    assert len(found) == 12


@pytest.mark.parametrize("name", textures.ALL)
def test_textures_have_the_promised_layout(name: str, tmp_path: Path) -> None:
    textures.write(name, tmp_path)
    dataset = load(str(tmp_path))
    bad = [item for item in dataset.test if item.defect]
    assert (len(dataset.train), len(dataset.test), len(bad)) == (60, 60, 30)
    assert all(item.mask is not None for item in bad)
    sides = [float(read(item.mask).mean()) ** 0.5 for item in bad if item.mask]
    assert min(sides) > 0.01
    assert max(sides) < 0.09
    contents = list(digests(tmp_path / "train").values()) + list(
        digests(tmp_path / "test").values()
    )
    assert len(contents) == len(set(contents)), "an image is there twice"


@pytest.mark.parametrize("name", textures.ALL)
def test_textures_follow_the_seed_and_fill_the_range_of_intensities(name: str) -> None:
    x, again, other = (textures.ALL[name](PerImage(seed, ["0"])) for seed in (0, 0, 1))
    assert torch.equal(x, again)
    assert not torch.equal(x, other)
    assert x.shape == ({"speckle": 3}.get(name, 1), 128, 128)
    assert x.min() >= 0
    assert x.max() <= 1
    assert 0.03 < float(x.std()) < 0.3
    assert float(((x == 0) | (x == 1)).float().mean()) < 0.001, "clipped"


def test_grain_has_the_spectrum_asked_for() -> None:
    """A gain that passes a single frequency leaves a plane wave of that frequency."""
    field = textures._grain(PerImage(0, ["0"]), 0, lambda y, x: ((y == 0) & (x == 5)).float())
    power = torch.fft.rfft2(field).abs()
    assert divmod(int(power.argmax()), power.shape[1]) == (0, 5)
    assert float(power[0, 5] ** 2 / power.square().sum()) > 0.999


def test_an_unknown_texture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected one of weave, speckle, ridges"):
        textures.write("tweed", tmp_path)
