"""`data check`: every planted fault is found, and a clean folder has none."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from advrad.data import Dataset, Item, load
from advrad.data.check import Check, Duplicate, check
from advrad.data.split import divide


def picture(path: Path, seed: int, size: tuple[int, int] = (9, 7), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number in range(20):
        picture(tmp_path / f"train/good/{number:02}.png", number)
    for number in range(3):
        picture(tmp_path / f"test/good/{number}.png", 100 + number)
        picture(tmp_path / f"test/dent/{number}.png", 200 + number)
        picture(tmp_path / f"ground_truth/dent/{number}_mask.png", 300 + number, mode="1")
    return tmp_path


def examined(root: Path, deep: bool = True) -> Check:
    return check(load(str(root)), deep=deep)


def test_a_clean_folder(root: Path) -> None:
    found = examined(root)
    assert found.problems == []
    assert found.notes == []
    assert found.counts() == {"train": 20, "test defect dent": 3, "test good": 3}
    assert found.files["test good"] == ["test/good/0.png", "test/good/1.png", "test/good/2.png"]
    assert (dict(found.sizes), dict(found.modes)) == ({"9x7": 26}, {"RGB": 26})
    assert (found.masks_found, found.masks_missing) == (3, [])
    assert not found.duplicates
    assert found.as_dict()["ok"]


def test_division_is_the_training_division(root: Path) -> None:
    found, parts = examined(root), divide(20, 0)
    assert found.division["calibrate"] == [f"train/good/{i:02}.png" for i in parts.calibrate]
    assert found.division["tune"] == found.division["calibrate"]
    assert len(found.division["train"]) == 12
    assert found.approximate
    assert "8 images can hold: 11 %" in found.text()


def test_duplicates(root: Path) -> None:
    shutil.copy(root / "train/good/03.png", root / "test/good/7.png")
    shutil.copy(root / "train/good/03.png", root / "train/good/99.png")
    found = examined(root)
    assert found.duplicates == [
        Duplicate("train/good/03.png", "train/good/99.png", between=False),
        Duplicate("train/good/03.png", "test/good/7.png", between=True),
    ]
    assert found.problems == ["1 duplicate between train and test: remove one of each"]
    assert "1 duplicate within one part" in found.notes


def test_one_image_good_and_defect(root: Path) -> None:
    shutil.copy(root / "test/good/0.png", root / "test/dent/8.png")
    assert any("labelled good and defect" in problem for problem in examined(root).problems)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-60])


def text(path: Path) -> None:
    path.write_text("no image")


def dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere.png")


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("damage", [empty, truncated, text, dangling, flipped])
def test_unreadable(root: Path, damage: Callable[[Path], None]) -> None:
    damage(root / "train/good/05.png")
    damage(root / "ground_truth/dent/1_mask.png")
    found = examined(root)
    assert [path for path, _ in found.unreadable] == [
        "train/good/05.png",
        "ground_truth/dent/1_mask.png",
    ]
    assert all(why for _, why in found.unreadable)
    assert len(found.problems) == 2
    assert "train/good/05.png" in found.text()


def test_shallow_reads_headers_alone(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from advrad import images

    truncated(root / "train/good/05.png")
    empty(root / "train/good/06.png")
    monkeypatch.delattr(images, "read")
    monkeypatch.delattr(images, "fingerprint")
    found = examined(root, deep=False)
    assert [path for path, _ in found.unreadable] == ["train/good/06.png"]
    assert "duplicates  not looked for" in found.text()


def test_masks(root: Path) -> None:
    (root / "ground_truth/dent/0_mask.png").unlink()
    picture(root / "ground_truth/dent/1_mask.png", 1, size=(7, 9), mode="1")
    Image.new("L", (9, 7)).save(root / "ground_truth/dent/2_mask.png")
    found = examined(root)
    assert (found.masks_found, found.masks_missing) == (2, ["test/dent/0.png"])
    assert len(found.problems) == 1
    assert "the mask is 7x9, its image 9x7" in found.problems[0]
    assert "ground_truth/dent/2_mask.png: the mask marks no pixel" in found.notes


def test_a_turned_photograph_has_an_upright_mask(root: Path) -> None:
    turned = Image.new("RGB", (9, 7))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(root / "test/dent/0.png", exif=exif)
    picture(root / "ground_truth/dent/0_mask.png", 1, size=(7, 9), mode="1")
    for deep in (True, False):
        assert examined(root, deep).problems == []


def test_mixed_sizes_and_channels(root: Path) -> None:
    picture(root / "train/good/50.png", 50, size=(12, 12))
    picture(root / "train/good/51.png", 51, mode="L")
    Image.new("I;16", (9, 7)).save(root / "train/good/52.png")
    found = examined(root)
    assert found.sizes == {"9x7": 28, "12x12": 1}
    assert any("2 sizes" in note for note in found.notes)
    assert any("grey and colour" in note for note in found.notes)


def test_ignored_files_are_told(root: Path) -> None:
    text(root / "train/good/notes.txt")
    assert any("1 that are no images" in note for note in examined(root).notes)


def test_drawn_split_is_told(tmp_path: Path) -> None:
    for number in range(10):
        picture(tmp_path / f"good/{number}.png", number)
    picture(tmp_path / "defect/0.png", 77)
    found = check(load(str(tmp_path), split_seed=4))
    assert "drawn by split seed 4" in found.text()
    assert found.counts() == {"train": 6, "test good": 4, "test defect": 1}
    assert "masks       0 found, 1 missing" in found.text()


def test_no_training_images(tmp_path: Path) -> None:
    picture(tmp_path / "0.png", 0)
    data = Dataset("x", tmp_path, "manifest", (), (Item(tmp_path / "0.png", False),), False, 0)
    found = check(data)
    assert found.problems == ["no images to train on"]
    assert found.division == {}


def test_as_dict_is_json_and_says_all(root: Path) -> None:
    empty(root / "train/good/05.png")
    plain = examined(root).as_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert plain["unreadable"][0]["path"] == "train/good/05.png"
    assert not plain["ok"]
    assert sum(len(names) for names in plain["files"].values()) == 26


def test_long_lists_are_cut_in_the_text_alone(tmp_path: Path) -> None:
    for number in range(50):
        empty(tmp_path / f"{number}.png")
    found = check(load(str(tmp_path)))
    assert len(found.problems) == 50
    assert found.text().count("PROBLEM") == 21
    assert "... and 30 more" in found.text()


def test_progress(root: Path) -> None:
    steps: list[tuple[int, int]] = []
    check(load(str(root)), deep=False, progress=lambda done, total: steps.append((done, total)))
    assert steps == [(done, 26) for done in range(1, 27)]
