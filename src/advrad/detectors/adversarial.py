"""Adversarial training of any detector whose score rests on something that is trained.

The detector is fitted as ever, and then trained on by its own score alone (Madry et al., 2018,
https://arxiv.org/abs/1706.06083): every batch of good images is attacked by PGD that raises the
score, and a batch of pseudo-anomalies, good images with painted defects, by PGD that lowers it.
What is minimised is

    mean over good i and defects j of softplus((s_i - s_j) / unit),

a smooth bound, over log 2, of how often a good image outranks a defect when both are attacked:
what robust AUROC misses. The unit is the standard deviation of the fitted score over good images
and pseudo-anomalies as they are. Without pseudo-anomalies the mean attacked score of good images
is lowered, which a score can also do by becoming small everywhere.

What the detector has measured on good images stays as it was before: what is trained is what is
scored. Memories and frozen features do not change either.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Self

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from ..attacks.ball import BALLS, Ball
from ..attacks.pgd import pgd
from ..checks import at_least, one_of, plain
from ..data.defects import ALL as DEFECTS
from ..data.defects import inject
from ..data.shapes import MIN_SIDE
from ..diffusion.batches import Batches
from ..diffusion.flop import told
from ..diffusion.learning import drawn, learn, noise_of, short
from ..errors import UsageError
from ..noise import Fixed, Noise, PerImage, fresh
from ..tune import evenly
from .base import PLAIN, Anomaly, Detector, Fitting, Images, Run

NORMS = ("linf", "l2")
MEASURED = 64  # good images whose scores, as they are and with a defect, give the unit


class Adversarial(Detector):
    """The detector within, trained under attack; its noise and draws are that one's.

    Arguments:
        detector: the name of the one within.
        settings: its own.
        size: side of the images it sees, in pixels.
        channels: 1 for grey, 3 for colour.
        norm: of the attack in training, `linf` or `l2`.
        eps: its radius, in the [0, 1] scale.
        attack: its steps.
        defects: kinds of pseudo-anomalies, of `data.defects.ALL`; none trains on good images
            alone.
        steps, batch, rate: of the training under attack; the rate warms up and falls along half a
            cosine. A step looks at `batch` good images and as many pseudo-anomalies.
        augment: views of the training images, names of `diffusion.augment.ALL`.

    Raises UsageError where a setting is impossible, or where the detector trains nothing.
    """

    detector: str
    norm: str
    eps: float
    attack: int
    defects: list[str]
    steps: int
    batch: int
    rate: float
    augment: list[str]

    def __init__(
        self,
        detector: str = "autoencoder",
        settings: Mapping[str, Any] | None = None,
        size: int = 128,
        channels: int = 3,
        norm: str = "linf",
        eps: float = 2 / 255,
        attack: int = 5,
        defects: Sequence[str] = tuple(DEFECTS),
        steps: int = 200,
        batch: int = 8,
        rate: float = 2e-3,
        augment: Sequence[str] = ("flips",),
    ) -> None:
        given = {k: plain(v) for k, v in locals().items() if k not in ("self", "__class__")}
        super().__init__()
        _check(given)
        given["detector"] = detector.lower()
        given["settings"] = {k: plain(v) for k, v in (settings or {}).items()}
        for name, value in given.items():
            setattr(self, name, value)
        self.inner = self._inner()
        self.spent: dict[str, float] = {}

    def _inner(self) -> Detector:
        """A new one. Raises UsageError where nothing in it is trained."""
        from . import build  # whose table names this class too

        own: dict[str, Any] = self.params["settings"]
        for name in ("size", "channels"):
            if name in own:
                raise UsageError(f"settings: the detector within has the {name} of the one around")
        made = build(self.detector, own | {"size": self.size, "channels": self.channels})
        if isinstance(made, Adversarial) or not _trained(made):
            raise UsageError(
                f"detector={self.detector}: adversarial training needs one that trains a network "
                "by itself, as autoencoder"
            )
        return made

    def fit(self, images: Images, run: Run = PLAIN) -> Self:
        """Fits the detector within, and trains it under attack."""
        images = Fitting(images, self.channels, self.input_size)
        within = replace(run, folder=run.folder and run.folder / "plain")
        self.inner = drawn(run.seed, self._inner).to(run.device).fit(images, within)
        self.eval()
        self._learn(images, run)
        return self.eval()

    def _learn(self, images: Images, run: Run) -> None:
        batches = Batches(images, self.batch, self.augment, run.seed, run.device)
        ball, unit = BALLS[self.norm](self.eps), self._unit(images, run)

        def loss(number: int) -> Tensor:
            x, source = batches.draw(number)
            x, noise = x.clamp(0, 1), noise_of(source)
            good = self._attacked(x, ball, noise, sign=1)
            if not self.defects:
                return good.mean() / unit
            bad = self._attacked(painted(x, self.defects, source), ball, noise, sign=-1)
            return outranked(good, bad, unit)

        module = self._reached(batches.draw(1)[0])
        recipe = short(self.steps, self.rate)
        self.spent = learn(module, loss, recipe, run, self.params)

    def _attacked(self, x: Tensor, ball: Ball, noise: Noise, *, sign: int) -> Tensor:
        """The scores of the images after an attack that raises (1) or lowers (-1) them, (B,)."""
        score = partial(self._score, noise=noise)
        aim = lambda x: sign * score(x)
        return score(pgd(aim, x, ball, steps=self.attack, keep="last", noise=noise))

    def _score(self, x: Tensor, noise: Noise) -> Tensor:
        return self.inner(x, noise, draws=1).score

    def _reached(self, x: Tensor) -> nn.Module:
        """What is trained: the parameters that the score of images depends on."""
        named = _trained(self.inner)
        score = self._score(x, Fixed(0)).sum()
        slopes = torch.autograd.grad(score, list(named.values()), allow_unused=True)
        pairs = zip(named.items(), slopes, strict=True)
        reached = {name.replace(".", "/"): p for (name, p), slope in pairs if slope is not None}
        return nn.ParameterDict(reached)

    @torch.no_grad()
    def _unit(self, images: Images, run: Run) -> float:
        """The standard deviation of the scores of good images and pseudo-anomalies together."""
        found: list[Tensor] = []
        source = Generator().manual_seed(run.seed)
        places = evenly(len(images), min(len(images), MEASURED))
        for i in places:
            x = images[i][None]
            both = torch.cat([x, painted(x, self.defects, source)]) if self.defects else x
            noise = PerImage(run.seed, [f"good-{i}", f"defect-{i}"][: len(both)])
            score = partial(self._score, both.to(run.device), noise)
            found.append((score() if found else told(run, score, len(places))).cpu())
        return float(torch.cat(found).double().std(correction=0)) or 1.0

    def forward(self, x: Tensor, noise: Noise = fresh, draws: int | None = None) -> Anomaly:
        """What the detector within says. Raises ValueError before `fit`."""
        return self.inner(x, noise, draws)

    def examine(self, x: Tensor, noise: Noise) -> tuple[Anomaly, dict[str, Tensor]]:
        return self.inner.examine(x, noise)

    def largest_sigma(self, scoring: str = "plain") -> float:
        return self.inner.largest_sigma(scoring)

    def under_noise(
        self, images: Images, run: Run = PLAIN, *, sigma: float, scoring: str = "plain"
    ) -> "Adversarial":
        """The same weights, measured under the noise."""
        other = Adversarial(**self.params)
        other.inner = self.inner.under_noise(images, run, sigma=sigma, scoring=scoring)
        return other.eval()

    def check(self) -> None:
        self.inner.check()

    @property
    def draws_taken(self) -> int:
        return self.inner.draws_taken

    def chosen(self) -> list[dict[str, Any]]:
        return self.inner.chosen()

    def resolved(self) -> dict[str, Any]:
        return self.params | {"settings": self.inner.resolved()}

    def cost(self) -> dict[str, Any]:
        cost = self.inner.cost()
        return cost | {name: cost.get(name, 0.0) + value for name, value in self.spent.items()}


def outranked(good: Tensor, bad: Tensor, unit: float) -> Tensor:
    """The mean over pairs of softplus((s_i - s_j) / unit), of scores (n,) and (m,): ()."""
    return F.softplus((good[:, None] - bad) / unit).mean()


def painted(x: Tensor, kinds: Sequence[str], source: Generator) -> Tensor:
    """The images, each with one defect of a kind drawn among those given."""
    seeds = torch.randint(2**62, (len(x),), generator=source).tolist()
    made = [
        inject(image, Fixed(seed), kinds)[0] for image, seed in zip(x.cpu(), seeds, strict=True)
    ]
    return torch.stack(made).to(x)


def _trained(detector: Detector) -> dict[str, nn.Parameter]:
    """The parameters that a fit may change, by name."""
    return {name: p for name, p in detector.named_parameters() if p.requires_grad}


def _check(given: Mapping[str, Any]) -> None:
    one_of("channels", given["channels"], (1, 3))
    one_of("norm", given["norm"], NORMS)
    for name in given["defects"]:
        one_of("defects", name, DEFECTS)
    if given["defects"]:
        at_least("size", given["size"], MIN_SIDE)
    for name in ("attack", "steps", "batch"):
        at_least(name, given[name], 1)
    for name in ("eps", "rate"):
        at_least(name, given[name], 0)
