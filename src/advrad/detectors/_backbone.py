"""What all detectors on frozen features share, and those among them that only remember."""

import abc
from collections.abc import Mapping
from typing import Any, Self, TypeVar

from ..checks import at_least, one_of
from ..networks import Features
from ..networks.features import NETWORKS, STRIDES
from .base import PLAIN, Detector, Fitting, Images, Run

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


class Memory(Detector):
    """A deterministic detector that trains nothing: it remembers what good images look like."""

    features: Features

    def fit(self, images: Images, run: Run = PLAIN) -> Self:
        """Memorises good images; nothing is trained, and nothing is chosen."""
        images = Fitting(images, self.channels, self.input_size)
        self.features = filled(self, run.device)
        return self.memorise(images, run)

    @abc.abstractmethod
    def memorise(self, images: Images, run: Run = PLAIN, sigma: float = 0.0) -> Self:
        """Fills the memory anew, with good images under Gaussian noise with standard deviation
        sigma, in the [0, 1] scale; the backbone stays."""

    def under_noise(
        self, images: Images, run: Run = PLAIN, *, sigma: float, scoring: str = "plain"
    ) -> "Memory":
        """The same backbone, with a memory of good images under the noise."""
        return twin(self).memorise(images, run, sigma)
