"""FAB: along the boundary, always back towards the clean image.

Croce and Hein, 2020 (https://arxiv.org/abs/1907.02044), Algorithm 1. Where the objective is taken
as linear, the image of both the iterate and the clean image on the boundary is known exactly, the
box included; the next iterate lies between them, a little beyond. It looks for the smallest
perturbation, needs no eps, and does not care how large the objective's numbers are.

FAB-T aims at one class after the other: its objective is that class's logit minus the right one.
"""

import torch
from torch import Tensor

from ..errors import UsageError
from ..noise import Noise, fresh, redraw
from ._plane import Plane, nearest_plane, of, rank_of, slopes, to_plane
from ._start import positive
from .ball import Ball, column
from .gradient import ready
from .minimal import Nearest, Smallest, reached, shorten
from .objective import Objective


def fab(
    objective: Objective,
    x: Tensor,
    ball: Ball,
    *,
    threshold: float | Tensor = 0.0,
    steps: int = 100,
    bias: float = 0.1,
    overshoot: float = 1.05,
    backward: float = 0.9,
    restarts: int = 1,
    halvings: int = 3,
    noise: Noise = fresh,
) -> Smallest:
    """The nearest images whose rank is at least the threshold, up to the ball's eps.

    Costs 1 + halvings evaluations without a gradient, and a restart `steps` with a gradient and
    `steps` without. Of an objective with K columns (B, K), one of which has to reach the
    threshold, a gradient takes K backward passes.

    Arguments:
        objective: (B,), or (B, K) where any of several will do.
        ball: l_inf, l2 or l1, and the largest eps that counts.
        threshold: to be reached, one or (B,); 0 for a margin.
        bias: alpha_max, the largest share of the clean image's own projection in a step.
        overshoot: eta, how far a step goes to the plane and beyond.
        backward: beta, what is left of the perturbation after an image has crossed.
        restarts: runs; the first from the clean image, the others from random ones, half as far
            away as the nearest found, or as eps.
        halvings: of the way from the clean image to the one found, at the end.

    Raises BlindAttackError where there is no gradient, UsageError for impossible settings.
    """
    x = ready(x, ball)
    of(ball)
    positive(steps=steps, restarts=restarts)
    if not (0 <= bias <= 1 and overshoot >= 1 and 0 <= backward <= 1):
        raise UsageError(
            f"bias {bias:g}, overshoot {overshoot:g}, backward {backward:g}: expected shares from "
            "0 to 1, and an overshoot of 1 or more"
        )
    clean = rank_of(objective, x)
    nearest = Nearest(x, ball, reached(threshold, clean))
    nearest.see(x, clean)
    limit = ball.radius.to(x).flatten().expand(len(x))
    for restart in range(restarts):
        adv = x
        if restart:
            near = ball.at(torch.minimum(nearest.eps, limit) / 2)
            adv = near.project(x + near.random(x, redraw(noise, restart)), x)
        for step in range(steps):
            seen = slopes(objective, adv, first=restart + step == 0)
            plane = nearest_plane(ball, seen, nearest.goal)
            adv = between(ball, x, adv, plane, (bias, overshoot))
            crossed = nearest.see(adv, rank_of(objective, adv))
            adv = torch.where(column(crossed), x + backward * (adv - x), adv)
    shorten(lambda z: rank_of(objective, z), x, nearest, halvings)
    return nearest.within(limit)


def between(
    ball: Ball, x: Tensor, adv: Tensor, plane: Plane, settings: tuple[float, float]
) -> Tensor:
    """Between where the iterate and where the clean image meet the plane, and a little beyond.

    Settings are the bias and the overshoot. The nearer of the two weighs more, and the clean
    image's at most the bias.
    """
    bias, overshoot = settings
    ahead = to_plane(ball, adv, plane)
    offset = (plane.weights * (adv - x)).flatten(1).sum(1)
    direct = to_plane(ball, x, Plane(plane.weights, plane.gap + offset))
    one, two = ball.size(ahead), ball.size(direct)
    share = column((one / (one + two).clamp_min(torch.finfo(x.dtype).tiny)).clamp_max(bias))
    moved = (1 - share) * (adv + overshoot * ahead) + share * (x + overshoot * direct)
    return moved.clamp(0, 1)
