"""Files become the tensors they hold, and tensors files, whatever the format."""

import errno
import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from samples import COLOUR, DEEP, GREY, RNG, expected, save
from torch import Tensor

from advrad import images
from advrad.errors import ImageError, ResourceError
from advrad.images import dimensions, png_bytes, read, write_png


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "TIFF"])
@pytest.mark.parametrize("array", [GREY, COLOUR], ids=["grey", "colour"])
def test_eight_bits_are_read_exactly(tmp_path: Path, suffix: str, array: np.ndarray) -> None:
    path = save(tmp_path / f"x.{suffix}", array)
    x = read(path)
    assert x.dtype == torch.float32
    assert x.is_contiguous()
    assert torch.equal(x, expected(array))
    assert dimensions(path)[:2] == (7, 5)


def test_a_jpeg_is_read_up_to_its_loss(tmp_path: Path) -> None:
    smooth = np.linspace(0, 255, 64 * 48 * 3).reshape(48, 64, 3).astype(np.uint8)
    path = save(tmp_path / "x.jpg", smooth, quality=95)
    assert (read(path) - expected(smooth)).abs().max() < 0.03


def test_the_content_decides_and_not_the_suffix(tmp_path: Path) -> None:
    path = save(tmp_path / "x.jpg", COLOUR, format="PNG")
    assert torch.equal(read(path), expected(COLOUR))


def test_sixteen_bits_of_a_png_are_kept(tmp_path: Path) -> None:
    x = read(save(tmp_path / "x.png", DEEP))
    assert torch.equal(x, expected(DEEP, 65535))
    assert not torch.equal((x * 255).round() / 255, x)  # more than 8 bits can say


@pytest.mark.parametrize("order", ["<u2", ">u2"])
@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_sixteen_bits_of_a_tiff_are_kept_in_both_byte_orders(
    tmp_path: Path, order: str, compression: str | None
) -> None:
    path = save(tmp_path / "x.tif", DEEP.astype(order), compression=compression)
    if compression is None:
        assert path.read_bytes()[:2] == (b"II" if order == "<u2" else b"MM")
    assert torch.equal(read(path), expected(DEEP, 65535))


def tiff(stored: bytes, bits: int, photometric: int, width: int, height: int) -> bytes:
    """A little-endian TIFF of one grey channel, written by hand."""
    tags = {
        256: width,
        257: height,
        258: bits,
        259: 1,
        262: photometric,
        273: 8,
        277: 1,
        278: height,
        279: len(stored),
    }
    padded = stored + b"\0" * (len(stored) % 2)
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    head = struct.pack("<2sHI", b"II", 42, 8 + len(padded))
    return head + padded + struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)


@pytest.mark.parametrize(("bits", "stored"), [(8, GREY), (16, DEEP.astype("<u2"))])
def test_a_tiff_whose_zero_is_white_is_turned(
    tmp_path: Path, bits: int, stored: np.ndarray
) -> None:
    path = tmp_path / "x.tif"
    white = 2**bits - 1
    for photometric, wanted in ((1, stored), (0, white - stored)):
        path.write_bytes(tiff(stored.tobytes(), bits, photometric, 7, 5))
        torch.testing.assert_close(read(path), expected(wanted, white), atol=1e-7, rtol=0)


def test_twelve_bits_reach_from_black_to_white(tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    path.write_bytes(tiff(bytes([0xFF, 0xF0, 0x00, 0x80, 0x0F, 0xFF]), 12, 1, 4, 1))
    levels = np.array([[0xFFF, 0x000, 0x800, 0xFFF]])
    assert torch.equal(read(path), expected(levels, 4095))


def test_integers_of_32_bits_are_refused(tmp_path: Path) -> None:
    """What is white in them nobody knows: taken as 16 bits they would be black, or too bright."""
    path = save(tmp_path / "x.tif", DEEP.astype(np.int32))
    for look in (read, dimensions):
        with pytest.raises(ImageError, match="have 32 bits: save it with 8 or 16"):
            look(path)


def test_floats_are_taken_within_0_and_1_only(tmp_path: Path) -> None:
    levels = expected(GREY)[0].numpy().copy()
    assert torch.equal(read(save(tmp_path / "x.tif", levels)), expected(GREY))
    for wrong in (-0.5, 1.5, np.nan):
        levels[2, 3] = wrong
        with pytest.raises(ImageError, match="expected 0 to 1"):
            read(save(tmp_path / "x.tif", levels))


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], int]:
    images._say_alpha_dropped.cache_clear()
    return lambda: sum("alpha" in message for message in caplog.messages)


def test_alpha_is_dropped_and_said_once(tmp_path: Path, said: Callable[[], int]) -> None:
    alpha = RNG.integers(0, 256, (5, 7, 1), dtype=np.uint8)
    assert said() == 0
    for name in ("a.png", "b.png", "c.tif"):
        path = save(tmp_path / name, np.concatenate([COLOUR, alpha], 2))
        assert torch.equal(read(path), expected(COLOUR))  # the colours, not blended with anything
    grey = np.concatenate([GREY[..., None], alpha], 2)
    assert torch.equal(read(save(tmp_path / "d.png", grey, "LA")), expected(GREY))
    assert said() == 1


def test_nothing_is_said_without_alpha(tmp_path: Path, said: Callable[[], int]) -> None:
    read(save(tmp_path / "x.png", COLOUR))
    assert said() == 0


