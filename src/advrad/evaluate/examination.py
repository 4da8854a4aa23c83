"""The checks of an attack's health, run on a few images within a budget.

The cheap ones need a handful of evaluations: the gradient is there, finite, alive, above rounding,
and true; the score is a function of image and noise and of nothing else; the attacked images are
where they may be. The costly ones attack again.
"""

import copy

import torch

from ..adapters.opened import Opened
from ..detectors import Detector
from ..errors import BlindAttackError
from ..noise import PerImage
from . import health_attacks, health_gradient
from .health import COSTLY, FAILED, NOT_RUN, NOTED, ORDER, PASSED, SIDE, Check, Health, Sample
from .health_scale import BATCHED, SAME, apart, tolerance
from .health_subject import FORWARD, Subject
from .robustness import Assault, derived

__all__ = ["FORWARD", "copied", "examined"]

SHARE = 4  # of the budget, the most that a cheap check may take to look at more images
FEW = 4  # images of a class on which a detector is compared with its copy


def examined(
    assault: Assault, sample: Sample, budget: float, untouched: Detector | str | None = None
) -> Health:
    """The checks on a sample, for at most `budget` evaluations with a gradient in all.

    A forward evaluation counts half. The cheap checks need a handful of evaluations and are always
    run; of the costly ones, each takes as many images and steps as the budget holds. `untouched`
    is a copy of the detector from before the attack, as `copied` makes it; one of now if left out.
    """
    own = copied(assault.detector) if untouched is None else untouched
    return Health(_Examination(Subject(assault, sample), budget).run(own))


