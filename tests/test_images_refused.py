"""Damaged, foreign and oversized files become one sentence each, and nothing else."""

import contextlib
import errno
import io
import os
import struct
import threading
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from samples import COLOUR, RNG, save

from advrad import images
from advrad.errors import ImageError, ResourceError
from advrad.images import Preprocess, dimensions, read


def chunk(kind: bytes, content: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + check


def blank_png(side: int) -> bytes:
    """A PNG of side x side black bits, compressed a thousandfold."""
    rows = zlib.compress(bytes((side + 7) // 8 + 1) * side, 9)
    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    signature = b"\x89PNG\r\n\x1a\n"
    return signature + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [10_001, 12_000, 20_000])  # 9,459 and 13,377 are Pillow's marks
@pytest.mark.parametrize("look", [read, dimensions])
def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(
    tmp_path: Path, side: int, look: Callable[[Path], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(blank_png(side))
    assert path.stat().st_size < 60_000

    def decode(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(Image.Image, "load", decode)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", decode)
    with pytest.raises(ImageError, match="more than the 100,000,000 that are decoded") as error:
        look(path)
    assert error.value.path == path


def test_a_large_picture_below_the_limit_raises_no_warning(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    path.write_bytes(blank_png(9_500))  # Pillow warns from 89 million on
    assert dimensions(path) == (9_500, 9_500, "1")


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp"])
def test_a_file_cut_short_anywhere_is_refused(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"x.{suffix}", np.kron(COLOUR, np.ones((2, 2, 1))).astype(np.uint8))
    whole, x = path.read_bytes(), read(path)
    reasons = []
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        try:
            assert torch.equal(read(path), x), length  # only the end mark was lost
        except ImageError as error:
            reasons.append(str(error))
    assert len(reasons) >= len(whole) - 20
    for reason in reasons:
        assert str(path) in reason
        assert "copy or save it again" in reason or "no readable image" in reason


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "group4"])
def test_a_compressed_tiff_cut_short_is_refused_in_silence(
    tmp_path: Path, compression: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.tif"
    picture = Image.fromarray(RNG.integers(0, 256, (45, 63), dtype=np.uint8))
    picture.convert("1" if compression == "group4" else "L").save(path, compression=compression)
    whole = path.read_bytes()
    for length in (10, len(whole) // 3, len(whole) // 2, len(whole) - 200):
        path.write_bytes(whole[:length])
        with pytest.raises(ImageError):
            read(path)
    assert capfd.readouterr().err == ""


@given(st.data())
def test_a_damaged_byte_is_read_or_refused_and_nothing_else(data: st.DataObject) -> None:
    suffix = data.draw(st.sampled_from(["png", "jpg", "tif", "bmp"]))
    file = io.BytesIO()
    Image.fromarray(COLOUR).save(file, {"jpg": "jpeg", "tif": "tiff"}.get(suffix, suffix))
    content = bytearray(file.getvalue())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"damaged.{suffix}"
        path.write_bytes(content)
        with contextlib.suppress(ImageError):
            x = read(path)
            assert x.min() >= 0
            assert x.max() <= 1


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "empty (0 bytes)"),
        (b"not a picture, just words\n" * 9, "no readable image; expected PNG, JPEG, BMP, TIFF"),
        (b"GIF89a" + bytes(50), "no readable image"),
    ],
)
def test_what_is_no_image_is_refused(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(content)
    for look in (read, dimensions, Preprocess(8, 1)):
        with pytest.raises(ImageError) as error:
            look(path)
        assert why in error.value.why
        assert error.value.path == path


def test_a_file_of_a_format_not_asked_for_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "x.png", COLOUR, format="GIF")
    with pytest.raises(ImageError, match="no readable image"):
        read(path)


def test_what_is_missing_or_no_file_is_refused(tmp_path: Path) -> None:
    for look in (read, dimensions, images.fingerprint):
        with pytest.raises(ImageError, match="no such file"):
            look(tmp_path / "x.png")
    with pytest.raises(ImageError, match="this is no file"):
        read(tmp_path)
    os.mkfifo(tmp_path / "pipe.png")
    for look in (read, dimensions, images.fingerprint, Preprocess(8, 1)):
        with pytest.raises(ImageError, match="this is no file"):
            look(tmp_path / "pipe.png")


def test_memory_that_the_size_takes_is_not_blamed_on_the_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    path = save(tmp_path / "x.png", COLOUR)
    monkeypatch.setattr(images, "resize", fail)
    with pytest.raises(ResourceError, match="brought to 4000 x 4000 px: lower the setting `size`"):
        Preprocess(4000, 1)(path)


@pytest.mark.parametrize(
    ("error", "kind", "why"),
    [
        (PermissionError(errno.EACCES, "Permission denied"), ImageError, "may not be read"),
        (OSError(errno.EIO, "Input/output error"), ImageError, "Input/output error"),
        (MemoryError(), ResourceError, "scale it down"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), ResourceError, "memory"),
    ],
)
def test_what_the_machine_refuses_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type, why: str
) -> None:
    path = save(tmp_path / "x.png", COLOUR)

    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr(images.ImageOps, "exif_transpose", refuse)
    with pytest.raises(kind, match=why) as told:
        read(path)
    assert str(path) in str(told.value)


def test_pillow_is_quiet_and_other_warnings_are_not(tmp_path: Path) -> None:
    before = list(warnings.filters)
    path = save(tmp_path / "x.png", COLOUR)
    with images._opened(path), pytest.warns(UserWarning, match="someone else"):
        warnings.warn("someone else", stacklevel=1)
    assert warnings.filters == before


def test_pillow_stays_quiet_until_the_last_reader_has_left() -> None:
    before = list(warnings.filters)
    first, second = threading.Event(), threading.Event()

    def stay() -> None:
        with images._quiet:
            first.set()
            assert second.wait(10)

    other = threading.Thread(target=stay)
    with images._quiet:
        other.start()
        assert first.wait(10)
    warnings.warn_explicit("a bomb", UserWarning, "Image.py", 1, module="PIL.Image")
    second.set()
    other.join()
    assert warnings.filters == before
    with pytest.warns(UserWarning, match="a bomb"):
        warnings.warn_explicit("a bomb", UserWarning, "Image.py", 1, module="PIL.Image")
