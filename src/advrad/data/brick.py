"""The data set `brick`: crops of one photograph of a brick wall, some with injected defects.

The photograph is `skimage.data.brick()`, 512 x 512 grey. Training crops come from its left two
thirds, test crops from its right third, so that no pixel is in both; crops of one side overlap
each other. The same crops and defects come out every time.
"""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from advrad.data import defects, painted
from advrad.errors import MissingExtraError
from advrad.files import write_text
from advrad.noise import PerImage

CROP = 128
BORDER = 342  # the first column of the right third
TRAIN, GOOD, DEFECTIVE = 80, 40, 40

NOTICE = f"""\
brick: crops of a photograph of a brick wall, with painted defects and their masks.

Source: brick.png of the Python package scikit-image (skimage.data.brick), made from Bricks25 of
CC0Textures (https://cc0textures.com/view.php?tex=Bricks25), dedicated to the public domain under
Creative Commons CC0 1.0 (https://creativecommons.org/publicdomain/zero/1.0/).
Made by advrad: {CROP} px crops; train/ from columns 0 to {BORDER - 1}, test/ from columns {BORDER}
to 511. The defects are synthetic; masks cover every changed pixel.
Crops of one side overlap, so the test images are not independent.
"""


def write(folder: Path) -> None:
    """Writes the data set to the folder, in MVTec AD's layout, with a NOTICE.

    MissingExtraError where scikit-image is not installed.
    """
    photo = _photo()
    height, width = photo.shape[1:]
    rows, left = range(height - CROP + 1), range(BORDER - CROP + 1)
    right = range(BORDER, width - CROP + 1)
    for number, (row, column) in enumerate(painted.places("train", TRAIN, rows, left)):
        painted.save_good(folder, "train", number, _crop(photo, row, column))
    for number, (row, column) in enumerate(painted.places("test", GOOD, rows, right)):
        painted.save_good(folder, "test", number, _crop(photo, row, column))
    kinds = _in_turn(DEFECTIVE)
    for place, (kind, number) in zip(
        painted.places("defect", DEFECTIVE, rows, right), kinds, strict=True
    ):
        noise = PerImage(0, [f"brick/{kind}/{number}"])
        x, mask = defects.ALL[kind](_crop(photo, *place), noise)
        painted.save_defect(folder, kind, number, x, mask)
    write_text(folder / "NOTICE", NOTICE)


def _in_turn(count: int) -> Iterator[tuple[str, int]]:
    kinds = list(defects.ALL)
    for index in range(count):
        yield kinds[index % len(kinds)], index // len(kinds)


def _photo() -> Tensor:
    try:
        from skimage import data
    except ImportError as error:
        raise MissingExtraError("the data set 'brick'", "data") from error
    return torch.from_numpy(data.brick()).float()[None] / 255


def _crop(photo: Tensor, row: int, column: int) -> Tensor:
    return photo[:, row : row + CROP, column : column + CROP]
