"""DiffDefense: the image is what a diffusion model can make that is nearest to it.

Prassanna Silva et al., 2023 (https://arxiv.org/abs/2309.03702). From R draws of pure noise, T*
reverse steps make an image each; L times the noise is moved along the gradient of the squared
error between that image and the one to be defended. The nearest of the R is the answer, and the
error tells attacks from clean images (`purifiers.detect`).

As published: Adam with momenta 0.5 and 0.999; a first rate of 0.02, then
25 * 0.1^(i / ceil(0.8 L)) at iteration i; fresh noise in every pass; the result is the last
pass's, so that L passes make L - 1 updates; the gradient takes the network's output as a constant,
which leaves the factor 1 / sqrt(alpha_bar) of the first level (`gradient="detached"`; `"exact"`
goes through the network).

The published program rebuilds its sampler for the reconstruction: T* levels with beta from 1e-4 to
0.02, an image that is the sigmoid of the last step, and a network asked at its first T* levels,
whose noise was another in training (`schedule="paper"`). At its rates the sigmoid saturates: what
comes out is nearly black or white, pixel by pixel, by whether the image is above the sigmoid of
the first pass's last step. Its network was trained on images in [0, 1], where a black ground is 0
and its threshold 0.5; one of [-1, 1], with a threshold of 0.27 there, is refused. `"respaced"`
visits T* + 1 of the levels that it was trained for, down from the last, in [-1, 1].

Whichever gradient the search follows, the defence is differentiated as it is: the result depends
on the image through the search, and every path through the network counts.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from ..diffusion import EpsDenoiser, Schedule
from ..diffusion.denoise import Denoiser
from ..diffusion.recompute import Recomputed
from ..diffusion.reconstruct import jump, ladder
from ..errors import UsageError
from ..noise import Noise, fresh, out
from ._range import refuse_centred, refuse_uncentred
from ._search import Found, State, again, check_search, found, remade, squared_error, starts
from ._slope import slope

FIRST = 0.02  # rate of the first update
MOMENTA = (0.5, 0.999)
TINY = 1e-8
GRADIENTS = ("detached", "exact")
RATES = {"paper": 25.0, "respaced": 1.0}  # of the decay after the first update


@dataclass(frozen=True)
class Ramp(Schedule):
    """beta grows linearly from `first` to `last`, whatever the number of steps: in DiffDefense's
    program from 1e-5 to 0.02 over 100 steps in training, from 1e-4 over T* in use."""

    first: float = 1e-5
    last: float = 0.02

    def betas(self) -> Tensor:
        return torch.linspace(self.first, self.last, self.steps, dtype=torch.float64)


@dataclass(frozen=True)
class Misplaced:
    """The network of a denoiser under a schedule that it was not trained for, level for level."""

    denoiser: EpsDenoiser
    schedule: Schedule

    def __call__(self, x_t: Tensor, t: int) -> Tensor:
        """The estimate of x_0, (B, C, H, W)."""
        a_t = self.schedule.alpha_bar(t)
        eps, _ = self.denoiser.run(x_t, torch.full((len(x_t),), t))
        return (x_t - math.sqrt(1 - a_t) * eps) / math.sqrt(a_t)


def rate_at(i: int, iterations: int, rate: float = 25.0) -> float:
    """The learning rate of iteration i = 0, 1, ...: `FIRST`, then the published decay."""
    return rate * 0.1 ** (i / math.ceil(0.8 * iterations)) if i else FIRST


def squashed(z_0: Tensor) -> Tensor:
    """Anything to (0, 1), by the sigmoid."""
    return torch.sigmoid(z_0)


def unit(z_0: Tensor) -> Tensor:
    """[-1, 1] to [0, 1]."""
    return (z_0 + 1) / 2


@dataclass(frozen=True)
class DiffDefense:
    """The purifier; `search` tells more than it. See `diffdefense` for the arguments.

    Arguments:
        denoiser: with the schedule that is walked down.
        levels: that are visited, from the highest to 0.
        output: from the last step to an image in [0, 1] scale.
    """

    denoiser: Denoiser
    levels: Sequence[int]
    output: Callable[[Tensor], Tensor]
    iterations: int
    restarts: int
    rate: float
    gradient: str

    def __call__(self, x: Tensor, noise: Noise = fresh) -> Tensor:
        """The nearest of the restarts' images, (B, C, H, W) in [0, 1]."""
        return self.search(x, noise).best()

    def look(self, x: Tensor, noise: Noise = fresh) -> tuple[Tensor, Tensor]:
        """The purified images, and the published score of an attack: the mean error of the
        restarts, (B,)."""
        end = self.search(x, noise)
        return end.best(), end.errors.mean(0)

    def search(self, x: Tensor, noise: Noise = fresh) -> Found:
        """The images that the last pass of each restart makes, and their errors."""
        z = starts(x, self.restarts, noise)
        state: State = (z, torch.zeros_like(z), torch.zeros_like(z))
        target = again(x, self.restarts)
        for i in range(self.iterations - 1):
            step = partial(self._updated, i=i, drawn=self._draws(x, noise, i))
            state = self._step(step, *state, target)
        return found(self._made(state[0], self._draws(x, noise, self.iterations - 1)), x)

    @property
    def _step(self) -> Callable[..., State]:
        """Whole updates are recomputed where they hold a gradient of the network."""
        return remade if self.gradient == "exact" else lambda step, *tensors: step(*tensors)

    def _draws(self, x: Tensor, noise: Noise, i: int) -> list[Tensor]:
        """The noise of the jumps of pass i, (R B, C, H, W) each; the last jump takes none."""
        jumps = len(self.levels) - 2
        first = [(restart * self.iterations + i) * jumps for restart in range(self.restarts)]
        return [torch.cat([noise(x, out(n + j)) for n in first]) for j in range(jumps)]

    def _made(self, z: Tensor, drawn: Sequence[Tensor]) -> Tensor:
        """The image of a latent, (B, C, H, W) in [0, 1] scale, not clipped."""
        return self.output(self._descended(z, drawn))

    def _descended(self, z: Tensor, drawn: Sequence[Tensor]) -> Tensor:
        for (t, s), own in zip(pairwise(self.levels), [*drawn, z], strict=True):
            z = jump(self.denoiser, z, t, s, lambda like, step, own=own: own)  # type: ignore[misc]
        return z

    def _updated(
        self, z: Tensor, m: Tensor, v: Tensor, target: Tensor, *, i: int, drawn: Sequence[Tensor]
    ) -> State:
        """One update of Adam (Kingma and Ba, 2015, Algorithm 1), differentiable."""
        g = self._slope(z, target, drawn)
        b_1, b_2 = MOMENTA
        m, v = b_1 * m + (1 - b_1) * g, b_2 * v + (1 - b_2) * g.square()
        mean, root = m / (1 - b_1 ** (i + 1)), _root(v / (1 - b_2 ** (i + 1)))
        return z - rate_at(i, self.iterations, self.rate) * mean / (root + TINY), m, v

    def _slope(self, z: Tensor, target: Tensor, drawn: Sequence[Tensor]) -> Tensor:
        """The gradient of the error's mean over pixels and restarts, shaped like z."""
        error = lambda made: squared_error(made, target) / self.restarts
        if self.gradient == "exact":
            return slope(lambda z: error(self._made(z, drawn)), z, target)
        highest = self.denoiser.schedule.alpha_bar(self.levels[0])
        at = slope(lambda z_0: error(self.output(z_0)), self._descended(z, drawn), target)
        return at / math.sqrt(highest)