def test_bits_are_black_and_white(tmp_path: Path) -> None:
    bits = GREY > 127
    Image.fromarray(bits).save(tmp_path / "x.png")
    assert dimensions(tmp_path / "x.png") == (7, 5, "1")
    assert torch.equal(read(tmp_path / "x.png"), expected(bits, 1))


@pytest.mark.parametrize("transparency", [None, 3, bytes(range(0, 256, 2))])
def test_a_palette_becomes_colour(
    tmp_path: Path, said: Callable[[], int], transparency: int | bytes | None
) -> None:
    indices = GREY // 2
    palette = RNG.integers(0, 256, (128, 3), dtype=np.uint8)
    image = Image.fromarray(indices, "P")
    image.putpalette(palette.tobytes())
    image.save(tmp_path / "x.png", transparency=transparency)
    assert torch.equal(read(tmp_path / "x.png"), expected(palette[indices]))
    assert said() == (transparency is not None)


def test_inks_become_colour(tmp_path: Path) -> None:
    inks = RNG.integers(0, 256, (5, 7, 4), dtype=np.uint8)
    x = read(save(tmp_path / "x.tif", inks, "CMYK"))
    cyan_magenta_yellow, black = inks[..., :3] / 255, inks[..., 3:] / 255
    mixed = (1 - cyan_magenta_yellow) * (1 - black)  # the plain rule, no colour management
    assert (x - expected(mixed, 1)).abs().max() < 2 / 255


@pytest.mark.parametrize(
    "change", [lambda a: Image.fromarray(a).convert("LAB"), lambda a: Image.fromarray(a, "YCbCr")]
)
def test_other_colour_spaces_are_read_or_refused(
    tmp_path: Path, change: Callable[[np.ndarray], Image.Image]
) -> None:
    try:
        change(COLOUR).save(tmp_path / "x.tif")
    except ValueError:
        pytest.skip("this Pillow cannot make such a file")
    assert read(tmp_path / "x.tif").shape == (3, 5, 7)


STORED = {  # how a camera stores the upright picture `a` under each orientation (EXIF 2.3, 0x0112)
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[::-1],
    7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],
    8: lambda a: a.swapaxes(0, 1)[:, ::-1],
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize(
    ("suffix", "upright"),
    [("png", COLOUR), ("png", DEEP), ("tif", COLOUR), ("tif", DEEP), ("tif", DEEP.astype(">u2"))],
)
def test_every_orientation_gives_the_upright_picture(
    tmp_path: Path, suffix: str, upright: np.ndarray, orientation: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(STORED[orientation](upright))
    path = save(tmp_path / f"x.{suffix}", stored, exif=exif)
    assert torch.equal(read(path), expected(upright, 255 if upright.dtype == np.uint8 else 65535))
    assert dimensions(path)[:2] == (7, 5)


@pytest.mark.parametrize("orientation", STORED)
def test_every_orientation_of_a_jpeg(tmp_path: Path, orientation: int) -> None:
    upright = np.kron(GREY, np.ones((8, 8))).astype(np.uint8)  # blocks survive the compression
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(STORED[orientation](upright))
    path = save(tmp_path / "x.jpg", stored, exif=exif, quality=98)
    assert (read(path) - expected(upright)).abs().max() < 0.03
    assert dimensions(path)[:2] == (56, 40)


@pytest.mark.parametrize("array", [GREY, COLOUR], ids=["grey", "colour"])
def test_what_is_written_is_read_again(tmp_path: Path, array: np.ndarray) -> None:
    x = expected(array)
    write_png(tmp_path / "new" / "x.png", x)
    assert torch.equal(read(tmp_path / "new" / "x.png"), x)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["x.png"]


def test_a_map_and_a_mask_are_written_as_grey(tmp_path: Path) -> None:
    write_png(tmp_path / "x.png", torch.tensor([[-1.0, 0.25], [1.0, 7.0]]))
    assert torch.equal(read(tmp_path / "x.png") * 255, torch.tensor([[[0.0, 64], [255, 255]]]))
    write_png(tmp_path / "x.png", torch.eye(3).bool())
    assert torch.equal(read(tmp_path / "x.png")[0], torch.eye(3))


@pytest.mark.parametrize(
    "x", [torch.zeros(2, 4, 4), torch.zeros(1, 3, 4, 4), torch.full((4, 4), torch.nan)]
)
def test_what_is_no_picture_is_not_written(x: Tensor) -> None:
    with pytest.raises(ValueError, match="is needed"):
        png_bytes(x)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    path = tmp_path / "x.png"
    write_png(path, expected(GREY))

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(ResourceError, match=r"x\.png"):
        write_png(path, expected(COLOUR))
    monkeypatch.undo()
    assert torch.equal(read(path), expected(GREY))
    assert [file.name for file in tmp_path.iterdir()] == ["x.png"]


def test_fingerprints_belong_to_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    assert images.fingerprint(path).startswith("ba7816bf8f01cfea414140de5dae2223")  # FIPS 180-4


@pytest.mark.parametrize("name", ["a.png", "a.JPG", "b.jpeg", "b.Bmp", "c.tif", "c.b.TIFF"])
def test_images_are_known_by_suffix(name: str) -> None:
    assert images.is_image(Path(name))
    assert not images.is_image(Path(name).with_suffix(".txt"))
    assert not images.is_image(Path(f"{name}.part"))
