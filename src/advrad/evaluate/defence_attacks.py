"""The attacks that a trial may ask for by name: single ones, and AutoAttack's two suites.

A single attack hands over one image. A suite keeps, image by image, what has the smallest share
of right draws, by draws of the attacker's own (Fixed-AutoAttack); that share is a figure by
itself, and what was kept is judged like any other attack's, by draws that had no part in it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..attacks import Ball
from ..attacks.autoattack import EVALUATIONS, SUITES, cost, fixed_autoattack, suite
from ..attacks.classification import Victim
from ..attacks.recipes import RECIPES, Recipe, run
from ..errors import UsageError
from ..noise import Fixed, Noise

NAMES = (*RECIPES, *SUITES)
SHORT = ("steps", "queries", "searches", "restarts")  # one of each shows what is impossible


class Found(NamedTuple):
    """Attacked images (B, C, H, W); of a suite the share of right draws at its end, (B,), and of
    how many draws that is."""

    x: Tensor
    share: Tensor | None = None
    looks: int | None = None


@dataclass(frozen=True)
class Attack:
    """One attack, or a suite of several.

    Arguments:
        name: as it was asked for.
        recipes: what is run, by name.
    """

    name: str
    recipes: Mapping[str, Recipe]

    @property
    def composed(self) -> bool:
        """Whether it is a suite."""
        return self.name in SUITES

    @property
    def gradient(self) -> bool:
        """Whether it follows one."""
        return any(recipe.attack != "square" for recipe in self.recipes.values())

    @property
    def patient(self) -> bool:
        """Whether it looks more than once, so that one without a gradient should not do better."""
        return self.gradient and self.name != "fgsm"

    @property
    def hiding(self) -> bool:
        """Whether it also wants not to be detected, for which it gives up some of its harm."""
        return any(recipe.unseen for recipe in self.recipes.values())

    def described(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {name: asdict(recipe) for name, recipe in self.recipes.items()}

    def looks(self, classes: int, random: bool) -> int:
        """How many images pass at most for one image, forward or with a gradient."""
        if self.composed:
            return sum(cost(self.recipes, classes, random=random, looks=self._judged(random)))
        return sum(sum(each.cost(classes, random)) for each in self.recipes.values())

    def check(self, ball: Ball, shape: Sequence[int], classes: int) -> None:
        """Raises UsageError where it is impossible in this ball, or with so few classes.

        It takes one step from a grey image (C, H, W), before a classifier that nothing deceives.
        """
        heights = torch.arange(float(classes))

        def classify(x: Tensor, noise: Noise) -> Tensor:
            return (1 + x.mean((1, 2, 3)))[:, None] * heights

        x, label = torch.full((1, *shape), 0.5), torch.tensor([classes - 1])
        victim = Victim(classify, label, Fixed, random=False, classes=classes)
        for recipe in self.recipes.values():
            short = dict.fromkeys(set(SHORT) & set(recipe.resolved(random=False)), 1)
            run(replace(recipe, settings={**recipe.settings, **short}), victim, x, ball)

    def __call__(self, victim: Victim, x: Tensor, ball: Ball) -> Found:
        """What the attack ends with, in the ball."""
        if not self.composed:
            [recipe] = self.recipes.values()
            return Found(run(recipe, victim, x, ball))
        standing = fixed_autoattack(
            victim.classify,
            x,
            victim.labels,
            ball,
            self.recipes,
            noises=victim.noises,
            random=victim.random,
            looks=self._judged(victim.random),
        )
        return Found(standing.x, standing.correct, standing.looks)

    def _judged(self, random: bool) -> int:
        return EVALUATIONS if random else 1


def attack(
    name: str, ball: Ball, eot: int, steps: int | None = None, weight: float | None = None
) -> Attack:
    """The attack of a name, with `eot` draws a look and, where it walks, so many steps; `weight`
    is that of the detector's score, where it wants to stay unseen.

    A suite is as published, whatever the draws and steps. Raises UsageError for other names.
    """
    if name in SUITES:
        return Attack(name, suite(name, ball))
    if name not in RECIPES:
        raise UsageError(f"attack {name!r}: expected one of {', '.join(NAMES)}")
    recipe = replace(RECIPES[name], draws=1 if name == "square" else eot)
    if steps is not None and "steps" in recipe.settings:
        recipe = replace(recipe, settings={**recipe.settings, "steps": steps})
    if weight is not None and recipe.unseen:
        recipe = replace(recipe, unseen=weight)
    return Attack(name, {name: recipe})
