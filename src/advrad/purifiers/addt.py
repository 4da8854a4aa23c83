"""ADDT: a diffusion model that learns to take away noise with a piece of an attack in it.

Liu et al., 2024 (https://arxiv.org/abs/2404.14309), Adversarial Denoising Diffusion Training. The
noise of a training step is

    n = sqrt(1 - lambda^2) eps + lambda delta,  lambda = clip(0.03 sqrt(a_t / (1 - a_t)), 0, 0.3),

and the network is to predict all of n. delta is Gaussian value by value, and ordered within each
channel as the gradient of the classifier's loss is (rank-based Gaussian mapping, RBGM). That
gradient is looked for through the network's own estimate of the clean image (classifier-guided
perturbation optimisation, CGPO): in each of 5 rounds it is added to the sum of the ones before,
taken with fresh eps, and delta is built anew from the ranks of the sum. So there is neither a step
size nor a projection.

What is learnt keeps the form of a denoiser: the purifier is `diffpure`, with other weights.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..diffusion import EpsDenoiser, Schedule
from ..diffusion.loss import diffuse, noise_error
from ..noise import Noise, redraw
from ._guide import doubt
from ._slope import slope

UNIT, MOST = 0.03, 0.3  # of lambda
REACH, STEP, MOST_ADDED = 2 * 8 / 255, 2 * 4 / 255, 10.0  # of the ablation, in [-1, 1] scale
PLAIN, ORDERED = 0, 1  # the steps under which a round's two noises are asked


def share(schedule: Schedule, t: Tensor, like: Tensor) -> Tensor:
    """lambda at each image's level t (B,), (B, 1, 1, 1) as `like`."""
    return (UNIT * clarity(schedule, t, like)).clamp(0, MOST)


def clarity(schedule: Schedule, t: Tensor, like: Tensor) -> Tensor:
    """sqrt(a_t / (1 - a_t)), the signal against the noise at each image's level t (B,)."""
    a_t = schedule.at(t, like)
    return a_t.sqrt() / (1 - a_t).sqrt()


def ranked(order: Tensor, z: Tensor) -> Tensor:
    """RBGM: the values of z in the order of `order`, within each channel; (B, C, H, W) all.

    The smallest value of z goes where `order` is smallest, and so on. Only ranks count.
    """
    ranks = order.flatten(2).argsort(stable=True, dim=-1).argsort(-1)
    return z.flatten(2).sort(-1).values.gather(-1, ranks).view_as(z)


def mixed(eps: Tensor, delta: Tensor, weight: Tensor) -> Tensor:
    """sqrt(1 - lambda^2) eps + lambda delta, of unit variance where both are."""
    return (1 - weight.square()).sqrt() * eps + weight * delta


@dataclass(frozen=True)
class Misled(ABC):
    """What a training step needs of an image: noise with something in it that misleads.

    Arguments:
        denoiser: what is fine-tuned.
        classifier: images in [0, 1] to logits; it does not change.
        rounds: of the search for delta.
    """

    denoiser: EpsDenoiser
    classifier: nn.Module
    rounds: int = 5

    @abstractmethod
    def delta(self, x: Tensor, labels: Tensor, t: Tensor, noise: Noise) -> Tensor:
        """What misleads, shaped like x, no gradient.

        Arguments:
            x: images in [-1, 1], (B, C, H, W).
            labels: their classes, (B,).
            t: their levels, integers from 1 on, (B,).
            noise: round k takes its draw number k, for what is mixed and for what is ranked.
        """

    @abstractmethod
    def mixed(self, delta: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """The noise of a training step with delta in it."""

    def error(self, x: Tensor, labels: Tensor, t: Tensor, noise: Noise) -> Tensor:
        """The mean squared error of the mixed noise, (B,); the arguments are those of `delta`."""
        n = self.mixed(self.delta(x, labels, t, noise), t, redraw(noise, self.rounds)(x, PLAIN))
        return noise_error(self.denoiser, x, t, n)

    def doubt(self, x: Tensor, labels: Tensor, t: Tensor, n: Tensor) -> Tensor:
        """The classifier's loss about what the network makes of x under the noise n, (B,)."""
        x_t = diffuse(self.denoiser.schedule, x, t, n)
        return doubt(self.denoiser, self.classifier, x_t, t=t, labels=labels)


class ADDT(Misled):
    """Noise that is Gaussian, with a share of it in the order of what misleads."""

    @torch.no_grad()
    def delta(self, x: Tensor, labels: Tensor, t: Tensor, noise: Noise) -> Tensor:
        """CGPO: Gaussian noise whose order misleads the classifier."""
        delta, total = redraw(noise, self.rounds)(x, ORDERED), torch.zeros_like(x)
        for k in range(self.rounds):
            own = redraw(noise, k)
            eps = own(x, PLAIN)
            misled = lambda at, eps=eps: self.doubt(x, labels, t, self.mixed(at, t, eps))
            total = total + slope(misled, delta)
            delta = ranked(total, own(x, ORDERED))
        return delta

    def mixed(self, delta: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        return mixed(eps, delta, share(self.denoiser.schedule, t, eps))


class Unranked(Misled):
    """The authors' ablation: an l_inf attack of 8/255 in steps of 4/255, as it is, in the noise.

    n = eps + min(sqrt(a_t / (1 - a_t)), 10) delta, an offset of delta on the image where the
    noise is not small.
    """

    @torch.no_grad()
    def delta(self, x: Tensor, labels: Tensor, t: Tensor, noise: Noise) -> Tensor:
        """The attack in [-1, 1] scale; x + delta is an image."""
        delta = torch.zeros_like(x)
        for k in range(self.rounds):
            eps = redraw(noise, k)(x, PLAIN)
            misled = lambda at, eps=eps: self.doubt(x, labels, t, self.mixed(at, t, eps))
            delta = delta + STEP * slope(misled, delta).sign()
            delta = (x + delta.clamp(-REACH, REACH)).clamp(-1, 1) - x
        return delta

    def mixed(self, delta: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        return eps + clarity(self.denoiser.schedule, t, eps).clamp(max=MOST_ADDED) * delta
