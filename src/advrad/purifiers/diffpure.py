"""DiffPure: noise drowns the perturbation, and a diffusion model takes the noise away.

Nie et al., 2022 (https://arxiv.org/abs/2205.07460), Section 3: the image is diffused to t* and
brought back by the reverse process. The same `reconstruct` is AdvRAD's; there the difference is
looked at, here the result. Little noise leaves the perturbation, much of it takes the content
along: for a detector of anomalies, the anomaly.

The way back is a sampler of `diffusion.steps`; `sde` and `ode` are it as the paper has it, with
the paper's times.
"""

from torch import Tensor

from ..diffusion import Denoiser
from ..diffusion.recompute import Recomputed
from ..diffusion.reconstruct import Step, jump
from ..noise import Noise, fresh
from ._chain import Chain
from ._range import refuse_uncentred
from .base import Purifier


def diffpure(
    denoiser: Denoiser, depth: int, shots: int = 1, *, step: Step = jump, rounds: int = 1
) -> Purifier:
    """A purifier to `depth` steps of noise and back in `shots` jumps, by the denoiser.

    The result is clipped to [0, 1] as an image is; nothing on the way is. With more than one call
    of the network the backward pass computes each call's activations anew, so that a chain of any
    length needs the memory of one call.

    Arguments:
        denoiser: of a diffusion model.
        depth: steps of noise, t*; `denoiser.schedule.of_time(0.1)` has it in the paper's unit.
        shots: jumps that lead back; `depth` of them are the full chain.
        step: how a jump is made: `jump` (DDPM), or another of `diffusion.steps`.
        rounds: how often, each from the result of the one before.

    Raises UsageError where the depth is 0 or beyond the schedule, shots are none or more than the
    depth, or there are no rounds.
    """
    refuse_uncentred(denoiser, "diffusing an image and denoising it")
    chain = Chain(denoiser.schedule, depth, shots, step, rounds)
    used = denoiser if chain.calls == 1 else Recomputed(denoiser)

    def purify(x: Tensor, noise: Noise = fresh) -> Tensor:
        return chain(lambda own: used, x, noise)

    return purify
