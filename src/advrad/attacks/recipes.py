"""Attacks on classifiers by the names that papers use: an attack, a loss, and its targets.

APGD-CE, APGD-DLR and APGD-T are one attack with three objectives, FAB-T is FAB with nine, one
after the other. Nothing here is an attack by itself.
"""

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..errors import UsageError
from ._target import STRIDE
from .apgd import apgd
from .ball import Ball
from .classification import (
    LOSSES,
    TARGETED,
    Victim,
    likeliest,
    rivals,
    targeted,
    unseen,
    untargeted,
)
from .deepfool import deepfool
from .elasticnet import elasticnet
from .fab import fab
from .fgsm import fgsm
from .gradient import Best, ready, value_of
from .objective import Drawn, margin
from .pgd import pgd
from .square import square
from .strongest import Cost, added

ATTACKS: dict[str, Callable[..., Any]] = {
    "fgsm": fgsm,
    "pgd": pgd,
    "apgd": apgd,
    "square": square,
    "fab": fab,
    "deepfool": deepfool,
    "elasticnet": elasticnet,
}
HIDING = ("fgsm", "pgd", "apgd", "square")  # they climb whatever they are given
SMALLEST = ("fab", "deepfool", "elasticnet")  # they look for the smallest perturbation
WRONG = torch.finfo(torch.float32).tiny  # the margin from which a class is wrong, not tied
SPAN = STRIDE >> 5  # draws of one target; its start and its last look take these
START, LOOK = SPAN // 2, SPAN * 3 // 4


@dataclass(frozen=True)
class Recipe:
    """One attack on a classifier.

    Arguments:
        attack: a name of ATTACKS.
        loss: what is climbed, a name of LOSSES; with targets, of TARGETED. The margin ranks.
        targets: how many of the likeliest wrong classes are aimed at, one after the other, while
            the class is still right, 30 at most. `deepfool` has them all in sight at once.
        draws: EOT's, for a classifier that draws; one that does not needs a single one.
        settings: of the attack.
        unseen: weight of how much an image looks attacked, which is lowered besides where the
            victim is watched; the loss is climbed by an attack that walks, without targets.
    """

    attack: str
    loss: str = "margin"
    targets: int = 0
    draws: int = 1
    settings: Mapping[str, Any] = field(default_factory=dict)
    unseen: float = 0.0

    def __post_init__(self) -> None:
        """Raises UsageError for names that are in no table, and impossible numbers."""
        losses = TARGETED if self.targets else LOSSES
        for name, known in ((self.attack, ATTACKS), (self.loss, losses)):
            if name not in known:
                raise UsageError(f"{name!r} in a recipe: expected one of {', '.join(known)}")
        if not 0 <= self.unseen < math.inf or (self.unseen and self._cannot_hide):
            raise UsageError(
                f"unseen={self.unseen:g} of {self.attack} with {self.targets} targets: expected a "
                f"weight from 0 on, and one of {', '.join(HIDING)} without targets"
            )
        if not 0 <= self.targets < STRIDE // SPAN - 1 or self.draws < 1:
            raise UsageError(
                f"{self.targets} targets and {self.draws} draws: expected 0 to "
                f"{STRIDE // SPAN - 2} targets, and one draw or more"
            )

    @property
    def _cannot_hide(self) -> bool:
        return bool(self.targets) or self.attack not in HIDING

    def cost(self, classes: int, random: bool) -> Cost:
        """What it takes at most, for an image whose class stays right."""
        targets = min(self.targets, classes - 1)
        draws = self.draws if random else 1
        gradients, forwards = self._once(1 if random else targets, self.resolved(random))
        one = Cost(gradients * draws, forwards * draws)
        if not targets:
            return one
        if self.attack == "deepfool":
            return Cost(one.gradients, one.forwards + draws)
        return added([one, Cost(0, draws)] * targets + [Cost(0, draws)])

    def _once(self, columns: int, settings: Mapping[str, Any]) -> Cost:
        """One run of the attack, one draw."""
        if self.attack == "fgsm":
            return Cost(1, 0)
        if self.attack == "square":
            return Cost(0, settings["queries"])
        steps: int = settings["steps"]
        if self.attack == "deepfool":
            return Cost((steps + 1) * max(1, columns), 0)
        if self.attack == "elasticnet":
            return Cost(steps * settings["searches"], 1 + steps * settings["searches"])
        walked, restarts = steps * settings["restarts"], settings["restarts"]
        if self.attack == "fab":
            return Cost(walked, 1 + walked + settings["halvings"])
        clean = settings.get("keep") != "last" and settings["start"] != "zero"
        return Cost(walked, restarts + clean)

    def resolved(self, random: bool) -> dict[str, Any]:
        """All settings of the attack: as given, and as they are where nothing else is said."""
        parameters = inspect.signature(ATTACKS[self.attack]).parameters.values()
        own = {each.name: each.default for each in parameters if each.default is not each.empty}
        del own["noise"]
        if self.attack == "square":
            own["again"] = random
        if self.attack == "pgd" and random and not self.unseen:
            own["keep"] = "last"  # the best of many draws is the luckiest
        if self.attack in SMALLEST:
            own["threshold"] = WRONG
        return own | dict(self.settings)


