"""Data sets by name: their counts, their splits, what they need, and the cache."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from advrad.data import CATALOGUE, cache, catalogue, entries, fetch, load, split_record
from advrad.errors import DataError, MissingExtraError, ResourceError, UsageError

ELPV = {  # (good, defects, doubtful), counted in the package's labels.csv by its authors
    "elpv-mono": (588, 313, 0),
    "elpv-poly": (920, 402, 0),
    "elpv-mono-doubtful": (588, 313, 56),
    "elpv-poly-doubtful": (920, 402, 50),
}
needs_elpv = pytest.mark.skipif(not catalogue._installed("elpv_dataset"), reason="extra [data]")


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ADVRAD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def small(folder: Path) -> None:
    for part in ("train/good", "test/good", "test/stain"):
        (folder / part).mkdir(parents=True)
        Image.new("L", (8, 8)).save(folder / part / "0.png")


def test_hazelnut() -> None:
    data = load("hazelnut_toy")
    assert (data.name, data.layout, data.drawn) == ("hazelnut_toy", "mvtec", False)
    assert (len(data.train), len(data.test)) == (28, 23)
    stained = [item for item in data.test if item.defect]
    assert [item.mask and item.mask.stem for item in stained] == [
        f"{item.path.stem}_mask" for item in stained
    ]
    assert len(stained) == 17
    assert (data.root / "NOTICE").read_text().startswith("Hazelnut toy")
    with Image.open(data.train[0].path) as picture:
        assert picture.size == (256, 256)


@needs_elpv
@pytest.mark.parametrize("name", ELPV)
def test_elpv(name: str) -> None:
    good, defects, doubtful = ELPV[name]
    data = load(name)
    kinds = [item.kind for item in data.test]
    assert len(data.train) == round(0.6 * good)
    assert kinds.count("good") == good - len(data.train)
    assert (kinds.count("defect"), kinds.count("doubtful")) == (defects, doubtful)
    assert data.drawn
    assert all(item.path.is_file() for item in (*data.train, *data.test))
    assert not {item.path for item in data.train} & {item.path for item in data.test}


@needs_elpv
def test_doubtful_cells_leave_the_good_split_alone() -> None:
    assert load("elpv-mono").train == load("elpv-mono-doubtful").train
    assert load("elpv-mono").train != load("elpv-mono", split_seed=1).train
    assert split_record(load("elpv-mono")) == split_record(load("elpv-mono"))


@needs_elpv
def test_elpv_labels_agree_with_its_own_reader() -> None:
    from elpv_dataset.utils import load_dataset

    _, probability, sort = load_dataset()
    data = load("elpv-poly-doubtful")
    kept = {item.path.name: item.kind for item in (*data.train, *data.test)}
    kinds = {0: "good", 2: "doubtful", 3: "defect"}
    for number, (p, cells) in enumerate(zip(probability, sort, strict=True), start=1):
        expected = kinds.get(round(3 * p)) if cells == "poly" else None
        assert kept.get(f"cell{number:04}.png") == expected


@pytest.mark.parametrize(
    ("word", "near"),
    [("elpv_mono", "elpv-mono"), ("Hazelnut", "hazelnut_toy"), ("bricks", "brick")],
)
def test_nearest_name(word: str, near: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for door in (load, fetch):
        with pytest.raises(UsageError, match=f"did you mean {near}\\?"):
            door(word)


def test_far_word_lists_all() -> None:
    with pytest.raises(UsageError, match="known names are hazelnut_toy, elpv-mono"):
        load("xyzzy")


@pytest.mark.parametrize("path", ["./nowhere", "no/where", "/no/where", "~/no_where", "list.csv"])
def test_a_path_that_is_not_there(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        load(path)


def test_name_wins_over_folder_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small(tmp_path / "hazelnut_toy")
    monkeypatch.chdir(tmp_path)
    assert len(load("hazelnut_toy").train) == 28
    assert "./hazelnut_toy" in load("hazelnut_toy").notes[-1]
    assert len(load("./hazelnut_toy").train) == 1


def test_named_sets_have_no_layout_or_category() -> None:
    for setting in ({"layout": "flat"}, {"category": "a"}):
        with pytest.raises(UsageError, match="its own layout"):
            load("hazelnut_toy", **setting)
    with pytest.raises(UsageError, match="split's seed"):
        load("hazelnut_toy", split_seed=-1)


@pytest.mark.parametrize("name", [*ELPV, "brick"])
def test_missing_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "find_spec", lambda package: None)
    for door in (load, fetch):
        with pytest.raises(MissingExtraError, match=r"pip install 'advrad\[data\]'"):
            door(name)
    entry = next(entry for entry in entries() if entry.name == name)
    assert entry.missing == "pip install 'advrad[data]' (in a clone '.[data]')"
    assert not entry.ready


def test_a_missing_extra_can_come_from_a_clone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "find_spec", lambda package: None)
    with pytest.raises(MissingExtraError, match=r"in a clone  pip install -e '\.\[data\]'"):
        load("brick")


@pytest.mark.parametrize("root", ["x" * 5000, "./" + "x" * 5000, "x" * 5000 + "/y"])
def test_a_root_of_5000_characters_is_not_echoed_whole(root: str) -> None:
    with pytest.raises(DataError if "/" in root else (UsageError, DataError)) as told:
        load(root)
    assert "50" in str(told.value)
    assert len(str(told.value)) < 500


def test_list_and_fetch(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "find_spec", lambda package: package)
    monkeypatch.setattr(catalogue, "_make_brick", small)
    assert [entry.name for entry in entries()] == list(CATALOGUE)
    state = {entry.name: entry.ready for entry in entries()}
    assert state["hazelnut_toy"]
    assert not state["brick"]
    assert not empty_cache.exists()
    fetched = fetch("brick")
    assert (fetched.folder.parent, fetched.licence) == (empty_cache, "CC0-1.0")
    assert all(entry.ready for entry in entries() if CATALOGUE[entry.name].fetched is None)
    assert len(load("brick").test) == 2


def test_cache_folder_follows_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ADVRAD_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.cache_folder() == tmp_path / ".cache/advrad"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert cache.cache_folder() == tmp_path / "x/advrad"
    monkeypatch.setenv("ADVRAD_CACHE", str(tmp_path / "a"))
    assert cache.cache_folder() == tmp_path / "a"


KILLED = """
import os, pathlib, signal
from advrad.data.cache import ensure
def make(folder: pathlib.Path) -> None:
    (folder / "half").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
