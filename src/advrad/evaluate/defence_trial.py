"""What is asked of a trial of defences, and what cannot be tried at all."""

import hashlib
import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..attacks import BALLS, Ball
from ..attacks.gradient import images
from ..classifiers import refuse_unusable
from ..data.labelled import Labelled, limited
from ..errors import DataError, UsageError
from ..noise import PerImage
from .defence_attacks import NAMES, Attack, attack
from .defence_modes import MODES, Defence, attacked
from .rows import SETTINGS

NORMS = ("linf", "l2", "l1")
LOOKED = 16  # images by which a classifier is known to be one
ANSWERED = 4  # images whose logits stand for a purifier of which nothing else is said
ROUNDED = 1e-4  # of the largest of them, by which hardware may differ


@dataclass(frozen=True)
class Examples:
    """Labelled images to try a defence on.

    Arguments:
        x: (N, C, H, W) in [0, 1].
        labels: the true classes, (N,).
        ids: a name for each, to which its noise belongs; the sha256 of a file, or a number.
        name: of the data set.

    Raises DataError where they do not fit together, UsageError for images outside [0, 1].
    """

    x: Tensor
    labels: Tensor
    ids: Sequence[str]
    name: str = "images"

    def __post_init__(self) -> None:
        images(self.x)
        count = len(self.x)
        if (
            self.labels.shape != (count,)
            or len(self.ids) != count
            or self.labels.is_floating_point()
        ):
            raise DataError(
                f"{count} images, labels of shape {tuple(self.labels.shape)} and {len(self.ids)} "
                "ids: expected one label and one id for each image"
            )

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True)
class Trial:
    """What is asked.

    Arguments:
        modes: names of MODES.
        attacks: names of recipes, or of AutoAttack's suites.
        norm, eps: the threat, one of NORMS and radii in the [0, 1] scale.
        draws: of the evaluation, N of the worst and K of the majority.
        eot: draws that the attacker's expectation is taken over at each step.
        steps: of the attacks that walk; None for each one's own number.
        resubmit: how often an image may be handed in, m of `resubmission`.
        weight: of the detector's score for attacks that want to stay unseen; None for their own.
        health: whether the figures are checked.
        seed, batch, device: of the run.

    Raises UsageError for what is not known or not positive.
    """

    modes: Sequence[str] = ("full",)
    attacks: Sequence[str] = ("pgd",)
    norm: str = "linf"
    eps: Sequence[float] = (8 / 255,)
    draws: int = 10
    eot: int = 10
    steps: int | None = None
    resubmit: int = 20
    weight: float | None = None
    health: bool = True
    seed: int = 0
    batch: int = 64
    device: str = "cpu"

    def __post_init__(self) -> None:
        self._refuse_unknown()
        counts = {"draws": self.draws, "eot": self.eot, "resubmit": self.resubmit}
        counts |= {"batch": self.batch, "steps": 1 if self.steps is None else self.steps}
        for what, number in counts.items():
            if number < 1:
                raise UsageError(f"{what} {number}: expected 1 or more")
        if self.weight is not None and not 0 < self.weight < math.inf:
            raise UsageError(f"weight {self.weight:g}: expected a number above 0")
        for eps in self.eps:
            if not (math.isfinite(eps) and eps > 0):
                raise UsageError(
                    f"eps {eps:g}: expected a radius above 0; clean figures are always there"
                )

    def _refuse_unknown(self) -> None:
        asked: dict[str, tuple[Sequence[str], Collection[str]]] = {
            "mode": (self.modes, MODES),
            "attack": (self.attacks, NAMES),
            "norm": ([self.norm], NORMS),
        }
        for what, (names, known) in asked.items():
            if unknown := [name for name in names if name not in known]:
                raise UsageError(f"{what} {unknown[0]!r}: expected one of {', '.join(known)}")
        once: dict[str, Sequence[object]] = {"mode": self.modes, "attack": self.attacks}
        for what, values in (once | {"eps": self.eps}).items():
            if not values or len(set(values)) < len(values):
                raise UsageError(f"{what} {list(values)}: expected one or more, each once")

    def attack(self, name: str) -> Attack:
        """The attack of this name, with the trial's own number of draws and of steps."""
        return attack(name, self.ball(self.eps[0]), self.eot, self.steps, self.weight)

    def ball(self, eps: float) -> Ball:
        """The threat model of one radius."""
        return BALLS[self.norm](eps)


def examples(data: Labelled, limit: int | None = None) -> Examples:
    """The test images of a data set, or as many of them as the limit lets, evenly of a class."""
    part = data.test if limit is None else limited(data.test, limit)
    return Examples(part.images / 255, part.labels, part.ids(), data.name)


