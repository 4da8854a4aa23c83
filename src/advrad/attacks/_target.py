"""A detector as the attacks of a suite see it: what is climbed, what ranks, and which draws."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from ..errors import BlindAttackError, UsageError
from ..noise import Noise
from .ball import Linf
from .gradient import value_and_gradient, value_of
from .objective import Aim, Drawn, Noises, Objective, eot, log_sum_exp, top_mean

# (x, noise) -> score (B,), map (B, H, W): one draw of the detector
Judge = Callable[[Tensor, Noise], tuple[Tensor, Tensor]]
Say = Callable[[str], None]

SCORE, SMOOTH = "score", "log-sum-exp"
AIMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    SCORE: lambda score, values: score,
    SMOOTH: lambda score, values: log_sum_exp(values, 0.1),
    "top": lambda score, values: top_mean(values),
}
STRIDE = 1 << 24  # draws that one part of a suite may ask for
LOOK = STRIDE // 2  # the draw under which map and score are compared, apart from all others
NEAR = Linf(2 / 255)  # where both are compared: in it a step still shows what leads where
LEADS = 0.25  # of the rise along the score's own gradient; maps that serve reach half and more
LOOKS = 2, 2  # evaluations with a gradient, and forward ones, of `settled`
CUT = "by any gradient: something cuts it (no_grad, detach, item, numpy)"
INSTEAD = "Attack it with `square`, or through a smooth substitute (bpda)"


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
        apart: whether the score may be made of something else than the map.
        own: the images whose score is climbed where a part climbs the map, (B,) bool; None of all.
        say: told in words where the score is climbed in the map's place.
    """

    judges: Sequence[Judge]
    sign: Tensor
    stochastic: bool
    noises: Noises
    views: Mapping[str, Sequence[Judge]] = field(default_factory=dict)
    source: "Target | None" = None
    apart: bool = False
    own: Tensor | None = None
    say: Say = field(default=logging.getLogger("advrad").warning, repr=False)

    def drawn(self, aim: str, view: str = "exact") -> list[Drawn]:
        """What is climbed under a given noise; the true score ranks."""
        if view != "exact" and view not in self.views:
            raise UsageError(
                f"this detector has no view {view!r} to be attacked through: expected one of "
                f"{', '.join(['exact', *self.views])}"
            )
        judges = self.judges if view == "exact" else self.views[view]
        return [partial(self._aimed, judge, aim) for judge in judges]

    def mean(self, first: int, draws: int, aim: str = SCORE, view: str = "exact") -> Objective:
        """The objective over `draws` draws a call, from draw number `first` on."""
        return eot(
            self.drawn(aim, view),
            draws if self.stochastic else 1,
            lambda k: self.noises(first + k),
        )

    def _aimed(self, judge: Judge, aim: str, x: Tensor, noise: Noise) -> Aim:
        score, values = judge(x, noise)
        copies = len(x) // len(self.sign)
        sign = self.sign.to(score).repeat(copies)
        if torch.is_grad_enabled() and x.requires_grad:
            aim = self._seen(aim, score, values)
        climb = AIMS[aim](score, values)
        if self.own is not None:
            climb = torch.where(self.own.repeat(copies), score, climb)
        return Aim(sign * climb, sign * score.detach())

    def _seen(self, aim: str, score: Tensor, values: Tensor) -> str:
        """The aim, or the score where the map has no gradient and the score has one."""
        if aim == SCORE and not score.requires_grad:
            hint = "; its map does, and parts that climb the map can see" * values.requires_grad
            raise BlindAttackError(
                f"the detector's score does not depend on the image {CUT}{hint}. {INSTEAD}"
            )
        if aim == SCORE or values.requires_grad:
            return aim
        if not score.requires_grad:
            raise BlindAttackError(
                f"neither the map nor the score of the detector depends on the image {CUT}. "
                f"{INSTEAD}"
            )
        self.say(
            f"the detector's map does not depend on the image {CUT}, and its score does: the "
            "score is climbed in its place"
        )
        return SCORE


def settled(target: Target, x: Tensor) -> Target:
    """The target with the images known whose map leads the attack nowhere; their score is climbed.

    Both are looked at from the clean image, under one draw: where a small step along the map's
    gradient raises the score by less than a quarter of what one along the score's own does, the
    map belongs to something else. Costs two evaluations with a gradient and two without, and
    nothing for a target whose score is made of its map. Raises BlindAttackError where neither has
    a gradient.
    """
    if not target.apart:
        return target
    try:
        score = _rise(target, SCORE, x)
    except BlindAttackError:
        _rise(target, SMOOTH, x)  # raises where the map is blind as well
        return target
    try:
        own = (score > 0) & (_rise(target, SMOOTH, x) < LEADS * score)
    except BlindAttackError:
        own = torch.ones_like(score, dtype=torch.bool)
    if not bool(own.any()):
        return target
    target.say(
        f"for {int(own.sum())} of {len(x)} images of the batch a step along the gradient of the "
        "detector's map does not raise its score, and one along the score's own does: there the "
        "score is climbed in the map's place"
    )
    return replace(target, own=own)


def _rise(target: Target, aim: str, x: Tensor) -> Tensor:
    """By how much one step along the gradient of what is aimed at moves the score, (B,)."""
    seen = value_and_gradient(target.mean(LOOK, 1, aim), x)
    step = NEAR.radius.to(x) * NEAR.steepest(seen.gradient)
    stepped = NEAR.project(x + step, x)
    return value_of(target.mean(LOOK, 1), stepped).rank - seen.rank