ensure("thing", make)
"""


def test_a_killed_maker_leaves_nothing_that_counts(empty_cache: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED], env=os.environ, check=False)
    assert killed.returncode == -9
    assert not cache.cached("thing").exists()
    assert cache.ensure("thing", small) == empty_cache / "thing"
    assert not (empty_cache / "thing/half").exists()
    left = next(empty_cache.glob(".thing.*"))
    old = time.time() - 2 * cache.STALE
    os.utime(left, (old, old))
    cache.cached("thing").rename(empty_cache / "gone")
    cache.ensure("thing", small)
    assert not left.exists()


def test_a_failing_maker_leaves_nothing_and_may_try_again(empty_cache: Path) -> None:
    def full(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(ResourceError, match=r"No space left on device.*ADVRAD_CACHE"):
        cache.ensure("thing", full)
    assert list(empty_cache.iterdir()) == []
    assert (cache.ensure("thing", small) / "train").is_dir()


def test_two_makers_at_once(empty_cache: Path) -> None:
    def slower(folder: Path) -> None:
        cache.ensure("thing", small)
        (folder / "second").write_text("second")

    made = cache.ensure("thing", slower)
    assert (made / "train").is_dir()
    assert not (made / "second").exists()
    assert [path.name for path in empty_cache.iterdir()] == ["thing"]


def test_cache_that_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ADVRAD_CACHE", str(tmp_path / "file"))
    with pytest.raises(ResourceError, match="ADVRAD_CACHE"):
        cache.ensure("thing", small)
