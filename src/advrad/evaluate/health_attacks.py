"""The checks of health that attack again, and how many images and steps each of them gets.

Somebody without a gradient must do no more harm; a large ball must turn the order round; more
steps, and a larger radius, must do no less. Each check first gets two images of each class and few
steps, the black box before all others; what is then left of the budget goes into more of both.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from .. import metrics
from ..attacks.ball import Ball, Linf, column
from ..attacks.gradient import Best
from ..attacks.strongest import Part, Suite
from ..noise import Draws
from .health import COSTLY, Sample
from .health_scale import GAIN, beaten, tolerance
from .health_subject import FORWARD, Subject
from .lost import worst
from .robustness import Assault, Pair, derived

FLOOR = 0.05  # the AUROC that a large ball must reach
LARGE = Linf(0.5)
REACH = 5.0, 1 / 16  # radii that all steps together cover, up and down
DRAWS = 2
# images of each class, and what the check does with them: queries, or steps
LEVELS: dict[str, tuple[tuple[int, int], ...]] = {
    "black_box": ((2, 20), (2, 50), (4, 100), (8, 200)),
    "floor": ((2, 10), (4, 10), (4, 20), (8, 20)),
    "steps": ((2, 20), (4, 20), (8, 20)),
    "eps": ((2, 20), (4, 20), (8, 20)),
}


class Level(NamedTuple):
    """How much of a check is done."""

    images: int
    work: int


def planned(subject: Subject, budget: float) -> dict[str, Level]:
    """What each check gets of so many evaluations with a gradient; one that gets none is left out.

    All get their smallest level, in the order of `COSTLY`, before any gets a larger one.
    """
    chosen: dict[str, Level] = {}
    for step in range(max(map(len, LEVELS.values()))):
        for name in COSTLY:
            if step >= len(LEVELS[name]) or (step and name not in chosen):
                continue
            level = Level(*LEVELS[name][step])
            more = cost(subject, name, level)
            more -= cost(subject, name, chosen[name]) if name in chosen else 0.0
            if more <= budget:
                chosen[name] = level
                budget -= more
    return chosen


def least(subject: Subject, name: str) -> float:
    """What the smallest level of a check takes."""
    return cost(subject, name, Level(*LEVELS[name][0]))


def cost(subject: Subject, name: str, level: Level) -> float:
    """Of a check at a level, in evaluations with a gradient; a forward one counts half."""
    suites, more = {
        "black_box": ([_queries(level.work)], subject.scoring),
        "floor": ([_climb(level.work)], FORWARD * level.work * DRAWS + subject.scoring),
        "steps": ([_probe(level.work), _probe(level.work // 2)], 0.0),
        "eps": ([_probe(level.work)] * 2, 0.0),
    }[name]
    each = more
    for suite in suites:
        gradients, forwards = _other(subject, suite).cost
        each += gradients + FORWARD * forwards
    return each * len(subject.first(level.images).sample.ids)


def checked(subject: Subject, name: str, level: Level) -> tuple[bool, str]:
    """Whether a check holds, and in words what was seen."""
    checks: dict[str, Callable[[Subject, int], tuple[bool, str]]] = {
        "black_box": _black_box,
        "floor": _floor,
        "steps": _more_steps,
        "eps": _more_eps,
    }
    return checks[name](subject.first(level.images), level.work)


def _black_box(subject: Subject, queries: int) -> tuple[bool, str]:
    sample = subject.sample
    white = subject.scored(sample.adv)
    blind = _attacked(subject, _queries(queries))
    worse, words = beaten(white, blind.attacked, sample.defect, tolerance(blind.clean, GAIN))
    found = [f"Square with {queries} queries against the suite: {words}"]
    for name, other in _others(sample, tolerance(blind.clean, GAIN)).items():
        worse = worse or other[0]
        found.append(f"{name} against the suite's gradient attacks: {other[1]}")
    return not worse, "; ".join(found)


def _others(sample: Sample, tolerated: float) -> dict[str, tuple[bool, str]]:
    """The suite's own attacks without the target's gradient, over all images."""
    scores = {name: torch.tensor(values) for name, values in sample.parts.items()}
    blind = [name for name in scores if name.split()[0] in ("square", "transfer")]
    seeing = [scores[name] for name in scores if name not in blind]
    if not seeing:
        return {}
    sign = torch.tensor([-1.0 if d else 1.0 for d in sample.all_defect])
    white = sign * (sign * torch.stack(seeing)).amax(0)
    return {name: beaten(white, scores[name], sample.all_defect, tolerated) for name in blind}


def _floor(subject: Subject, steps: int) -> tuple[bool, str]:
    defect = subject.sample.defect
    clean, attacked = _attacked(subject, _climb(steps, subject.sign), LARGE)
    scores = torch.from_numpy(worst(attacked.tolist(), defect))
    harm = subject.sign * (scores - clean.double())
    moved = harm > tolerance(clean, GAIN)
    risen, fallen = (_share(moved, subject.sign == side) for side in (1, -1))
    chance = subject.scored(_luckiest(subject, steps * DRAWS))
    better = harm > subject.sign * (chance.double() - clean.double())
    ahead = min(_share(better, subject.sign == side) for side in (1, -1))
    area = metrics.auroc(scores, defect)
    words = (
        f"at linf {float(LARGE.eps):g} {risen:.0%} of the good images rise and {fallen:.0%} of "
        f"the defects fall, {ahead:.0%} of a class by more than at the best of {steps * DRAWS} "
        "random points; expected: half or more"
    )
    held = min(risen, fallen, ahead) >= 0.5
    if area is None:
        return held, words
    words += f"; AUROC is {area:.3f}, expected of a detector that was trained to the end: at most "
    return held and area <= FLOOR, f"{words}{FLOOR}"


def _share(held: Tensor, among: Tensor | None = None) -> float:
    """Of those that are among, all if left out; 1 where nobody is."""
    chosen = held if among is None else held[among]
    return float(chosen.double().mean()) if len(chosen) else 1.0


@torch.no_grad()
def _luckiest(subject: Subject, count: int) -> Tensor:
    """Of so many random points, as far away as the gradient goes, the most harmful of each image.

    Near by, where a score falls, they are corners, as the gradient's own. Far away, where an
    honest gradient may end on a lower peak than a corner does, they are anywhere inside.
    """
    x, draws = subject.sample.x, Draws(derived(subject.assault.seed, "luck"), subject.sample.ids)
    reach = torch.where(subject.sign > 0, *REACH).clamp_max(1) * LARGE.eps
    far, judges, best = LARGE.at(reach), subject.assault.judges(subject.detector), Best(x)
    for number in range(count):
        noise = draws(number)
        delta = far.random(x, noise)
        corner = far.radius.to(x) * delta.sign()
        tried = far.project(x + torch.where(column(subject.sign.to(x)) > 0, delta, corner), x)
        score = judges[number % len(judges)](tried, noise)[0]
        best.see(tried, subject.sign.to(score) * score)
    return best.x


def _more_steps(subject: Subject, steps: int) -> tuple[bool, str]:
    few, many = (_attacked(subject, _probe(number)) for number in (steps // 2, steps))
    worse, words = _better(many, few, subject)
    return not worse, f"{steps // 2} steps against {steps}: {words}"


def _more_eps(subject: Subject, steps: int) -> tuple[bool, str]:
    eps = float(subject.ball.eps)
    double = min(2 * eps, subject.ball.most(subject.sample.x.shape[1:]))
    small = _attacked(subject, _probe(steps))
    large = _attacked(subject, _probe(steps), subject.ball.at(double))
    worse, words = _better(large, small, subject)
    return not worse, f"eps {eps:.4g} against {double:.4g}: {words}"


def _better(strong: Pair, weak: Pair, subject: Subject) -> tuple[bool, str]:
    """Whether the weaker attack does more harm; two attacks of one kind are easily alike."""
    tolerated, defect = tolerance(strong.clean, GAIN), subject.sample.defect
    return beaten(strong.attacked, weak.attacked, defect, tolerated, unanimous=False)


def _attacked(subject: Subject, suite: Suite, ball: Ball | None = None) -> Pair:
    """Scores under the evaluation's noise before and after another attack."""
    sample = subject.sample
    return _other(subject, suite, ball)(sample.x, sample.defect, sample.ids).scores


def _other(subject: Subject, suite: Suite, ball: Ball | None = None) -> Assault:
    return replace(subject.assault, suite=suite, ball=ball or subject.ball, source=None)


def _probe(steps: int) -> Suite:
    return Suite((Part("pgd", "log-sum-exp", DRAWS, {"steps": steps}),))


def _climb(steps: int, sign: Tensor | None = None) -> Suite:
    """From the image itself, so that nothing but the gradient moves it.

    A score is as high as can be far away, and as low near by: steps that raise one cover the ball
    several times, steps that lower one a sixteenth of it.
    """
    settings = {"steps": steps, "start": "zero", "decay": True}
    if sign is not None:
        settings["size"] = torch.where(sign > 0, *REACH).float() * 2 / steps
    return Suite((Part("pgd", "log-sum-exp", DRAWS, settings),), select=0)


def _queries(count: int) -> Suite:
    return Suite((Part("square", settings={"queries": count}),), select=0)
