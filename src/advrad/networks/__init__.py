"""Networks that more than one detector or defence can rest on, each in a file of its own."""

from .autoencoder import ConvolutionalAutoencoder, SpatialAutoencoder
from .classifier import Classifier, ClassifierA, ClassifierB, WideResNet
from .features import Features
from .flow import Coupling, Flow
from .gan import Discriminator
from .omnifrequency import OmniFrequency

__all__ = [
    "Classifier",
    "ClassifierA",
    "ClassifierB",
    "ConvolutionalAutoencoder",
    "Coupling",
    "Discriminator",
    "Features",
    "Flow",
    "OmniFrequency",
    "SpatialAutoencoder",
    "WideResNet",
]
