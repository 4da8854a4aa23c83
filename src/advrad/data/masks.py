"""Which mask belongs to which defect.

A mask carries its image's stem, or the stem and `_mask`, and lies in the mask folder itself or
below it in folders named like those of its image: `ground_truth/scratch/007_mask.png`,
`masks/scratch/007.bmp` and `mask/007.png` all suit `.../scratch/007.jpg`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from advrad.data.items import Item
from advrad.data.listing import listing
from advrad.errors import DataError

Key = tuple[tuple[str, ...], str]  # (folders below the mask folder, stem), in lower case


def with_masks(
    items: Sequence[Item], images: Path, masks: Path | None, notes: list[str]
) -> tuple[Item, ...]:
    """The items, each defect with its mask where `masks` has one.

    `images` is the folder that the images' relative paths start from. DataError for a mask
    without an image, two masks of one image, and one mask of two images.
    """
    if masks is None:
        return tuple(items)
    known = _index(masks)
    owner: dict[Path, Path] = {}
    result = []
    for item in items:
        mask = _mask_of(item, images, known) if item.defect else None
        if mask is not None and owner.setdefault(mask, item.path) != item.path:
            raise DataError(
                f"{mask}: is the mask of {owner[mask]} and of {item.path}: "
                f"put the masks in one folder for each kind of defect"
            )
        result.append(replace(item, mask=mask))
    _account(known, owner, [item for item in items if not item.defect], images, notes)
    return tuple(result)


def _index(masks: Path) -> dict[Key, Path]:
    known: dict[Key, Path] = {}
    for path in _walk(masks, depth=3):
        parents = path.relative_to(masks).parent.parts
        key = (tuple(part.casefold() for part in parents), path.stem.casefold())
        if key in known:
            raise DataError(f"{path} and {known[key]}: two masks of one image; keep one")
        known[key] = path
    return known


def _walk(folder: Path, depth: int) -> Iterator[Path]:
    here = listing(folder)
    yield from here.images
    if depth > 1:
        for inner in here.folders:
            yield from _walk(inner, depth - 1)


def _keys(item: Item, images: Path) -> Iterator[tuple[Key, Key]]:
    parents = tuple(part.casefold() for part in item.path.relative_to(images).parent.parts)
    stem = item.path.stem.casefold()
    for start in range(len(parents) + 1):
        yield (parents[start:], stem), (parents[start:], f"{stem}_mask")


def _mask_of(item: Item, images: Path, known: dict[Key, Path]) -> Path | None:
    for keys in _keys(item, images):
        found = [known[key] for key in keys if key in known]
        if len(found) > 1:
            raise DataError(f"{found[0]} and {found[1]}: two masks of {item.path}; keep one")
        if found:
            return found[0]
    return None


def _account(
    known: dict[Key, Path],
    owner: dict[Path, Path],
    good: list[Item],
    images: Path,
    notes: list[str],
) -> None:
    spare = {key: path for key, path in known.items() if path not in owner}
    of_good = {key for item in good for pair in _keys(item, images) for key in pair}
    lost = [path for key, path in spare.items() if key not in of_good]
    if lost:
        raise DataError(
            f"{lost[0]}: a mask without an image ({len(lost)} such masks); expected a defect "
            f"image of the same name below {images}: restore it or remove the mask"
        )
    if spare:
        notes.append(f"ignored {len(spare)} masks of good images")
