"""Folders of every layout, read: what trains, what tests, which mask, and what is refused."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from advrad.data import LAYOUTS, Dataset, Item, load, split_record, with_split
from advrad.data.split import divide, draw, limit
from advrad.errors import AdvradError, DataError, UsageError


def image(path: Path, shade: int = 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 6), shade).save(path)
    return path


def mvtec(root: Path) -> Path:
    for name in ("000.png", "001.PNG", "002.jpg"):
        image(root / "train/good" / name)
    image(root / "test/good/000.png")
    for name in ("000.png", "001.png"):
        image(root / "test/scratch" / name)
    image(root / "test/hole/000.png")
    image(root / "ground_truth/scratch/000_mask.png")
    image(root / "ground_truth/hole/000.png")
    return root


def btad(root: Path) -> Path:
    image(root / "train/ok/0000.bmp")
    image(root / "test/ok/0000.bmp")
    image(root / "test/ko/0001.bmp")
    image(root / "ground_truth/ko/0001.png")
    return root


def good_defect(root: Path) -> Path:
    for number in range(10):
        image(root / f"good/{number}.png")
    image(root / "defect/a.png")
    image(root / "defect/b.png")
    image(root / "mask/a.png")
    return root


def kinds(root: Path) -> Path:
    for number in range(10):
        image(root / f"OK/{number}.png")
    image(root / "scratch/0.png")
    image(root / "stain/0.png")
    image(root / "masks/stain/0_mask.bmp")
    return root


def flat(root: Path) -> Path:
    for name in ("b.TIF", "a.jpeg", "c.bmp"):
        image(root / name)
    return root


def visa(root: Path) -> Path:
    image(root / "candle/Data/Images/Normal/0.JPG")
    image(root / "candle/Data/Images/Normal/1.JPG")
    image(root / "candle/Data/Images/Anomaly/0.JPG")
    image(root / "candle/Data/Masks/Anomaly/0.png")
    (root / "split_csv").mkdir()
    (root / "split_csv/1cls.csv").write_text(
        "object,split,label,image,mask\n"
        "candle,train,normal,candle/Data/Images/Normal/0.JPG,\n"
        "candle,test,normal,candle/Data/Images/Normal/1.JPG,\n"
        "candle,test,anomaly,candle/Data/Images/Anomaly/0.JPG,candle/Data/Masks/Anomaly/0.png\n"
        "cashew,train,normal,cashew/gone.JPG,\n"
    )
    return root


def manifest(root: Path) -> Path:
    for number in range(4):
        image(root / f"pictures/{number}.png")
    image(root / "pictures/0_mask.png")
    (root / "manifest.csv").write_text(
        "path,split,label,mask,kind\n"
        "pictures/0.png,test,NG,pictures/0_mask.png,dent\n"
        "pictures/1.png,train,ok,,\n"
        "pictures/2.png,train,0,,\n"
        "pictures/3.png,test,good,,\n"
    )
    return root


WRITERS = [(mvtec, "mvtec"), (btad, "btad"), (good_defect, "good-defect"), (kinds, "good-defect")]
WRITERS += [(flat, "flat"), (manifest, "manifest")]


def names(items: tuple[Item, ...]) -> list[str]:
    return [item.path.name for item in items]


def masks(data: Dataset) -> dict[str, str | None]:
    return {
        data.relative(item.path): item.mask and data.relative(item.mask)
        for item in data.test
        if item.defect
    }


def test_mvtec(tmp_path: Path) -> None:
    data = load(str(mvtec(tmp_path / "bottle")))
    assert (data.name, data.layout, data.drawn) == ("bottle", "mvtec", False)
    assert names(data.train) == ["000.png", "001.PNG", "002.jpg"]
    assert [item.kind for item in data.test] == ["good", "hole", "scratch", "scratch"]
    assert masks(data) == {
        "test/hole/000.png": "ground_truth/hole/000.png",
        "test/scratch/000.png": "ground_truth/scratch/000_mask.png",
        "test/scratch/001.png": None,
    }


def test_btad(tmp_path: Path) -> None:
    data = load(str(btad(tmp_path / "01")))
    assert data.layout == "btad"
    assert [(item.kind, item.defect) for item in data.test] == [("ko", True), ("good", False)]
    assert masks(data) == {"test/ko/0001.bmp": "ground_truth/ko/0001.png"}


def test_good_and_defect_folders(tmp_path: Path) -> None:
    data = load(str(good_defect(tmp_path / "nuts")))
    assert (data.layout, data.drawn) == ("good-defect", True)
    assert len(data.train) == 6
    assert [item.defect for item in data.test] == [False] * 4 + [True] * 2
    assert masks(data) == {"defect/a.png": "mask/a.png", "defect/b.png": None}


def test_kinds_beside_good(tmp_path: Path) -> None:
    data = load(str(kinds(tmp_path)))
    assert {item.kind for item in data.test} == {"good", "scratch", "stain"}
    assert masks(data) == {"scratch/0.png": None, "stain/0.png": "masks/stain/0_mask.bmp"}


def test_kinds_inside_defect(tmp_path: Path) -> None:
    for number in range(5):
        image(tmp_path / f"normal/{number}.png")
    image(tmp_path / "anomaly/dent/0.png")
    image(tmp_path / "anomaly/1.png")
    image(tmp_path / "drafts/0.png")
    image(tmp_path / "ground_truth/dent/0.png")
    data = load(str(tmp_path))
    assert [item.kind for item in data.test if item.defect] == ["anomaly", "dent"]
    assert masks(data)["anomaly/dent/0.png"] == "ground_truth/dent/0.png"
    assert "drafts/: ignored" in data.notes


def test_good_alone_trains_whole(tmp_path: Path) -> None:
    for number in range(5):
        image(tmp_path / f"good/{number}.png")
    data = load(str(tmp_path))
    assert (len(data.train), data.test, data.drawn) == (5, (), False)


def test_flat(tmp_path: Path) -> None:
    data = load(str(flat(tmp_path)))
    assert (data.layout, names(data.train), data.test) == (
        "flat",
        ["a.jpeg", "b.TIF", "c.bmp"],
        (),
    )
    with pytest.raises(DataError, match="no test images"):
        data.part("test")


def test_visa(tmp_path: Path) -> None:
    data = load(str(visa(tmp_path)), category="candle")
    assert (data.name, data.layout, data.drawn) == ("candle", "visa", False)
    assert names(data.train) == ["0.JPG"]
    assert masks(data) == {"candle/Data/Images/Anomaly/0.JPG": "candle/Data/Masks/Anomaly/0.png"}
    for category in (None, "dog"):
        with pytest.raises(DataError, match="candle, cashew"):
            load(str(tmp_path), category=category)


def test_manifest_in_folder_and_as_file(tmp_path: Path) -> None:
    data = load(str(manifest(tmp_path)))
    assert (data.layout, data.drawn, names(data.train)) == ("manifest", False, ["1.png", "2.png"])
    assert [(item.kind, item.defect) for item in data.test] == [("dent", True), ("good", False)]
    assert masks(data) == {"pictures/0.png": "pictures/0_mask.png"}
    assert load(str(tmp_path / "manifest.csv")) == data


@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
def test_json_manifest_equals_csv(tmp_path: Path, suffix: str) -> None:
    expected = load(str(manifest(tmp_path)))
    entries = [
        {"path": "pictures/0.png", "split": "test", "label": 1, "mask": "pictures/0_mask.png"},
        {"path": "pictures/1.png", "split": "train", "label": 0, "mask": None},
        {"path": "pictures/2.png", "split": "train", "label": False},
        {"path": "pictures/3.png", "split": "test", "label": "normal"},
    ]
    entries[0]["kind"] = "dent"
    lines = "\n\n".join(json.dumps(entry) for entry in entries)
    (tmp_path / f"list{suffix}").write_text(lines if suffix == ".jsonl" else json.dumps(entries))
    data = load(str(tmp_path / f"list{suffix}"))
    assert (data.train, data.test, data.name) == (expected.train, expected.test, "list")


def test_manifest_of_a_spreadsheet(tmp_path: Path) -> None:
    image(tmp_path / "ä.png")
    (tmp_path / "list.csv").write_text("\ufeffPath ; Label\nä.png; Good\n", encoding="utf-8")
    assert names(load(str(tmp_path / "list.csv")).train) == ["ä.png"]


def test_manifest_without_split_is_drawn(tmp_path: Path) -> None:
    good_defect(tmp_path)
    rows = [f"good/{number}.png,good" for number in range(10)] + ["defect/a.png,defect"]
    (tmp_path / "manifest.csv").write_text("\n".join(["path,label", *rows]))
    drawn = load(str(tmp_path))
    folders = load(str(tmp_path), layout="good-defect")
    assert drawn.drawn
    assert drawn.train == folders.train


BAD_ROWS = [
    ("../out.png,train,good", "leaves the folder"),
    ("a/../in.png,train,good", "leaves the folder"),
    ("{root}/in.png,train,good", "leaves the folder"),
    ("C:\\in.png,train,good", "leaves the folder"),
    ("link.png,train,good", "symbolic link"),
    ("linked/out.png,train,good", "symbolic link"),
    ("gone.png,train,good", "does not exist"),
    ("text.txt,train,good", "no image file"),
    ("a\0b.png,train,good", "no usable path"),
    (f"{'n' * 5000}.png,train,good", "no usable path|does not exist"),
    ("in.png,train,perhaps", "'perhaps', expected good or defect"),
    ("in.png,validate,good", "'validate', expected train or test"),
    ("in.png,train,defect", "good images alone"),
    (",train,good", "no path"),
    ("in.png,train", "no label"),
    ("in.png,train,good,,,,", "more fields"),
]


@pytest.mark.parametrize(("row", "why"), BAD_ROWS)
def test_manifest_names_the_bad_line(tmp_path: Path, row: str, why: str) -> None:
    root = tmp_path / "root"
    image(root / "in.png")
    image(tmp_path / "out.png")
    (root / "text.txt").write_text("no image")
    (root / "link.png").symlink_to(tmp_path / "out.png")
    (root / "linked").symlink_to(tmp_path)
    table = "path,split,label\nin.png,train,good\n" + row.format(root=root)
    (root / "manifest.csv").write_text(table)
    with pytest.raises(DataError, match=rf"manifest\.csv, line 3: .*({why})"):
        load(str(root))


def test_manifest_accepts_a_link_that_stays_inside(tmp_path: Path) -> None:
    image(tmp_path / "in.png")
    (tmp_path / "alias.png").symlink_to("in.png")
    (tmp_path / "manifest.csv").write_text("path,label\nalias.png,good\n")
    assert names(load(str(tmp_path)).train) == ["alias.png"]


CONTRADICTIONS = [
    ("in.png,train,good\nin.png,test,good", "listed twice"),
    ("in.png,test,good\nin.png,test,defect", "listed twice"),
    ("in.png,train,good\nother.png,,good", "give all or none"),
]


@pytest.mark.parametrize(("rows", "why"), CONTRADICTIONS)
def test_manifest_that_contradicts_itself(tmp_path: Path, rows: str, why: str) -> None:
    image(tmp_path / "in.png")
    image(tmp_path / "other.png")
    (tmp_path / "manifest.csv").write_text("path,split,label\n" + rows)
    with pytest.raises(DataError, match=why):
        load(str(tmp_path))


@pytest.mark.parametrize("content", [b"\xff\xfe\x00bad", b"{}", b"[1]", b'[{"path": "a.png"}]'])
def test_broken_json_manifest(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "list.json").write_bytes(content)
    with pytest.raises(DataError, match=r"list\.json"):
        load(str(tmp_path / "list.json"))


def test_two_manifests(tmp_path: Path) -> None:
    manifest(tmp_path)
    (tmp_path / "manifest.jsonl").write_text("")
    with pytest.raises(DataError, match="keep one"):
        load(str(tmp_path))


@pytest.mark.parametrize(("write", "layout"), WRITERS)
def test_recognised_is_what_is_forced(
    tmp_path: Path, write: Callable[[Path], Path], layout: str
) -> None:
    write(tmp_path)
    assert load(str(tmp_path)).layout == layout
    assert load(str(tmp_path), layout=layout) == load(str(tmp_path))


@pytest.mark.parametrize(("write", "layout"), WRITERS)
def test_forced_but_not_so(tmp_path: Path, write: Callable[[Path], Path], layout: str) -> None:
    write(tmp_path)
    for other in set(LAYOUTS) - {layout, "flat"}:
        with pytest.raises(DataError, match=f"{other}: expected .*; found"):
            load(str(tmp_path), layout=other)


@pytest.mark.parametrize(("write", "layout"), WRITERS)
def test_order_of_creation_does_not_matter(
    tmp_path: Path, write: Callable[[Path], Path], layout: str
) -> None:
    data = load(str(write(tmp_path / "first" / "x")))
    again = tmp_path / "second" / "x"
    for path in sorted((tmp_path / "first/x").rglob("*"), reverse=True):
        if path.is_file():
            copy = again / path.relative_to(tmp_path / "first/x")
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    assert split_record(load(str(again))) == split_record(data)


def test_whole_data_set_needs_a_category(tmp_path: Path) -> None:
    mvtec(tmp_path / "bottle")
    mvtec(tmp_path / "cable")
    image(tmp_path / "logo.png")
    with pytest.raises(DataError, match="choose one of bottle, cable"):
        load(str(tmp_path))
    with pytest.raises(DataError, match="no category 'dog'; choose one of bottle, cable"):
        load(str(tmp_path), category="dog")
    assert load(str(tmp_path), category="cable") == load(str(tmp_path / "cable"))
    with pytest.raises(DataError, match="leave the category out"):
        load(str(tmp_path / "cable"), category="cable")


def test_what_is_ignored_is_counted(tmp_path: Path) -> None:
    mvtec(tmp_path)
    (tmp_path / "train/good/.hidden.png").write_bytes(b"")
    (tmp_path / "train/good/Thumbs.db").write_bytes(b"")
    image(tmp_path / "train/good/old/0.png")
    image(tmp_path / "train/scratch/0.png")
    image(tmp_path / "ground_truth/good/000_mask.png")
    data = load(str(tmp_path))
    assert len(data.train) == 3
    assert any(
        "1 hidden" in note and "1 that are no images" in note and "1 that are folders" in note
        for note in data.notes
    )
    assert "train/scratch/: ignored, training takes good images alone" in data.notes
    assert "ignored 1 masks of good images" in data.notes


def test_mask_without_image(tmp_path: Path) -> None:
    mvtec(tmp_path)
    image(tmp_path / "ground_truth/scratch/777_mask.png")
    with pytest.raises(DataError, match=r"777_mask\.png: a mask without an image"):
        load(str(tmp_path))


def test_a_good_image_of_the_same_name_does_not_excuse_a_mask(tmp_path: Path) -> None:
    mvtec(tmp_path)
    image(tmp_path / "test/good/777.png")
    image(tmp_path / "ground_truth/scratch/777_mask.png")
    with pytest.raises(DataError, match="a mask without an image"):
        load(str(tmp_path))


def test_two_masks_of_one_image(tmp_path: Path) -> None:
    mvtec(tmp_path)
    image(tmp_path / "ground_truth/scratch/000.png")
    with pytest.raises(DataError, match="two masks of"):
        load(str(tmp_path))


def test_one_mask_of_two_images(tmp_path: Path) -> None:
    kinds(tmp_path)
    image(tmp_path / "masks/0.png")
    (tmp_path / "masks/stain/0_mask.bmp").unlink()
    with pytest.raises(DataError, match="is the mask of"):
        load(str(tmp_path))


def test_nothing_there(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/.hidden").write_text("")
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/a.txt").write_text("a")
    image(tmp_path / "defects/defect/0.png")
    (tmp_path / "defects/good").mkdir()
    image(tmp_path / "photo.png")
    for name, why in {
        "empty": "is empty",
        "texts": "no known layout: found no folders; 0 images; 1 other files",
        "defects": "no good images, 1 defects",
        "missing": "does not exist",
        "photo.png": "is a file",
    }.items():
        with pytest.raises(DataError, match=why) as refused:
            load(str(tmp_path / name))
        assert refused.value.exit_code == 3


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_folder_that_may_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0)
    with pytest.raises(DataError, match="cannot be listed"):
        load(str(tmp_path / "locked"))


def test_unknown_layout_and_seed(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no layout 'coco'.*mvtec.*flat"):
        load(str(tmp_path), layout="coco")
    with pytest.raises(UsageError, match="split's seed"):
        load(str(tmp_path), split_seed=-1)


def test_splits_differ_by_seed_alone(tmp_path: Path) -> None:
    good_defect(tmp_path)
    records = [split_record(load(str(tmp_path), split_seed=seed)) for seed in (0, 0, 1)]
    assert records[0] == records[1]
    assert records[0]["train"] != records[2]["train"]
    assert json.loads(json.dumps(records[2])) == records[2]
    assert (records[2]["split_seed"], records[2]["drawn"]) == (1, True)


def test_a_split_is_read_back(tmp_path: Path) -> None:
    good_defect(tmp_path)
    wanted = load(str(tmp_path), split_seed=3)
    record = json.loads(json.dumps(split_record(wanted)))
    image(tmp_path / "good/new.png")
    again = with_split(load(str(tmp_path)), record)
    assert (again.train, again.test, again.split_seed) == (wanted.train, wanted.test, 3)
    assert "left out 1 images" in again.notes[-1]
    (tmp_path / "good/0.png").unlink()
    with pytest.raises(DataError, match=r"names good/0\.png"):
        with_split(load(str(tmp_path)), record)


PINNED = [0, 1, 3, 4, 5, 6]


def test_drawn_split_pinned() -> None:
    """A published split must never change: the ranks are sha256 of "seed/name"."""
    names = [f"good/{number}.png" for number in range(10)]
    assert draw(names, 0) == (PINNED, sorted(set(range(10)) - set(PINNED)))
    assert draw(names[::-1], 0)[0] == sorted(9 - i for i in PINNED)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 100])
def test_drawn_split_covers_all(count: int) -> None:
    train, test = draw([str(i) for i in range(count)], 0)
    assert sorted(train + test) == list(range(count))
    assert len(train) == {0: 0, 1: 1, 2: 1, 3: 2, 5: 3, 100: 60}[count]


def test_one_more_image_moves_few() -> None:
    names = [str(i) for i in range(100)]
    before, after = set(draw(names, 0)[0]), set(draw([*names, "new"], 0)[0])
    assert len(before ^ after) <= 2


@pytest.mark.parametrize(
    ("count", "sizes"),
    [
        (1, (1, 1, 1)),
        (3, (3, 3, 3)),
        (4, (3, 1, 1)),
        (15, (12, 3, 3)),
        (16, (8, 8, 8)),
        (28, (20, 8, 8)),
        (59, (50, 9, 9)),
        (60, (45, 6, 9)),
        (353, (265, 35, 53)),
    ],
)
def test_divide(count: int, sizes: tuple[int, int, int]) -> None:
    parts = divide(count, 5)
    everything = {*parts.train, *parts.tune, *parts.calibrate}
    assert everything == set(range(count))
    assert (len(parts.train), len(parts.tune), len(parts.calibrate)) == sizes
    assert all(list(part) == sorted(set(part)) for part in (parts.train, parts.tune))
    assert parts.approximate == bool(set(parts.tune) & set(parts.calibrate)) == (count < 60)
    assert count < 4 or not set(parts.train) & {*parts.tune, *parts.calibrate}
    assert parts == divide(count, 5)
    assert count < 4 or parts != divide(count, 6)


def test_divide_nothing() -> None:
    with pytest.raises(DataError, match="no good images"):
        divide(0, 0)


@pytest.mark.parametrize(
    ("good", "defect", "count", "kept"),
    [
        (50, 50, 10, (5, 5)),
        (50, 2, 10, (8, 2)),
        (3, 50, 10, (3, 7)),
        (50, 0, 10, (10, 0)),
        (2, 2, 10, (2, 2)),
        (5, 5, 0, (0, 0)),
        (5, 5, 3, (2, 1)),
    ],
)
def test_limit(good: int, defect: int, count: int, kept: tuple[int, int]) -> None:
    items = [Item(Path(f"{i}.png"), i >= good) for i in range(good + defect)]
    few = limit(items, count, 0)
    defects = sum(item.defect for item in few)
    assert (len(few) - defects, defects) == kept
    assert list(few) == sorted(few, key=items.index)


@pytest.mark.parametrize("root", ["", "no_such_word"])
def test_words_are_usage_errors(root: str) -> None:
    with pytest.raises(AdvradError) as refused:
        load(root)
    assert refused.value.exit_code == 2


def test_a_manifest_without_rows_is_said_to_list_no_images(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("path,label\n")
    with pytest.raises(DataError, match=r"lists no images: expected one row"):
        load(tmp_path)
