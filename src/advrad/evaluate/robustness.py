"""How a detector stands an attack on both sides: good images raised, defects lowered.

An AUROC is monotone in every score, so the worst of each image gives the worst AUROC; its floor is
0 and not one half. What an attack found is scored with noise that had no part in finding it. Two
figures stand apart, each beside the clean AUROC under the same rules: the attacker knows the draw
of the evaluation (a deterministic white box), and the attacker hands the same image in again and
again until one of `resubmit` draws suits.
"""

import hashlib
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor

from ..attacks.ball import Ball
from ..attacks.strongest import (
    LOOKS,
    STRIDE,
    Cost,
    Found,
    Judge,
    Part,
    Suite,
    Target,
    added,
    strongest,
)
from ..detectors import Detector
from ..errors import DataError
from ..noise import Draws, Noise, PerImage
from .views import apart, rungs, views

Tell = Callable[[int], None]  # how many evaluations have been made, forward ones and others
KNOWN_AIMS = ("log-sum-exp", "score")


class Pair(NamedTuple):
    """Scores (B,) before and after, under the same rules."""

    clean: Tensor
    attacked: Tensor


@dataclass(frozen=True)
class Attacked:
    """What became of a batch.

    Arguments:
        x: the attacked images, (B, C, H, W).
        by: the part of the suite that each is from.
        maps, clean_maps: of the attacked images and of the clean ones, (B, H, W).
        scores: under noise that the attack has not seen.
        parts: the same scores for the candidate of each part of the suite alone, (B,).
        known: where the attacker knew the draw of the evaluation.
        resubmitted: the worst of several fresh draws for each image.
    """

    x: Tensor
    by: Sequence[str]
    maps: Tensor
    clean_maps: Tensor
    scores: Pair
    parts: Mapping[str, Tensor]
    known: Pair | None
    resubmitted: Pair | None


