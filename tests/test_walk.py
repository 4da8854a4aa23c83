"""Files and folders of a command line become a list of images."""

from pathlib import Path

import pytest
from parts import make_parts

from advrad.data.walk import image_files
from advrad.errors import DataError


def test_folders_are_walked_in_order_and_files_stay_where_they_are(tmp_path: Path) -> None:
    root = make_parts(tmp_path / "parts", train=2, good=1, defect=0)
    (root / "notes.txt").write_text("no image")
    (root / ".hidden.png").write_bytes(b"")
    (root / ".cache").mkdir()
    (root / ".cache" / "a.png").write_bytes(b"")
    single = root / "train" / "good" / "001.png"
    found = image_files([single, root])
    assert [path.relative_to(root).as_posix() for path in found] == [
        "train/good/001.png",
        "test/good/000.png",
        "train/good/000.png",
        "train/good/001.png",
    ]


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.png does not exist"):
        image_files([tmp_path / "none.png"])
    with pytest.raises(DataError, match="holds no images"):
        image_files([tmp_path])
