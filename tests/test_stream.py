"""A set of images reads what is asked for, keeps what the budget allows, and tells what is bad."""

import os
import resource
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from advrad import images as files
from advrad.data import stream
from advrad.data.items import Item
from advrad.data.stream import OVERHEAD, Images, batches
from advrad.errors import DataError, ImageError
from advrad.images import Preprocess, read, write_png

SMALL = Preprocess(size=4, channels=1)


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """Five different images of 4 x 4."""
    found = [tmp_path / f"{number}.png" for number in range(5)]
    for path in found:
        write_png(path, torch.rand(1, 4, 4))
    return found


@pytest.fixture
def items(paths: list[Path]) -> list[Item]:
    return [Item(path, defect=number > 2) for number, path in enumerate(paths)]


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The paths that were decoded, in order."""
    seen: list[Path] = []

    def noted(path: Path) -> torch.Tensor:
        seen.append(path)
        return read(path)

    monkeypatch.setattr(files, "read", noted)
    return seen


def test_images_come_by_number(items: list[Item]) -> None:
    images = Images(items, SMALL)
    assert len(images) == 5
    assert images.labels == [False, False, False, True, True]
    assert images.items == tuple(items)
    for number, x in enumerate(images):
        assert torch.equal(x, read(items[number].path))
    assert torch.equal(images[-1], images[4])
    with pytest.raises(IndexError):
        images[5]


def test_an_image_is_decoded_once_while_the_budget_lasts(
    items: list[Item], readings: list[Path]
) -> None:
    one = 4 * 4 * 4 + OVERHEAD
    images = Images(items, SMALL, cache_bytes=3 * one)
    first, second = list(images), list(images)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert readings == [item.path for item in items] + [item.path for item in items[3:]]
    assert images.kept_bytes == 3 * one


def test_nothing_is_decoded_before_it_is_asked_for(
    items: list[Item], readings: list[Path]
) -> None:
    assert len(Images(items, SMALL).subset([1, 2])) == 2
    assert readings == []


def test_a_result_can_be_changed_in_place(items: list[Item]) -> None:
    images = Images(items, SMALL)
    wanted = read(items[0].path)
    for _ in range(3):
        images[0].zero_()
        assert torch.equal(images[0], wanted)


def test_parts_share_what_is_kept(items: list[Item], readings: list[Path]) -> None:
    images = Images(items, SMALL)
    part = images.subset([4, 1, -1])
    assert [item.path for item in part.items] == [items[i].path for i in (4, 1, 4)]
    assert part.labels == [True, False, True]
    assert part.ids[1] == images.ids[1]
    list(part)
    list(images)
    assert len(readings) == 5
    assert part.kept_bytes == images.kept_bytes
    sliced = images[1:4]
    assert sliced.items == images.items[1:4]
    assert torch.equal(sliced[0], images[1])


def test_ids_are_computed_when_asked_for_and_once_per_file(
    items: list[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[Path] = []

    def noted(path: Path) -> str:
        hashed.append(path)
        return files.fingerprint(path)

    monkeypatch.setattr(stream, "fingerprint", noted)
    images = Images(items * 3, SMALL)
    assert hashed == []
    assert images.ids[7] == files.fingerprint(items[2].path)
    assert hashed == [items[2].path]
    assert list(images.ids) == [files.fingerprint(item.path) for item in items] * 3
    assert images.ids[1:3] == [images.ids[1], images.ids[2]]
    assert len(images.ids) == 15
    assert len(hashed) == 5


def test_a_bad_image_is_named_when_it_is_read(items: list[Item]) -> None:
    items[2].path.write_bytes(b"")
    images = Images(items, SMALL)
    assert images[1].shape == (1, 4, 4)
    with pytest.raises(ImageError, match=r"2\.png.*empty"):
        images[2]


def test_bad_images_are_left_out_and_listed(items: list[Item], readings: list[Path]) -> None:
    items[0].path.write_bytes(b"")
    items[3].path.write_bytes(items[3].path.read_bytes()[:60])
    images = Images(items * 2, SMALL, skip_bad=True)
    assert [item.path for item in images.items] == [items[i].path for i in (1, 2, 4, 1, 2, 4)]
    assert images.labels == [False, False, True] * 2
    assert [path for path, _ in images.skipped] == [items[i].path for i in (0, 3, 0, 3)]
    assert "empty" in images.skipped[0][1]
    assert len(images) + len(images.skipped) == 10
    assert len(readings) == 5
    list(images)
    assert len(readings) == 5  # the check has filled the cache


def test_good_images_are_not_left_out(items: list[Item]) -> None:
    images = Images(items, SMALL, skip_bad=True)
    assert len(images) == 5
    assert images.skipped == []
    assert len(Images([], SMALL, skip_bad=True)) == 0


def test_a_set_of_bad_images_only_is_refused(items: list[Item]) -> None:
    for item in items:
        item.path.write_bytes(b"words")
    with pytest.raises(DataError, match=r"none of 5 images can be read; the first, .*0\.png"):
        Images(items, SMALL, skip_bad=True)


def test_masks_follow_their_images(tmp_path: Path, paths: list[Path]) -> None:
    mask = tmp_path / "mask.png"
    write_png(mask, torch.eye(4))
    images = Images([Item(paths[0], False), Item(paths[1], True, mask, "scratch")], SMALL)
    assert images.mask(0) is None
    found = images.mask(1)
    assert found is not None
    assert torch.equal(found, torch.eye(4).bool())
    assert torch.equal(images.subset([1]).mask(0), found)  # type: ignore[arg-type]


def test_a_mask_of_another_size_names_both_files(tmp_path: Path, paths: list[Path]) -> None:
    mask = tmp_path / "mask.png"
    write_png(mask, torch.zeros(3, 5))
    images = Images([Item(paths[1], True, mask)], SMALL)
    with pytest.raises(DataError, match=r"mask\.png has 5 x 3 .*1\.png 4 x 4"):
        images.mask(0)


def test_a_mask_is_compared_with_the_upright_image(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (6, 3)).save(tmp_path / "x.jpg", exif=exif)  # upright: 3 wide, 6 high
    write_png(tmp_path / "upright.png", torch.ones(6, 3))
    write_png(tmp_path / "stored.png", torch.ones(3, 6))
    items = [Item(tmp_path / "x.jpg", True, tmp_path / f"{m}.png") for m in ("upright", "stored")]
    images = Images(items, SMALL)
    found = images.mask(0)
    assert found is not None
    assert found.all()
    with pytest.raises(DataError, match=r"6 x 3 pixels, .*3 x 6"):
        images.mask(1)


def test_an_unreadable_mask_is_named(tmp_path: Path, paths: list[Path]) -> None:
    mask = tmp_path / "mask.png"
    mask.write_bytes(b"")
    with pytest.raises(ImageError, match=r"mask\.png"):
        Images([Item(paths[0], True, mask)], SMALL).mask(0)


@pytest.mark.parametrize(("size", "wanted"), [(1, [1] * 5), (2, [2, 2, 1]), (5, [5]), (9, [5])])
def test_batches_are_one_pass_in_order(items: list[Item], size: int, wanted: list[int]) -> None:
    images = Images(items, SMALL)
    found = list(batches(images, size))
    assert [len(batch) for batch in found] == wanted
    assert torch.equal(torch.cat(found), torch.stack(list(images)))


def test_batches_are_not_empty(items: list[Item]) -> None:
    assert list(batches(Images([], SMALL), 4)) == []
    with pytest.raises(ValueError, match="not 0"):
        next(batches(Images(items, SMALL), 0))


def test_twenty_thousand_images_keep_within_the_budget(tmp_path: Path, items: list[Item]) -> None:
    """Repeated files are kept once; different ones, here links, fill the budget at most."""
    many = Images(items * 4_000, SMALL)
    assert sum(len(batch) for batch in batches(many, 64)) == 20_000
    assert many.kept_bytes == 5 * (4 * 4 * 4 + OVERHEAD)
    links = [tmp_path / f"link{number}.png" for number in range(300)]
    for link in links:
        os.link(items[0].path, link)
    budget = 100_000
    linked = Images([Item(link, False) for link in links], SMALL, cache_bytes=budget)
    for batch in batches(linked, 64):
        assert torch.equal(batch, linked[0].expand_as(batch))
        assert linked.kept_bytes <= budget
    assert linked.kept_bytes > 0.9 * budget


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in other units elsewhere")
def test_without_a_budget_a_pass_holds_one_batch(items: list[Item]) -> None:
    large = Images(items * 300, Preprocess(size=160, channels=3), cache_bytes=0)  # 440 MiB in all
    next(batches(large, 16))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in batches(large, 16):
        pass
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60 * 1024
    assert large.kept_bytes == 0
