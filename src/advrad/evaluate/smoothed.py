"""A model under Gaussian noise: measured on noisy good images, with thresholds of its own.

What is certified is not the detector but the median of its score around an image. That median has
its own typical values, so its threshold is set anew, by the same conformal rule, from the medians
of the good images that calibrated the model.

Such a model is kept in the folder of the one it was made from, `smoothing/NAME/`: what differs
from it, and of which model, so that one trained anew is not taken for it.
"""

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import store
from ..calibrate import Calibration, calibrate
from ..certify import Counts, Ordered, Peaks, Smoothing, blocks, ordered
from ..data import Dataset, Images
from ..detectors import Detector, Run
from ..detectors import restore as restored
from ..errors import DataError, ModelError, UsageError
from ..model import Model

FOLDER = "smoothing"


@dataclass(frozen=True)
class Way:
    """How an image is looked at: sigma of the noise in the [0, 1] scale, draws, scoring, seed."""

    sigma: float
    samples: int
    scoring: str
    seed: int = 0

    @property
    def name(self) -> str:
        """`0.12-matched`: of the folder, and of rows."""
        return f"{self.sigma:g}-{self.scoring}"

    def smoothing(self, batch: int) -> Smoothing:
        """The draws; raises UsageError where they are impossible."""
        return Smoothing(self.sigma, self.samples, self.seed, batch)


@dataclass(frozen=True)
class Smoothed:
    """A detector measured under noise, and where the median of its score becomes NG.

    Arguments:
        detector, way: as measured.
        calibration: of the medians of scores.
        block: side of the blocks of the map that have a threshold; 0 where none has.
        peak: that threshold: good images whose largest block has a median below it are as many as
            those whose score has one below the score's.
        lost: draws of calibration images that were no finite number and are in no median.
    """

    detector: Detector
    way: Way
    calibration: Calibration
    block: int = 0
    peak: float | None = None
    lost: int = 0

    def draws(self, x: Tensor, name: str, batch: int) -> Ordered:
        """The scores around one image (C, H, W), in order."""
        return drawn(self.detector, self.way.smoothing(batch), x, name)


def drawn(
    detector: Detector,
    smoothing: Smoothing,
    x: Tensor,
    name: str,
    counts: Counts | Peaks | None = None,
    side: int = 1,
) -> Ordered:
    """The scores of a detector around one image, in order, one draw of its own each.

    `counts` takes in the largest value of each block of side x side of the maps.
    """

    def score(batch: Tensor, noise: Any) -> Tensor:
        found = detector(batch, noise, draws=1)
        if counts is not None:
            counts.add(blocks(found.map, side))
        return found.score

    return ordered(smoothing.draws(score, x, name))


def scorings_of(detector: Detector, asked: Iterable[str]) -> list[str]:
    """The scorings that are asked for, or the detector's first. Raises UsageError otherwise."""
    wanted = list(dict.fromkeys(asked)) or [detector.SCORINGS[0]]
    for name in wanted:
        if name not in detector.SCORINGS:
            raise UsageError(
                f"scoring {name!r}: {type(detector).__name__} has {', '.join(detector.SCORINGS)}"
            )
    return wanted


def measured(
    model: Model,
    dataset: Dataset,
    way: Way,
    device: str,
    report: Callable[[Any], None] = lambda progress: None,
) -> Detector:
    """The model's detector under noise, measured on the good images that trained it.

    Raises DataError unless all of them are among the data set's.
    """
    images = known(model, dataset, "train")
    run = Run(seed=way.seed, device=device, report=report)
    under = model.detector.to(device).under_noise(
        images, run, sigma=way.sigma, scoring=way.scoring
    )
    return under.eval().requires_grad_(False)


def known(model: Model, dataset: Dataset, part: str) -> Images:
    """The images of the data set's training split that the model has seen as `part`, each once.

    Raises DataError unless they are all there: figures must not depend on which ones are.
    """
    images = Images([i for i in dataset.train if not i.defect], model.preprocess, skip_bad=True)
    digests = set(model.seen.get(part, ()))
    places = {digest: i for i, digest in enumerate(images.ids) if digest in digests}
    if not places or len(places) < len(digests):
        raise DataError(
            f"{dataset.name} has {len(places)} of the {len(digests)} good images that the model "
            f"used to {part}, and all of them are needed to measure it under noise. Give the data "
            "set that it was trained on, with its split seed"
        )
    return images.subset(sorted(places.values()))


