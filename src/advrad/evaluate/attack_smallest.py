"""For each image the smallest eps that turns its verdict: from the search, and from the curve.

Rows of a search stand behind those of the radii: image number i of N after n radii has the index
n * N + i, and no radius. The images that were found are kept beside those of the radii.
"""

import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from ..calibrate import NG
from ..data import Images
from ..files import write_bytes
from .attack_rows import Count, Radius, Row, array, image_path
from .attack_search import Search, Turned
from .health import SOUND, SUSPECT, UNCHECKED
from .lost import lost
from .rows import Rows

SEARCH, CURVE = "search", "curve"
CLEAN = "its verdict is wrong without attack"
Found = dict[str, Any]


class Searched:
    """The work of a search, whose rows stand behind those of so many radii."""

    def __init__(self, search: Search, images: Images, rows: Rows, radii: int) -> None:
        self.search, self.images, self.rows = search, images, rows
        self.first = radii * len(images)

    @property
    def limit(self) -> float:
        """The largest eps that is looked at."""
        return float(self.search.assault.ball.eps)

    @property
    def ordered(self) -> list[Row]:
        """The rows, in the images' order."""
        return [self.rows.rows[self.first + place] for place in range(len(self.images))]

    @property
    def missing(self) -> list[int]:
        """The images without a row."""
        places = range(len(self.images))
        return [place for place in places if self.first + place not in self.rows.rows]

    def run(self, batch: int, device: str, count: Count) -> None:
        """Searches what is missing, a batch at a time."""
        cost, missing = sum(self.search.cost), self.missing
        count.add((len(self.images) - len(missing)) * cost)
        search = replace(self.search, assault=replace(self.search.assault, tell=count.add))
        for start in range(0, len(missing), batch):
            some = missing[start : start + batch]
            end = count.done + len(some) * cost
            x = torch.stack([self.images[place].to(device) for place in some])
            defect = [self.images.labels[place] for place in some]
            found = search(x, defect, [str(self.images.ids[place]) for place in some])
            count.reach(end)
            for at, place in enumerate(some):
                self._keep(place, found, at)

    def _keep(self, place: int, found: Turned, at: int) -> None:
        index, eps = self.first + place, float(found.eps[at])
        if self.rows.folder is not None:
            write_bytes(image_path(self.rows.folder, index), array(found.x[at]))
        clean, attacked = float(found.clean[at]), float(found.scores[at])
        verdict = self.search.calibration.verdict
        self.rows.add(
            {
                "index": index,
                "radius": None,
                "path": str(self.images.items[place].path),
                "sha256": str(self.images.ids[place]),
                "defect": self.images.labels[place],
                "clean": clean,
                "attacked": attacked,
                "verdict_clean": verdict(clean),
                "verdict_attacked": verdict(attacked),
                "smallest_eps": None if eps == float("inf") else eps,
            }
        )


def smallest(radii: Sequence[tuple[float, Radius]], searched: Searched | None) -> list[Found]:
    """For each image the smallest eps known at which its verdict is the wrong one.

    Wrong is a defect below the threshold of NG, and a good image that reaches it. `found` says by
    what, `search` or `curve` (the radii asked for); 0 where the verdict is wrong without attack;
    None where no such eps is known, and `why` says so.
    """
    ordered = [(eps, radius.ordered) for eps, radius in sorted(radii, key=lambda pair: pair[0])]
    found = []
    for place, row in enumerate(ordered[0][1]):
        eps, by, why = _curve([(radius, rows[place]) for radius, rows in ordered])
        if searched is not None:
            other = searched.ordered[place]["smallest_eps"]
            if other is not None and (eps is None or other <= eps):
                eps, by, why = other, SEARCH, CLEAN if other == 0 else None
            elif eps is None:
                by, why = SEARCH, f"the search found nothing up to eps {searched.limit:.4g}"
        found.append(
            {"path": row["path"], "defect": row["defect"], "eps": eps, "found": by, "why": why}
        )
    return found


def summed_up(found: Sequence[Found], searched: Searched, verdicts: Sequence[str]) -> Found:
    """The search in figures: up to which eps, at what cost, and the median of each class.

    It follows the same gradient as the attacks, so its `verdict` is the worst of theirs. The
    median counts an image whose verdict stands as beyond all others; None where it is one of
    these.
    """
    medians = {}
    for name, defect in (("good", False), ("defect", True)):
        each = [one["eps"] for one in found if one["defect"] is defect]
        middle = statistics.median_high(float("inf") if e is None else e for e in each or [None])
        medians[name] = None if middle == float("inf") else middle
    cost = searched.search.cost
    worst = next(each for each in (SUSPECT, SOUND, UNCHECKED) if each in verdicts)
    shown = {"up_to": searched.limit, "median": medians, "cost": cost._asdict()}
    return shown | {"verdict": worst}


def _curve(rows: Sequence[tuple[float, Row]]) -> tuple[float | None, str, str | None]:
    """Of one image's rows from the smallest eps to the largest."""
    if (rows[0][1]["verdict_clean"] == NG) != rows[0][1]["defect"]:
        return 0.0, CURVE, CLEAN
    for eps, row in rows:
        if lost(row["attacked"]) or (row["verdict_attacked"] == NG) != row["defect"]:
            return eps, CURVE, None
    return None, CURVE, f"its verdict stands up to eps {rows[-1][0]:.4g}, the largest asked for"
