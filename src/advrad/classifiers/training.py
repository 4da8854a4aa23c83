"""The training of a classifier, as it is or under attack, by the one training loop.

What belongs to step n - its images, their views, the attack's start, dropout's masks - depends on
the seed and n alone; running statistics change with the step and not before it is done. So a
training that is killed goes on bit by bit. Of the papers' recipes the losses are kept; the
optimiser is Adam with a warm-up and half a cosine, and the radius of an attack grows from 0 over
the first part of a training, without which a network may stay at one answer for all images.
"""

import contextlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.func import functional_call

from ..attacks import BALLS
from ..checks import at_least, one_of, share
from ..data.labelled import Labelled, Part
from ..diffusion import Recipe
from ..diffusion.augment import ALL as VIEWS
from ..diffusion.batches import Batches
from ..diffusion.learning import drawn, learn, noise_of
from ..diffusion.run import PLAIN, Run
from ..errors import UsageError
from ..networks import Classifier
from .losses import LOSSES, Inner, Loss, trades
from .named import build, takes

NORMS = ("linf", "l2")


@dataclass(frozen=True)
class Training:
    """What is trained, and how.

    Arguments:
        network: a name of `ALL`.
        settings: the network's own; shape, classes, mean and deviation come from the data.
        loss: a name of `LOSSES`.
        steps, batch, rate: of the training; the rate warms up and falls along half a cosine.
        views: names of `diffusion.augment.ALL`; `mirrors` and `shifts` for photographs of objects.
        norm, eps: of the attack inside, `linf` or `l2`, in the [0, 1] scale.
        attack: its steps.
        growth: share of the steps over which its radius grows from 0 to eps.
        beta: weight of the divergence in `trades`.
    """

    network: str = "a"
    settings: Mapping[str, Any] = field(default_factory=dict)
    loss: str = "natural"
    steps: int = 2000
    batch: int = 128
    rate: float = 1e-3
    views: Sequence[str] = ()
    norm: str = "linf"
    eps: float | None = None
    attack: int = 10
    growth: float = 0.3
    beta: float = 6.0

    def check(self) -> None:
        """Raises UsageError where a setting is impossible, or eps is missing."""
        one_of("loss", self.loss, LOSSES)
        one_of("norm", self.norm, NORMS)
        for view in self.views:
            one_of("views", view, VIEWS)
        for name in ("steps", "batch", "attack"):
            at_least(name, getattr(self, name), 1)
        for name in ("rate", "beta"):
            at_least(name, getattr(self, name), 0)
        share("growth", self.growth)
        if self.loss != "natural":
            if self.eps is None:
                raise UsageError(
                    f"loss={self.loss} trains under attack and needs its radius: set eps, as 0.3 "
                    "for MNIST or 8/255 for CIFAR-10"
                )
            at_least("eps", self.eps, 0)


class Trained(NamedTuple):
    """A classifier, ready to use, and what its training took: seconds and CPU seconds."""

    classifier: Classifier
    cost: dict[str, float]


def train(data: Labelled, wanted: Training = Training(), run: Run = PLAIN) -> Trained:
    """Trains a classifier on the training part; goes on where the run resumes.

    Raises UsageError for impossible settings, OtherTrainingError where the run's folder holds a
    checkpoint of another training, DivergedError.
    """
    wanted.check()
    classifier = drawn(run.seed, lambda: untrained(data, wanted)).to(run.device)
    if not run.images:
        run = replace(run, images=fingerprint(data.train))
    recipe = Recipe(
        wanted.steps, wanted.rate, warmup=min(20, wanted.steps // 5), decay=True, average=0
    )
    step = _Step(classifier, data.train, wanted, run)
    signature = asdict(wanted) | {"settings": classifier.params, "views": list(wanted.views)}
    cost = learn(classifier, step.loss, recipe, run, signature, after=step.done)
    return Trained(classifier.eval(), cost)


def untrained(data: Labelled, wanted: Training) -> Classifier:
    """The network that is to be trained on the data. Raises UsageError for impossible settings."""
    for name in ("shape", "classes"):
        if name in wanted.settings:
            raise UsageError(f"settings: {name} is that of the data, leave it out")
    given: dict[str, Any] = {"shape": list(data.shape), "classes": len(data.classes)}
    if takes(wanted.network, "mean"):
        given |= measured(data.train)
    return build(wanted.network, given | dict(wanted.settings))


def measured(part: Part) -> dict[str, list[float]]:
    """Mean and standard deviation of each channel over all images, in the [0, 1] scale."""
    count = part.images[:, 0].numel()
    found: dict[str, list[float]] = {"mean": [], "deviation": []}
    for channel in part.images.unbind(1):
        times = torch.bincount(channel.flatten().int(), minlength=256).double() / count
        level = torch.arange(256, dtype=torch.float64) / 255
        mean = (times * level).sum()
        spread = (times * (level - mean).square()).sum().sqrt()
        found["mean"].append(round(mean.item(), 6))
        found["deviation"].append(round(max(spread.item(), 1 / 255), 6))
    return found


def fingerprint(part: Part) -> str:
    """The sha256 of all images and labels."""
    digest = hashlib.sha256(part.images.numpy().tobytes())
    digest.update(part.labels.numpy().tobytes())
    return digest.hexdigest()


class _Step:
    """The loss of step number 1, 2, ..., and what is to be done when the step has been."""

    def __init__(self, classifier: Classifier, part: Part, wanted: Training, run: Run) -> None:
        self.part, self.wanted, self.run = part, wanted, run
        self.model = _Rehearsed(classifier)
        self.batches = Batches(part, wanted.batch, wanted.views, run.seed, run.device)
        self.chosen: Loss = LOSSES[wanted.loss]
        if self.chosen is trades:
            self.chosen = partial(trades, beta=wanted.beta)

    def loss(self, number: int) -> Tensor:
        x, source = self.batches.draw(number)
        y = self.part.labels[self.batches.members(number)].to(self.run.device)
        self.model.begin()
        with own_draws(source, self.run.device):
            return self.chosen(self.model, x.clamp(0, 1), y, self._inner(number), noise_of(source))

    def done(self) -> None:
        self.model.finish()

    def _inner(self, number: int) -> Inner:
        wanted = self.wanted
        grown = min(1.0, number / max(1.0, wanted.growth * wanted.steps))
        return Inner(BALLS[wanted.norm](grown * (wanted.eps or 0.0)), wanted.attack)


class _Rehearsed(nn.Module):
    """The classifier, whose buffers change only when a step is finished: one that is interrupted
    and done again finds them as they were."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier
        self.changed: dict[str, Tensor] = {}

    def begin(self) -> None:
        self.train()
        named = self.classifier.named_buffers()
        self.changed = {name: buffer.clone() for name, buffer in named}

    def forward(self, x: Tensor) -> Tensor:
        return functional_call(self.classifier, self.changed, (x,))

    @torch.no_grad()
    def finish(self) -> None:
        for name, buffer in self.classifier.named_buffers():
            buffer.copy_(self.changed[name])


@contextlib.contextmanager
def own_draws(source: Generator, device: str) -> Iterator[None]:
    """What torch draws by itself inside, dropout's masks, comes from the source; what it draws
    outside is not moved."""
    seed = int(torch.randint(2**62, (1,), generator=source))
    place = torch.device(device)
    devices: Sequence[torch.device] = [] if place.type == "cpu" else [place]
    kind = "cuda" if place.type == "cpu" else place.type
    with torch.random.fork_rng(devices=devices, device_type=kind):
        torch.manual_seed(seed)
        yield
