"""Whether a figure of a defence can be believed.

A purifier that rounds, cuts or shatters its gradient looks robust to whoever follows it. What an
attacker who knows more has found must be as bad as what one has found who knows less, or who has
no gradient at all, and a ball that holds every image must let the attack win. Where that fails
the figure is *suspect*, and the reason stands beside it; what was not looked at is `not_run`.

Athalye et al., 2018 (https://arxiv.org/abs/1802.00420), Section 3.1. An attack that knows little
is no measure of a defence, however sound: the table says of each figure what its attacker knew.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from ..attacks import Linf
from ..attacks.classification import Victim, untargeted
from ..attacks.objective import aim
from ..attacks.recipes import Recipe, run
from ..errors import BlindAttackError
from ..noise import Noise, PerImage
from ..tune import evenly
from . import defence_gradient, defence_steady
from .defence_cells import Cell
from .defence_detection import louder
from .defence_gradient import true_gradient
from .defence_metrics import Table, more_harm, table
from .defence_modes import CLASSIFIER, EXACT, MODES, evaluation
from .defence_rows import Work
from .defence_steady import steady
from .health import FAILED, NOT_RUN, PASSED, Check, Health
from .robustness import derived

SIDE = 16  # images that are looked at, evenly spread
TAIL = 0.025  # the chance below which a weaker attack does more harm by more than luck
LARGE, FLOOR = Linf(0.5), 0.1  # what holds every image of one class, and what may be right there
STEPS, QUERIES, DRAWS = 20, 100, 4
GRADIENT = ("gradient_present", "gradient_finite", "gradient_nonzero")
TRUE = "gradient_true"


class Look(NamedTuple):
    """One gradient of the clean images' loss, (n, C, H, W)."""

    gradient: Tensor

    def checks(self) -> dict[str, Check]:
        """Whether it is there, all numbers, and not zero."""
        count = len(self.gradient)
        finite = int(self.gradient.isfinite().flatten(1).all(1).sum())
        zero = int((self.gradient == 0).flatten(1).all(1).sum())
        told = "" if not zero else ": the attack cannot move there; try the mode bpda"
        return {
            "gradient_present": Check(PASSED, "the loss depends on the image"),
            "gradient_finite": _check(
                finite == count, f"finite in each pixel for {finite} of {count} images"
            ),
            "gradient_nonzero": _check(not zero, f"zero for {zero} of {count} images{told}"),
        }


