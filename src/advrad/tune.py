"""Settings chosen without test labels.

Held-out good images get defects that we made ourselves; a setting is as good as it tells the two
apart. The defects differ in kind, size and contrast, so that the choice is not tuned to one of
them. No test image and no real defect takes part.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .data import defects
from .diffusion.batches import Images
from .metrics import auroc
from .noise import Fixed

Score = Callable[[Tensor, list[str]], Tensor]  # (B, C, H, W), ids -> (B,)


@dataclass(frozen=True)
class Choice:
    """What was tried and what was taken.

    Arguments:
        name: of the setting.
        chosen: its value.
        table: one row a candidate, with the AUROC for every kind of defect and their mean.
    """

    name: str
    chosen: Any
    table: tuple[dict[str, Any], ...]


def choose(
    name: str,
    candidates: dict[Any, Score],
    images: Images,
    kinds: Sequence[str] = tuple(defects.ALL),
    tolerance: float = 0.005,
) -> Choice:
    """The candidate whose scores best tell injected defects from good images.

    Arguments:
        candidates: value of the setting -> score of a batch under it, from the mildest on.
        images: held-out good images, each (C, H, W) in [0, 1].
        kinds: of injected defects; every image gets one of each.
        tolerance: candidates this close to the best count as equal, and the first of them wins.
    """
    table = []
    for value, score in candidates.items():
        good = _scores(score, _whole(images))
        row: dict[str, Any] = {name: value}
        for kind in kinds:
            bad = _scores(score, _broken(images, kind))
            labels = torch.cat([torch.zeros(len(good)), torch.ones(len(bad))]).bool()
            row[kind] = auroc(torch.cat([good, bad]), labels)
        row["mean"] = sum(row[kind] for kind in kinds) / len(kinds)
        table.append(row)
    best = max(row["mean"] for row in table)
    chosen = next(row[name] for row in table if row["mean"] >= best - tolerance)
    return Choice(name, chosen, tuple(table))


def _whole(images: Images) -> Iterator[tuple[str, Tensor]]:
    for i in range(len(images)):
        yield f"tune-{i}", images[i]


def _broken(images: Images, kind: str) -> Iterator[tuple[str, Tensor]]:
    for i in range(len(images)):
        broken, _ = defects.ALL[kind](images[i], Fixed(i))
        yield f"tune-{i}-{kind}", broken


def _scores(score: Score, named: Iterator[tuple[str, Tensor]], batch: int = 16) -> Tensor:
    found, ids, rows = [], [], []
    for name, image in named:
        ids.append(name)
        rows.append(image)
        if len(rows) == batch:
            found.append(score(torch.stack(rows), ids))
            ids, rows = [], []
    if rows:
        found.append(score(torch.stack(rows), ids))
    return torch.cat(found)
