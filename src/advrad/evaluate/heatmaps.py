"""Heat maps of a prediction, one PNG an image, all on one colour scale."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ..errors import UsageError
from ..files import full_disk_told
from ..images import read, write_png
from .pictures import overlay

SIDE = 1024  # no heat map is larger


def span(threshold: float) -> tuple[float, float]:
    """The two ends of the colour scale: from 0 to twice the threshold, which is in the middle."""
    return (0.0, 2 * threshold) if threshold > 0 else (threshold - 1, threshold + 1)


class HeatMaps:
    """Writes heat maps into a folder, under the images' names.

    Images of one name in several folders are told apart by the start of their sha256.
    """

    def __init__(self, folder: Path, paths: Sequence[Path], threshold: float) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise UsageError(
                f"{folder} cannot hold heat maps, a file is in the way: name a folder"
            ) from error
        self.folder = folder
        self.low, self.high = span(threshold)
        self.taken = Counter(path.stem.casefold() for path in paths)

    def write(self, path: Path, digest: str, anomaly: Tensor) -> Path:
        """Writes the map (H, W) over the image at `path`, and says where."""
        image = read(path)
        side = min(1.0, SIDE / max(image.shape[-2:]))
        size = [max(1, round(length * side)) for length in image.shape[-2:]]
        image = interpolate(image[None], size, mode="bilinear", antialias=True)[0].clamp(0, 1)
        fitted = interpolate(anomaly[None, None], size, mode="bilinear")[0, 0]
        alone = self.taken[path.stem.casefold()] == 1
        target = self.folder / f"{path.stem if alone else f'{path.stem}-{digest[:8]}'}.png"
        with torch.no_grad(), full_disk_told(target, image.numel()):
            write_png(target, overlay(image, fitted, self.low, self.high))
        return target
