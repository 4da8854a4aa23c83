"""The checks of an attack's health, run on a few images within a budget.

The cheap ones need a handful of evaluations: the gradient is there, finite, alive and above
rounding; the score is a function of image and noise and of nothing else; the attacked images are
where they may be. The costly ones attack again: a large ball must reach the floor, an attack
without gradient, one of fewer steps, or one in a smaller ball must not do more harm.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from .. import metrics
from ..adapters.opened import Opened
from ..attacks.ball import Ball
from ..attacks.gradient import value_and_gradient
from ..attacks.strongest import Part, Suite
from ..detectors import Detector
from ..errors import BlindAttackError
from ..noise import PerImage
from .health import COSTLY, FAILED, NOT_RUN, NOTED, ORDER, PASSED, SIDE, Check, Health, Sample
from .robustness import Assault, derived

FLOOR = 0.05  # the AUROC that a large ball must reach
SURE = 2.0  # standard errors of a paired difference that count as one
FORWARD = 0.5  # of an evaluation with a gradient
ROUNDING = 1e-4  # relative, between two runs of one batch
BATCHED = 1e-2  # relative, between a score alone and in a batch: bfloat16 sums in another order
STEPS, FEW, DRAWS, QUERIES = 20, 10, 2, 200


def examined(assault: Assault, sample: Sample, budget: float) -> Health:
    """The checks on a sample, for at most `budget` evaluations with a gradient in all.

    A forward evaluation counts half. The first eight checks need a handful of evaluations and are
    always run; of the others, each takes as many images as the budget still holds.
    """
    return Health(_Examination(assault, sample, budget).run())


class _Examination:
    def __init__(self, assault: Assault, sample: Sample, budget: float) -> None:
        self.assault, self.sample, self.left = assault, sample, budget
        self.detector, self.ball = assault.detector, assault.ball
        self.sign = torch.tensor([-1.0 if d else 1.0 for d in sample.defect])
        self.noise = PerImage(assault.seed, sample.ids)
        self.found: dict[str, Check] = {}

    def run(self) -> dict[str, Check]:
        """All checks, in order."""
        if self._gradient():
            self._scores()
            self._note("inside_ball", *self._inside())
            for name in COSTLY:
                self._costly(name)
        blind = "without a gradient there was nothing to check"
        checks = {name: self.found.get(name, Check(NOT_RUN, blind)) for name in ORDER}
        return checks | _opened(self.detector)

    def _note(self, name: str, held: bool, words: str) -> None:
        self.found[name] = Check(PASSED if held else FAILED, words)

    # --- the gradient ---

    def _gradient(self) -> bool:
        """Whether there is one; then also whether it is finite, alive, and above rounding."""
        looks = []
        for place, x in (("clean", self.sample.x), ("attacked", self.sample.adv)):
            try:
                looks.append((place, *self._look(x)))
            except BlindAttackError as error:
                self._note("gradient_present", False, f"on {place} images: {error}")
                return False
        self._note("gradient_present", True, "the score depends on the image by a gradient")
        broken = sum(int((~raw.isfinite()).flatten(1).any(1).sum()) for _, _, raw in looks)
        total = sum(len(raw) for _, _, raw in looks)
        self._note(
            "gradient_finite",
            not broken,
            f"{broken} of {total} gradients have numbers that are not finite",
        )
        if any(not bool(raw.isfinite().any()) for _, _, raw in looks):
            return False
        dead = torch.stack([(raw.nan_to_num() == 0).flatten(1).all(1) for _, _, raw in looks])
        lost = int(dead.all(0).sum())
        self._note(
            "gradient_nonzero",
            not lost,
            f"the gradient of {lost} of {len(self.sign)} images is exactly zero",
        )
        self._note("not_saturated", *self._above_rounding(looks[0][1], looks[0][2]))
        return True

    def _look(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Score (N,) and raw gradient (N, C, H, W); BlindAttackError where there is none."""
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            score = self.detector(x, self.noise, draws=1).score
        if not score.requires_grad:
            value_and_gradient(lambda y: score, x)
        (raw,) = torch.autograd.grad(score.sum(), x, allow_unused=True)
        if raw is None:
            raise BlindAttackError("the score's gradient does not reach the image: it is cut")
        return score.detach(), raw

    def _above_rounding(self, score: Tensor, raw: Tensor) -> tuple[bool, str]:
        """Whether the best linear step inside the ball moves the score by more than rounding."""
        gradient = raw.nan_to_num(0, 0, 0)
        step = self.ball.steepest(gradient) * self.ball.radius.to(gradient)
        rise = (gradient * step).flatten(1).sum(1).abs()
        unit = torch.finfo(score.dtype).eps * score.abs().clamp_min(torch.finfo(score.dtype).tiny)
        lost = int((rise < 16 * unit).sum())
        ties = len(score) - len(score.unique())
        words = (
            f"for {lost} of {len(score)} images the best linear step inside the ball is lost in "
            f"rounding; {ties} scores are equal to another"
        )
        return lost == 0 and 2 * ties < len(score), words

    # --- the score ---

    def _scores(self) -> None:
        """Whether the score is a function of image and noise, and of nothing else."""
        x = self.sample.x
        one, two = self._score(x), self._score(x)
        worst = float((one - two).abs().max())
        self._note(
            "repeatable",
            worst <= ROUNDING * _scale(one),
            f"the same image under the same noise scored twice differs by up to {worst:.3g}",
        )
        alone = torch.cat([self._score(x[i : i + 1], [i]) for i in range(len(x))])
        apart = float((one - alone).abs().max())
        self._note(
            "batch_independent",
            apart <= BATCHED * _scale(one),
            f"a score alone and the same in a batch differ by up to {apart:.3g}",
        )
        other = self._score(x, seed=derived(self.assault.seed, "other"))
        moved = float((one - other).abs().max())
        declared = self.assault.stochastic or moved <= ROUNDING * _scale(one)
        self._note(
            "stochastic_declared",
            declared,
            f"under another noise scores differ by up to {moved:.3g}; the detector says that it "
            f"{'draws' if self.assault.stochastic else 'does not draw'}",
        )

    @torch.no_grad()
    def _score(
        self, x: Tensor, places: Sequence[int] | None = None, seed: int | None = None
    ) -> Tensor:
        ids = self.sample.ids if places is None else [self.sample.ids[i] for i in places]
        noise = PerImage(self.assault.seed if seed is None else seed, ids)
        return self.detector(x, noise).score.cpu()

    def _inside(self) -> tuple[bool, str]:
        delta = self.sample.adv - self.sample.x
        over = float((self.ball.size(delta).cpu() - float(self.ball.eps)).max())
        low, high = float(self.sample.adv.min()), float(self.sample.adv.max())
        held = over <= 1e-4 * max(1.0, float(self.ball.eps)) and low >= 0 and high <= 1
        return (
            held,
            f"the farthest attacked image is {over:.2g} beyond eps, in {low:g} to {high:g}",
        )

    # --- what costs ---

    def _costly(self, name: str) -> None:
        """Runs a check on as many images as the budget holds."""
        check, cost = {
            "floor": (self._floor, _probe(STEPS).cost),
            "black_box": (self._black_box, Suite((_queries(),)).cost),
            "steps": (self._more_steps, Suite((*_probe(STEPS).parts, *_probe(FEW).parts)).cost),
            "eps": (self._more_eps, Suite(_probe(STEPS).parts * 2).cost),
        }[name]
        if len(set(self.sample.defect)) < 2:
            self.found[name] = Check(NOT_RUN, "it takes good and defective images")
            return
        gradients, forwards = cost(self.assault.stochastic)
        each = gradients + FORWARD * forwards
        for side in SIDE:
            some = self.sample.first(side)
            if each * len(some.ids) <= self.left and len(set(some.defect)) == 2:
                self.left -= each * len(some.ids)
                self._note(name, *check(some))
                return
        self.found[name] = Check(NOT_RUN, f"{each:.0f} evaluations an image do not fit the budget")

    def _attacked(self, sample: Sample, suite: Suite, ball: Ball | None = None) -> Tensor:
        """Scores under the evaluation's noise after another attack."""
        other = replace(
            self.assault,
            suite=suite,
            ball=ball or self.ball,
            source=None,
        )
        return other(sample.x, sample.defect, sample.ids).scores.attacked

    def _floor(self, sample: Sample) -> tuple[bool, str]:
        large = self.ball.most(sample.x.shape[1:]) / 2
        large = float(math.ceil(large)) if self.ball.name == "patch" else large
        scores = self._attacked(sample, _probe(STEPS), self.ball.at(large))
        area = metrics.auroc(scores, sample.defect)
        assert area is not None
        return area <= FLOOR, f"at eps {large:g} AUROC is {area:.3f}; at most {FLOOR} is expected"

    def _black_box(self, sample: Sample) -> tuple[bool, str]:
        white = self._rescored(sample)
        square = self._attacked(sample, Suite((_queries(),)))
        beaten, words = _beaten(white, square, sample)
        found = [f"Square with {QUERIES} queries against the suite: {words}"]
        for name, other in self._others().items():
            worse, words = other
            beaten = beaten or worse
            found.append(f"{name} against the suite's gradient attacks: {words}")
        return not beaten, "; ".join(found)

    def _others(self) -> dict[str, tuple[bool, str]]:
        """The suite's own attacks without the target's gradient, over all images."""
        scores = {name: torch.tensor(values) for name, values in self.sample.parts.items()}
        blind = [name for name in scores if name.split()[0] in ("square", "transfer")]
        seeing = [scores[name] for name in scores if name not in blind]
        if not seeing:
            return {}
        sign = torch.tensor([-1.0 if d else 1.0 for d in self.sample.all_defect])
        white = sign * (sign * torch.stack(seeing)).amax(0)
        everyone = replace(self.sample, defect=self.sample.all_defect)
        return {name: _beaten(white, scores[name], everyone) for name in blind}

    def _rescored(self, sample: Sample) -> Tensor:
        with torch.no_grad():
            noise = PerImage(self.assault.seed, sample.ids)
            return self.detector(sample.adv, noise).score.cpu()

    def _more_steps(self, sample: Sample) -> tuple[bool, str]:
        few, many = (self._attacked(sample, _probe(steps)) for steps in (10, STEPS))
        worse, words = _beaten(many, few, sample)
        return not worse, f"{FEW} steps against {STEPS}: {words}"

    def _more_eps(self, sample: Sample) -> tuple[bool, str]:
        double = min(2 * float(self.ball.eps), self.ball.most(sample.x.shape[1:]))
        small = self._attacked(sample, _probe(STEPS))
        large = self._attacked(sample, _probe(STEPS), self.ball.at(double))
        worse, words = _beaten(large, small, sample)
        return not worse, f"eps {float(self.ball.eps):.4g} against {double:.4g}: {words}"


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


