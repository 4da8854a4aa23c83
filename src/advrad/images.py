"""From image files to tensors and back; the only file that knows Pillow.

An image is float32 (C, H, W) in [0, 1], C = 1 for grey or 3 for colour. Grey keeps 8 or 16 bits;
of colour with 16 bits a channel Pillow keeps the upper 8. The EXIF orientation is applied, alpha
is dropped, palettes and inks become RGB; of a file with several pictures the first one counts.

What a file says of itself is not believed: its content, not its suffix, decides the format, only
four formats are tried, the number of pixels is checked in the header before anything is decoded,
and whatever goes wrong inside a decoder is one `ImageError` with a sentence a user can act on.

There is one way to resize, antialiased bilinear, in training, prediction and evaluation alike.
"""

import io
import logging
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, PngImagePlugin, TiffImagePlugin
from PIL import UnidentifiedImageError as Unidentified
from torch import Tensor
from torch.nn.functional import interpolate

from .errors import AdvradError, DataError, ImageError, ModelError, ResourceError, UsageError
from .files import sha256, write_bytes
from .quiet import Quiet

MAX_PIXELS = 100_000_000
FORMATS = ("PNG", "JPEG", "BMP", "TIFF")
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"})
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, the weights of Pillow's own grey
RESIZE = "antialiased bilinear"


def read(path: Path) -> Tensor:
    """The image as float32 (C, H, W) in [0, 1], C = 1 or 3, upright and at its own size.

    Raises ImageError where the file is no usable image, ResourceError where memory runs out.
    """
    with _opened(path) as image:
        image.load()
        scale, negative = _scale(image), _negative(image)
        upright = ImageOps.exif_transpose(image)
        array = np.asarray(_without_alpha(upright))
        planes = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
        x = np.array(planes, dtype=np.float32, order="C")
        x /= scale
        _refuse_beyond_white(path, x, scale)
        return torch.from_numpy(1 - x if negative else x)


def dimensions(path: Path) -> tuple[int, int, str]:
    """Width, height and Pillow's mode, upright, from the header alone: nothing is decoded.

    (A PNG that states its orientation behind the pixels keeps its stored width and height.)
    """
    with _opened(path) as image:
        width, height = image.size  # a TIFF's are upright already
        known = image.format not in ("PNG", "TIFF") or "exif" in image.info
        turned = known and image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
        return (height, width, image.mode) if turned else (width, height, image.mode)


def is_image(path: Path) -> bool:
    """Whether the suffix is that of a format that can be read."""
    return path.suffix.lower() in SUFFIXES


def fingerprint(path: Path) -> str:
    """The sha256 of the file, as 64 hexadecimal digits. Raises ImageError as `read` does."""
    with _told(path):
        _regular(path)
        return sha256(path)


def resize(x: Tensor, size: int) -> Tensor:
    """The images (..., C, H, W) as (..., C, size, size): antialiased bilinear, differentiable.

    Each output pixel is a convex combination of input pixels, so that [0, 1] stays [0, 1].
    """
    height, width = x.shape[-2:]
    if height == width == size:
        return x
    flat = x.reshape(-1, 1, height, width)
    small = interpolate(flat, size=(size, size), mode="bilinear", antialias=True)
    return _within(small).reshape(*x.shape[:-2], size, size)


def to_channels(x: Tensor, channels: int) -> Tensor:
    """The images (..., 1 or 3, H, W) with `channels` of them: copies of grey, or luma (BT.601)."""
    given = x.shape[-3]
    if given == channels:
        return x
    if (given, channels) == (1, 3):
        return x.expand(*x.shape[:-3], 3, *x.shape[-2:])
    if (given, channels) == (3, 1):
        weights = torch.tensor(LUMA, dtype=x.dtype, device=x.device)
        return _within((x * weights[:, None, None]).sum(-3, keepdim=True))
    raise UsageError(f"channels can go between 1 and 3, not from {given} to {channels}")


@dataclass(frozen=True)
class Preprocess:
    """From a file to the tensor that a detector sees; part of every model.

    `size` is the side in pixels, `channels` is 1 or 3.
    """

    size: int
    channels: int

    def __post_init__(self) -> None:
        if self.size < 1 or self.channels not in (1, 3):
            given = f"size {self.size} and {self.channels} channels cannot be delivered"
            raise UsageError(f"{given}; expected a size of at least 1 and 1 or 3 channels")

    def __call__(self, path: Path) -> Tensor:
        """The image as float32 (channels, size, size) in [0, 1]. Raises as `read` does."""
        x = read(path)
        with _told(path, f"brought to {self.size} x {self.size} px: lower the setting `size`"):
            return to_channels(resize(x, self.size), self.channels).contiguous()

    def mask(self, path: Path, shape: tuple[int, int], of: Path | None = None) -> Tensor:
        """Where the defect is, (size, size) as bool: pixels of which it covers more than half.

        `shape` is the height and width of the mask's image and `of` its path, for the message.
        The defect is what is brighter than half; in a mask that stays below half throughout,
        which holds labels or 0 and 1, it is what is not zero. Raises DataError where the mask has
        another size than its image, else as `read` does.
        """
        with _told(path):
            values = read(path).amax(0)
            if values.shape != shape:
                height, width = values.shape
                raise DataError(
                    f"the mask {path} has {width} x {height} pixels, its image {of or ''} "
                    f"{shape[1]} x {shape[0]}: a mask must have the size of its image"
                )
            defect = values > (0.5 if values.max() > 0.5 else 0)
            return resize(defect[None].float(), self.size)[0] > 0.5

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a model's folder; `from_dict` takes them back."""
        return {"size": self.size, "channels": self.channels, "resize": RESIZE}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Preprocess":
        """The preprocessing that `as_dict` described. Raises ModelError for any other."""
        wanted = {"size": int, "channels": int, "resize": str}
        kinds = {name: type(value) for name, value in values.items()}
        if kinds != wanted or values["resize"] != RESIZE:
            raise ModelError(
                f"the model's preprocessing is {values}; this version knows size, channels and "
                f"resize = {RESIZE!r}: use the version of advrad that trained it, or train again"
            )
        return cls(values["size"], values["channels"])


