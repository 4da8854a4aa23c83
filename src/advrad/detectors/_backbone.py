"""The settings that all detectors on frozen features share."""

from collections.abc import Mapping
from typing import Any, TypeVar

from ..networks import Features
from ..networks.features import NETWORKS, STRIDES
from ._checks import at_least, one_of
from .base import Detector

Kind = TypeVar("Kind", bound=Detector)


def check_backbone(given: Mapping[str, Any]) -> None:
    """Raises UsageError where size, channels, backbone or strides are impossible."""
    one_of("channels", given["channels"], (1, 3))
    one_of("backbone", given["backbone"], NETWORKS)
    for stride in given["strides"]:
        one_of("strides", stride, STRIDES)
    at_least("size", given["size"], max(given["strides"], default=1))


def filled(detector: Any, device: str) -> Features:
    """The detector's `features` anew, with the weights that its settings name, on the device."""
    features, weights = detector.features, detector.params["weights"]
    return Features(features.name, features.strides).load(weights).to(device)


def twin(detector: Kind) -> Kind:
    """A detector with the same settings and `features`, that has learnt nothing else."""
    features: Any = detector.features
    other: Any = type(detector)(**detector.params)
    other.features.load_state_dict(features.state_dict())
    device = next(features.parameters()).device
    found: Kind = other.to(device).eval()
    return found
