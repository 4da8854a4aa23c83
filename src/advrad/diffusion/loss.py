"""Losses of denoising diffusion with a learned variance.

L_simple trains the noise, L_vb the variance, and L_hybrid = L_simple + lambda L_vb both, with
lambda = 0.001 and the mean held constant inside L_vb (Nichol and Dhariwal, 2021, Section 3.1,
https://arxiv.org/abs/2102.09672). L_vb sums one term over all T levels; drawn at one level a
time, lambda L_vb is T / 1000 times the drawn term. All terms are means over an image's values.
"""

import math

import torch
from torch import Tensor

from .denoise import EpsDenoiser
from .schedule import Schedule


def diffuse(schedule: Schedule, x: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """x_t = sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) eps (Ho et al., 2020, Eq. 4)."""
    a_t = schedule.at(t, x)
    return a_t.sqrt() * x + (1 - a_t).sqrt() * eps


def undiffuse(schedule: Schedule, x_t: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """x_0 = (x_t - sqrt(1 - alpha_bar) eps) / sqrt(alpha_bar), at each image's own level."""
    a_t = schedule.at(t, x_t)
    return (x_t - (1 - a_t).sqrt() * eps) / a_t.sqrt()


def simple(eps: Tensor, predicted: Tensor) -> Tensor:
    """L_simple, the mean squared error of the noise: (B, C, H, W) twice -> (B,)."""
    return (eps - predicted).square().flatten(1).mean(1)


def noise_error(denoiser: EpsDenoiser, x: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """L_simple of each image, (B,), whatever the noise is drawn from; arguments as in `hybrid`."""
    x_t = diffuse(denoiser.schedule, x, t, eps)
    return simple(eps, denoiser.predict(x_t, t).eps)


def hybrid(denoiser: EpsDenoiser, x: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """L_hybrid of each image, (B,), in nats per value for L_simple and bits for the bound.

    Arguments:
        x: clean images in [-1, 1], (B, C, H, W).
        t: each image's level, integers from 1 to T, (B,).
        eps: the noise to put in, shaped like x.
    """
    x_t = diffuse(denoiser.schedule, x, t, eps)
    predicted = denoiser.predict(x_t, t)
    bound = variational(
        denoiser.schedule, x, x_t, t, predicted.eps.detach(), predicted.log_variance
    )
    return simple(eps, predicted.eps) + denoiser.schedule.steps / 1000 * bound


def variational(
    schedule: Schedule, x: Tensor, x_t: Tensor, t: Tensor, eps: Tensor, log_variance: Tensor
) -> Tensor:
    """One term of L_vb in bits per value, (B,): L_{t-1} for t > 1, L_0 for t = 1.

    L_{t-1} = KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)), L_0 = -log p(x_0 | x_1) with bins of
    1 / 255 on either side (Ho et al., 2020, Eq. 5 and 13).
    """
    a_t, a_s = schedule.at(t, x), schedule.at(t - 1, x)
    predicted = (x_t - (1 - a_t).sqrt() * eps) / a_t.sqrt()
    mean, true_mean = posterior_mean(a_t, a_s, predicted, x_t), posterior_mean(a_t, a_s, x, x_t)
    true_variance = (1 - a_s) / (1 - a_t) * (1 - a_t / a_s)
    kl = gaussian_kl(true_mean, true_variance.clamp_min(1e-20).log(), mean, log_variance)
    nll = -discretised_log_likelihood(x, mean, log_variance)
    nats = torch.where((t == 1).to(x.device)[:, None, None, None], nll, kl)
    return nats.flatten(1).mean(1) / math.log(2)


def posterior_mean(a_t: Tensor, a_s: Tensor, x_0: Tensor, x_t: Tensor) -> Tensor:
    """The mean of x_s given x_t and x_0, s < t (Ho et al., 2020, Eq. 7, for any two levels).

    sqrt(a_s) beta / (1 - a_t) x_0 + sqrt(alpha) (1 - a_s) / (1 - a_t) x_t, alpha = a_t / a_s.
    """
    alpha = a_t / a_s
    return (a_s.sqrt() * (1 - alpha) * x_0 + alpha.sqrt() * (1 - a_s) * x_t) / (1 - a_t)


def gaussian_kl(mean_p: Tensor, log_p: Tensor, mean_q: Tensor, log_q: Tensor) -> Tensor:
    """KL(N(mean_p, e^log_p) || N(mean_q, e^log_q)) in nats, value by value."""
    gap = (mean_p - mean_q).square() * torch.exp(-log_q)
    return 0.5 * (log_q - log_p - 1 + torch.exp(log_p - log_q) + gap)


def discretised_log_likelihood(x: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """log of a Gaussian's mass in the bin of half width 1 / 255 around x, in nats.

    The first and the last bin reach to infinity (Ho et al., 2020, Eq. 13).
    """
    scale = torch.exp(-0.5 * log_variance)
    upper = torch.special.ndtr(scale * (x - mean + 1 / 255))
    lower = torch.special.ndtr(scale * (x - mean - 1 / 255))
    upper = torch.where(x > 0.999, torch.ones_like(upper), upper)
    lower = torch.where(x < -0.999, torch.zeros_like(lower), lower)
    return (upper - lower).clamp_min(1e-12).log()