def png_bytes(x: Tensor, software: str = "") -> bytes:
    """The image (C, H, W) or (H, W) as a PNG of 8 bits; what leaves [0, 1] is clipped.

    `software` is written into it as its maker.
    """
    planes = x.detach().cpu().float()
    planes = planes[None] if planes.ndim == 2 else planes
    if planes.ndim != 3 or len(planes) not in (1, 3) or not planes.isfinite().all():
        raise ValueError(f"a finite (1 or 3, H, W) or (H, W) is needed, not {tuple(x.shape)}")
    levels = (planes.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0)
    file, words = io.BytesIO(), PngImagePlugin.PngInfo()
    if software:
        words.add_text("Software", software)
    Image.fromarray(levels.squeeze(-1).numpy()).save(file, "PNG", pnginfo=words)
    return file.getvalue()


def software(path: Path) -> str | None:
    """What a PNG says of its maker. Raises ImageError as `read` does."""
    with _opened(path) as image:
        return image.info.get("Software")


def write_png(path: Path, x: Tensor, software: str = "") -> None:
    """Puts the image at `path` as a PNG, whole or not at all. Raises ResourceError."""
    try:
        write_bytes(path, png_bytes(x, software))
    except OSError as error:
        why = f"it cannot be written ({error.strerror}): choose another folder"
        raise ResourceError(f"{path}: {why}") from error


_quiet = Quiet("PIL")
_READING = "read: close other programs, hold fewer images at once, or scale it down"
_TOO_MANY = f"more than the {MAX_PIXELS:,} that are decoded: scale it down or cut it up"


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The picture with its header read and its number of pixels accepted, not yet decoded."""
    with _told(path), _quiet:
        if _regular(path).st_size == 0:
            raise ImageError(path, "the file is empty (0 bytes): copy or save it again")
        with path.open("rb") as file, Image.open(file, formats=FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise ImageError(path, f"{width} x {height} pixels are {_TOO_MANY}")
            if 32 in (_tag(image, TiffImagePlugin.BITSPERSAMPLE) or ()) and image.mode != "F":
                raise ImageError(path, "its whole numbers have 32 bits: save it with 8 or 16")
            yield image


def _regular(path: Path) -> os.stat_result:
    """The file's status. Raises ImageError for what is none: reading a pipe would hang."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ImageError(path, "this is no file")
    return status


@contextmanager
def _told(path: Path, doing: str = _READING) -> Iterator[None]:
    """Turns whatever goes wrong with a file into one sentence about that file."""
    try:
        yield
    except AdvradError:
        raise
    except Exception as error:  # decoders of damaged files raise anything at all
        if isinstance(error, MemoryError) or "allocate memory" in str(error):
            raise ResourceError(f"{path}: memory ran out while it was {doing}") from error
        raise ImageError(path, _why(error)) from error


def _why(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, PermissionError):
        return "it may not be read: give yourself the permission to read it"
    if isinstance(error, Unidentified):
        return f"this is no readable image; expected {', '.join(FORMATS)} by content, not by name"
    if isinstance(error, Image.DecompressionBombError):
        return f"its pixels are {_TOO_MANY}"
    if isinstance(error, OSError) and error.strerror:
        return f"it cannot be read ({error.strerror})"
    return f"the file is damaged or cut short ({error}): copy or save it again"


def _scale(image: Image.Image) -> int:
    """The stored value that stands for white."""
    if image.mode.startswith("I"):
        return 4095 if _tag(image, TiffImagePlugin.BITSPERSAMPLE) == (12,) else 65535
    return 1 if image.mode == "F" else 255


def _negative(image: Image.Image) -> bool:
    """Whether zero is white and Pillow left it so, as it does in a TIFF of 16 bits or floats."""
    return image.mode[0] in "IF" and _tag(image, TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0


def _tag(image: Image.Image, number: int) -> Any:
    return image.tag_v2.get(number) if isinstance(image, TiffImagePlugin.TiffImageFile) else None


def _refuse_beyond_white(path: Path, x: NDArray[np.float32], scale: int) -> None:
    low, high = x.min(), x.max()
    if not (low >= 0 and high <= 1):  # NaN as well
        given = f"its values run from {low * scale:g} to {high * scale:g}; expected 0 to {scale}"
        raise ImageError(path, f"{given}: rescale it, or save it with 8 or 16 bits")


def _without_alpha(image: Image.Image) -> Image.Image:
    """The picture in grey or RGB: no palette, no inks, no alpha."""
    if image.mode in ("RGBA", "LA", "RGBa", "La", "PA") or "transparency" in image.info:
        _say_alpha_dropped()
    if image.mode in ("L", "I", "F", "RGB") or image.mode.startswith("I;16"):
        return image
    if image.mode in ("1", "LA", "La"):
        return image.convert("LA").getchannel("L")
    return image.convert("RGBA").convert("RGB") if image.mode == "P" else image.convert("RGB")


@cache
def _say_alpha_dropped() -> None:
    logging.getLogger("advrad").warning(
        "images with transparency: the alpha channel is dropped, the colours below it are used"
    )


def _within(x: Tensor) -> Tensor:
    """`x` without the rounding that left [0, 1]; the gradient passes as if it had not been cut."""
    return x + (x.clamp(0, 1) - x).detach()
