"""The diffusion core: schedule, network, denoiser, losses, training, reconstruction.

Inside this room images are in [-1, 1]; outside it they are in [0, 1]. A denoiser that is not
`centred`, as DiffDefense's own, sees them in [0, 1] here too.
"""

from .denoise import Denoiser, EpsDenoiser
from .ema import Average
from .guide import Guided
from .loss import hybrid
from .reconstruct import reconstruct, sample
from .schedule import ALL as SCHEDULES
from .schedule import VP, Cosine, Linear, Schedule
from .steps import ALL as STEPS
from .steps import ddim
from .train import Recipe, Step, train
from .unet import UNet

__all__ = [
    "SCHEDULES",
    "STEPS",
    "VP",
    "Average",
    "Cosine",
    "Denoiser",
    "EpsDenoiser",
    "Guided",
    "Linear",
    "Recipe",
    "Schedule",
    "Step",
    "UNet",
    "ddim",
    "hybrid",
    "reconstruct",
    "sample",
    "train",
]
