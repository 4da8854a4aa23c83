"""APAE: the code of an image is searched for, and errors are weighed by what is usual.

Goodge et al., 2020 (https://doi.org/10.24963/ijcai.2020/173): an adversary who lowers the error of
an autoencoder relies on its encoder. So the encoder's code is a start alone, from which gradient
descent looks for the code whose image is nearest to the one given (approximate projection); and
the error of each feature, here a value of the image, is divided by what good images show there
(feature weighting).

    z <- z - alpha grad_z |x - D(z)|^2,    w = 1 / (epsilon + median error),    score = mean w e

The descent is a part of the score, and its gradient goes through every step: what makes the
published defence hard to attack is its cost, and no wall. The error is squared here; the authors'
code uses the smooth l1, takes 1,000 steps, and weighs the errors from before the descent.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor

from .. import scoring
from ..checks import at_least, plain
from ..diffusion.batches import Batches
from ..diffusion.flop import told
from ..diffusion.learning import drawn, learn, short
from ..networks import ConvolutionalAutoencoder
from ..noise import Noise, fresh
from ..tune import evenly
from . import _patches as patches
from ._rebuilding import check_rebuilding, l2
from .base import PLAIN, Anomaly, Detector, Fitting, Images, Run, judged

TRAINED = ("size", "channels", "widths", "latent", "steps", "batch", "rate", "augment")
MOST = 256  # good images whose errors are held at once, for their median
STEEPEST = 16  # good images at which the descent's steepest direction is looked for
ROUNDS = 20  # of that search


class APAE(Detector):
    """A deterministic detector: noise and draws change nothing.

    Arguments:
        size: side of the images the network sees, in pixels.
        channels: 1 for grey, 3 for colour.
        search: steps of the descent to the code; 0 takes the encoder's.
        pace: of a step, in units of what the steepest direction bears: on a linear decoder every
            step lowers the error up to a pace of 2.
        floor: epsilon of the weights, in units of the squared error.
        smooth: side in pixels of the square over which errors are averaged, odd; 1 leaves them as
            they are.
        top: the share of the map whose mean is the score; 0 takes its maximum, 1 is the paper's.
        widths, latent: of the network, see `ConvolutionalAutoencoder`.
        steps, batch, rate: of the training; the rate warms up and falls along half a cosine.
        augment: views of the training images, names of `diffusion.augment.ALL`.

    Raises UsageError where a setting is impossible.
    """

    search: int
    pace: float
    floor: float
    smooth: int
    top: float
    widths: list[int]
    latent: int
    steps: int
    batch: int
    rate: float
    augment: list[str]
    weight: Tensor | None  # (C, size, size), of each value's error
    step: Tensor | None  # (), alpha

    def __init__(
        self,
        size: int = 128,
        channels: int = 3,
        search: int = 20,
        pace: float = 1.0,
        floor: float = 1e-3,
        smooth: int = 1,
        top: float = 0.001,
        widths: Sequence[int] = (16, 32, 64, 128),
        latent: int = 128,
        steps: int = 400,
        batch: int = 16,
        rate: float = 2e-3,
        augment: Sequence[str] = ("flips",),
    ) -> None:
        given = {k: plain(v) for k, v in locals().items() if k not in ("self", "__class__")}
        super().__init__()
        check_rebuilding(given)
        at_least("latent", latent, 1)
        for name in ("search", "pace"):
            at_least(name, given[name], 0)
        at_least("floor", floor, 1e-12)
        for name, value in given.items():
            setattr(self, name, value)
        self.network = self._network()
        self.spent: dict[str, float] = {}
        self.register_buffer("weight", None)
        self.register_buffer("step", None)

    def fit(self, images: Images, run: Run = PLAIN) -> Self:
        """Trains the network, and measures the descent's step and the errors of good images. It
        chooses nothing, so that `run.tune` is not looked at."""
        images = Fitting(images, self.channels, self.input_size)
        self.network = drawn(run.seed, self._network).to(run.device)
        self.weight = self.step = None
        self.train()
        self.spent = self._learn(images, run)
        self.eval()
        self.step = self._step(images, run)
        return self.measure(images, run)

    def measure(self, images: Images, run: Run = PLAIN, sigma: float = 0.0) -> Self:
        """The weights, from `MOST` good images at most, each under Gaussian noise with standard
        deviation sigma, in the [0, 1] scale; network and step stay."""
        images = Fitting(images, self.channels, self.input_size)
        chosen = [images[i] for i in evenly(len(images), min(len(images), MOST))]
        look = lambda x: (x - self._rebuilt(x)).square()
        errors = torch.cat(list(patches.walked(chosen, run, look, sigma)))
        self.weight = weights(errors, self.floor)
        return self

    def under_noise(
        self, images: Images, run: Run = PLAIN, *, sigma: float, scoring: str = "plain"
    ) -> "APAE":
        """The same network and step, with weights measured under the noise."""
        other = APAE(**self.params)
        other.network.load_state_dict(self.network.state_dict())
        other.step = self.step
        return other.to(next(self.parameters()).device).eval().measure(images, run, sigma)

    def forward(self, x: Tensor, noise: Noise = fresh, draws: int | None = None) -> Anomaly:
        """Scores images of any size, (B, C, H, W) in [0, 1], at the detector's own size.

        Differentiable, through the descent too; the map has the side of x. Raises ValueError
        before `fit`.
        """
        return self._judged(x)[0]

    def examine(self, x: Tensor, noise: Noise) -> tuple[Anomaly, dict[str, Tensor]]:
        """The anomaly and, beside it, the published score: the mean weighted error."""
        return self._judged(x)

    def _judged(self, x: Tensor) -> tuple[Anomaly, dict[str, Tensor]]:
        if self.weight is None:
            raise ValueError("this detector is not fitted: call fit, or load a fitted one")
        fitted = self.seen(x)
        image, rebuilt = self.compared(fitted, self._rebuilt(fitted))
        error = (self.weight * (image - rebuilt).square()).mean(1)
        found = scoring.mean_filter(error, self.smooth)
        return judged(found, self.top, x), {"error": error.mean((1, 2))}

    def reconstruction(self, x: Tensor, noise: Noise = fresh) -> Tensor:
        """What x is compared with: (B, C, H, W) in [0, 1] scale."""
        return self._rebuilt(self.seen(x))

    @staticmethod
    def compared(x: Tensor, rebuilt: Tensor) -> tuple[Tensor, Tensor]:
        """The two sides of the error as they are; an attacker may look otherwise."""
        return x, rebuilt

    def _rebuilt(self, x: Tensor) -> Tensor:
        """The decoder's image next to x, as far as the search gets: (B, C, size, size)."""
        if self.step is None:
            raise ValueError("this detector is not fitted: call fit, or load a fitted one")
        decode, code = self.network.decode, self.network.encode(x)
        return decode(descended(decode, x, code, steps=self.search, rate=self.step))

    def _step(self, images: Images, run: Run) -> Tensor:
        """alpha = pace over the largest curvature among good images: ()."""
        places = evenly(len(images), min(len(images), STEEPEST))
        x = torch.stack([images[i] for i in places]).to(run.device)
        source = torch.Generator().manual_seed(run.seed)
        with torch.no_grad():
            code = self.network.encode(x)
            start = torch.randn(code.shape, generator=source).to(code)
            steepest = told(run, partial(curvature, self.network.decode, code, start)).max()
        return self.pace / steepest.clamp_min(torch.finfo(steepest.dtype).tiny)

    def _network(self) -> ConvolutionalAutoencoder:
        return ConvolutionalAutoencoder(self.channels, self.input_size, self.widths, self.latent)

    def _learn(self, images: Images, run: Run) -> dict[str, float]:
        batches = Batches(images, self.batch, self.augment, run.seed, run.device)

        def loss(number: int) -> Tensor:
            x, _ = batches.draw(number)
            return l2(x, self.network(x)).mean()

        trained = {name: self.params[name] for name in TRAINED}
        return learn(self.network, loss, short(self.steps, self.rate), run, trained)

    def check(self) -> None:
        given = [None if t is None else tuple(t.shape) for t in (self.weight, self.step)]
        fitted = [(self.channels, self.input_size, self.input_size), ()]
        if given not in ([None] * 2, fitted):
            raise ValueError(f"learnt shapes {given}, expected {fitted}")

    def cost(self) -> dict[str, Any]:
        return super().cost() | self.spent


