"""The certified class of an image under a classifier and Gaussian noise.

Cohen et al., 2019 (https://arxiv.org/abs/1902.02918), CERTIFY: some draws choose the class,
others measure its share of the votes. What happens to a noisy image before it is classified, such
as a denoising with noise of its own, is part of the classifier.
"""

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor

from .smooth import Score, Smoothing
from .vote import Vote, certify, votes


def certified_class(
    logits: Score,
    x: Tensor,
    name: str,
    smoothing: Smoothing,
    *,
    alpha: float = 1e-3,
    selecting: int = 100,
) -> Vote:
    """The class that the smoothed classifier gives an image, and the l2 radius in which no change
    of the image alters it, with an error of at most alpha; or ABSTAIN.

    Arguments:
        logits: the classifier, images (B, C, H, W) under noise and the rest of their randomness
            to (B, K).
        x: the image, (C, H, W) in [0, 1].
        name: of the image, see `Smoothing.batches`.
        smoothing: sigma, the draws that measure, and their seed.
        alpha: probability that the radius is wrong.
        selecting: draws that choose the class.

    A draw whose logits are not all finite is a vote for no class, and counts as drawn.
    """
    few = replace(smoothing, samples=selecting)
    selected = _counted(few.batches(logits, x, f"{name}/selecting"))
    counted = _counted(smoothing.batches(logits, x, name))
    return certify(selected, counted, smoothing.sigma, alpha, smoothing.samples)


def _counted(batches: Iterable[Tensor]) -> Tensor:
    """Votes by class of draws whose logits are (b, K), (K,)."""
    return torch.stack([_votes(batch) for batch in batches]).sum(0)


def _votes(logits: Tensor) -> Tensor:
    lost = ~logits.isfinite().all(1)
    return votes(logits.argmax(1).masked_fill(lost, -1), logits.shape[1])
