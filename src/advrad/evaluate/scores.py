"""Scores of many images, one batch at a time, each under the noise that belongs to it."""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from ..detectors import Detector
from ..errors import ImageError
from ..images import fingerprint
from ..model import Model
from ..noise import PerImage

BATCH = 16


class Named(Protocol):
    """Images with the sha256 of their files, as `advrad.data.Images`."""

    @property
    def ids(self) -> Any: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Tensor: ...


@dataclass(frozen=True)
class Scored:
    """One image's result: its place, sha256, score, map (H, W), and other scores by name."""

    index: int
    id: str
    score: float
    map: Tensor
    beside: dict[str, float]


@torch.no_grad()
def scored(
    detector: Detector,
    images: Named,
    seed: int = 0,
    batch: int = BATCH,
    device: str = "cpu",
    places: list[int] | None = None,
) -> Iterator[Scored]:
    """Scores the images in order, or those at `places`; an image's noise is that of (seed, id)."""
    detector = detector.to(device).eval()
    order = list(range(len(images))) if places is None else places
    for start in range(0, len(order), batch):
        some = order[start : start + batch]
        x = torch.stack([images[i] for i in some]).to(device)
        ids = [str(images.ids[i]) for i in some]
        anomaly, beside = detector.examine(x, PerImage(seed, ids))
        for row, (index, name) in enumerate(zip(some, ids, strict=True)):
            others = {key: float(value[row]) for key, value in beside.items()}
            yield Scored(index, name, float(anomaly.score[row]), anomaly.map[row].cpu(), others)


@dataclass(frozen=True)
class Row:
    """One image of a prediction, as it is printed and written.

    `margin` is score - threshold; `seed` is None where it is the model's secret; `error` says why
    there is no score, and the verdict is then UNSURE.
    """

    path: str
    sha256: str | None
    score: float | None
    threshold: float
    margin: float | None
    verdict: str
    draws: int
    model: str
    seed: int | None
    error: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def predict(
    model: Model,
    paths: list[Path],
    *,
    seed: int | None = None,
    batch: int = BATCH,
    device: str = "cpu",
    skip_bad: bool = False,
) -> Iterator[tuple[Row, Tensor | None]]:
    """A row and the map (H, W) for each image, in order, as they come.

    Arguments:
        seed: of the noise; the model's secret one by default.
        batch: images held at once; it does not change a score.
        skip_bad: whether an unreadable image becomes a row with `error`; otherwise ImageError is
            raised when its turn comes, after the rows before it.
    """
    drawn = model.secret if seed is None else seed
    waiting: list[tuple[Path, str, Tensor]] = []
    for path in paths:
        try:
            waiting.append((path, fingerprint(path), model.preprocess(path)))
        except ImageError as error:
            yield from _rows(model, waiting, drawn, seed, device)
            waiting = []
            if not skip_bad:
                raise
            yield _row(model, path, None, None, seed, error.why), None
        if len(waiting) == batch:
            yield from _rows(model, waiting, drawn, seed, device)
            waiting = []
    yield from _rows(model, waiting, drawn, seed, device)


@dataclass(frozen=True)
class _Held:
    """A few images in memory."""

    ids: list[str]
    tensors: list[Tensor]

    def __len__(self) -> int:
        return len(self.tensors)

    def __getitem__(self, index: int, /) -> Tensor:
        return self.tensors[index]


def _rows(
    model: Model,
    waiting: list[tuple[Path, str, Tensor]],
    drawn: int,
    shown: int | None,
    device: str,
) -> Iterator[tuple[Row, Tensor | None]]:
    held = _Held([name for _, name, _ in waiting], [x for _, _, x in waiting])
    for found in scored(model.detector, held, drawn, max(1, len(waiting)), device):
        row = _row(model, waiting[found.index][0], found.id, found.score, shown, None)
        yield row, found.map


def _row(
    model: Model,
    path: Path,
    digest: str | None,
    score: float | None,
    seed: int | None,
    error: str | None,
) -> Row:
    threshold = model.calibration.threshold
    return Row(
        path=str(path),
        sha256=digest,
        score=score,
        threshold=threshold,
        margin=None if score is None else score - threshold,
        verdict=model.calibration.verdict(math.nan if score is None else score),
        draws=model.detector.draws_taken,
        model=model.name,
        seed=seed,
        error=error,
    )
