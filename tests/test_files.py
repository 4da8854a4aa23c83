"""Files are the old ones or the new ones, never anything between."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from killing import killed_at

from advrad import files
from advrad.errors import ResourceError


@pytest.fixture(params=["fsync", "write", "replace"])
def full_disk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """No space is left; which call says so depends on the file system."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if request.param != "write":
        monkeypatch.setattr(os, request.param, refuse)
        return
    opening = os.fdopen

    def opened(*arguments: Any) -> Any:
        file = opening(*arguments)

        class Full:
            write = staticmethod(refuse)

            def __enter__(self) -> "Full":
                return self

            def __exit__(self, *_: object) -> None:
                file.close()

        return Full()

    monkeypatch.setattr(os, "fdopen", opened)


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path, full_disk: None) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(b"old")
    with pytest.raises(ResourceError, match=r"model.bin needs 2.0 MiB.*make room") as caught:
        files.write_bytes(path, bytes(2 << 20))
    assert caught.value.exit_code == 5
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_other_errors_are_not_called_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), files.full_disk_told(tmp_path, 0):
        raise PermissionError(errno.EACCES, "no")


def test_a_write_killed_anywhere_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    path, old, new = tmp_path / "a.txt", b"old" * 1000, b"new" * 5000
    found = set()
    for operation in range(100):
        path.write_bytes(old)
        killed = killed_at(operation, lambda: files.write_bytes(path, new))
        found.add((path.read_bytes(), killed))
        files.sweep(path)
        assert list(tmp_path.iterdir()) == [path]
        if not killed:
            break
    assert found == {(old, True), (new, False)}


def test_sweeping_takes_only_what_killed_writers_of_this_file_left(tmp_path: Path) -> None:
    names = [".a[1].bin.xyz", ".b.bin.xyz", "a[1].bin", ".a1.bin.x"]
    for name in names:
        (tmp_path / name).write_text("")
    files.sweep(tmp_path / "a[1].bin")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(names[1:])


def test_folders_are_made_and_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c.txt"
    files.write_text(path, "grün")
    assert path.read_bytes() == "grün".encode()
    plain = tmp_path / "plain"
    plain.write_text("")
    assert path.stat().st_mode == plain.stat().st_mode


def test_json_holds_only_what_json_can_hold(tmp_path: Path) -> None:
    value = {
        "nan": float("nan"),
        "rows": ({"inf": float("-inf"), 3: True}, None),
        "path": Path("a/\udcff"),  # a name that is no UTF-8
        "ü": 0.1,
    }
    files.write_json(tmp_path / "x.json", value)
    text = (tmp_path / "x.json").read_text(encoding="utf-8")
    expected = {
        "nan": None,
        "rows": [{"inf": None, "3": True}, None],
        "path": "a/\udcff",
        "ü": 0.1,
    }
    assert json.loads(text) == expected
    assert text.endswith("}\n")


def test_sha256_is_that_of_the_standard(tmp_path: Path) -> None:
    """The example of FIPS 180-2, Appendix B.1."""
    (tmp_path / "x").write_bytes(b"abc")
    assert files.sha256(tmp_path / "x") == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
