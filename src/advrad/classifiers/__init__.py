"""Classifiers: what an attacker wants to deceive, and what a purifier is to defend.

A classifier is a module that maps images (B, C, H, W) in [0, 1] to logits (B, classes), with the
normalisation inside. To add one: write a network into `networks/classifier.py`, and name it in
`named.py`.
"""

from .accuracy import accuracy, right
from .check import refuse_images, refuse_unusable
from .losses import LOSSES
from .named import ALL, build
from .stored import about, load, save
from .training import Trained, Training, train

__all__ = [
    "ALL",
    "LOSSES",
    "Trained",
    "Training",
    "about",
    "accuracy",
    "build",
    "load",
    "refuse_images",
    "refuse_unusable",
    "right",
    "save",
    "train",
]
