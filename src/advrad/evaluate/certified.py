"""What no attack within a radius can change: certified figures of the smoothed detector.

For each sigma and scoring the detector is measured and its threshold set under noise; then each
test image gets its draws, from which the bounds for every radius follow. Each image's row is
written when its draws are made, so that a run that was killed goes on there.
"""

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..data import Dataset, Images
from ..errors import UsageError
from ..model import Model
from .certificate import Certificate, needs
from .certified_figures import best, clean_figures, figures, why
from .certified_rows import Tell, Work
from .clean import settings_of, test_images
from .rows import Rows
from .smoothed import Way, known, scorings_of

ASKED = Certificate()


@dataclass(frozen=True)
class Prepared:
    """What will be done, checked before anything is drawn.

    Arguments:
        images: of the test split.
        ways: sigma and scoring, one after the other.
        calibrating: images whose medians set a threshold, for each way.
        wanted: what was asked.
    """

    images: Images
    ways: list[Way]
    calibrating: int
    wanted: Certificate


def prepared(model: Model, dataset: Dataset, wanted: Certificate = ASKED) -> Prepared:
    """Raises UsageError where no pair of sigma and radius can be had or a scoring is unknown,
    DataError where the data set lacks images that the model was trained or calibrated on, and what
    `evaluate` raises."""
    ways = wanted.ways(scorings_of(model.detector, wanted.scorings))
    for way in ways:
        most = model.detector.largest_sigma(way.scoring)
        if way.sigma > most:
            raise UsageError(
                f"sigma {way.sigma:g}: expected at most {most:.4g} for the scoring {way.scoring}, "
                "the noise of the last level that the detector was trained for"
            )
    images = test_images(model, dataset, wanted.evaluation)
    refuse_impossible(wanted, len(images))
    for part in ("train", "calibrate"):
        known(model, dataset, part)
    return Prepared(images, ways, len(model.seen.get("calibrate", ())), wanted)


def certify(
    model: Model,
    dataset: Dataset,
    out: Path | None = None,
    wanted: Certificate = ASKED,
    report: Tell = lambda done, total: None,
    folder: Path | None = None,
) -> dict[str, Any]:
    """Certified figures on the test split; with `out` also rows and resumption.

    Returns clean_auroc and a row for each sigma and scoring: smoothed_auroc (of the medians),
    certified_auroc for each radius (None where the draws are too few, and `needed` says how many
    it takes), certified accuracy at the threshold, the share that abstains, the radius up to which
    certified AUROC is at least one half, and its curve; and `best`, for each radius the best of
    these rows, as it holds after such a choice. `folder` is the model's own: what was measured
    under noise is kept there, and taken from there. Raises what `prepared` raises.
    """
    ready = prepared(model, dataset, wanted)
    images, ways = ready.images, ready.ways
    if told := refuse_impossible(wanted, len(images)):
        logging.getLogger("advrad").warning(told)
    settings = _settings(model, dataset, images, wanted, ways)
    rows = Rows(out, settings)
    work = Work(model, dataset, images, rows, wanted, ways, report, folder)
    work.run()
    labels = images.labels
    tests = [work.tests(number) for number in range(len(ways))]
    result = {
        **clean_figures(work.clean, labels),
        "rows": [figures(*pair, wanted) for pair in zip(tests, work.smoothed, strict=True)],
        "best": best(tests, ways, wanted),
        "images": {"good": labels.count(False), "defect": labels.count(True)},
        "skipped": [[str(path), reason] for path, reason in images.skipped],
        "why": why(work.clean, labels),
        "settings": settings,
    }
    rows.finish(result)
    return result


def refuse_impossible(wanted: Certificate, count: int) -> str:
    """In words the pairs that cannot be certified, empty where there are none; raises UsageError
    where there is no other."""
    lost = wanted.impossible(count)
    told = "; ".join(
        f"sigma {sigma:g} at radius {radius:g} {needs(needed)}"
        for (sigma, radius), needed in lost.items()
    )
    least = f"with {wanted.samples:,} samples, alpha {wanted.alpha:g} and {count} images"
    if len(lost) == len(wanted.sigmas) * len(wanted.radii):
        raise UsageError(
            f"nothing can be certified {least}: {told}. Give more samples, a smaller radius or a "
            "larger sigma"
        )
    return f"{least}, not everything can be certified: {told}" if lost else ""


def _settings(
    model: Model, dataset: Dataset, images: Images, wanted: Certificate, ways: list[Way]
) -> dict[str, Any]:
    asked = asdict(wanted) | {"scorings": list(dict.fromkeys(way.scoring for way in ways))}
    del asked["evaluation"]
    return settings_of(model, dataset, images, wanted.evaluation) | {"certificate": asked}
