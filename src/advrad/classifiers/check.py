"""Is this a classifier that can be defended and attacked, and are these its images?

Probabilities are the mistake that matters: where a softmax is saturated the gradient of every loss
vanishes, attacks look weak and defences strong.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..attacks.classification import looks_like_logits
from ..errors import UsageError


def refuse_images(classifier: nn.Module, x: Tensor) -> None:
    """Raises UsageError unless x are floats (B, C, H, W) in [0, 1] of the classifier's `shape`.

    A classifier that says no shape takes any.
    """
    if not x.is_floating_point() or x.ndim != 4 or not len(x):
        raise UsageError(
            f"images {x.dtype} of shape {tuple(x.shape)}: expected floats (B, C, H, W) in [0, 1]; "
            "bytes are divided by 255, one image is x[None]"
        )
    expected = getattr(classifier, "shape", None)
    if expected is not None and tuple(x.shape[1:]) != tuple(expected):
        raise UsageError(
            f"images of {_sides(x.shape[1:])}: this classifier expects {_sides(expected)} "
            "(channels x height x width); give it those it was trained for, or train another"
        )
    low, high = float(x.min()), float(x.max())
    if not (low >= 0 and high <= 1):
        raise UsageError(
            f"images from {low:g} to {high:g}: expected [0, 1], without any normalisation; that "
            "belongs into the classifier, so that a radius means the same everywhere"
        )


def refuse_unusable(classifier: nn.Module, x: Tensor) -> None:
    """Raises UsageError unless the images are the classifier's and it returns logits (B, K)."""
    refuse_images(classifier, x)
    with torch.no_grad():
        values = classifier(x)
    shape = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
    classes = getattr(classifier, "classes", None)
    if not isinstance(values, Tensor) or values.ndim != 2 or values.shape[1] < 2:
        raise UsageError(
            f"the classifier returned {shape}: expected logits (B, 2 or more classes)"
        )
    if len(values) != len(x) or (classes is not None and values.shape[1] != classes):
        raise UsageError(
            f"the classifier returned {shape} for {len(x)} images"
            + ("" if classes is None else f" and {classes} classes")
        )
    if not bool(values.isfinite().all()):
        raise UsageError("the classifier returned numbers that are not finite for clean images")
    if not looks_like_logits(values):
        raise UsageError(
            "the classifier returned probabilities (every row lies in [0, 1] and sums to one), "
            "expected logits: remove the softmax from its end, or return the logarithm; a "
            "saturated softmax hides the gradient from every attack"
        )


def _sides(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
