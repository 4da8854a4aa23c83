"""The diffusion core: schedule, network, denoiser, losses, training, reconstruction.

Inside this room images are in [-1, 1]; outside it they are in [0, 1].
"""

from .denoise import Denoiser, EpsDenoiser
from .ema import Average
from .loss import hybrid
from .reconstruct import reconstruct, sample
from .schedule import ALL as SCHEDULES
from .schedule import Cosine, Linear, Schedule
from .train import Recipe, Step, train
from .unet import UNet

__all__ = [
    "SCHEDULES",
    "Average",
    "Cosine",
    "Denoiser",
    "EpsDenoiser",
    "Linear",
    "Recipe",
    "Schedule",
    "Step",
    "UNet",
    "hybrid",
    "reconstruct",
    "sample",
    "train",
]
