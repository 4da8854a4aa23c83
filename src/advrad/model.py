"""A model: a fitted detector with all that a verdict needs besides.

How a file becomes a tensor, where OK ends and NG begins, which images were seen, and under which
secret seed the noise of a prediction is drawn. On disk it is a folder (`advrad.store`).
"""

import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from . import __version__, store
from .calibrate import Calibration
from .detectors import Detector, restore
from .errors import LeakError, ModelError
from .files import as_given
from .images import Preprocess

Seen = dict[str, tuple[str, ...]]  # train, tune, calibrate -> sha256 of the images


@dataclass(frozen=True)
class Model:
    """Arguments:
    detector: fitted, ready to score.
    preprocess: from a file to the detector's tensor.
    calibration: thresholds.
    seen: sha256 of every image that trained, tuned or calibrated it, by part.
    about: name, data, split seed, resolved settings, how the training went; plain JSON values.
    secret: the seed of the noise of predictions; stays in the model's folder.
    """

    detector: Detector
    preprocess: Preprocess
    calibration: Calibration
    seen: Seen
    about: dict[str, Any] = field(default_factory=dict)
    secret: int = field(default_factory=lambda: secrets.randbits(62), repr=False)

    @property
    def name(self) -> str:
        """What the model is called in rows and reports."""
        return str(self.about.get("name", type(self.detector).__name__))

    def save(self, folder: str | Path) -> None:
        """Writes the folder, whole or not at all."""
        files = self.detector.files() | {
            "preprocess.json": store.dump(self.preprocess.as_dict()),
            "calibration.json": store.dump(self.calibration.as_dict()),
            "seen.json": store.dump(self.seen),
            "about.json": store.dump(self.about),
            store.SECRET: store.dump({"seed": self.secret}),
            "README.md": card(self).encode(),
        }
        store.replace(Path(folder), files)

    def with_calibration(self, calibration: Calibration, ids: tuple[str, ...]) -> "Model":
        """The same detector with new thresholds from the images `ids`."""
        return replace(self, calibration=calibration, seen=self.seen | {"calibrate": ids})

    def refuse_seen(self, named: Mapping[str, str]) -> None:
        """Raises LeakError where one of the images (path -> sha256) is one the model has seen."""
        parts = {digest: part for part, digests in self.seen.items() for digest in digests}
        leaks = [(path, parts[digest]) for path, digest in named.items() if digest in parts]
        if leaks:
            listed = ", ".join(f"{path} ({part})" for path, part in leaks[:3])
            raise LeakError(
                f"{len(leaks)} of {len(named)} test images are among those that the model was "
                f"trained, tuned or calibrated on: {listed}. Figures on them would be too good; "
                "leave them out, or train on another split"
            )


def load(folder: str | Path) -> Model:
    """The model in a folder, verified. Raises ModelError that says what is wrong."""
    files = store.read(Path(folder))
    if set(files) == {"config.json", "model.safetensors"}:
        raise ModelError(
            f"{folder} holds a detector by itself, without thresholds: load it with "
            "advrad.detectors.load, or train a model with advrad.train"
        )
    detector = restore(files)
    try:
        preprocess = Preprocess.from_dict(store.read_json(files, "preprocess.json"))
        seed = _secret(Path(folder), files)
        seen = {part: tuple(ids) for part, ids in store.read_json(files, "seen.json").items()}
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"{folder}: preprocess.json, secret.json or seen.json is incomplete ({error})"
        ) from error
    return Model(
        detector=detector,
        preprocess=preprocess,
        calibration=Calibration.from_dict(store.read_json(files, "calibration.json")),
        seen=seen,
        about=store.read_json(files, "about.json"),
        secret=seed,
    )


def _secret(folder: Path, files: Mapping[str, bytes]) -> int:
    """The model's own seed, or a fresh one where the model was published without it."""
    if store.SECRET in files:
        return int(store.read_json(files, store.SECRET)["seed"])
    logging.getLogger("advrad").warning(
        f"{folder} has no {store.SECRET}: the noise of predictions is drawn anew in every run, so "
        "that scores can be had again only with --seed"
    )
    return secrets.randbits(62)


def card(model: Model) -> str:
    """The model's README: what it is, how it was made, what its verdicts promise."""
    about, size = model.about, model.preprocess.size
    parts = ", ".join(f"{len(ids)} to {part}" for part, ids in model.seen.items())
    settings = "\n".join(
        f"| {name} | {as_given(value)} |" for name, value in about.get("settings", {}).items()
    )
    return f"""# {model.name}

A detector of defects, `{type(model.detector).__name__}`, made by advrad {__version__} from
photographs of good parts: {about.get("data", "unknown data")}.

- Input: {model.preprocess.channels} x {size} x {size}, in [0, 1].
- Good images used: {parts}.
- Threshold {model.calibration.threshold:.6g}: {model.calibration.sentence()}
- Between {model.calibration.unsure:.6g} and the threshold a score is UNSURE.
- `secret.json` holds the seed of the noise of predictions: who knows it can attack them better.
  Leave it out of what you publish.

| setting | value |
|---|---|
{settings}
"""
