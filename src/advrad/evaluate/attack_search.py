"""The smallest eps at which an image's verdict turns, searched for each image by itself.

A defect turns where its score falls below the threshold of NG, a good image where it reaches it.
The search is `minimal` within a stated number of passes. Of a detector that draws, it climbs fresh
draws at every step, averaged by momentum, and asks a few draws of its own, the same ones at every
step, whether the score has risen by as much as the evaluation lacks. The evaluation's own draws
have no part in it: they confirm what was found, which is stretched until the verdict under them is
the wrong one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..attacks.minimal import looks, minimal
from ..attacks.objective import Aim, Objective, aim
from ..attacks.strongest import Cost, Target
from ..calibrate import NG, Calibration
from ..noise import Draws, PerImage
from .robustness import Assault, derived
from .views import rungs

AIM = "log-sum-exp"  # what is climbed, as in the suites
STEPS, HALVINGS, MOMENTUM = 100, 10, 0.9
STRETCHES = (1.0, 1.001, 1.003, 1.01, 1.02, 1.04, 1.08, 1.16, 1.32, 1.64, 2.28)
SETTINGS = {"aim": AIM, "steps": STEPS, "halvings": HALVINGS, "momentum": MOMENTUM}


class Turned(NamedTuple):
    """What was found of a batch.

    x: the images (B, C, H, W) whose verdict is the wrong one, the clean ones where none was found;
    eps: how far they are, (B,), 0 where the clean verdict is wrong already, inf where none was
    found; scores: clean and found, (B,), under the draws of the evaluation.
    """

    x: Tensor
    eps: Tensor
    clean: Tensor
    scores: Tensor


@dataclass(frozen=True)
class Search:
    """A search ready to be used on batches.

    Arguments:
        assault: the detector, the seed of the evaluation, and a ball whose eps is the largest that
            is looked at.
        calibration: of the verdicts.
    """

    assault: Assault
    calibration: Calibration

    @property
    def cost(self) -> Cost:
        """What it takes for one image, at most."""
        gradients, forwards = looks(self.assault.ball, STEPS, HALVINGS)
        scoring = self.assault.passes
        if not self.assault.stochastic:
            return Cost(gradients * scoring, (1 + forwards + len(STRETCHES)) * scoring)
        climbing = len(rungs(self.assault.detector))
        scorings = 1 + gradients + forwards + len(STRETCHES)
        return Cost(gradients * climbing, scorings * scoring)

    def __call__(self, x: Tensor, defect: Sequence[bool], ids: Sequence[str]) -> Turned:
        """Searches a batch (B, C, H, W); `ids` are the sha256 of its files.

        Raises BlindAttackError where the detector cuts the gradient.
        """
        sign = torch.tensor([-1.0 if each else 1.0 for each in defect], device=x.device)
        clean = self.assault.scored(x, ids)[0]
        wrong = self._wrong(clean, defect).to(x.device)
        found = minimal(
            self._objective(sign, ids, clean.to(sign)),
            x,
            self.assault.ball,
            threshold=self._goal(sign),
            steps=STEPS,
            halvings=HALVINGS,
            momentum=MOMENTUM if self.assault.stochastic else 0.0,
            noise=PerImage(derived(self.assault.seed, "smallest start"), ids),
        )
        crossed = (found.eps.isfinite() & ~wrong).nonzero().flatten().tolist()
        held, scores = self._confirmed(found.x, x, clean, crossed, defect, ids)
        eps = self.assault.ball.size(held - x)
        turned = self._wrong(scores, defect).to(x.device)
        return Turned(held, torch.where(turned, eps, torch.inf), clean, scores)

    def _goal(self, sign: Tensor) -> Tensor:
        """What sign times the score has to reach; a score at the threshold is NG still."""
        goal = sign * self.calibration.threshold
        return torch.where(sign > 0, goal, goal.nextafter(torch.full_like(goal, torch.inf)))

    def _wrong(self, scores: Tensor, defect: Sequence[bool]) -> Tensor:
        """Whose verdict is not that of its class, (B,)."""
        verdicts = map(self.calibration.verdict, scores.tolist())
        pairs = zip(verdicts, defect, strict=True)
        return torch.tensor([(verdict == NG) != each for verdict, each in pairs])

    def _objective(self, sign: Tensor, ids: Sequence[str], clean: Tensor) -> Objective:
        """Climbs draws that are new at every call; ranks by the rise from the clean scores."""
        assault, seed = self.assault, self.assault.seed
        judge = assault.judge(assault.detector, None)
        noises = Draws(derived(seed, "smallest"), ids)
        if not assault.stochastic:
            return Target([judge], sign, False, noises).mean(0, 1, AIM)
        judges = assault.judges(assault.detector)
        climbed = Target(judges, sign, True, noises).mean(0, len(judges), AIM)
        own, offsets = PerImage(derived(seed, "smallest own"), ids), list[Tensor]()

        def objective(adv: Tensor) -> Aim:
            with torch.no_grad():
                score = judge(adv, own)[0]
            if not offsets:  # `minimal` looks at the clean images first
                offsets.append(clean - score)
            rank = sign * (score + offsets[0])
            return Aim(aim(climbed(adv)).climb if adv.requires_grad else rank, rank)

        return objective

    @torch.no_grad()
    def _confirmed(
        self,
        adv: Tensor,
        x: Tensor,
        clean: Tensor,
        left: list[int],
        defect: Sequence[bool],
        ids: Sequence[str],
    ) -> tuple[Tensor, Tensor]:
        """Those `left` stretched until their verdict is wrong; the clean ones where none is."""
        held, scores = x.clone(), clean.clone()
        for stretch in STRETCHES:
            if not left:
                break
            tried = x[left] + stretch * (adv[left] - x[left])
            tried = self.assault.ball.project(tried, x[left])
            found = self.assault.scored(tried, [ids[place] for place in left])[0]
            wrong = self._wrong(found, [defect[place] for place in left]).tolist()
            won = [at for at, each in enumerate(wrong) if each]
            places = [left[at] for at in won]
            held[places], scores[places] = tried[won], found[won]
            left = [place for place in left if place not in places]
        return held, scores
