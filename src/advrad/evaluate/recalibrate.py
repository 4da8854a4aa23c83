"""New thresholds for a trained model, from good images that it has not learnt from."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from ..calibrate import calibrate
from ..data import Dataset, Images, limit
from ..errors import DataError, LeakError
from ..model import Model
from .scores import scored
from .training import learnt


@dataclass(frozen=True)
class Recalibration:
    """What is asked of a calibration; the levels are those of `calibrate`."""

    level: float | None = None
    unsure_level: float | None = None
    seed: int = 0
    batch: int = 16
    device: str = "cpu"
    limit: int | None = None
    skip_bad: bool = False


def recalibrate(
    model: Model,
    dataset: Dataset,
    wanted: Recalibration = Recalibration(),
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Model:
    """The model with thresholds from the data set's good training images.

    Those that trained it or chose a setting are left out, unless they have calibrated it before;
    the bound is then approximate, as it was. Raises LeakError where none remains, UsageError for
    a level that so few images cannot hold; the model itself is left as it is.
    """
    images = unseen(model, dataset, wanted)
    calibrate(range(len(images)), wanted.level, wanted.unsure_level)  # refuses in time
    scores = []
    for found in scored(model.detector, images, wanted.seed, wanted.batch, wanted.device):
        scores.append(found.score)
        report(len(scores), len(images))
    ids = tuple(images.ids)
    approximate = not learnt(model.seen, model.about.get("chosen", [])).isdisjoint(ids)
    thresholds = calibrate(scores, wanted.level, wanted.unsure_level, approximate)
    made = model.with_calibration(thresholds, ids)
    about = made.about | {"calibration": {"data": dataset.name, "seed": wanted.seed}}
    return replace(made, about=about)


def unseen(model: Model, dataset: Dataset, wanted: Recalibration) -> Images:
    """The good training images that may calibrate the model, each file once."""
    items = [item for item in dataset.train if not item.defect]
    if not items:
        raise DataError(f"{dataset.name}: no good images to calibrate on")
    images = Images(items, model.preprocess, wanted.skip_bad)
    known = learnt(model.seen, model.about.get("chosen", []))
    refused = known - set(model.seen.get("calibrate", ()))
    places = {digest: i for i, digest in enumerate(images.ids) if digest not in refused}
    if not places:
        raise LeakError(
            f"the model has learnt from each of the {len(images)} good images of {dataset.name}: "
            "thresholds from them would promise too much; give good images that it has not seen"
        )
    usable = images.subset(sorted(places.values()))
    if wanted.limit is None:
        return usable
    kept = set(limit(usable.items, wanted.limit, dataset.split_seed))
    return usable.subset([i for i, item in enumerate(usable.items) if item in kept])
