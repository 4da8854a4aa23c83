"""Images on disk, purified: the attack taken out of a file, whatever is to look at it next."""

import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..data.walk import image_files
from ..errors import DataError, ImageError, UsageError
from ..images import fingerprint, read, software, to_channels, write_png
from ..noise import PerImage
from ..purifiers import Purifier

MARK = "advrad purified"


class Place(NamedTuple):
    """An image, and where it goes."""

    path: Path
    target: Path


def planned(paths: Sequence[Path], out: Path) -> list[Place]:
    """Every image with its target: the same name, below a folder the same way, as a PNG.

    Raises DataError where there is nothing to read, UsageError where two images have one target
    or a file that was not written by this would be replaced.
    """
    found: dict[Path, Path] = {}
    for given in paths:
        if given.is_dir() and out.resolve().is_relative_to(given.resolve()):
            raise UsageError(
                f"{out} lies in {given}, whose images are read: name a folder outside of it"
            )
        for path in image_files([given]):
            inside = path.relative_to(given) if given.is_dir() else Path(path.name)
            target = (out / inside).with_suffix(".png")
            if target in found and found[target] != path:
                raise UsageError(
                    f"{path} and {found[target]} would both be written to {target}: purify them "
                    "into two folders"
                )
            found[target] = path
    for target in found:
        if target.exists() and not _ours(target):
            raise UsageError(f"{target} was not written by this command: name another --out")
    return [Place(path, target) for target, path in found.items()]


def applied(
    purify: Purifier,
    places: Sequence[Place],
    shape: tuple[int, int, int],
    *,
    seed: int | None = None,
    batch: int = 16,
    device: str = "cpu",
) -> Iterator[dict[str, Any]]:
    """Purifies and writes, a batch at a time; a row for each image: path, target, how much moved.

    Arguments:
        purify: images (B, C, H, W) in [0, 1].
        shape: (C, H, W) of the images that it takes.
        seed: of the noise, which belongs to each image's content; None draws one that nobody
            learns, as whoever knows the noise can undo its work.

    Raises ImageError for a file that is no image, DataError for an image of another size.
    """
    secret = secrets.randbits(62) if seed is None else seed
    for start in range(0, len(places), batch):
        some = places[start : start + batch]
        x = torch.stack([_image(place.path, shape) for place in some]).to(device)
        ids = [fingerprint(place.path) for place in some]
        with torch.no_grad():
            purified = purify(x, PerImage(secret, ids))
        for place, name, before, after in zip(some, ids, x, purified, strict=True):
            write_png(place.target, after, software=MARK)
            moved = (after - before).abs()
            yield {
                "path": str(place.path),
                "purified": str(place.target),
                "sha256": name,
                "largest_change": float(moved.max()),
                "mean_change": float(moved.mean()),
            }


def _image(path: Path, shape: tuple[int, int, int]) -> Tensor:
    x = to_channels(read(path), shape[0])
    if tuple(x.shape) != shape:
        raise DataError(
            f"{path} has {x.shape[2]} x {x.shape[1]} pixels, and the purifier's model takes "
            f"{shape[2]} x {shape[1]}: bring the image to that size, or train a model for this"
        )
    return x


def _ours(path: Path) -> bool:
    try:
        return not path.is_symlink() and software(path) == MARK
    except ImageError:
        return False
