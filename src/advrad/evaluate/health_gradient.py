"""Whether the gradient is there, finite, alive and above rounding, and whether it is true.

A true gradient leads up. Along what the suite climbs, the score has to rise by more than along
random steps of the same length, and by about as much as its own gradient promises. The rise is
half the difference between a step ahead and a step back, so that curvature cancels out, and steps
of several lengths are tried: a short one drowns in rounding, a long one leaves the neighbourhood.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ..attacks.ball import TINY, column
from ..attacks.gradient import Seen, value_and_gradient
from ..attacks.objective import Aim
from ..attacks.strongest import LOOKS, SCORE, Target, settled
from ..errors import BlindAttackError
from ..noise import PerImage
from .health_subject import FORWARD, Subject
from .robustness import derived
from .views import apart, views

FRACTIONS = (1.0, 1 / 8, 1 / 64)  # of the ball's own step
RANDOM = 2  # random steps of each length
BEYOND = 3.0  # times what random steps do; an unrelated direction does it once in 300
FACTOR = 4.0  # that the rise and what the gradient promises may differ by
EDGE = 8 / 255  # the most that an image is drawn away from 0 and 1, for room on both sides
ULPS = 16
EXACT = "exact"


def look(subject: Subject, x: Tensor) -> tuple[Tensor, Tensor]:
    """Score (N,) and raw gradient (N, C, H, W) of one draw.

    Raises BlindAttackError where there is no gradient.
    """
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        score = subject.detector(x, subject.noise, draws=1).score
    if not score.requires_grad:
        value_and_gradient(lambda y: score, x)
    (raw,) = torch.autograd.grad(score.sum(), x, allow_unused=True)
    if raw is None:
        raise BlindAttackError("the score's gradient does not reach the image: it is cut")
    return score.detach(), raw


def above_rounding(subject: Subject, score: Tensor, raw: Tensor) -> tuple[bool, str]:
    """Whether the best linear step inside the ball moves the score by more than rounding."""
    gradient = raw.nan_to_num(0, 0, 0)
    step = subject.ball.steepest(gradient) * subject.ball.radius.to(gradient)
    rise = (gradient * step).flatten(1).sum(1).abs()
    unit = torch.finfo(score.dtype).eps * score.abs().clamp_min(torch.finfo(score.dtype).tiny)
    lost = int((rise < ULPS * unit).sum())
    ties = len(score) - len(score.unique())
    words = (
        f"for {lost} of {len(score)} images the best linear step inside the ball is lost in "
        f"rounding; {ties} scores are equal to another"
    )
    return lost == 0 and 2 * ties < len(score), words


def climbed(subject: Subject) -> list[tuple[str, str]]:
    """What the suite climbs on the target: names of AIMS, and of the view that it takes."""
    parts = [p for p in subject.assault.suite.parts if p.attack not in ("square", "transfer")]
    return list(dict.fromkeys((p.aim, p.view) for p in parts)) or [(SCORE, EXACT)]


def cost(subject: Subject) -> float:
    """Of `true` for each image, in evaluations with a gradient."""
    aims = climbed(subject)
    looks = 1.0 + len(aims) + 2 * len(FRACTIONS) * (len(aims) + RANDOM) * FORWARD
    if apart(subject.detector) and any(_maps(*each) for each in aims):
        looks += LOOKS[0] + FORWARD * LOOKS[1]
    return looks


def true(subject: Subject) -> tuple[bool, str]:
    """Whether following what the suite climbs raises the score as its gradient promises."""
    held, words = True, []
    try:
        compass = _Compass(subject)
        for aim, view in climbed(subject):
            found = compass.readings(aim, view)
            beyond = max(each.beyond for each in found)
            kept = min(found, key=lambda each: each.off).kept
            held &= beyond >= BEYOND and 1 / FACTOR <= kept <= FACTOR
            name = aim if view == EXACT else f"{aim}, {view}"
            words.append(
                f"along the gradient ({name}) the score rises {beyond:.3g} times as much as along "
                f"random steps, and {kept:.3g} times as much as the gradient promises"
            )
    except BlindAttackError as error:
        return False, str(error)
    expected = f"expected: at least {BEYOND:g} times, and {1 / FACTOR:g} to {FACTOR:g} times"
    return held, f"{'; '.join(words)}; {expected}"


class Reading(NamedTuple):
    """Of the median image: the rise in units of random ones, and in units of what is promised."""

    beyond: float
    kept: float

    @property
    def off(self) -> float:
        """How far from what is promised, as a factor; without bound for a fall."""
        return max(self.kept, 1 / self.kept) if self.kept > 0 else torch.inf


class _Compass:
    """Compares one draw's score on both sides of each image, under one and the same noise."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        edge = min(EDGE, float(subject.ball.radius.max()))
        self.x = subject.sample.x.clamp(edge, 1 - edge)
        self.target = self._settled()
        seen = self._seen(SCORE, EXACT)
        self.gradient = seen.gradient
        self.unit = torch.finfo(seen.rank.dtype).eps * seen.rank.abs().double().cpu()
        self.random = PerImage(derived(subject.assault.seed, "directions"), subject.sample.ids)
        self.chance = {fraction: self._chance(fraction) for fraction in FRACTIONS}

    def readings(self, aim: str, view: str) -> list[Reading]:
        """Along what is climbed, by each fraction of the ball's own step."""
        direction = self._seen(aim, view).gradient
        return [self._reading(direction, fraction) for fraction in FRACTIONS]

    def _reading(self, direction: Tensor, fraction: float) -> Reading:
        step = self._step(direction, fraction)
        rise, promised = self._rise(step), _inner(self.gradient, step)
        beyond = rise / _length(step) / self.chance[fraction]
        known = promised != 0  # where nothing is promised, nothing is kept
        kept = (rise[known] / promised[known]).median() if bool(known.any()) else 0.0
        return Reading(float(beyond.nan_to_num(0).median()), float(kept))

    def _settled(self) -> Target:
        """The detector as the suite sees it, but for the noise: that of the evaluation."""
        subject, detector = self.subject, self.subject.detector
        judges = {name: subject.assault.judges(view)[:1] for name, view in views(detector).items()}
        target = Target(
            subject.assault.judges(detector)[:1],
            subject.sign.to(self.x),
            False,
            lambda k: subject.noise,
            judges,
            apart=apart(detector),
            say=lambda words: None,
        )
        if not any(_maps(*each) for each in climbed(subject)):
            return target
        return settled(target, self.x)

    def _seen(self, aim: str, view: str) -> Seen:
        """What is climbed in the direction of harm, what ranks, and the gradient."""
        [drawn] = self.target.drawn(aim, view)
        return value_and_gradient(lambda x: drawn(x, self.subject.noise), self.x)

    def _step(self, direction: Tensor, fraction: float) -> Tensor:
        """In this direction as far as the ball's own step goes, and never out of [0, 1]."""
        ball = self.subject.ball
        own = ball.steepest(self.gradient) * ball.radius.to(self.gradient)
        # a sum of squares of tiny numbers would be zero in float32
        direction = direction / column(direction.flatten(1).abs().amax(1).clamp_min(TINY))
        factor = _length(own) / _length(direction).clamp_min(TINY)
        step = direction * column(fraction * factor).to(direction)
        room = torch.minimum(self.x, 1 - self.x)
        return torch.maximum(torch.minimum(step, room), -room)

    @torch.no_grad()
    def _rise(self, step: Tensor) -> Tensor:
        """Half the difference between a step ahead and a step back, (N,) float64."""
        [drawn] = self.target.drawn(SCORE)
        ahead, back = (drawn(self.x + way * step, self.subject.noise) for way in (1, -1))
        assert isinstance(ahead, Aim)
        assert isinstance(back, Aim)
        return (ahead.rank.double() - back.rank.double()).cpu() / 2

    def _chance(self, fraction: float) -> Tensor:
        """What a random step makes of the score, root mean square by length, (N,)."""
        slopes = []
        for number in range(RANDOM):
            step = self._step(self.random(self.x, number), fraction)
            slopes.append(torch.maximum(self._rise(step).abs(), self.unit) / _length(step))
        return torch.stack(slopes).square().mean(0).sqrt()


def _maps(aim: str, view: str) -> bool:
    return aim != SCORE and view == EXACT


def _length(step: Tensor) -> Tensor:
    """Euclidean, (N,) float64, on the CPU as scores are."""
    return step.double().flatten(1).norm(dim=1).cpu()


def _inner(one: Tensor, other: Tensor) -> Tensor:
    return (one.double() * other.double()).flatten(1).sum(1).cpu()
