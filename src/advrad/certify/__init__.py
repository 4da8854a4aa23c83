"""Certificates by randomised smoothing. They know functions and tensors, nothing else."""

from .auc import certified_auroc, swept_auroc, worst
from .classes import certified_class
from .median import Bounds, Ordered, largest_shift, ordered, ranks, samples_needed
from .regions import Counts, Peaks, Region, blocks
from .smooth import Smoothing
from .vote import ABSTAIN, Vote, certify, predict, settled, side

__all__ = [
    "ABSTAIN",
    "Bounds",
    "Counts",
    "Ordered",
    "Peaks",
    "Region",
    "Smoothing",
    "Vote",
    "blocks",
    "certified_auroc",
    "certified_class",
    "certify",
    "largest_shift",
    "ordered",
    "predict",
    "ranks",
    "samples_needed",
    "settled",
    "side",
    "swept_auroc",
    "worst",
]
