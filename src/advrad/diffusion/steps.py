"""Ways from one level of noise to a lower one: the samplers, each a `Step` for `reconstruct`.

Each takes the estimate of x_0 at t and says what x_s may have been; the ladder of levels is not
theirs. The two of the stochastic differential equation run on the clock u = -log alpha_bar, in
which beta is 1 for every schedule: the step from t to s lasts log(a_s / a_t), which is the
integral of beta over it. A level is the only time there is, so none can be rounded.
"""

import math
from functools import partial

import torch
from torch import Tensor

from ..errors import UsageError
from ..noise import Noise, out
from .denoise import Denoiser
from .reconstruct import Step, jump


def ddim(eta: float = 0.0) -> Step:
    """The steps between the deterministic one (eta 0) and `ddpm` (eta 1).

    Song et al., 2021 (https://arxiv.org/abs/2010.02502), Eq. 12 and 16. Raises UsageError for
    another eta.
    """
    if not 0 <= eta <= 1:
        raise UsageError(f"eta {eta:g}: expected 0 (deterministic) to 1 (the posterior)")
    return partial(jump, eta=eta)


def ddpm_large(denoiser: Denoiser, x_t: Tensor, t: int, s: int, noise: Noise) -> Tensor:
    """The posterior's mean, with the variance beta = 1 - a_t / a_s in the place of its own.

    The upper of the two choices of Ho et al., 2020 (https://arxiv.org/abs/2006.11239), Section
    3.2, "fixed large"; `jump` has the lower one. At s = 0 this is x_0.
    """
    mean = jump(denoiser, x_t, t, s, _still)
    if s == 0:
        return mean
    a_t, a_s = denoiser.schedule.alpha_bar(t), denoiser.schedule.alpha_bar(s)
    return mean + math.sqrt(1 - a_t / a_s) * noise(x_t, out(s))


def sde(denoiser: Denoiser, x_t: Tensor, t: int, s: int, noise: Noise) -> Tensor:
    """Euler and Maruyama's step of the reverse of dx = -x / 2 du + dw.

    x_s = x_t + (x_t / 2 + score) du + sqrt(du) z (Song et al., 2021, Eq. 6,
    https://arxiv.org/abs/2011.13456). Noise is drawn in the last step,
    to s = 0, too.
    """
    lasts = _lasts(denoiser, t, s)
    drift = x_t / 2 + score(denoiser, x_t, t)
    return x_t + lasts * drift + math.sqrt(lasts) * noise(x_t, out(s))


def ode(denoiser: Denoiser, x_t: Tensor, t: int, s: int, noise: Noise) -> Tensor:
    """Euler's step of the probability flow, which has the marginals of the SDE and no noise.

    x_s = x_t + (x_t + score) / 2 du (Song et al., 2021, Eq. 13, https://arxiv.org/abs/2011.13456).
    """
    return x_t + _lasts(denoiser, t, s) / 2 * (x_t + score(denoiser, x_t, t))


def score(denoiser: Denoiser, x_t: Tensor, t: int) -> Tensor:
    """grad log p(x_t) = (sqrt(a_t) x_0 - x_t) / (1 - a_t), with the estimate of x_0."""
    a_t = denoiser.schedule.alpha_bar(t)
    return (math.sqrt(a_t) * denoiser(x_t, t) - x_t) / (1 - a_t)


def _lasts(denoiser: Denoiser, t: int, s: int) -> float:
    """How long the step is on the clock -log alpha_bar."""
    return math.log(denoiser.schedule.alpha_bar(s) / denoiser.schedule.alpha_bar(t))


def _still(like: Tensor, step: int) -> Tensor:
    return torch.zeros_like(like)


ALL: dict[str, Step] = {
    "ddpm": jump,
    "ddpm_large": ddpm_large,
    "ddim": ddim(0.0),
    "sde": sde,
    "ode": ode,
}
