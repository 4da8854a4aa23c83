"""From an image and its reconstruction to a map of errors, and from the map to a score.

The paper's error is squared, averaged over channels, taken at four scales and smoothed; its score
is the largest absolute deviation from what good images show at the same place. Everything else
here is a setting of the same two functions: how the deviation is measured, and how much of the map
enters the score.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

SCALES = (1, 2, 4, 8)


def window(size: int) -> int:
    """The side of the mean filter: the odd number nearest to 21 * size / 256 (21 at 256 px)."""
    return 2 * math.floor(21 * size / 256 / 2) + 1


def multiscale_error(x: Tensor, y: Tensor, scales: Sequence[int] = SCALES) -> Tensor:
    """Mean over scales of the squared error, averaged over channels: (B, C, H, W) -> (B, H, W).

    At scale 1 / l both images are reduced by l (antialiased bilinear), the squared difference is
    averaged over channels and enlarged again (bilinear). Both steps are linear or per pixel, so
    the difference is reduced once.
    """
    return torch.stack([scale_error(x - y, scale) for scale in scales]).mean(0)


def scale_error(gap: Tensor, scale: int) -> Tensor:
    """The squared gap at scale 1 / `scale`, (B, C, H, W) -> (B, H, W)."""
    error = reduce(gap, scale).square().mean(1, keepdim=True)
    return enlarge(error, gap.shape[-2:])[:, 0]


def reduce(x: Tensor, scale: int) -> Tensor:
    """(B, C, H, W) -> (B, C, H / scale, W / scale), antialiased bilinear."""
    if scale == 1:
        return x
    side = [max(1, length // scale) for length in x.shape[-2:]]
    return F.interpolate(x, side, mode="bilinear", antialias=True)


def enlarge(x: Tensor, side: Sequence[int]) -> Tensor:
    """(B, C, h, w) -> (B, C, H, W), bilinear."""
    return F.interpolate(x, list(side), mode="bilinear")


def mean_filter(error: Tensor, side: int) -> Tensor:
    """Averages over a square of odd side, zeros outside: (B, H, W) -> (B, H, W)."""
    if side % 2 == 0:
        raise ValueError(f"a mean filter of side {side}: expected an odd number")
    return F.avg_pool2d(error[:, None], side, stride=1, padding=side // 2)[:, 0]


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """The structural similarity of two images at every place, (B, C, H, W) in [-1, 1].

    (2 mu_x mu_y + C1) (2 sigma_xy + C2) / ((mu_x^2 + mu_y^2 + C1) (sigma_x^2 + sigma_y^2 + C2)),
    C1 = 0.01^2 and C2 = 0.03^2 for images in [0, 1], with moments under a Gaussian window of
    11 px and standard deviation 1.5 (Wang et al., 2004, https://doi.org/10.1109/TIP.2003.819861,
    Eq. 13 to 16). At a border the window ends with the image. 1 where the two are the same there.
    """
    mu_x, mu_y, xx, yy, xy = _windowed(torch.stack([x, y, x * x, y * y, x * y]))
    c_1, c_2 = 0.01**2, 0.03**2
    covariance, variances = xy - mu_x * mu_y, xx - mu_x**2 + yy - mu_y**2
    above = (2 * mu_x * mu_y + c_1) * (2 * covariance + c_2)
    return above / ((mu_x**2 + mu_y**2 + c_1) * (variances + c_2))


def _windowed(x: Tensor) -> Tensor:
    """The mean under the Gaussian window, over as much of it as lies inside, (..., H, W)."""
    rows, columns = (_gaussian(side).to(x) for side in x.shape[-2:])
    return rows @ x @ columns.mT


def _gaussian(side: int) -> Tensor:
    """The window's weights in one direction: a row a place, (side, side)."""
    place = torch.arange(side, dtype=torch.float64)
    distance = (place - place[:, None]).abs()
    weight = torch.exp(-distance.square() / (2 * 1.5**2)) * (distance <= 5)
    return weight / weight.sum(1, keepdim=True)


FLOOR = 0.1  # of the mean spread, below which no place is taken to be better known


class Score(NamedTuple):
    """How an anomaly is measured.

    Arguments:
        views: what of the gap between an image and its reconstruction is looked at,
            (B, C, H, W) -> (B, V, H, W); averaged over draws, joined over depths.
        judge: the map made of it, given its mean and standard deviation over good images,
            (B, K, H, W), (K, H, W), (K, H, W) -> (B, H, W).
        number: of the views, V.
    """

    views: Callable[[Tensor], Tensor]
    judge: Callable[[Tensor, Tensor, Tensor], Tensor]
    number: int = 1


def filtered(gap: Tensor) -> Tensor:
    """The paper's view: the multiscale error under the mean filter, (B, 1, H, W)."""
    error = multiscale_error(gap, torch.zeros_like(gap))
    return mean_filter(error, window(gap.shape[-1]))[:, None]


def coarse(gap: Tensor) -> Tensor:
    """The same without the finest scale, where the noise of the image itself is, (B, 1, H, W)."""
    error = multiscale_error(gap, torch.zeros_like(gap), SCALES[1:])
    return mean_filter(error, window(gap.shape[-1]))[:, None]


def signed(gap: Tensor) -> Tensor:
    """The gap itself at the scales 1/8 and 1/16, mean over channels, (B, 2, H, W).

    It keeps whether a place is too dark or too bright, which a squared error forgets, and it
    averages the noise out.
    """
    mean = gap.mean(1, keepdim=True)
    return torch.cat([enlarge(reduce(mean, scale), gap.shape[-2:]) for scale in (8, 16)], 1)


def absolute(error: Tensor, typical: Tensor, spread: Tensor) -> Tensor:
    """|error - typical|, the paper's deviation (AdvRAD, 2024, Section 4); mean over K."""
    return (error - typical).abs().mean(1)


def normalised(error: Tensor, typical: Tensor, spread: Tensor) -> Tensor:
    """The same in units of what good images vary by at the same place; mean over K.

    Where they do not vary at all (a single one was measured), the unit is the typical error.
    """
    whole = spread.mean((-2, -1), keepdim=True)
    unit = torch.where(whole > 0, FLOOR * whole, typical.abs().mean((-2, -1), keepdim=True))
    floor = unit + 1e-8
    return ((error - typical).abs() / (spread + floor)).mean(1)


def aggregate(deviation: Tensor, top: float = 0.0) -> Tensor:
    """The mean of the largest share `top` of a map, its maximum at 0: (B, H, W) -> (B,)."""
    flat = deviation.flatten(1)
    count = max(1, round(top * flat.shape[1]))
    return flat.topk(count, dim=1).values.mean(1)


SCORES: dict[str, Score] = {
    "paper": Score(filtered, absolute),
    "deviation": Score(filtered, normalised),
    "coarse": Score(coarse, normalised),
    "signed": Score(signed, normalised, 2),
}