class Doctor:
    """The checks of all cells of a trial; what several of them need is looked at once."""

    def __init__(self, work: Work) -> None:
        self.work = work
        count = len(work.examples)
        self.places = evenly(count, min(SIDE, count))
        self.looked = cache(self._looked)
        self.answered = cache(self._answers)
        self.told_true = cache(self._truth)
        self.boxed = cache(self._black_box)
        self.floored = cache(self._floor)

    @property
    def cost(self) -> int:
        """About how many images pass."""
        work, exact = self.work, set()
        for cell in work.cells:
            if cell.attack is not None and MODES[cell.mode].sees == EXACT:
                exact.add(Cell(cell.defence, cell.mode, "square", cell.eps))
        each = {
            cell: STEPS * (self._eot if work.random(cell) else 1) + QUERIES + 2 * work.draws(cell)
            for cell in exact
        }
        doubled = sum(
            sum(recipe.cost(work.classes[cell.defence], work.random(cell)))
            for cell in work.cells
            if cell.attack is not None and MODES[cell.mode].sees == EXACT
            if (recipe := self._doubled(cell)) is not None
        )
        followed = len({cell.defence for cell in exact})
        own = defence_steady.COST * len(work.defences) + defence_gradient.COST * followed
        return len(self.places) * (sum(each.values()) + doubled + own)

    def sighted(self) -> None:
        """Raises BlindAttackError where an attack by gradients would have none to follow."""
        for cell in self.work.cells:
            if cell.attack is not None and self.work.attack(cell).gradient:
                self.looked(cell.defence, cell.mode)

    def examined(self, cell: Cell) -> Health:
        """All checks of one cell's figure."""
        exact = MODES[cell.mode].sees == EXACT
        unseen = Check(NOT_RUN, f"what is attacked is no more than the {MODES[cell.mode].sees}")
        return Health(
            {
                **self._gradient(cell),
                **self.answered(cell.defence),
                "inside_ball": self._inside(cell),
                **self._others(cell),
                "black_box": self._blind(cell) if exact else unseen,
                "steps": self._longer(cell) if exact else unseen,
                "floor": self._large(cell) if exact else unseen,
            }
        )

    def _gradient(self, cell: Cell) -> dict[str, Check]:
        if not self.work.attack(cell).gradient:
            return dict.fromkeys((*GRADIENT, TRUE), Check(NOT_RUN, "the attack follows none"))
        found = self.looked(cell.defence, cell.mode).checks()
        if MODES[cell.mode].sees == EXACT:
            return found | {TRUE: self.told_true(cell.defence)}
        return found | {TRUE: Check(NOT_RUN, f"it is meant to be the {MODES[cell.mode].sees}'s")}

    def _looked(self, defence: str, mode: str) -> Look:
        """Raises BlindAttackError where there is no gradient to look at."""
        victim = self._victim(Cell(defence, mode), "look")
        x = self.work.x(self.places).requires_grad_()
        drawn = untargeted(victim.classify, victim.labels)
        height = aim(victim.mean(drawn, 0, self._eot)(x)).climb
        if not height.requires_grad:
            alone = MODES[mode].sees == CLASSIFIER
            told = (
                "something in the classifier cuts it (no_grad, detach, numpy): attack it with "
                "`square`"
                if alone
                else "something in the purifier cuts it (no_grad, detach, rounding in numpy): "
                "attack it by the mode bpda, whose gradient passes the purifier as identity, or "
                "with `square`"
            )
            raise BlindAttackError(
                f"{defence}, {mode}: the loss does not depend on the image by any gradient, so an "
                f"attack that follows it would prove nothing; {told}"
            )
        (gradient,) = torch.autograd.grad(height.sum(), x)
        return Look(gradient)

    def _answers(self, defence: str) -> dict[str, Check]:
        """Whether there is one answer to one image and one noise."""
        work = self.work

        def noise(ids: Sequence[str]) -> Noise:
            return evaluation(MODES["full"], work.trial.seed, ids)(0)

        ids, logits = work.ids(self.places), work.defences[defence].logits
        found = steady(logits, work.x(self.places), ids, noise)
        work.count.add(defence_steady.COST * len(ids))
        return found

    def _truth(self, defence: str) -> Check:
        """Whether the purifier's gradient is its own, under one draw of the evaluation's."""
        work, ids = self.work, self.work.ids(self.places)
        return true_gradient(
            work.defences[defence].logits,
            work.x(self.places),
            work.labels(self.places),
            evaluation(MODES["full"], work.trial.seed, ids)(0),
            directions=PerImage(derived(work.trial.seed, "purify/directions"), ids),
            tell=work.count.add,
        )

    def _inside(self, cell: Cell) -> Check:
        sizes = [self.work.row(cell, place)["size"] for place in range(len(self.work.examples))]
        words = f"the largest change is {max(sizes):.4g} of {cell.eps:.4g}"
        return _check(max(sizes) <= cell.eps * (1 + 1e-3), words)

    def _others(self, cell: Cell) -> dict[str, Check]:
        """Against attacks that were asked for too: in harm; of what hides, in being noticed."""
        if not self._hides(cell):
            return {"weaker": self._weaker(cell)}
        gives_up = Check(NOT_RUN, "what hides gives up some of its harm")
        return {"weaker": gives_up, "hidden": self._louder(cell)}

    def _weaker(self, cell: Cell) -> Check:
        """The same attack under modes that know less, and Square where it was asked for."""
        work = self.work
        less = MODES[cell.mode].weaker
        others = [Cell(cell.defence, mode, cell.attack, cell.eps) for mode in less]
        if work.attack(cell).patient:
            others.append(Cell(cell.defence, cell.mode, "square", cell.eps))
        others = [other for other in others if other in work.numbers]
        if not others:
            return Check(NOT_RUN, "no attack that knows less was asked for")
        ours, words, held = work.right(cell), [], True
        for other in others:
            theirs = work.right(other)
            few = min(len(ours), len(theirs))  # of unequal numbers luck is not even
            beaten = more_harm(ours[:few], theirs[:few]) < TAIL
            held = held and not beaten
            words.append(
                f"{other.mode}, {other.attack}: {theirs.mean():.1%} right against "
                f"{ours.mean():.1%}" + ", more harm than luck explains" * beaten
            )
        return _check(held, "; ".join(words))

    def _hides(self, cell: Cell) -> bool:
        """Whether the attack gives up some of its harm to stay unseen."""
        return self.work.attack(cell).hiding and self.work.watches(cell)

    def _louder(self, cell: Cell) -> Check:
        """The same walk without hiding must not be less noticed."""
        plain = Cell(cell.defence, cell.mode, "pgd", cell.eps)
        if plain not in self.work.numbers:
            return Check(NOT_RUN, "pgd, which does not hide, was not asked for")
        return louder(self.work.noticed(cell), self.work.noticed(plain), TAIL)

    def _blind(self, cell: Cell) -> Check:
        if not self.work.attack(cell).patient or self._hides(cell):
            return Check(NOT_RUN, "an attack of one step or without gradient, or one that hides")
        theirs = self.boxed(cell.defence, cell.mode, cell.eps)
        ours = self.work.right(cell)[:, self.places]
        beaten = more_harm(ours, theirs) < TAIL
        return _check(
            not beaten,
            f"Square with {QUERIES} queries on {len(self.places)} images: {theirs.mean():.1%} "
            f"right against {ours.mean():.1%}",
        )

    def _longer(self, cell: Cell) -> Check:
        """The same attack with twice the steps must find little more."""
        recipe = self._doubled(cell)
        if recipe is None:
            return Check(NOT_RUN, "not PGD or APGD with no other aim than harm")
        victim, ball = self._victim(cell, "steps"), self.work.trial.ball(cell.eps)
        adv = run(recipe, victim, self.work.x(self.places), ball)
        theirs = self._right(cell, adv, self.work.draws(cell))
        ours = self.work.right(cell)[:, self.places]
        return _check(
            more_harm(ours, theirs) >= TAIL,
            f"with {recipe.settings['steps']} steps on {len(adv)} images {theirs.mean():.1%} "
            f"right against {ours.mean():.1%}",
        )

    def _doubled(self, cell: Cell) -> Recipe | None:
        """The attack of a cell with twice the steps; None where it is none that walks."""
        attack = self.work.attack(cell)
        recipe = next(iter(attack.recipes.values()))
        if attack.composed or self._hides(cell) or recipe.attack not in ("pgd", "apgd"):
            return None
        steps = 2 * int(recipe.resolved(self.work.random(cell))["steps"])
        return replace(recipe, settings={**recipe.settings, "steps": steps})

    def _large(self, cell: Cell) -> Check:
        if not self.work.attack(cell).gradient or self._hides(cell):
            return Check(NOT_RUN, "the attack follows no gradient, or hides")
        return self.floored(cell.defence, cell.mode)

    def _black_box(self, defence: str, mode: str, eps: float) -> Table:
        cell = Cell(defence, mode, "square", eps)
        recipe = Recipe("square", "margin", settings={"queries": QUERIES})
        victim, ball = self._victim(cell, "black box"), self.work.trial.ball(eps)
        adv = run(recipe, victim, self.work.x(self.places), ball)
        return self._right(cell, adv, self.work.draws(cell))

    def _floor(self, defence: str, mode: str) -> Check:
        cell = Cell(defence, mode)
        settings = {"steps": STEPS, "start": "zero"}
        recipe = Recipe("pgd", "cross-entropy", draws=self._eot, settings=settings)
        adv = run(recipe, self._victim(cell, "floor"), self.work.x(self.places), LARGE)
        share = float(self._right(cell, adv, min(DRAWS, self.work.draws(cell))).mean())
        return _check(
            share <= FLOOR,
            f"at linf {float(LARGE.eps):g} {share:.1%} of the draws of {len(adv)} images are "
            f"right; expected: at most {FLOOR:.0%}",
        )

    def _right(self, cell: Cell, adv: Tensor, draws: int) -> Table:
        """Which draws are right, (draws, n)."""
        found = self.work.judged(cell, adv, self.places, draws)
        classes = torch.tensor([each["classes"] for each in found])
        return table(classes.eq(self.work.labels(self.places).cpu()[:, None]).T.numpy())

    def _victim(self, cell: Cell, purpose: str) -> Victim:
        return self.work.victim(cell, self.places, f"health/{purpose}")

    @property
    def _eot(self) -> int:
        return min(DRAWS, self.work.trial.eot)


def _check(held: bool, words: str) -> Check:
    return Check(PASSED if held else FAILED, words)