@dataclass(frozen=True)
class Assault:
    """An attack on a detector, ready to be used on batches.

    Arguments:
        detector: in eval mode, on its device.
        ball: the threat model.
        suite: the attacks.
        seed: of the evaluation's noise; all the attackers' draws are derived from it and differ.
        source: another detector, whose attacked images are tried too.
        tell: called with the number of evaluations after each of them.
        said: what has been said through the log, each once.
    """

    detector: Detector
    ball: Ball
    suite: Suite
    seed: int = 0
    source: Detector | None = None
    tell: Tell = field(default=lambda count: None, repr=False)
    said: set[str] = field(default_factory=set, repr=False, compare=False)

    @property
    def stochastic(self) -> bool:
        """Whether two draws of the detector differ."""
        return self.detector.draws_taken > 0

    @property
    def cost(self) -> Cost:
        """All evaluations of the detector for each image: suite, scoring, what stands apart."""
        again = self.suite.resubmit * self.passes if self.stochastic else 0
        if not float(self.ball.eps):
            return Cost(0, self.passes + again)
        gradients, forwards = self.suite.cost(self.stochastic, self.source is not None)
        candidates = len(self.suite.tried(self.source is not None))
        scored = 2 + (candidates if candidates > 1 else 0)
        if self.suite.maps and apart(self.detector):
            gradients, forwards = gradients + LOOKS[0], forwards + LOOKS[1]
        if self.stochastic and self.suite.known:
            known = self._knowing.cost(False)
            gradients += known.gradients * self.passes
            scored += known.forwards + 1
        return Cost(gradients, forwards + scored * self.passes + 2 * again)

    @property
    def source_cost(self) -> Cost:
        """Evaluations of the source for each image."""
        if self.source is None or not float(self.ball.eps):
            return Cost(0, 0)
        draws = self.source.draws_taken > 0
        return added(part.source_cost(self.stochastic, draws) for part in self.suite.parts)

    @property
    def total(self) -> int:
        """All of them together."""
        return sum(self.cost) + sum(self.source_cost)

    @property
    def passes(self) -> int:
        """Evaluations that one score of the detector takes."""
        return max(1, self.detector.draws_taken) * len(rungs(self.detector))

    def __call__(
        self,
        x: Tensor,
        defect: Sequence[bool],
        ids: Sequence[str],
        names: Sequence[str] | None = None,
    ) -> Attacked:
        """Attacks a batch (B, C, H, W); `ids` are the sha256 of its files.

        `names` are what errors call the images, their ids if left out. Raises DataError where a
        score is not finite without any attack, and BlindAttackError where the detector cuts the
        gradient that the suite needs.
        """
        sign = torch.tensor([-1.0 if each else 1.0 for each in defect], device=x.device)
        clean, clean_maps = self.scored(x, ids)
        _refuse_unscored(clean, names or ids)
        if not float(self.ball.eps):
            return self._untouched(x, sign, ids, clean, clean_maps)
        target = self._target(self.detector, sign, ids)
        if self.source is not None:
            target = replace(target, source=self._target(self.source, sign, ids))
        found = strongest(target, x, self.ball, self.suite)
        score, maps = self.scored(found.x, ids)
        return Attacked(
            x=found.x,
            by=found.by,
            maps=maps,
            clean_maps=clean_maps,
            scores=Pair(clean, score),
            parts=self._parts(found, score, ids),
            known=self._known(x, clean, sign, ids),
            resubmitted=self._resubmitted(x, found.x, sign, ids),
        )

    def _untouched(
        self, x: Tensor, sign: Tensor, ids: Sequence[str], score: Tensor, maps: Tensor
    ) -> Attacked:
        """The clean row: nothing is allowed, so nothing is tried."""
        known = Pair(score, score) if self.stochastic and self.suite.known else None
        again = self._resubmitted(x, x, sign, ids)
        by, both = ["clean"] * len(x), Pair(score, score)
        return Attacked(x, by, maps, maps, both, {}, known, again)

    def _target(self, detector: Detector, sign: Tensor, ids: Sequence[str]) -> Target:
        others = {name: self.judges(view) for name, view in views(detector).items()}
        draws = Draws(derived(self.seed, "attack"), ids)
        return Target(
            self.judges(detector),
            sign,
            detector.draws_taken > 0,
            draws,
            others,
            apart=apart(detector),
            say=self._say,
        )

    def _say(self, words: str) -> None:
        """Through the log, of each kind the first: numbers of images differ between batches."""
        kind = words.rsplit(":", 1)[-1]
        if kind not in self.said:
            self.said.add(kind)
            logging.getLogger("advrad").warning(words)

    def judges(self, detector: Detector) -> list[Judge]:
        """One for each part of the detector: what a draw costs is one pass of the network."""
        return [self.judge(part) for part in rungs(detector)]

    def judge(self, detector: Detector, draws: int | None = 1) -> Judge:
        """A detector as attacks see it, over so many draws; None for its own."""
        passes = self.passes if draws is None else draws

        def judge(x: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
            anomaly = detector(x, noise, draws=draws)
            self.tell(passes * len(x))
            return anomaly.score, anomaly.map

        return judge

    @torch.no_grad()
    def scored(self, x: Tensor, ids: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Scores (B,) and maps (B, H, W) of a batch under the noise of the evaluation."""
        anomaly = self.detector(x, PerImage(self.seed, ids))
        self.tell(self.passes * len(x))
        return anomaly.score.cpu(), anomaly.map.cpu()

    def _parts(self, found: Found, score: Tensor, ids: Sequence[str]) -> dict[str, Tensor]:
        if len(found.candidates) == 1:
            return dict.fromkeys(found.candidates, score)
        return {name: self.scored(adv, ids)[0] for name, adv in found.candidates.items()}

    @property
    def _knowing(self) -> Suite:
        """What somebody tries who knows the draw: it is then the only one."""
        steps = {"steps": self.suite.known}
        return Suite(tuple(Part("apgd", aim, 1, steps) for aim in KNOWN_AIMS), select=1)

    def _known(self, x: Tensor, clean: Tensor, sign: Tensor, ids: Sequence[str]) -> Pair | None:
        """The deterministic white box: the draws of the evaluation are the attacker's too."""
        if not (self.stochastic and self.suite.known):
            return None
        noise = PerImage(self.seed, ids)
        target = Target(
            [self.judge(self.detector, None)],
            sign,
            False,
            Same(noise, Draws(derived(self.seed, "known"), ids)),
            say=self._say,
        )
        found = strongest(target, x, self.ball, self._knowing)
        return Pair(clean, self.scored(found.x, ids)[0])

    def _resubmitted(
        self, x: Tensor, adv: Tensor, sign: Tensor, ids: Sequence[str]
    ) -> Pair | None:
        if not (self.stochastic and self.suite.resubmit):
            return None
        noises = Draws(derived(self.seed, "resubmit"), ids)
        clean = self._worst(x, sign.cpu(), noises)
        return Pair(clean, clean if adv is x else self._worst(adv, sign.cpu(), noises))

    @torch.no_grad()
    def _worst(self, x: Tensor, sign: Tensor, noises: Draws) -> Tensor:
        drawn = []
        for number in range(self.suite.resubmit):
            drawn.append(self.detector(x, noises(number)).score.cpu())
            self.tell(self.passes * len(x))
        return sign * (sign * torch.stack(drawn)).amax(0)


@dataclass(frozen=True)
class Same:
    """One and the same noise for the objective at every draw, others for what the attack draws."""

    noise: Noise
    others: Draws

    def __call__(self, k: int) -> Noise:
        return self.others(k) if k % STRIDE == STRIDE - 1 else self.noise


def _refuse_unscored(score: Tensor, names: Sequence[str]) -> None:
    """No attack is needed where a detector does not know the clean image's score."""
    lost = [(name, value) for name, value in zip(names, score.tolist(), strict=True)]
    lost = [(name, value) for name, value in lost if not math.isfinite(value)]
    if lost:
        raise DataError(
            f"the score of {lost[0][0]} is {lost[0][1]:g}, without any attack"
            + f", and that of {len(lost) - 1} more of its batch is not finite either"
            * (len(lost) > 1)
            + ": expected a finite number; mend the model, or leave such images out by name"
        )


def derived(seed: int, purpose: str) -> int:
    """A seed of its own for each purpose."""
    return int.from_bytes(hashlib.sha256(f"{purpose}/{seed}".encode()).digest()[:7], "little")
