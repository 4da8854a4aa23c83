"""Detectors. To add one: write a module beside these, and name its class here."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from .. import store
from ..checks import fitting, nearest
from ..errors import ModelError, UsageError
from .adversarial import Adversarial
from .advrad import AdvRAD
from .anoddpm import AnoDDPM
from .apae import APAE
from .autoencoder import Autoencoder
from .base import Anomaly, Detector, Images, Progress, Run
from .cfa import CFA
from .cflow import CFlow
from .fastflow import FastFlow
from .ocrgan import OCRGAN
from .padim import PaDiM
from .patchcore import PatchCore
from .pls import PLS
from .purified import Purified
from .rae import RAE
from .spade import SPADE
from .trivial import Trivial
from .zarnd import ZARND

__all__ = [
    "ALL",
    "APAE",
    "CFA",
    "OCRGAN",
    "PLS",
    "RAE",
    "SPADE",
    "ZARND",
    "AdvRAD",
    "Adversarial",
    "AnoDDPM",
    "Anomaly",
    "Autoencoder",
    "CFlow",
    "Detector",
    "FastFlow",
    "Images",
    "PaDiM",
    "PatchCore",
    "Progress",
    "Purified",
    "Run",
    "Trivial",
    "build",
    "load",
    "restore",
]

ALL: dict[str, type[Detector]] = {
    cls.__name__.lower(): cls
    for cls in (
        AdvRAD,
        AnoDDPM,
        Adversarial,
        APAE,
        Autoencoder,
        CFA,
        CFlow,
        FastFlow,
        OCRGAN,
        PaDiM,
        PatchCore,
        PLS,
        Purified,
        RAE,
        SPADE,
        Trivial,
        ZARND,
    )
}


def build(name: str, settings: Mapping[str, Any]) -> Detector:
    """A detector by its name, any case.

    Raises UsageError for an unknown name or setting, with the nearest one, for a value of another
    type, and for one that is impossible.
    """
    cls = ALL.get(name.lower())
    if cls is None:
        raise UsageError(f"unknown detector {name!r}: {nearest(name, ALL)}")
    fitting(cls, settings, cls.__name__)
    try:
        return cls(**settings)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{cls.__name__}: {error}") from error


def load(folder: str | Path) -> Detector:
    """The detector that `save` wrote, ready to score. Raises ModelError where it is damaged."""
    return restore(store.read(Path(folder)))


def restore(files: Mapping[str, bytes]) -> Detector:
    """The detector from the files of a model folder; shapes and finiteness are checked."""
    config = store.read_json(files, "config.json")
    try:
        detector = build(config["detector"], config["params"])
    except (AttributeError, KeyError, TypeError, UsageError, ValueError) as error:
        raise ModelError(
            f"the model's config.json names no detector of this advrad: {error}"
        ) from error
    state = store.read_tensors(files)
    for name in sorted(state.keys() - detector.state_dict().keys()):
        _register(detector, name, state[name])
    try:
        detector.load_state_dict(state)
        detector.check()
    except (RuntimeError, TypeError, ValueError) as error:
        raise ModelError(f"the model's tensors do not fit its config.json: {error}") from error
    return detector.eval().requires_grad_(False)


def _register(detector: nn.Module, name: str, value: Any) -> None:
    """Makes room for a buffer that `fit` has created: None in a new detector."""
    place, _, own = name.rpartition(".")
    modules = dict(detector.named_modules())
    if place not in modules or own not in modules[place]._buffers:
        raise ModelError(f"the model holds a tensor {name!r} that its detector does not know")
    modules[place].register_buffer(own, value.clone())
