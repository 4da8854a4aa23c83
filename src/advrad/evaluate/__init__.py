"""Where data, detectors, attacks and certificates meet."""

from .clean import Evaluation, evaluate
from .scores import Row, Scored, predict, scored
from .training import Training, train

__all__ = ["Evaluation", "Row", "Scored", "Training", "evaluate", "predict", "scored", "train"]
