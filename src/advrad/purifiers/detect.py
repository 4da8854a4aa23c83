"""Is this image attacked? A generator of clean images makes attacked ones less well.

The score is the error of the reconstruction: of DiffDefense the mean over its restarts (Prassanna
Silva et al., 2023, https://arxiv.org/abs/2309.03702, Section 4.4), of Defense-GAN the best one's
(Samangouei et al., 2018, https://arxiv.org/abs/1805.06605), of any other purifier the mean squared
difference between the image and what becomes of it.

An attacker who knows of the detector lowers the error while he misleads the classifier: `unseen`
is what he raises, and the score is differentiable as the purifier is.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ..attacks import classification
from ..attacks.objective import Drawn
from ..errors import UsageError
from ..metrics import auroc, interval
from ..noise import Noise, fresh
from ._search import squared_error
from .base import Purifier


@runtime_checkable
class Looking(Protocol):
    """A purifier with a score of its own."""

    def look(self, x: Tensor, noise: Noise = fresh) -> tuple[Tensor, Tensor]:
        """The purified images (B, C, H, W) and their scores (B,), of one draw."""
        ...


class Separation(NamedTuple):
    """How well scores tell attacked images from clean ones, with its 95 % interval."""

    auroc: float
    low: float
    high: float


def look(purify: Purifier, x: Tensor, noise: Noise = fresh) -> tuple[Tensor, Tensor]:
    """The purified images (B, C, H, W) and how much they look attacked (B,), of one draw."""
    if isinstance(purify, Looking):
        return purify.look(x, noise)
    purified = purify(x, noise)
    return purified, squared_error(purified, x)


def error(purify: Purifier) -> Callable[[Tensor, Noise], Tensor]:
    """The detector: (x, noise) -> (B,), higher for an attacked image; differentiable."""
    return lambda x, noise: look(purify, x, noise)[1]


def separation(clean: Tensor, attacked: Tensor) -> Separation:
    """The ROC AUC of scores of clean images (M,) and of attacked ones (N,).

    Raises UsageError where one of them has no images, DataError for a score that is no number.
    """
    if not (len(clean) and len(attacked)):
        raise UsageError(
            f"{len(clean)} clean and {len(attacked)} attacked images: expected one or more each"
        )
    scores = torch.cat([clean, attacked]).detach().cpu()
    labels = torch.arange(len(scores)) >= len(clean)
    found, bounds = auroc(scores, labels), interval(auroc, scores, labels)
    assert found is not None
    assert bounds is not None
    return Separation(found, *bounds)


def unseen(classifier: nn.Module, purify: Purifier, labels: Tensor, weight: float) -> Drawn:
    """What an attacker raises who wants to mislead the classifier and not to be detected.

    He climbs the classification loss minus `weight` times the score, as
    `attacks.classification.unseen` does.

    Arguments:
        classifier: images in [0, 1] to logits (B, K).
        purify: stands before it, and detects.
        labels: the true classes, (B,).
        weight: of the score, in nats; 0 attacks the classifier alone.
    """

    def watched(x: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        purified, score = look(purify, x, noise)
        return classifier(purified), score

    return classification.unseen(watched, labels, weight)
