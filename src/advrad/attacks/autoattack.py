"""AutoAttack on classifiers, and what becomes of its rule when the classifier draws.

Croce and Hein, 2020 (https://arxiv.org/abs/2003.01690): four attacks that fail in different ways,
one after the other, each on the images whose class is still right.

That rule takes one look, at the clean image already: an image that was once wrong by luck is
never attacked. `fixed_autoattack` keeps the share of right looks instead (20 looks where the
classifier draws): every image is attacked while its share is above zero, an attacked image is
kept where its share is smaller, and the accuracy is the mean of what is left. Both are figures of
their own, and a result says which of them it is.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

from torch import Tensor

from ..errors import UsageError
from ..noise import fresh
from ._target import STRIDE
from .ball import L1, Ball
from .classification import RUNS, Classifier, Victim, examined
from .gradient import ready
from .objective import Noises
from .recipes import RECIPES, Recipe, ball_of, run
from .strongest import Cost, added

EVALUATIONS = 20  # looks of `fixed_autoattack`, where the classifier draws
EOT = 20  # draws of a gradient in autoattack-rand
SQUARES = 0.002  # of the accuracy, by which Square may be ahead of the attacks that could see
SUITES: dict[str, tuple[str, ...]] = {
    "autoattack-standard": ("apgd-ce", "apgd-t", "fab-t", "square"),
    "autoattack-rand": ("apgd-ce", "apgd-dlr"),
}


class Standing(NamedTuple):
    """What still stands after a suite.

    x: of each image the one that was kept, (B, C, H, W).
    correct: the share of looks at it under which its class was right, (B,).
    by: the attack that it is from, or `clean`.
    accuracy: the mean share, `clean` and after each attack, in their order.
    rule: `autoattack` or `fixed-autoattack`.
    looks: how many draws a share is of.
    random: whether the classifier draws.
    notes: what should be known before the figure is believed.
    """

    x: Tensor
    correct: Tensor
    by: list[str]
    accuracy: dict[str, float]
    rule: str
    looks: int
    random: bool
    notes: list[str]


def suite(name: str, ball: Ball) -> dict[str, Recipe]:
    """The attacks of a suite by name, as they are in this ball; raises UsageError for others.

    In l1 APGD-CE has 5 restarts and APGD-T 5 targets, as in Croce and Hein, 2021
    (https://arxiv.org/abs/2103.01208); their larger balls before the last one are left out.
    """
    if name not in SUITES:
        raise UsageError(f"suite {name!r}: expected one of {', '.join(SUITES)}")
    found = {each: RECIPES[each] for each in SUITES[name]}
    if name == "autoattack-rand":
        return {each: replace(recipe, draws=EOT) for each, recipe in found.items()}
    if isinstance(ball, L1):
        ce, aimed = found["apgd-ce"], found["apgd-t"]
        found["apgd-ce"] = replace(ce, settings={**ce.settings, "restarts": 5})
        found["apgd-t"] = replace(aimed, targets=5)
    return found


def cost(
    recipes: Mapping[str, Recipe], classes: int, *, random: bool = False, looks: int = 1
) -> Cost:
    """What a suite takes at most, for an image whose class stays right throughout."""
    attacks = added(recipe.cost(classes, random) for recipe in recipes.values())
    judged = RUNS + looks * (1 + len(recipes))
    return Cost(attacks.gradients, attacks.forwards + judged)


def budget(
    recipes: Mapping[str, Recipe], classes: int, *, random: bool = False, looks: int = 1
) -> str:
    """The same in words, to be printed before a suite is run."""
    gradients, forwards = cost(recipes, classes, random=random, looks=looks)
    return (
        f"{', '.join(recipes)}: at most {gradients:,} evaluations with a gradient and "
        f"{forwards:,} without, for each image"
    )


def autoattack(
    classify: Classifier,
    x: Tensor,
    labels: Tensor,
    ball: Ball,
    recipes: Mapping[str, Recipe],
    *,
    noises: Noises = lambda k: fresh,
    report: Callable[[str], None] = lambda line: None,
) -> Standing:
    """What stands by AutoAttack's own rule: an image is lost at the first wrong look at it.

    The clean images are looked at once, and what each attack ends with is. Of a classifier that
    draws, the figure falls with every look, attack or none.

    Arguments:
        classify: the defence, `(x, noise) -> logits`; `undefended(network)` for a network.
        labels: the right classes, (B,).
        recipes: of a `suite`, or others; `cost` says what they take.
        noises: draw number 0, 1, 2, ... of the batch.
        report: told the accuracy after each attack.

    Raises what `examined` and the attacks raise.
    """
    victim = examined(classify, x, labels, noises)
    return _composed(victim, x, ball, recipes, "autoattack", 1, report)


def fixed_autoattack(
    classify: Classifier,
    x: Tensor,
    labels: Tensor,
    ball: Ball,
    recipes: Mapping[str, Recipe],
    *,
    noises: Noises = lambda k: fresh,
    looks: int = EVALUATIONS,
    random: bool | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> Standing:
    """What stands when shares of `looks` draws are compared, and the smallest is kept.

    Of a classifier that does not draw one look is enough, and this is `autoattack`. `random` says
    whether it draws; None looks at a few draws, which may agree. Arguments and errors as there.
    """
    if looks < 1:
        raise UsageError(f"looks {looks}: expected 1 or more")
    victim = examined(classify, x, labels, noises, random)
    looks = looks if victim.random else 1
    return _composed(victim, x, ball, recipes, "fixed-autoattack", looks, report)


def _composed(
    victim: Victim,
    x: Tensor,
    ball: Ball,
    recipes: Mapping[str, Recipe],
    rule: str,
    looks: int,
    report: Callable[[str], None],
) -> Standing:
    x = ready(x, ball)
    kept, by = x.clone(), ["clean"] * len(x)
    correct = victim.correct(x, RUNS, looks)
    accuracy = {"clean": float(correct.mean())}
    report(f"clean: {accuracy['clean']:.1%}")
    for number, (name, recipe) in enumerate(recipes.items(), 1):
        rows = (correct > 0).nonzero()[:, 0]
        if not len(rows):
            break
        left = victim.at(rows)
        found = run(recipe, left, x[rows], ball_of(ball, rows), number * STRIDE)
        share = left.correct(found, RUNS + number * looks, looks)
        won = share < correct[rows]
        kept[rows[won]], correct[rows[won]] = found[won], share[won]
        for row in rows[won].tolist():
            by[row] = name
        accuracy[name] = float(correct.mean())
        report(f"after {name}: {accuracy[name]:.1%}")
    notes = _notes(victim, recipes, accuracy, looks)
    return Standing(kept, correct, by, accuracy, rule, looks, victim.random, notes)


def _notes(
    victim: Victim, recipes: Mapping[str, Recipe], accuracy: Mapping[str, float], looks: int
) -> list[str]:
    """What AutoAttack's own checks warn of."""
    notes = []
    climbing = [each for each in recipes.values() if each.attack in ("pgd", "apgd")]
    if victim.random and any(each.draws == 1 for each in climbing):
        notes.append(
            "the classifier draws, and an attack climbed single draws: expected an expectation "
            "over several, as in autoattack-rand"
        )
    if victim.random and looks == 1:
        notes.append(
            "the classifier draws, and one look decided: images were lost by luck as well; "
            "compare fixed-autoattack"
        )
    before = [value for name, value in accuracy.items() if name != "square"]
    if len(before) > 1 and accuracy.get("square", 1) < min(before) - SQUARES:
        notes.append(
            "Square, which sees no gradient, took more than the attacks that follow one: the "
            "gradient is masked, and the figure is too high"
        )
    return notes
