"""FGSM: one step as far as the ball reaches.

Goodfellow et al., 2015 (https://arxiv.org/abs/1412.6572), for any ball.
"""

from torch import Tensor

from ..noise import Noise, fresh
from .ball import Ball
from .gradient import ready, value_and_gradient
from .objective import Objective


def fgsm(objective: Objective, x: Tensor, ball: Ball, noise: Noise = fresh) -> Tensor:
    """The images (B, C, H, W) after one step along the gradient at the clean ones.

    Costs one evaluation with a gradient. `noise` is there because every attack has one; nothing
    is drawn. Raises BlindAttackError where there is no gradient.
    """
    x = ready(x, ball)
    step = ball.steepest(value_and_gradient(objective, x).gradient)
    return ball.project(x + ball.radius.to(x) * step, x)
