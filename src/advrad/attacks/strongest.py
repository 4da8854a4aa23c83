"""The strongest of several attacks, image by image: AutoAttack made right for scores.

AutoAttack (Croce and Hein, 2020, https://arxiv.org/abs/2003.01690) is built for classifiers: its
losses need three logits or more, and it stops at the first image whose class has changed. A
detector has one score, and an AUROC needs every score pushed as far as it goes; so nothing stops
early here, what is climbed is the score or a smooth surrogate of it, and of all candidates the one
that does most harm is kept, judged on draws that none of them has seen.

A suite is sized by what it costs: gradient evaluations and forward evaluations for each image.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ._target import AIMS, LOOKS, SCORE, STRIDE, Judge, Target, settled
from .apgd import apgd
from .ball import Ball
from .gradient import value_of
from .pgd import pgd
from .square import square
from .transfer import transfer

__all__ = [
    "AIMS",
    "LOOKS",
    "SCORE",
    "STRIDE",
    "SUITES",
    "Cost",
    "Found",
    "Judge",
    "Part",
    "Suite",
    "Target",
    "added",
    "run",
    "settled",
    "strongest",
]


class Cost(NamedTuple):
    """Of an attack on one image: evaluations with a gradient, and forward ones."""

    gradients: int
    forwards: int


def added(costs: Iterable[Cost]) -> Cost:
    """The sum of costs."""
    total = Cost(0, 0)
    for cost in costs:
        total = Cost(total.gradients + cost.gradients, total.forwards + cost.forwards)
    return total


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
        last = self.settings.get("keep", "last" if stochastic and self.attack == "pgd" else "best")
        return self._walked(stochastic, draws, last)

    def source_cost(self, stochastic: bool, source: bool) -> Cost:
        """What `transfer` takes of the other detector; `source`: whether that one draws."""
        if self.attack != "transfer":
            return Cost(0, 0)
        return self._walked(stochastic, self.draws if source else 1, "best")

    def _walked(self, stochastic: bool, draws: int, keep: str) -> Cost:
        """Of steps by gradients; the clean image is looked at unless it is the start."""
        restarts = int(self.settings.get("restarts", 1))
        clean = keep != "last" and self.settings.get("start") != "zero"
        gradients = self.steps(stochastic) * restarts * draws
        return Cost(gradients, (restarts + clean) * draws)

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

    def tried(self, source: bool = False) -> list[Part]:
        """The parts that are run: a transfer only where there is a source."""
        return [part for part in self.parts if source or part.attack != "transfer"]

    def cost(self, stochastic: bool, source: bool = False) -> Cost:
        """What its candidates and their comparison take for one image."""
        parts = self.tried(source)
        looks = (self.select if stochastic else bool(self.select)) * (len(parts) + 1)
        total = added(part.cost(stochastic) for part in parts)
        return Cost(total.gradients, total.forwards + looks)

    @property
    def maps(self) -> bool:
        """Whether a part climbs the map of the detector itself."""
        seeing = [part for part in self.parts if part.attack in ("pgd", "apgd")]
        return any(part.aim != SCORE and part.view == "exact" for part in seeing)


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


def strongest(
    target: Target,
    x: Tensor,
    ball: Ball,
    suite: Suite,
    report: Callable[[str], None] = lambda part: None,
) -> Found:
    """The candidate of the suite that does most harm to each image of (B, C, H, W).

    Where the score is apart from the map, parts that climb the map climb what serves (`settled`).
    A part whose detector cuts the gradient raises BlindAttackError. `report` is told each part's
    name when it is done.
    """
    candidates: dict[str, Tensor] = {}
    if suite.maps:
        target = settled(target, x)
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
