"""SPSA: steps along a slope that is estimated from values alone.

Uesato et al., 2018 (https://arxiv.org/abs/1802.05666), and with normal instead of +-1 directions
NES, Ilyas et al., 2018 (https://arxiv.org/abs/1804.08598). For a random direction u of +-1,

    E[ (f(x + sigma u) - f(x - sigma u)) / (2 sigma) u ] = grad f(x)

for every linear f. Both ends of a pair use the same direction, which takes f(x) itself out of the
estimate's variance.
"""

import torch
from torch import Tensor

from ..errors import UsageError
from ..noise import Noise, fresh, redraw
from ._start import positive
from .ball import Ball
from .gradient import Best, ready, value_of
from .objective import Objective

DIRECTION = 1 << 41  # the step under which directions ask for noise, apart from the balls' own
REACH = 5.0  # radii that all steps cover together
MEMORY = 0.8  # how much of the sum of slopes so far goes into the next step


def spsa(
    objective: Objective,
    x: Tensor,
    ball: Ball,
    *,
    steps: int = 50,
    samples: int = 32,
    sigma: float = 0.01,
    noise: Noise = fresh,
) -> Tensor:
    """The images (B, C, H, W) that rank highest of all iterates, the clean ones included.

    The next step is along the slopes of all steps so far, older ones counting less and less. Costs
    1 + steps * (2 samples + 1) forward evaluations for each image, and no gradient.

    Arguments:
        steps: from the clean images to the last iterate, each as large as in PGD.
        samples: pairs of evaluations for one slope.
        sigma: how far from the iterate they are, in each value.

    Raises UsageError for impossible settings.
    """
    x = ready(x, ball)
    positive(steps=steps, samples=samples)
    if not 0 < sigma <= 1:
        raise UsageError(f"sigma {sigma:g}: expected a part of the range of values, up to 1")
    best = Best(x, value_of(objective, x).rank)
    adv, path = x, torch.zeros_like(x)
    for step in range(steps):
        path = MEMORY * path + slope(objective, adv, samples, sigma, redraw(noise, step))
        reach = ball.radius.to(x) * REACH / steps
        adv = ball.project(adv + reach * ball.steepest(path), x)
        best.see(adv, value_of(objective, adv).rank)
    return best.x


def slope(
    objective: Objective, x: Tensor, samples: int, sigma: float, noise: Noise = fresh
) -> Tensor:
    """The gradient of what is climbed, estimated from `samples` antithetic pairs, (B, C, H, W).

    Where x + sigma u leaves [0, 1] it is cut, so that a value at the edge counts for half.
    """
    total = torch.zeros_like(x)
    for sample in range(samples):
        direction = torch.where(noise(x, DIRECTION + sample) < 0, -1.0, 1.0).to(x)
        above, below = (
            value_of(objective, (x + side * direction).clamp(0, 1)).climb
            for side in (sigma, -sigma)
        )
        total += ((above - below) / (2 * sigma))[:, None, None, None] * direction
    return total / samples
