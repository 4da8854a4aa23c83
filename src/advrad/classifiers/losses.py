"""What a classifier is trained by: its loss as the images are, or under an attack in every step.

The attack is made against the network as it will be used, without dropout and with the statistics
of its normalisation held; what it finds is then trained on as any batch is.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..attacks import Ball, Objective, fgsm, pgd
from ..attacks.objective import cross_entropy
from ..noise import Noise

REACH = 2.5  # radii that all steps of an attack in training cover together


@dataclass(frozen=True)
class Inner:
    """The attack inside a step of training: PGD from a random start, its last iterate.

    Arguments:
        ball: what it may do.
        steps: of PGD, each of 2.5 radii / steps.
    """

    ball: Ball
    steps: int = 10

    def raised(self, objective: Objective, x: Tensor, noise: Noise) -> Tensor:
        """The images (B, C, H, W) in [0, 1], within the ball, where the objective is large."""
        size = torch.as_tensor(self.ball.eps) * REACH / self.steps
        return pgd(objective, x, self.ball, steps=self.steps, size=size, keep="last", noise=noise)


Loss = Callable[[nn.Module, Tensor, Tensor, Inner, Noise], Tensor]
"""(network, images, labels, attack, noise of its start) -> the mean over the batch, ()."""


def natural(model: nn.Module, x: Tensor, y: Tensor, inner: Inner, noise: Noise) -> Tensor:
    """Cross-entropy of the images as they are."""
    return F.cross_entropy(model(x), y)


def half_fgsm(model: nn.Module, x: Tensor, y: Tensor, inner: Inner, noise: Noise) -> Tensor:
    """The mean of cross-entropy as the images are and after FGSM.

    Goodfellow et al., 2015 (https://arxiv.org/abs/1412.6572), Section 6, with alpha = 1/2; the
    adversarial training that DiffDefense compares itself with.
    """
    with still(model):
        x_adv = fgsm(lambda z: cross_entropy(model(z), y), x, inner.ball)
    return F.cross_entropy(model(torch.cat([x, x_adv])), torch.cat([y, y]))


def madry(model: nn.Module, x: Tensor, y: Tensor, inner: Inner, noise: Noise) -> Tensor:
    """Cross-entropy after PGD that raises it (Madry et al., 2018,
    https://arxiv.org/abs/1706.06083, Eq. 2.1)."""
    with still(model):
        x_adv = inner.raised(lambda z: cross_entropy(model(z), y), x, noise)
    return F.cross_entropy(model(x_adv), y)


def trades(
    model: nn.Module, x: Tensor, y: Tensor, inner: Inner, noise: Noise, beta: float = 6.0
) -> Tensor:
    """CE(f(x), y) + beta KL(f(x) || f(x')), where x' raises the divergence within the ball.

    Zhang et al., 2019 (https://arxiv.org/abs/1901.08573), Algorithm 1, whose 1 / lambda is beta.
    The attack starts anywhere in the ball: at x itself the divergence has no gradient. The
    gradient of the loss goes through both arguments of the divergence.
    """
    with still(model):
        with torch.no_grad():
            held = model(x)
        x_adv = inner.raised(lambda z: divergence(held, model(z)), x, noise)
    logits = model(x)
    return F.cross_entropy(logits, y) + beta * divergence(logits, model(x_adv)).mean()


def divergence(one: Tensor, other: Tensor) -> Tensor:
    """KL(softmax(one) || softmax(other)) of logits (B, K): (B,), 0 where they agree."""
    log_p, log_q = one.log_softmax(1), other.log_softmax(1)
    return (log_p.exp() * (log_p - log_q)).sum(1)


@contextlib.contextmanager
def still(model: nn.Module) -> Iterator[None]:
    """The network as it is used; how it was before comes back afterwards."""
    before = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(before)


LOSSES: dict[str, Loss] = {
    "natural": natural,
    "fgsm": half_fgsm,
    "pgd": madry,
    "trades": trades,
}