def descended(
    decode: Callable[[Tensor], Tensor],
    x: Tensor,
    code: Tensor,
    *,
    steps: int,
    rate: float | Tensor,
) -> Tensor:
    """The code after steps of z <- z - rate grad_z |x - D(z)|^2.

    Each image descends by itself. Where gradients are wanted, they go through all steps.
    """
    tracked = torch.is_grad_enabled() and code.requires_grad
    with torch.enable_grad():
        for _ in range(steps):
            code = code if tracked else code.detach().requires_grad_()
            error = (x - decode(code)).square().sum()
            (slope,) = torch.autograd.grad(error, code, create_graph=tracked)
            code = code - rate * slope
    return code if tracked else code.detach()


def curvature(decode: Callable[[Tensor], Tensor], code: Tensor, start: Tensor) -> Tensor:
    """The largest eigenvalue of 2 J^T J at each code, J the Jacobian of the decoder: (B,).

    It bounds the step with which the descent goes down, by power iteration from `start`.
    """
    tiny = torch.finfo(start.dtype).tiny
    along, found = start, start.new_zeros(len(start))
    with torch.enable_grad():
        code = code.detach().requires_grad_()
        image = decode(code)
        dual = torch.zeros_like(image, requires_grad=True)
        (pulled,) = torch.autograd.grad(image, code, dual, create_graph=True)  # J^T dual
    for _ in range(ROUNDS):
        along = along / along.flatten(1).norm(dim=1).clamp_min(tiny)[:, None, None, None]
        (pushed,) = torch.autograd.grad(pulled, dual, along, retain_graph=True)  # J along
        (back,) = torch.autograd.grad(image, code, pushed, retain_graph=True)
        found, along = 2 * (along * back).flatten(1).sum(1), back
    return found


def weights(errors: Tensor, floor: float) -> Tensor:
    """1 / (epsilon + median) of each value over images, (n, ...) -> (...).

    Of an even number of images the median is the mean of the two in the middle.
    """
    ranked, count = errors.sort(0).values, len(errors)
    return 1 / (floor + (ranked[(count - 1) // 2] + ranked[count // 2]) / 2)