def threshold(model: Model, medians: Sequence[float | None]) -> Calibration:
    """From the medians of the calibration images, by the model's own levels.

    Raises ModelError where one is no finite number, or None as in a row that was read again.
    """
    if lost := sum(median is None or not math.isfinite(median) for median in medians):
        raise ModelError(
            f"{lost} of {len(medians)} calibration images have no finite score under this noise: "
            "the detector cannot be smoothed with it; try a smaller sigma"
        )
    old = model.calibration
    known = [median for median in medians if median is not None]
    return calibrate(known, old.level, old.unsure_level, old.approximate)


def save(smoothed: Smoothed, model: Model, folder: Path) -> None:
    """Keeps it in the folder of its model, whole or not at all."""
    old = model.detector.state_dict()
    state = {
        name: value
        for name, value in smoothed.detector.state_dict().items()
        if name not in old or old[name].shape != value.shape or not torch.equal(old[name], value)
    }
    files = {
        "smoothing.json": store.dump(
            {
                "way": asdict(smoothed.way),
                "params": smoothed.detector.params,
                "calibration": smoothed.calibration.as_dict(),
                "block": smoothed.block,
                "peak": smoothed.peak,
                "lost": smoothed.lost,
                "of": origin(model),
            }
        ),
        "statistics.safetensors": store.tensors(state),
    }
    store.replace(folder / FOLDER / smoothed.way.name, files)


def load(model: Model, folder: Path, sigma: float, scoring: str) -> Smoothed | None:
    """What was kept for this model, or None where nothing was, or it was of another model.

    Raises ModelError where the files are damaged.
    """
    place = folder / FOLDER / Way(sigma, 1, scoring).name
    if not place.is_dir():
        return None
    try:
        files = store.read(place)
    except ModelError as error:
        raise ModelError(
            f"{place} is damaged, or was not written to its end: run `advrad certify` with "
            f"--sigma {sigma:g} --scoring {scoring} again ({error})"
        ) from error
    told = store.read_json(files, "smoothing.json")
    if told.get("of") != origin(model):
        return None
    state = model.detector.state_dict() | store.read_tensors(files, "statistics.safetensors")
    try:
        name = type(model.detector).__name__
        detector = restored(
            {
                "config.json": store.dump({"detector": name, "params": told["params"]}),
                "model.safetensors": store.tensors(state),
            }
        )
        way = Way(**told["way"])
        calibration = Calibration.from_dict(told["calibration"])
        regions = told.get("block", 0), told.get("peak")
        return Smoothed(detector, way, calibration, *regions, told.get("lost", 0))
    except (KeyError, TypeError) as error:
        raise ModelError(f"{place / 'smoothing.json'} is incomplete: {error}") from error


def choose(model: Model, folder: Path, sigma: float | None, scoring: str | None) -> Smoothed:
    """The one that is kept for this model, or that of this sigma and scoring where there are more.

    Raises UsageError where there is none, or more than one is left.
    """
    kept = [
        (way["sigma"], way["scoring"])
        for place in sorted((folder / FOLDER).glob("*"))
        if (way := _way_of(place))
    ]
    fitting = [
        found
        for s, name in kept
        if (sigma is None or f"{s:g}" == f"{sigma:g}") and (scoring is None or name == scoring)
        if (found := load(model, folder, s, name)) is not None
    ]
    if len(fitting) == 1:
        return fitting[0]
    scorings_of(model.detector, [scoring] if scoring else [])
    asked = "" if sigma is None else f" with sigma {sigma:g}"
    asked += "" if scoring is None else f", {scoring}"
    if not fitting:
        wanted = f"--sigma {0.12 if sigma is None else sigma:g}"
        wanted += "" if scoring is None else f" --scoring {scoring}"
        raise UsageError(
            f"{folder} has no thresholds under noise{asked} that are its own: measure them first, "
            f"with  advrad certify {folder} ROOT {wanted}"
        )
    listed = ", ".join(f"--sigma {f.way.sigma:g} --scoring {f.way.scoring}" for f in fitting)
    raise UsageError(
        f"{folder} has thresholds under several noises{asked}: choose one of {listed}"
    )


def _way_of(place: Path) -> dict[str, Any] | None:
    """What a folder's name says that it is of, `0.12-matched`; None where it says nothing."""
    sigma, _, scoring = place.name.rpartition("-")  # the last one: 5e-05-plain
    try:
        return {"sigma": float(sigma), "scoring": scoring} if scoring else None
    except ValueError:
        return None


def origin(model: Model) -> str:
    """A fingerprint of the model: its settings, weights and thresholds."""
    digest = hashlib.sha256()
    for content in (
        *model.detector.files().values(),
        store.dump(model.calibration.as_dict()),
        store.dump(model.seen),
    ):
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()