def _probe(steps: int) -> Suite:
    return Suite((Part("pgd", "log-sum-exp", DRAWS, {"steps": steps}),))


def _queries() -> Part:
    return Part("square", settings={"queries": QUERIES})


def _beaten(ours: Tensor, theirs: Tensor, sample: Sample) -> tuple[bool, str]:
    """Whether the attack that ought to be weaker does more harm, beyond what chance explains.

    The differences are paired, image by image, in the direction of harm; more than two standard
    errors of their mean, and a lower AUROC, count.
    """
    sign = torch.tensor([-1.0 if defect else 1.0 for defect in sample.defect])
    gain = (sign * (theirs - ours)).double().numpy()
    mean, error = float(gain.mean()), float(gain.std(ddof=1) / math.sqrt(len(gain)))
    areas = [metrics.auroc(scores, np.array(sample.defect)) for scores in (theirs, ours)]
    assert areas[0] is not None
    assert areas[1] is not None
    beaten = mean > SURE * error and areas[0] <= areas[1] and mean > ROUNDING * _scale(ours)
    words = f"AUROC {areas[0]:.3f} against {areas[1]:.3f}, {mean:+.3g} ± {error:.2g} an image"
    return beaten, words


def _scale(scores: Tensor) -> float:
    return max(float(scores.abs().max()), 1e-12)
