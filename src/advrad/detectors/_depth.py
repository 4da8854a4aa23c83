"""Which depths tell injected defects from good images; no test image takes part."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .. import scoring
from ..noise import PerImage
from ..tune import Choice, Score, choose
from ._settings import ladders
from .base import Images, Run

if TYPE_CHECKING:
    from .advrad import AdvRAD


@torch.no_grad()
def choose_depth(detector: "AdvRAD", images: Images, tune: Images, run: Run) -> Choice:
    """The ladder of depths under which a trained detector tells defects in `tune` best."""
    possible, report = ladders(detector.settings), run.stage("choosing the depth")
    score = candidates(detector, possible, images, run)
    return choose("depth", possible, score, tune, report=report)


def candidates(detector: "AdvRAD", possible: list[list[int]], images: Images, run: Run) -> Score:
    """The score under each ladder, with statistics of at most 64 training images.

    The deviation of a ladder is the mean of its depths', so that each is computed once.
    """
    depths, settings = sorted({k for ladder in possible for k in ladder}), detector.settings
    typical, spread, _ = detector.statistics(images, depths, run, min(len(images), 64))
    _, judge, views = scoring.SCORES[settings.score]

    def score(x: Tensor, ids: list[str]) -> Tensor:
        noise = PerImage(run.seed, ids)
        error, _ = detector.error(x.to(run.device), depths, noise, settings.draws)
        parts = [part.split(views, -3) for part in (error, typical, spread)]
        maps = dict(zip(depths, map(judge, *parts), strict=True))
        found = [torch.stack([maps[d] for d in ladder]).mean(0) for ladder in possible]
        return torch.stack([scoring.aggregate(m, settings.top) for m in found], 1).cpu()

    return score
