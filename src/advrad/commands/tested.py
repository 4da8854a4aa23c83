"""What the verbs share that measure a model on the test images of a data set."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..data import Dataset
    from ..model import Model


def dataset_for(
    model: "Model", root: str, layout: str | None, category: str | None, split_seed: int | None
) -> "Dataset":
    """The data set, split as in the model's training unless another seed is given."""
    from ..data import load

    drawn = model.about.get("split_seed", 0) if split_seed is None else split_seed
    return load(root, layout=layout, category=category, split_seed=drawn)


def kept(out: Path | None) -> str:
    """How to go on after a stop: with the rows that were finished, if there are any."""
    from ..evaluate.rows import ROWS

    if out is None:
        return "nothing is kept"
    if not (out / ROWS).exists():
        return "no row is finished yet: to begin anew, run the same command again"
    return "rows are kept: to go on, run the same command again"
