"""What a classifier thinks of the image that a network sees in the noise."""

from torch import Tensor, nn

from ..attacks.objective import cross_entropy
from ..diffusion import EpsDenoiser
from ..diffusion.loss import undiffuse


def doubt(
    denoiser: EpsDenoiser, classifier: nn.Module, x_t: Tensor, *, t: Tensor, labels: Tensor
) -> Tensor:
    """The classification loss of the estimate of x_0 from x_t, (B,); nothing is clipped.

    Arguments:
        classifier: images in [0, 1] to logits.
        x_t: diffused images, (B, C, H, W).
        t: their levels, integers from 1 on, (B,).
        labels: their classes, (B,).
    """
    x_0 = undiffuse(denoiser.schedule, x_t, t, denoiser.predict(x_t, t).eps)
    return cross_entropy(classifier((x_0 + 1) / 2), labels)
