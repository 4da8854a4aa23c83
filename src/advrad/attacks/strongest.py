"""The strongest of several attacks, image by image: AutoAttack made right for scores.

AutoAttack (Croce and Hein, 2020, https://arxiv.org/abs/2003.01690) is built for classifiers: its
losses need three logits or more, and it stops at the first image whose class has changed. A
detector has one score, and an AUROC needs every score pushed as far as it goes; so nothing stops
early here, what is climbed is the score or a smooth surrogate of it, and of all candidates the one
that does most harm is kept, judged on draws that none of them has seen.

A suite is sized by what it costs: gradient evaluations and forward evaluations for each image.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import UsageError
from ..noise import Noise
from .apgd import apgd
from .ball import Ball
from .gradient import value_of
from .objective import Aim, Drawn, Noises, Objective, eot, log_sum_exp, top_mean
from .pgd import pgd
from .square import square
from .transfer import transfer

# (x, noise) -> score (B,), map (B, H, W): one draw of the detector
Judge = Callable[[Tensor, Noise], tuple[Tensor, Tensor]]

AIMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "score": lambda score, values: score,
    "log-sum-exp": lambda score, values: log_sum_exp(values, 0.1),
    "top": lambda score, values: top_mean(values),
}
STRIDE = 1 << 24  # draws that one part of a suite may ask for


class Cost(NamedTuple):
    """Of an attack on one image: evaluations with a gradient, and forward ones."""

    gradients: int
    forwards: int


@dataclass(frozen=True)
class Part:
    """One attack of a suite.

    Arguments:
        attack: `pgd`, `apgd`, `square` or `transfer`.
        aim: what is climbed, a name of AIMS.
        draws: EOT's, for a detector that draws; one that does not needs a single one.
        settings: of the attack.
        view: what the attacker differentiates, where that is not the detector itself.
    """

    attack: str
    aim: str = "score"
    draws: int = 1
    settings: Mapping[str, Any] = field(default_factory=dict)
    view: str = "exact"

    @property
    def name(self) -> str:
        """As it stands in rows and reports."""
        return f"{self.attack} {self.aim}" + ("" if self.view == "exact" else f" {self.view}")

    def cost(self, stochastic: bool) -> Cost:
        """What it takes for one image."""
        if self.attack == "square":
            return Cost(0, int(self.settings["queries"]))
        draws = self.draws if stochastic else 1
        if self.attack == "transfer":
            return Cost(0, 2 * draws)
        restarts = int(self.settings.get("restarts", 1))
        last = self.settings.get("keep", "last" if stochastic and self.attack == "pgd" else "best")
        looks = restarts + (last != "last")
        return Cost(self.steps(stochastic) * restarts * draws, looks * draws)

    def steps(self, stochastic: bool) -> int:
        """Of one run: a detector without draws gets the draws' share of the budget as steps.

        Not where the last iterate is asked for: a declared recipe stays what it is.
        """
        spend = not stochastic and self.settings.get("keep") != "last"
        return int(self.settings["steps"]) * (self.draws if spend else 1)


@dataclass(frozen=True)
class Suite:
    """Attacks of which the strongest counts, image by image.

    Arguments:
        parts: the attacks.
        select: draws by which candidates and the clean image are compared, none of which any of
            them has seen; 0 takes the only candidate as it is.
        known: steps of the attack on a known draw; 0 leaves that figure out.
        resubmit: fresh draws of which the worst counts; 0 leaves that figure out.
    """

    parts: tuple[Part, ...]
    select: int = 4
    known: int = 0
    resubmit: int = 0

    def cost(self, stochastic: bool) -> Cost:
        """What its candidates and their comparison take for one image."""
        costs = [part.cost(stochastic) for part in self.parts]
        looks = self.select if stochastic else bool(self.select)
        return Cost(
            sum(cost.gradients for cost in costs),
            sum(cost.forwards for cost in costs) + looks * (len(self.parts) + 1),
        )


def _paper(draws: int, view: str = "exact") -> Suite:
    settings = {"steps": 100, "share": 2.5, "start": "zero", "keep": "last"}
    return Suite((Part("pgd", "score", draws, settings, view),), select=0)


def _climb(aim: str, steps: int, draws: int = 1, **settings: Any) -> Part:
    """PGD whose momentum averages over draws along the way; its steps cover 40 radii in all."""
    pace = {"steps": steps, "momentum": 0.9, "decay": True, "share": 40.0}
    return Part("pgd", aim, draws, pace | settings)


SUITES: dict[str, Suite] = {
    "quick": Suite((_climb("log-sum-exp", 80),)),
    "standard": Suite(
        (
            _climb("log-sum-exp", 400),
            Part("apgd", "top", 8, {"steps": 50}),
            Part("square", settings={"queries": 500}),
        )
    ),
    "strong": Suite(
        (
            _climb("log-sum-exp", 1000, 2, restarts=2),
            _climb("top", 1000, 2, restarts=2),
            Part("apgd", "score", 20, {"steps": 100, "restarts": 2}),
            Part("square", settings={"queries": 5000}),
            Part("transfer", "log-sum-exp", settings={"steps": 100}),
        ),
        select=20,
        known=100,
        resubmit=20,
    ),
    "paper-pgd": _paper(1),
    "paper-eot": _paper(20),
    "paper-bpda": _paper(1, "reconstruction constant"),
}


class Found(NamedTuple):
    """The strongest candidates (B, C, H, W), which part each is from, and all of them by name."""

    x: Tensor
    by: list[str]
    candidates: dict[str, Tensor]


@dataclass(frozen=True)
class Target:
    """What is attacked, as the attacks see it.

    Arguments:
        judges: the detector, one draw; where its score is the mean of several parts, each of
            them, of which a draw takes the next one in turn.
        sign: 1 where the score is to be raised (good images), -1 where it is to be lowered, (B,).
        stochastic: whether two draws differ.
        noises: draw number 0, 1, 2, ... of the batch; the attackers' own.
        views: what else may be differentiated in its place, by name (BPDA).
        source: another detector, which `transfer` attacks in its place.
    """

    judges: Sequence[Judge]
    sign: Tensor
    stochastic: bool
    noises: Noises
    views: Mapping[str, Sequence[Judge]] = field(default_factory=dict)
    source: "Target | None" = None

    def drawn(self, aim: str, view: str = "exact") -> list[Drawn]:
        """What is climbed under a given noise; the true score ranks."""
        if view != "exact" and view not in self.views:
            raise UsageError(
                f"this detector has no view {view!r} to be attacked through: expected one of "
                f"{', '.join(['exact', *self.views])}"
            )
        judges = self.judges if view == "exact" else self.views[view]
        return [partial(self._aimed, judge, aim) for judge in judges]

    def _aimed(self, judge: Judge, aim: str, x: Tensor, noise: Noise) -> Aim:
        score, values = judge(x, noise)
        sign = self.sign.to(score).repeat(len(x) // len(self.sign))
        return Aim(sign * AIMS[aim](score, values), sign * score.detach())

    def mean(self, first: int, draws: int, aim: str = "score", view: str = "exact") -> Objective:
        """The objective over `draws` draws a call, from draw number `first` on."""
        return eot(
            self.drawn(aim, view),
            draws if self.stochastic else 1,
            lambda k: self.noises(first + k),
        )


def strongest(
    target: Target,
    x: Tensor,
    ball: Ball,
    suite: Suite,
    report: Callable[[str], None] = lambda part: None,
) -> Found:
    """The candidate of the suite that does most harm to each image of (B, C, H, W).

    A part whose detector cuts the gradient raises BlindAttackError. `report` is told each part's
    name when it is done.
    """
    candidates: dict[str, Tensor] = {}
    for number, part in enumerate(suite.parts):
        if part.attack == "transfer" and target.source is None:
            continue
        name = part.name + f" {number + 1}" * (part.name in candidates)
        candidates[name] = run(part, target, x, ball, (number + 1) * STRIDE)
        report(name)
    if not suite.select:
        name, found = next(iter(candidates.items()))
        return Found(found, [name] * len(x), candidates)
    ranks = {
        name: value_of(target.mean(0, suite.select), adv).rank
        for name, adv in ({"clean": x} | candidates).items()
    }
    names = list(ranks)
    best = torch.stack(list(ranks.values())).argmax(0)
    choices = torch.stack([x, *candidates.values()])
    chosen = choices[best, torch.arange(len(x), device=x.device)]
    return Found(chosen, [names[int(place)] for place in best], candidates)


def run(part: Part, target: Target, x: Tensor, ball: Ball, first: int) -> Tensor:
    """The candidate of one part, with draws from number `first` on."""
    objective = target.mean(first, part.draws, part.aim, part.view)
    noise, settings = target.noises(first + STRIDE - 1), dict(part.settings)
    if part.attack == "square":
        one = target.mean(first, 1)
        return square(one, x, ball, again=target.stochastic, noise=noise, **settings)
    settings["steps"] = part.steps(target.stochastic)
    if "share" in settings:
        settings["size"] = settings.pop("share") * ball.radius / settings["steps"]
    if part.attack == "pgd":  # of a random objective the best iterate is the luckiest one
        settings.setdefault("keep", "last" if target.stochastic else "best")
    attack: Callable[..., Tensor] = partial(pgd if part.attack == "pgd" else apgd, **settings)
    if part.attack == "transfer":
        assert target.source is not None
        source = target.source.mean(first, part.draws, part.aim)
        return transfer(objective, x, ball, source=source, attack=attack, noise=noise)
    return attack(objective, x, ball, noise=noise)