def diffdefense(
    denoiser: EpsDenoiser,
    iterations: int = 5,
    restarts: int = 5,
    *,
    steps: int = 15,
    schedule: str = "paper",
    gradient: str = "detached",
    rate: float | None = None,
) -> DiffDefense:
    """A purifier that searches for the latent of an image.

    Arguments:
        iterations: passes of the search (L).
        restarts: latents that are searched from at once (R).
        steps: reverse steps from a latent to its image (T*).
        schedule: `paper` or `respaced`, see above; the one wants a model that was trained on
            images in [0, 1] (`Diffusion(centred=False)`), the other one of [-1, 1].
        gradient: that the search follows, `detached` or `exact`.
        rate: of the decay after the first update; the published 25 for `paper` and 1 for
            `respaced`, where 25 throws the latent out of what the network knows.

    Raises UsageError where one of them is impossible, or the model is of the other images.
    """
    if gradient not in GRADIENTS:
        raise UsageError(f"gradient={gradient!r}: expected one of {', '.join(GRADIENTS)}")
    top = denoiser.schedule.steps
    if not 1 <= steps <= top:
        raise UsageError(f"steps={steps}: expected 1 to {top}, the levels of the denoiser")
    if schedule == "paper":
        refuse_centred(denoiser, "diffdefense with schedule=paper")
        used: Denoiser = Misplaced(denoiser, Ramp(steps, first=1e-4))
        levels, output = ladder(steps, steps), squashed
    elif schedule == "respaced":
        refuse_uncentred(denoiser, "diffdefense with schedule=respaced")
        used, levels, output = denoiser, ladder(top, steps), unit
    else:
        raise UsageError(f"schedule={schedule!r}: expected paper or respaced")
    chosen = RATES[schedule] if rate is None else rate
    check_search(iterations, restarts, steps, rate=chosen)
    return DiffDefense(Recomputed(used), levels, output, iterations, restarts, chosen, gradient)


def _root(v: Tensor) -> Tensor:
    """The square root, with slope 0 where it is 0."""
    positive = v > 0
    return torch.where(positive, torch.where(positive, v, 1).sqrt(), 0)
