"""The settings that all detectors on frozen features share."""

from collections.abc import Mapping
from typing import Any

from ..networks import Features
from ..networks.features import NETWORKS, STRIDES
from ._checks import at_least, one_of
from .base import Detector


def check_backbone(given: Mapping[str, Any]) -> None:
    """Raises UsageError where size, channels, backbone or strides are impossible."""
    one_of("channels", given["channels"], (1, 3))
    one_of("backbone", given["backbone"], NETWORKS)
    for stride in given["strides"]:
        one_of("strides", stride, STRIDES)
    at_least("size", given["size"], max(given["strides"], default=1))


def filled(detector: Detector, device: str) -> Features:
    """The detector's backbone with the weights that its settings name, on the device."""
    name, weights = str(detector.params["backbone"]), detector.params["weights"]
    return Features(name, tuple(detector.params["strides"])).load(weights).to(device)