class _Examination:
    def __init__(self, subject: Subject, budget: float) -> None:
        self.subject, self.left = subject, budget
        self.found: dict[str, Check] = {}

    def run(self, untouched: Detector | str) -> dict[str, Check]:
        """All checks, in order."""
        if self._gradient():
            self._true()
            self._scores()
            self._note("inside_ball", *self._inside())
            self._costly()
            self._stateless(untouched)
        blind = "without a gradient there was nothing to check"
        checks = {name: self.found.get(name, Check(NOT_RUN, blind)) for name in ORDER}
        return checks | _opened(self.subject.detector)

    def _note(self, name: str, held: bool, words: str) -> None:
        self.found[name] = Check(PASSED if held else FAILED, words)

    # --- the gradient ---

    def _gradient(self) -> bool:
        """Whether there is one; then also whether it is finite, alive, and above rounding."""
        looks, sample = [], self.subject.sample
        for place, x in (("clean", sample.x), ("attacked", sample.adv)):
            try:
                looks.append(health_gradient.look(self.subject, x))
            except BlindAttackError as error:
                self._note("gradient_present", False, f"on {place} images: {error}")
                return False
        self._note("gradient_present", True, "the score depends on the image by a gradient")
        broken = sum(int((~raw.isfinite()).flatten(1).any(1).sum()) for _, raw in looks)
        total = sum(len(raw) for _, raw in looks)
        self._note(
            "gradient_finite",
            not broken,
            f"{broken} of {total} gradients have numbers that are not finite",
        )
        if any(not bool(raw.isfinite().any()) for _, raw in looks):
            return False
        dead = torch.stack([(raw.nan_to_num() == 0).flatten(1).all(1) for _, raw in looks])
        lost = int(dead.all(0).sum())
        self._note(
            "gradient_nonzero",
            not lost,
            f"the gradient of {lost} of {len(sample.ids)} images is exactly zero",
        )
        self._note("not_saturated", *health_gradient.above_rounding(self.subject, *looks[0]))
        return True

    def _true(self) -> None:
        """On as many images as a share of the budget holds, two of each class at least."""
        each = health_gradient.cost(self.subject)
        sides = [s for s in SIDE if each * self._count(s) <= self.left / SHARE]
        side = max(sides, default=SIDE[-1])
        self.left -= each * self._count(side)
        self._note("gradient_true", *health_gradient.true(self.subject.first(side)))

    def _count(self, side: int) -> int:
        return len(self.subject.first(side).sample.ids)

    # --- the score ---

    def _scores(self) -> None:
        """Whether the score is a function of image and noise, and of nothing else."""
        subject, x = self.subject, self.subject.sample.x
        one, two = subject.clean, subject.scored(x)
        worst, same = apart(one, two), tolerance(one, SAME)
        self._note(
            "repeatable",
            worst <= same,
            f"the same image under the same noise scored twice differs by up to {worst:.3g}",
        )
        alone = torch.cat([subject.scored(x[i : i + 1], [i]) for i in range(len(x))])
        worst = apart(one, alone)
        self._note(
            "batch_independent",
            worst <= tolerance(one, BATCHED),
            f"a score alone and the same in a batch differ by up to {worst:.3g}",
        )
        moved = apart(one, subject.scored(x, seed=derived(subject.assault.seed, "other")))
        stochastic = subject.assault.stochastic
        self._note(
            "stochastic_declared",
            stochastic or moved <= same,
            f"under another noise scores differ by up to {moved:.3g}; the detector says that it "
            f"{'draws' if stochastic else 'does not draw'}",
        )

    def _stateless(self, untouched: Detector | str) -> None:
        """Compares the detector, which was asked a lot, with a copy that was asked nothing.

        The last pair of questions is about images that neither has ever seen: the detector is
        asked about an image, and then both are about one close to it.
        """
        if isinstance(untouched, str):
            self.found["stateless"] = Check(NOT_RUN, untouched)
            return
        subject = self.subject.first(FEW)
        sample, seed = subject.sample, derived(subject.assault.seed, "unseen")
        own = sample.x.flip(-1)
        other = PerImage(seed, sample.ids)(own, 0)
        unseen = (own + 0.1 * other).clamp(0, 1)
        _, raw = health_gradient.look(subject, unseen)
        step = subject.ball.steepest(raw.nan_to_num(0, 0, 0)) * subject.ball.radius.to(raw)
        near = subject.ball.project(unseen + step, unseen)
        pairs = [
            apart(subject.scored(x), subject.scored(x, detector=untouched))
            for x in (near, sample.adv, sample.x)
        ]
        self._note(
            "stateless",
            max(pairs) <= tolerance(subject.clean, SAME),
            f"scores and those of a copy that was asked nothing differ by up to {max(pairs):.3g}",
        )

    def _inside(self) -> tuple[bool, str]:
        sample, ball = self.subject.sample, self.subject.ball
        over = float((ball.size(sample.adv - sample.x).cpu() - float(ball.eps)).max())
        low, high = float(sample.adv.min()), float(sample.adv.max())
        held = over <= 1e-4 * max(1.0, float(ball.eps)) and low >= 0 and high <= 1
        return (
            held,
            f"the farthest attacked image is {over:.2g} beyond eps, in {low:g} to {high:g}",
        )

    # --- what costs ---

    def _costly(self) -> None:
        plan = health_attacks.planned(self.subject, self.left)
        for name in COSTLY:
            if name in plan:
                self._note(name, *health_attacks.checked(self.subject, name, plan[name]))
                continue
            needed = health_attacks.least(self.subject, name)
            words = f"{needed:.0f} evaluations do not fit what is left of the budget"
            self.found[name] = Check(NOT_RUN, words)


def copied(detector: Detector) -> Detector | str:
    """A copy that shares nothing with the detector, or why there is none."""
    try:
        return copy.deepcopy(detector)
    except Exception as error:  # whatever somebody else's module raises, or memory that is short
        return f"the detector cannot be copied: {type(error).__name__}: {error}"


def _opened(detector: Detector) -> dict[str, Check]:
    """What was met in modules that were opened: roots of zero, whose gradient was put right."""
    met = [module.found for module in detector.modules() if isinstance(module, Opened)]
    if not met:
        return {}
    roots, cuts = (sum(getattr(each, name) for each in met) for name in ("zero_roots", "cuts"))
    words = (
        f"{roots} numbers under a root were zero in a backward pass: their gradient is taken as "
        f"zero, and would have been no number; {cuts} cuts of the gradient were opened"
    )
    return {"zero_roots": Check(NOTED, words)}
