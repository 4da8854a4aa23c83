"""What an attack will cost and how long it will take, said before it starts."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..attacks.strongest import Cost
from ..data import Dataset
from ..detectors import Detector
from ..model import Model
from .attack_rows import Radius
from .clean import test_images
from .rows import Rows
from .threat import Threat, searched, settings_under
from .views import rungs


class Expected(NamedTuple):
    """What an attack will take: evaluations an image and radius, seconds in all, images.

    The seconds are those of what is left to do, without the checks of health, which take up to a
    quarter more. `search`: evaluations an image, at most, of the search for its smallest eps;
    `source`: those of the detector that images are transferred from.
    """

    cost: Cost
    seconds: float
    images: int
    search: Cost | None = None
    source: Cost = Cost(0, 0)


def expected(model: Model, dataset: Dataset, wanted: Threat, out: Path | None = None) -> Expected:
    """Measured on one batch, with and without a gradient; not where `out` has all rows already.

    Raises what `attack` raises before its work begins.
    """
    assaults = wanted.assaults(model)
    images = test_images(model, dataset, wanted.evaluation)
    rows = Rows(out, settings_under(model, dataset, images, wanted))
    sought = searched(model, images, rows, wanted)
    left = [len(Radius(model, images, rows, i, False).missing) for i in range(len(assaults))]
    work = [(n, assault.cost) for n, assault in zip(left, assaults, strict=True)]
    if sought is not None:
        work.append((len(sought.missing), sought.search.cost))
    told = Expected(
        max(assault.cost for assault in assaults),
        0.0,
        len(images),
        None if sought is None else sought.search.cost,
        max(assault.source_cost for assault in assaults),
    )
    if not any(number for number, _ in work):
        return told
    device, some = wanted.evaluation.device, range(min(wanted.evaluation.batch, len(images)))
    x = torch.stack([images[i] for i in some]).to(device)
    seconds = _seconds(assaults[0].detector, x, work)
    if wanted.source is not None:
        costs = [assault.source_cost for assault in assaults]
        seconds += _seconds(wanted.source, x, list(zip(left, costs, strict=True)))
    return told._replace(seconds=seconds)


def _seconds(detector: Detector, x: Tensor, work: Sequence[tuple[int, Cost]]) -> float:
    """Of evaluations for so many images each, at the pace of one batch."""
    part = rungs(detector)[0]
    _timed(part, x[:1])  # the first call of all is slower
    forward, whole = _timed(part, x)
    return sum(n * (whole * c.gradients + forward * c.forwards) for n, c in work) / len(x)


def _timed(detector: Detector, x: Tensor) -> tuple[float, float]:
    """Seconds of a forward pass, and of one with a gradient."""
    x = x.detach().requires_grad_()
    clock = [time.perf_counter()]
    score = detector(x, draws=1).score.sum()
    clock.append(time.perf_counter())
    if score.requires_grad:
        torch.autograd.grad(score, x, allow_unused=True)
    clock.append(time.perf_counter())
    return clock[1] - clock[0], clock[2] - clock[0]
