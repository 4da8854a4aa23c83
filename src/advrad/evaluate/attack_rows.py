"""Rows of an attack: each image under each radius, written when its batch is done.

Image number i under radius number n has the index n * N + i. Beside the rows, the attacked images
themselves are kept as arrays, `attacked/INDEX.npy`, float32 (C, H, W).
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data import Images
from ..errors import DataError
from ..files import write_bytes
from ..model import Model
from ..pixels import PixelMetrics
from ..tune import evenly
from .clean import add_pixels
from .health import SIDE, Sample
from .lost import lost, worst_map
from .robustness import Assault, Attacked, Pair
from .rows import ATTACKED, Rows

Row = dict[str, Any]
Tell = Callable[[int, int], None]  # evaluations made, of how many


class Count:
    """Evaluations made so far, of a known total."""

    def __init__(self, report: Tell, total: int) -> None:
        self.report, self.total, self.done = report, total, 0

    def add(self, count: int) -> None:
        """So many more."""
        self.done = min(self.done + count, self.total)
        self.report(self.done, self.total)

    def reach(self, done: int) -> None:
        """A stage has come to its end, whatever it took."""
        self.add(max(done - self.done, 0))


@dataclass
class Radius:
    """The work under one radius, number `number` of several."""

    model: Model
    images: Images
    rows: Rows
    number: int
    drawn: bool  # whether defects are drawn, so that maps count
    pixel: PixelMetrics = field(default_factory=PixelMetrics)
    clean_pixel: PixelMetrics = field(default_factory=PixelMetrics)
    held: dict[int, Tensor] = field(default_factory=dict)  # attacked images that are to be checked

    @property
    def ordered(self) -> list[Row]:
        """The rows, in the images' order."""
        return [self.rows.rows[self._index(place)] for place in range(len(self.images))]

    @property
    def missing(self) -> list[int]:
        """The images without a row."""
        return [i for i in range(len(self.images)) if self._index(i) not in self.rows.rows]

    def take_back(self, assault: Assault, device: str) -> None:
        """Counts rows from an earlier run; one whose attacked image is gone is made again."""
        for place in range(len(self.images)):
            index = self._index(place)
            if index not in self.rows.rows:
                continue
            if self.rows.folder is None or not image_path(self.rows.folder, index).exists():
                self.rows.forget(index)
            elif self.drawn:
                self._count(place, self._maps(place, assault, device))

    def attack(self, assault: Assault, batch: int, device: str, count: Count) -> None:
        """Attacks what is missing, a batch at a time."""
        self.take_back(replace(assault, tell=lambda number: None), device)
        missing = self.missing
        count.add((len(self.images) - len(missing)) * assault.total)
        for start in range(0, len(missing), batch):
            some = missing[start : start + batch]
            x = torch.stack([self._clean(place, device) for place in some])
            defect = [self.images.labels[place] for place in some]
            ids = [str(self.images.ids[place]) for place in some]
            names = [str(self.images.items[place].path) for place in some]
            found = assault(x, defect, ids, names)
            self._take(some, found, assault.ball.size(found.x - x).tolist())

    @cached_property
    def checked(self) -> list[int]:
        """The images that the checks of health look at: some of each class, evenly spread."""
        labels, places = self.images.labels, []
        for kind in (False, True):
            known = [place for place in range(len(labels)) if labels[place] is kind]
            places += [known[i] for i in evenly(len(known), min(SIDE[0], len(known)))]
        return sorted(places)

    def sample(self, device: str) -> Sample:
        """Those images, clean and attacked."""
        labels, places = self.images.labels, self.checked
        rows = [row for row in self.ordered if not any(map(lost, row["parts"].values()))]
        return Sample(
            x=torch.stack([self._clean(place, device) for place in places]),
            adv=torch.stack([self._attacked(place) for place in places]).to(device),
            defect=[labels[place] for place in places],
            ids=[str(self.images.ids[place]) for place in places],
            parts={
                name: [row["parts"][name] for row in rows]
                for name in (rows[0]["parts"] if rows else ())
            },
            all_defect=[row["defect"] for row in rows],
        )

    def _take(self, places: Sequence[int], found: Attacked, sizes: Sequence[float]) -> None:
        for at, place in enumerate(places):
            maps = torch.stack([found.maps[at], found.clean_maps[at]])
            if self.drawn:
                self._count(place, maps)
            self._keep_image(place, found.x[at])
            row = self._row(place, found, at) | {"size": sizes[at]}
            self.rows.add(row, maps if self.drawn else None)

    def _count(self, place: int, maps: Tensor) -> None:
        """The maps (2, H, W) of the attacked image and of the clean one."""
        attacked, clean = maps
        if not bool(clean.isfinite().all()):
            broken = int((~clean.isfinite()).sum())
            raise DataError(
                f"{broken} of {clean.numel()} pixels of the anomaly map of "
                f"{self.images.items[place].path} are not finite, without any attack: mend the "
                "model, or leave the image out by name"
            )
        if not bool(attacked.isfinite().all()):
            attacked = worst_map(attacked, self.images.mask(place))
        add_pixels(self.pixel, self.images, place, attacked)
        add_pixels(self.clean_pixel, self.images, place, clean)

    def _maps(self, place: int, assault: Assault, device: str) -> Tensor:
        """Of a row from an earlier run; a finished one keeps them no longer."""
        kept = self.rows.map(self._index(place))
        if kept is not None:
            return kept
        assert self.rows.folder is not None
        adv = kept_image(self.rows.folder, self._index(place)).to(device)
        both = torch.stack([adv, self._clean(place, device)])
        return assault.scored(both, [str(self.images.ids[place])] * 2)[1]

    def _clean(self, place: int, device: str) -> Tensor:
        return self.images[place].to(device)

    def _row(self, place: int, found: Attacked, at: int) -> Row:
        verdict = self.model.calibration.verdict
        clean, attacked = (float(each[at]) for each in found.scores)
        return {
            "index": self._index(place),
            "radius": self.number,
            "path": str(self.images.items[place].path),
            "sha256": str(self.images.ids[place]),
            "defect": self.images.labels[place],
            "clean": clean,
            "attacked": attacked,
            "by": found.by[at],
            "parts": {name: float(score[at]) for name, score in found.parts.items()},
            "known_draw": _pair(found.known, at),
            "resubmitted": _pair(found.resubmitted, at),
            "verdict_clean": verdict(clean),
            "verdict_attacked": verdict(attacked),
        }

    def _index(self, place: int) -> int:
        return self.number * len(self.images) + place

    def _keep_image(self, place: int, adv: Tensor) -> None:
        if self.rows.folder is not None:
            write_bytes(image_path(self.rows.folder, self._index(place)), array(adv))
        if place in self.checked:
            self.held[place] = adv.cpu()

    def _attacked(self, place: int) -> Tensor:
        if place not in self.held:  # its row is from an earlier run
            assert self.rows.folder is not None
            self.held[place] = kept_image(self.rows.folder, self._index(place))
        return self.held[place]


def image_path(out: Path, index: int) -> Path:
    """Where the attacked image of a row is kept."""
    return out / ATTACKED / f"{index}.npy"


def kept_image(out: Path, index: int) -> Tensor:
    """The attacked image of a row, (C, H, W)."""
    return torch.from_numpy(np.load(image_path(out, index), allow_pickle=False))


def array(x: Tensor) -> bytes:
    """An image as numpy keeps it in a file."""
    content = io.BytesIO()
    np.save(content, x.detach().float().cpu().numpy())
    return content.getvalue()


def _pair(pair: Pair | None, at: int) -> dict[str, float] | None:
    return pair and {name: float(value[at]) for name, value in pair._asdict().items()}
