"""DeepFool: to the nearest boundary, as if every boundary were a plane, again and again.

Moosavi-Dezfooli et al., 2016 (https://arxiv.org/abs/1511.04599), Algorithm 2 for l2; Section 3.3,
Eq. 11 and 12 for other norms. Of an affine classifier one step is the smallest perturbation.
"""

import torch
from torch import Tensor

from ..errors import UsageError
from ..noise import Noise, fresh
from ._plane import nearest_plane, slopes
from ._start import positive
from .ball import L2, Ball, Linf, column
from .gradient import ready
from .minimal import Nearest, Smallest, reached
from .objective import Objective


def deepfool(
    objective: Objective,
    x: Tensor,
    ball: Ball,
    *,
    threshold: float | Tensor = 0.0,
    steps: int = 50,
    overshoot: float = 0.02,
    noise: Noise = fresh,
) -> Smallest:
    """The images (B, C, H, W) that have just crossed, and how far away they are, up to eps.

    Costs at most `steps` + 1 evaluations with a gradient; it ends where all images have crossed.
    Of an objective with K columns (B, K), one of which has to reach the threshold, a gradient
    takes K backward passes. `noise` is there because every attack has one; nothing is drawn.

    Arguments:
        objective: (B,), or (B, K): every other class's logit minus the right one.
        ball: l_inf or l2, and the largest eps that counts.
        threshold: to be reached, one or (B,); 0 for a margin.
        overshoot: eta, what is added to the way to the planes, as a share of it.

    Raises BlindAttackError where there is no gradient, UsageError for impossible settings.
    """
    x = ready(x, ball)
    if not isinstance(ball, Linf | L2):
        raise UsageError(f"deepfool has no step for {ball.name}: expected one of linf, l2")
    positive(steps=steps)
    if overshoot < 0:
        raise UsageError(f"overshoot {overshoot:g}: expected a share of the way, 0 or more")
    nearest = Nearest(x, ball, reached(threshold, x[:, 0, 0, 0]))
    seen = slopes(objective, x)
    crossed = nearest.see(x, seen.rank)
    adv, way = x, torch.zeros_like(x)
    for _ in range(steps):
        if bool(crossed.all()):
            break
        plane = nearest_plane(ball, seen, nearest.goal)
        direction = ball.steepest(plane.weights)
        slope = (plane.weights * direction).flatten(1).sum(1)
        distance = torch.where(slope > 0, plane.gap.abs() / slope, 0)
        way = way + column(distance) * direction
        adv = torch.where(column(crossed), adv, (x + (1 + overshoot) * way).clamp(0, 1))
        seen = slopes(objective, adv, first=False)
        crossed = crossed | nearest.see(adv, seen.rank)
    return nearest.within(ball.radius.to(x).flatten())