RECIPES: dict[str, Recipe] = {
    "fgsm": Recipe("fgsm", "cross-entropy"),
    "pgd": Recipe("pgd", "cross-entropy", settings={"steps": 20}),
    "pgd-unseen": Recipe("pgd", "cross-entropy", settings={"steps": 20}, unseen=100.0),
    "apgd-ce": Recipe("apgd", "cross-entropy", settings={"steps": 100}),
    "apgd-dlr": Recipe("apgd", "dlr", settings={"steps": 100}),
    "apgd-t": Recipe("apgd", "dlr", targets=9, settings={"steps": 100}),
    "fab-t": Recipe("fab", "margin", targets=9, settings={"steps": 100}),
    "square": Recipe("square", "margin", settings={"queries": 5000}),
    "deepfool": Recipe("deepfool", "margin", targets=9, settings={"steps": 50}),
    "elastic-net": Recipe("elasticnet", "margin", settings={"searches": 9, "steps": 100}),
}


def run(recipe: Recipe, victim: Victim, x: Tensor, ball: Ball, first: int = 0) -> Tensor:
    """The images (B, C, H, W) that the attack ends with, draws from number `first` on.

    Where one that looks for the smallest perturbation finds none in the ball, the clean image.
    Raises UsageError where there are too few classes for the loss, and what the attack raises.
    """
    x = ready(x, ball)
    targets = min(recipe.targets, victim.classes - 1)
    fewest = 4 if targets else 3
    if recipe.loss == "dlr" and victim.classes < fewest:
        raise UsageError(
            f"the difference of logits ratio of {victim.classes} classes: expected {fewest} or "
            "more; climb the margin instead"
        )
    if not targets:
        loss = LOSSES[recipe.loss]
        drawn = untargeted(victim.classify, victim.labels, loss)
        if recipe.unseen and victim.watched is not None:
            drawn = unseen(victim.watched, victim.labels, recipe.unseen, loss)
        return _once(recipe, victim, drawn, x, ball, first)
    logits = victim.logits(x, first, recipe.draws)
    order = likeliest(logits, victim.labels, targets)
    if recipe.attack == "deepfool":
        return _at_once(recipe, victim, order, x, ball, first + SPAN)
    best = Best(x, margin(logits, victim.labels))
    for number in range(targets):
        rows = (best.rank < WRONG).nonzero()[:, 0]
        if not len(rows):
            break
        begin, left = first + (number + 1) * SPAN, victim.at(rows)
        drawn = targeted(left.classify, left.labels, order[rows, number], TARGETED[recipe.loss])
        found = _once(recipe, left, drawn, x[rows], ball_of(ball, rows), begin)
        rank = value_of(left.mean(drawn, begin + LOOK, recipe.draws), found).rank
        best.see(best.x.index_copy(0, rows, found), best.rank.index_copy(0, rows, rank))
    return best.x


def _at_once(
    recipe: Recipe, victim: Victim, order: Tensor, x: Tensor, ball: Ball, first: int
) -> Tensor:
    """With all targets (B, T) in sight; of a classifier that draws, the margin is what is seen.

    An expectation has one column.
    """
    if victim.random:
        drawn = untargeted(victim.classify, victim.labels, margin)
        return _once(recipe, victim, drawn, x, ball, first)
    near, noise = rivals(victim.classify, victim.labels, order), victim.noises(first)
    return deepfool(lambda z: near(z, noise), x, ball, **recipe.resolved(random=False)).x


def _once(
    recipe: Recipe, victim: Victim, drawn: Drawn, x: Tensor, ball: Ball, first: int
) -> Tensor:
    objective = victim.mean(drawn, first, recipe.draws)
    noise, settings = victim.noises(first + START), recipe.resolved(victim.random)
    found = ATTACKS[recipe.attack](objective, x, ball, noise=noise, **settings)
    images: Tensor = found.x if recipe.attack in SMALLEST else found
    return images


def ball_of(ball: Ball, rows: Tensor) -> Ball:
    """The ball of some images of a batch, where each has its own eps."""
    eps = torch.as_tensor(ball.eps)
    return ball.at(eps[rows]) if eps.ndim and len(eps) > 1 else ball
