"""Heat maps of a prediction, one PNG an image, all on one colour scale.

Each carries a mark, so that a later run replaces heat maps and nobody's photographs.
"""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ..errors import ImageError, UsageError
from ..files import full_disk_told
from ..images import read, software, write_png
from .pictures import overlay

SIDE = 1024  # no heat map is larger
MARK = "advrad heat map"
DIGITS = 8  # of the sha256, where two images have one name


def span(threshold: float) -> tuple[float, float]:
    """The two ends of the colour scale: from 0 to twice the threshold, which is in the middle."""
    return (0.0, 2 * threshold) if threshold > 0 else (threshold - 1, threshold + 1)


class HeatMaps:
    """Writes heat maps into a folder, under the images' names.

    Images of one name in several folders are told apart by the start of their sha256. `given`
    are the folders that the images are read from. Raises UsageError, before anything is written,
    where the folder lies in one of those, or where a heat map would replace what is none.
    """

    def __init__(
        self, folder: Path, paths: Sequence[Path], threshold: float, given: Sequence[Path] = ()
    ) -> None:
        self.taken = Counter(path.stem.casefold() for path in paths)
        _refuse_among_inputs(folder, given)
        self._refuse_foreign(folder, paths)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise UsageError(
                f"{folder} cannot hold heat maps, a file is in the way: name a folder"
            ) from error
        self.folder = folder
        self.low, self.high = span(threshold)

    def write(self, path: Path, digest: str, anomaly: Tensor) -> Path:
        """Writes the map (H, W) over the image at `path`, and says where."""
        image = read(path)
        side = min(1.0, SIDE / max(image.shape[-2:]))
        size = [max(1, round(length * side)) for length in image.shape[-2:]]
        image = interpolate(image[None], size, mode="bilinear", antialias=True)[0].clamp(0, 1)
        fitted = interpolate(anomaly[None, None], size, mode="bilinear")[0, 0]
        alone = self.taken[path.stem.casefold()] == 1
        target = self.folder / f"{path.stem if alone else f'{path.stem}-{digest[:DIGITS]}'}.png"
        with torch.no_grad(), full_disk_told(target, image.numel()):
            write_png(target, overlay(image, fitted, self.low, self.high), software=MARK)
        return target

    def _refuse_foreign(self, folder: Path, paths: Sequence[Path]) -> None:
        inputs = {path.resolve() for path in paths}
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            stem = path.stem.casefold()
            twin = re.sub(rf"-[0-9a-f]{{{DIGITS}}}$", "", stem)
            target = self.taken[stem] == 1 or (twin != stem and self.taken[twin] > 1)
            if not target or path.suffix.casefold() != ".png":
                continue
            if path.resolve() in inputs or not is_heat_map(path):
                raise UsageError(
                    f"{path} is no heat map, or is one of the images, and would be overwritten by "
                    "a heat map: name another folder, as --heatmaps heat/"
                )


def is_heat_map(path: Path) -> bool:
    """Whether the file was written by `HeatMaps`."""
    try:
        return not path.is_symlink() and software(path) == MARK
    except ImageError:
        return False


def _refuse_among_inputs(folder: Path, given: Sequence[Path]) -> None:
    """Heat maps among the images would be images of the next run."""
    for path in given:
        if path.is_dir() and folder.resolve().is_relative_to(path.resolve()):
            raise UsageError(
                f"the heat maps' folder {folder} lies in {path}, whose images are read, so that "
                "the next run would take heat maps for images: name a folder outside of it"
            )
