"""Solar cells in electroluminescence, from the package elpv-dataset.

2,624 cells with a probability of being defective: 0, 1/3, 2/3 or 1. Good is 0, defective is 1;
2/3 are defects of the kind "doubtful" where they are asked for, 1/3 are left out. Buerhop-Lutz et
al., 2018; Deitsch et al., 2019 (https://doi.org/10.1016/j.solener.2019.02.067).
"""

from importlib.util import find_spec
from pathlib import Path

from advrad.data.items import Dataset, Item
from advrad.data.layouts import draw_good
from advrad.errors import DataError

PACKAGE = "elpv_dataset"
KINDS = {0.0: "good", 1.0: "defect", 0.67: "doubtful"}  # by rounded probability


def folder() -> Path:
    """The package's data folder; the package itself is not imported."""
    spec = find_spec(PACKAGE)
    places = list(spec.submodule_search_locations or ()) if spec else []
    for place in places:
        if (found := Path(place, "data")).joinpath("labels.csv").is_file():
            return found
    raise DataError(
        f"the package {PACKAGE} holds no data/labels.csv: install it again "
        f"(pip install --force-reinstall elpv-dataset)"
    )


def read(root: Path, split_seed: int, *, cells: str, doubtful: bool) -> Dataset:
    """The cells of one sort, "mono" or "poly": good ones drawn 60/40, all defects to test."""
    items = [item for item in _items(root, cells) if doubtful or item.kind != "doubtful"]
    good = [item for item in items if not item.defect]
    notes = ["cells of one module may be both in train and in test: no module is recorded"]
    draft = draw_good(good, [item for item in items if item.defect], root, split_seed, notes)
    name = f"elpv-{cells}{'-doubtful' if doubtful else ''}"
    return Dataset(
        name, root, "elpv", draft.train, draft.test, draft.drawn, split_seed, draft.notes
    )


def _items(root: Path, cells: str) -> list[Item]:
    items = []
    lines = (root / "labels.csv").read_text(encoding="utf-8").splitlines()
    for path, probability, sort in sorted(line.split() for line in lines if line.strip()):
        kind = KINDS.get(round(float(probability), 2))
        if sort == cells and kind:
            items.append(Item(root / path, kind != "good", None, kind))
    return items
