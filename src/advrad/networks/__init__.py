"""Networks that more than one detector or defence can rest on, each in a file of its own."""

from .autoencoder import ConvolutionalAutoencoder
from .features import Features
from .flow import Coupling, Flow

__all__ = ["ConvolutionalAutoencoder", "Coupling", "Features", "Flow"]
