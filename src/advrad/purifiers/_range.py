"""The range of the images that a diffusion model was trained on."""

from ..diffusion import Denoiser
from ..errors import UsageError


def centred(denoiser: Denoiser) -> bool:
    """Whether its images are in [-1, 1]; all but what says otherwise are."""
    return bool(getattr(denoiser, "centred", True))


def refuse_uncentred(denoiser: Denoiser, what: str) -> None:
    """Raises UsageError where the model was trained on images in [0, 1].

    Arguments:
        what: is to be done with it, in a few words.
    """
    if not centred(denoiser):
        raise UsageError(
            f"{what} needs a model of images in [-1, 1], and this one was trained with "
            "centred=false, on [0, 1], for diffdefense alone: give one trained without that"
        )


def refuse_centred(denoiser: Denoiser, what: str) -> None:
    """Raises UsageError where the model was trained on images in [-1, 1]; arguments as above."""
    if centred(denoiser):
        raise UsageError(
            f"{what} needs a model that was trained on images in [0, 1], and this one saw them in "
            "[-1, 1]: train one with  advrad purify train-diffusion --set schedule=ramp "
            "--set levels=100 --set centred=false , or choose schedule=respaced"
        )