def fitting(defences: Mapping[str, Defence], examples: Examples, trial: Trial) -> dict[str, int]:
    """The number of classes of each defence.

    Raises where one cannot be tried on the examples under what is asked: UsageError for images of
    another size, for a classifier that returns no logits, for a purifier that returns other than
    images, for a missing surrogate, and for a radius or an attack that is impossible, DataError
    for labels that the classifier does not know.
    """
    if not defences:
        raise UsageError("no defence: expected one or more to be tried")
    for eps in trial.eps:
        trial.ball(eps).check(examples.x.shape[1:])
    for defence in defences.values():
        for mode in trial.modes:
            if defence.purify is not None:
                attacked(MODES[mode], defence)
    known = {name: classes(defence.classifier, examples) for name, defence in defences.items()}
    ball, shape = trial.ball(trial.eps[0]), examples.x.shape[1:]
    for name, count in product(trial.attacks, set(known.values())):
        trial.attack(name).check(ball, shape, count)
    for name, defence in defences.items():
        _refuse_purifier(name, defence, examples, trial)
    return known


@torch.no_grad()
def _refuse_purifier(name: str, defence: Defence, examples: Examples, trial: Trial) -> None:
    """Raises UsageError where what stands before the classifier does not return images."""
    x, ids = examples.x[:ANSWERED].to(trial.device), examples.ids[:ANSWERED]
    noise = PerImage(0, ids)
    for purify in (defence.purify, defence.coarse):
        found: object = x if purify is None else purify(x, noise)
        if isinstance(found, Tensor) and found.shape == x.shape and found.is_floating_point():
            continue
        told = type(found).__name__
        if isinstance(found, Tensor):
            told = f"{found.dtype} of shape {tuple(found.shape)}"
        raise UsageError(
            f"the purifier of {name!r} returned {told} for images {x.dtype} of shape "
            f"{tuple(x.shape)}: expected as many images of the same shape, as a tensor of floats"
        )


@torch.no_grad()
def classes(classifier: nn.Module, examples: Examples) -> int:
    """How many classes the classifier knows, the labels among them; raises as `fitting` does."""
    place = next(iter(classifier.parameters()), examples.x).device
    x = examples.x[:LOOKED].to(place)
    refuse_unusable(classifier, x)
    known = int(classifier(x).shape[1])
    low, high = int(examples.labels.min()), int(examples.labels.max())
    if low < 0 or high >= known:
        raise DataError(
            f"labels from {low} to {high}, and the classifier knows {known} classes: expected 0 "
            f"to {known - 1}"
        )
    return known


def settings_of(
    defences: Mapping[str, Defence], examples: Examples, trial: Trial
) -> dict[str, Any]:
    """What the result depends on, as plain JSON values."""
    return {
        "data": examples.name,
        "images": len(examples),
        "shape": list(examples.x.shape[1:]),
        "content": fingerprint(examples),
        "defences": {
            name: {**dict(defence.settings), "weights": weights(defence.classifier)}
            | answers(defence, examples, trial)
            for name, defence in defences.items()
        },
        "modes": list(trial.modes),
        "attacks": {name: trial.attack(name).described() for name in trial.attacks},
        "norm": trial.norm,
        "eps": list(trial.eps),
        "draws": trial.draws,
        "eot": trial.eot,
        "resubmit": trial.resubmit,
        "health": trial.health,
        "seed": trial.seed,
        "batch": trial.batch,
        "device": trial.device,
    }


@torch.no_grad()
def answers(defence: Defence, examples: Examples, trial: Trial) -> dict[str, Any]:
    """Logits of a few images under fixed noise, for a purifier whose settings are not said."""
    if defence.purify is None or defence.settings:
        return {}
    x, ids = examples.x[:ANSWERED].to(trial.device), examples.ids[:ANSWERED]
    noise = PerImage(0, ids)
    both = [defence, Defence(defence.classifier, defence.coarse)]
    found = [each.logits(x, noise).nan_to_num().flatten().tolist() for each in both]
    return {"answers": found}


def resumed(settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The settings as an earlier run wrote them into the folder, where only rounding differs.

    Logits stand in them for purifiers without settings, and other hardware rounds otherwise.
    """
    try:
        earlier = json.loads((folder / SETTINGS).read_text())["defences"]
        theirs = {name: earlier[name]["answers"] for name in settings["defences"]}
    except (OSError, ValueError, TypeError, KeyError):
        return settings
    return settings | {
        "defences": {
            name: {**own, "answers": theirs[name]} if _alike(own, theirs[name]) else own
            for name, own in settings["defences"].items()
        }
    }


def _alike(own: Mapping[str, Any], theirs: object) -> bool:
    try:
        ours, others = np.asarray(own["answers"], float), np.asarray(theirs, float)
    except (KeyError, TypeError, ValueError):
        return False
    same = ours.shape == others.shape
    return same and float(np.abs(ours - others).max()) <= ROUNDED * float(np.abs(ours).max())


def fingerprint(examples: Examples) -> str:
    """Of pixels, labels and ids: the sha256 over all of them."""
    total = hashlib.sha256()
    for name, label, x in zip(examples.ids, examples.labels.tolist(), examples.x, strict=True):
        total.update(f"{name}/{label}/".encode())
        total.update(x.contiguous().cpu().numpy().tobytes())
    return total.hexdigest()


def weights(classifier: nn.Module) -> str:
    """The sha256 of all that the classifier has learnt."""
    total = hashlib.sha256()
    for name, value in classifier.state_dict().items():
        total.update(name.encode())
        total.update(value.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()
