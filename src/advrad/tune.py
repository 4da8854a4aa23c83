"""Settings chosen without test labels.

Held-out good images get defects that we made ourselves; a setting is as good as it tells the two
apart. The defects differ in kind, size and contrast, so that the choice is not tuned to one of
them. No test image and no real defect takes part.

Made defects are not the real ones, and the images are few: what lies within one standard error of
the best counts as equal to it, and among equals the caller's order decides, which puts the most
cautious value first. This is the one-standard-error rule of Breiman et al., Classification and
Regression Trees, 1984, Section 3.4.3.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from .data import defects
from .diffusion.batches import Images
from .noise import Fixed

Score = Callable[[Tensor, list[str]], Tensor]  # (B, C, H, W), ids -> (B, N)
MOST = 64  # images that are looked at: more hardly change the choice


@dataclass(frozen=True)
class Choice:
    """What was tried and what was taken.

    Arguments:
        name: of the setting.
        chosen: its value.
        table: one row a candidate: the AUROC for every kind of defect, their mean, and the
            standard error of that mean, None where there are too few images to know it.
    """

    name: str
    chosen: Any
    table: tuple[dict[str, Any], ...]


def choose(
    name: str,
    values: Sequence[Any],
    score: Score,
    images: Images,
    kinds: Sequence[str] = tuple(defects.ALL),
    tolerance: float = 0.01,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Choice:
    """The first value whose scores tell injected defects from good images as well as the best.

    Arguments:
        values: of the setting, the preferred ones first.
        score: of a batch under all of them, a column a value, so that they can share the work.
        images: held-out good images, each (C, H, W) in [0, 1]; `MOST` of them at most are taken,
            evenly from the row.
        kinds: of injected defects; every image gets one of each.
        tolerance: mean AUROC this close to the best is equal to it, and so is what lies within
            the best one's standard error, where that is larger.
        report: told how many images of how many are scored.
    """
    places = evenly(len(images), min(len(images), MOST))
    count, total = len(places), len(places) * (1 + len(kinds))

    def scores(named: Iterator[tuple[str, Tensor]], before: int) -> Tensor:
        return _scores(score, named, lambda done: report(before + done, total))

    good = scores(_whole(images, places), 0)
    wins = torch.stack(
        [
            _wins(good, scores(_broken(images, places, kind), before * count))
            for before, kind in enumerate(kinds, 1)
        ]
    )  # (kinds, 2, n, N)
    table = []
    for column, value in enumerate(values):
        own = wins[..., column]
        shares = own[:, 0].mean(1).tolist()
        row = {name: value, **dict(zip(kinds, shares, strict=True))}
        table.append(
            row | {"mean": sum(shares) / len(shares), "standard_error": standard_error(own)}
        )
    best = max(table, key=lambda row: float(row["mean"]))
    error = best["standard_error"]
    least = best["mean"] - max(tolerance, math.inf if error is None else error)
    chosen = next(row[name] for row in table if row["mean"] >= least)
    return Choice(name, chosen, tuple(table))


LEAST = 3  # images from which their spread says something


def standard_error(wins: Tensor) -> float | None:
    """Of the mean over kinds of the AUROC, from `wins` (kinds, 2, n); None below `LEAST` images.

    An image enters as itself and with one defect of each kind. Its share in the estimate is the
    sum of its placements on both sides (DeLong et al., 1988), averaged over kinds; the estimate's
    variance is that of the shares over n, since the images are independent and the kinds are not.
    """
    if wins.shape[-1] < LEAST:
        return None
    return float(wins.sum(1).mean(0).std()) / math.sqrt(wins.shape[-1])


def _wins(good: Tensor, bad: Tensor) -> Tensor:
    """Placements, (n, N) twice -> (2, n, N): the share of good images that each defect beats, and
    the share of defects that beat each good image; a tie counts half.

    A defect does not meet the very image that it was painted on: with few images that would
    flatter, since the two share all but the defect.
    """
    beats = (bad[:, None] > good).double() + (bad[:, None] == good).double() / 2
    if len(good) > 1:
        beats[range(len(good)), range(len(good))] = 0
    met = max(1, len(good) - 1)
    return torch.stack([beats.sum(1) / met, beats.sum(0) / met])


def evenly(total: int, count: int) -> list[int]:
    """`count` of the numbers below `total`, evenly: neighbours in a row are often alike."""
    return [i * total // count for i in range(count)]


def _whole(images: Images, places: Sequence[int]) -> Iterator[tuple[str, Tensor]]:
    for i in places:
        yield f"tune-{i}", images[i]


def _broken(images: Images, places: Sequence[int], kind: str) -> Iterator[tuple[str, Tensor]]:
    for i in places:
        broken, _ = defects.ALL[kind](images[i], Fixed(i))
        yield f"tune-{i}-{kind}", broken


def _scores(
    score: Score,
    named: Iterator[tuple[str, Tensor]],
    report: Callable[[int], None],
    batch: int = 16,
) -> Tensor:
    found: list[Tensor] = []
    while some := list(islice(named, batch)):
        report(batch * len(found))
        ids, images = zip(*some, strict=True)
        found.append(score(torch.stack(images), list(ids)))
    return torch.cat(found)
