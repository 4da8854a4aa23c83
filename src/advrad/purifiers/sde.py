"""DiffPure as published: the reverse stochastic differential equation, or its probability flow.

Nie et al., 2022 (https://arxiv.org/abs/2205.07460), Section 3: Euler and Maruyama's steps of
dt = 0.001 back from t*; 0.1 of the schedule against l_inf of 8/255 on CIFAR-10, 0.075 against l2
of 0.5, 0.15 on ImageNet. Their model was trained with the schedule `VP`; the steps are those of
whatever schedule the denoiser has, whose levels are the only times there are: the backward pass
asks the network at exactly the times of the forward pass.

Here the last step ends at 0, there at 1e-5.
"""

from ..diffusion import Denoiser, Schedule
from ..diffusion.steps import ode as flow
from ..diffusion.steps import sde as reverse
from ..errors import UsageError
from .base import Purifier
from .diffpure import diffpure


def sde(denoiser: Denoiser, time: float = 0.1, dt: float = 1e-3, *, rounds: int = 1) -> Purifier:
    """DiffPure by the reverse SDE.

    Arguments:
        denoiser: of a diffusion model.
        time: t*, where 1 is the whole schedule; the nearest level is taken.
        dt: of a step, in the same unit; steps are as even as the levels allow, and 0.1 in steps
            of 0.005 asks the network 20 times.
        rounds: how often, each from the result of the one before.

    Raises UsageError where t* is 0 or beyond the schedule, with the noise that it means, and
    where dt is finer than the schedule's levels or coarser than t*.
    """
    depth, shots = _levels(denoiser.schedule, time, dt)
    return diffpure(denoiser, depth, shots, step=reverse, rounds=rounds)


def ode(denoiser: Denoiser, time: float = 0.1, dt: float = 1e-3, *, rounds: int = 1) -> Purifier:
    """DiffPure by the probability flow: all its noise is put in, none is drawn on the way back.

    The arguments and errors are those of `sde`.
    """
    depth, shots = _levels(denoiser.schedule, time, dt)
    return diffpure(denoiser, depth, shots, step=flow, rounds=rounds)


def _levels(schedule: Schedule, time: float, dt: float) -> tuple[int, int]:
    """Depth and shots, from the paper's times."""
    depth, finest = schedule.of_time(time), 1 / schedule.steps
    shots = round(time / dt) if dt > 0 else 0
    if 1 <= depth <= schedule.steps and not 1 <= shots <= depth:
        raise UsageError(
            f"dt {dt:g} for t* {time:g}: expected {finest:g}, which is one level of the "
            f"schedule, to {time:g}; a finer one needs a model with more levels"
        )
    return depth, shots
