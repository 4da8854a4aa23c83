"""Detectors of others: a torch module that scores images, a model of anomalib."""

from .anomalib import from_anomalib
from .module import ModuleDetector
from .opened import Found, Opened

__all__ = ["Found", "ModuleDetector", "Opened", "from_anomalib"]
