"""Transfer: the image that fools another detector.

Papernot et al., 2016 (https://arxiv.org/abs/1605.07277). The attacker who cannot see this detector
trains one of his own and attacks that. Where it does better than the attacks that could see, those
were blind.
"""

from collections.abc import Callable

from torch import Tensor

from ..noise import Noise, fresh
from .ball import Ball
from .gradient import Best, ready, value_of
from .objective import Objective

Attack = Callable[..., Tensor]  # (objective, x, ball, noise=...) -> x


def transfer(
    objective: Objective,
    x: Tensor,
    ball: Ball,
    *,
    source: Objective,
    attack: Attack,
    noise: Noise = fresh,
) -> Tensor:
    """The images (B, C, H, W) found against `source`, the clean ones where those rank higher.

    Costs two forward evaluations of the objective, and the attack's of the source. Settings of the
    attack are bound to it with `functools.partial`.

    Raises what the attack raises against the source.
    """
    x = ready(x, ball)
    best = Best(x, value_of(objective, x).rank)
    found = attack(source, x, ball, noise=noise)
    best.see(found, value_of(objective, found).rank)
    return best.x
