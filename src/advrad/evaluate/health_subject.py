"""What the checks of health look at: an attack, the images of the sample, and their scores."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from ..attacks.ball import Ball
from ..detectors import Detector
from ..noise import PerImage
from .health import Sample
from .robustness import Assault

FORWARD = 0.5  # of an evaluation with a gradient


@dataclass(frozen=True)
class Subject:
    """An attack that is examined on a sample."""

    assault: Assault
    sample: Sample

    @property
    def detector(self) -> Detector:
        """What is attacked."""
        return self.assault.detector

    @property
    def ball(self) -> Ball:
        """What the attacker may do."""
        return self.assault.ball

    @property
    def noise(self) -> PerImage:
        """That of the evaluation."""
        return PerImage(self.assault.seed, self.sample.ids)

    @cached_property
    def sign(self) -> Tensor:
        """1 where a score is to be raised, -1 where it is to be lowered, (N,) float64."""
        signs = [-1.0 if defect else 1.0 for defect in self.sample.defect]
        return torch.tensor(signs, dtype=torch.double)

    @cached_property
    def clean(self) -> Tensor:
        """Scores (N,) of the clean images under the noise of the evaluation."""
        return self.scored(self.sample.x)

    @property
    def scoring(self) -> float:
        """What a score under the noise of the evaluation costs."""
        return FORWARD * self.assault.passes

    def first(self, side: int) -> "Subject":
        """At most `side` images of each class."""
        return replace(self, sample=self.sample.first(side))

    @torch.no_grad()
    def scored(
        self,
        x: Tensor,
        places: Sequence[int] | None = None,
        seed: int | None = None,
        detector: Detector | None = None,
    ) -> Tensor:
        """Scores of images that stand at these places of the sample, all of them if left out."""
        ids = self.sample.ids if places is None else [self.sample.ids[i] for i in places]
        noise = PerImage(self.assault.seed if seed is None else seed, ids)
        return (detector or self.detector)(x, noise).score.cpu()
