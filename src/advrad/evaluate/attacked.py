"""How well a model tells good from defective while somebody attacks it.

Several radii give the security curve. A figure stands beside the verdict of its health: whether
the attack could see, and whether it behaved as an attack does that finds what there is.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..data import Dataset, Images
from ..model import Model
from .attack_figures import clean_figures, figures, why
from .attack_rows import Count, Radius, Tell
from .attack_smallest import Searched, smallest, summed_up
from .clean import test_images
from .examination import FORWARD, copied, examined
from .health import Health
from .robustness import Assault
from .rows import Rows
from .threat import EPS, PLAIN, Threat, searched, settings_under

__all__ = ["EPS", "Threat", "attack"]


def attack(
    model: Model,
    dataset: Dataset,
    out: Path | None = None,
    wanted: Threat = PLAIN,
    report: Tell = lambda done, total: None,
) -> dict[str, Any]:
    """The figures on the test split under attack; with `out` also rows, images and resumption.

    Returns clean_auroc and a row for each eps: robust_auroc (both sides), robust_auroc_missed
    (defects alone), robust_auroc_false_alarm (good images alone), robust_auroc_known_draw and
    robust_auroc_resubmitted where the suite has them, each with a 95 % interval under `_ci`,
    pixel_auroc, rates at the threshold, passes and health; smallest_eps of each image. A figure
    that cannot be had is None, and `why` says so. `report` is told of evaluations. Raises
    BlindAttackError where the detector cuts the gradient, UsageError for an impossible radius, and
    what `evaluate` raises.
    """
    wanted.assaults(model)  # an impossible radius is told before any image is read
    wanted.search(model)
    images = test_images(model, dataset, wanted.evaluation)
    settings = settings_under(model, dataset, images, wanted)
    rows = Rows(out, settings)
    result = _Work(model, images, rows, wanted, report).result() | {"settings": settings}
    rows.finish(result)
    return result


class _Work:
    """All radii one after the other, then the search, then the checks."""

    def __init__(
        self, model: Model, images: Images, rows: Rows, wanted: Threat, report: Tell
    ) -> None:
        self.model, self.images, self.rows, self.wanted = model, images, rows, wanted
        self.assaults = wanted.assaults(model)
        self.untouched = copied(model.detector) if wanted.health else None
        self.searched = searched(model, images, rows, wanted)
        plan = sum(map(sum, _plan(self.assaults, wanted, len(images))))
        if self.searched is not None:
            plan += sum(self.searched.search.cost) * len(images)
        self.count = Count(report, plan)

    def result(self) -> dict[str, Any]:
        """Everything but the settings."""
        start, threshold = time.perf_counter(), self.model.calibration.threshold
        radii = self._attacked()
        found = smallest(list(zip(self.wanted.eps, radii, strict=True)), self._search())
        seconds = time.perf_counter() - start
        labels = self.images.labels
        rows = [self._row(*pair) for pair in zip(radii, self.assaults, strict=True)]
        search = {}
        if self.searched is not None:
            verdicts = [row["health"]["verdict"] for row in rows]
            search["search"] = summed_up(found, self.searched, verdicts)
        return {
            **clean_figures(radii[0], threshold),
            "rows": rows,
            "smallest_eps": found,
            **search,
            "images": {"good": labels.count(False), "defect": labels.count(True)},
            "seconds": seconds,
            "skipped": [[str(path), reason] for path, reason in self.images.skipped],
            "why": why(self.images, self.wanted.suite, self.assaults[0].stochastic),
        }

    def _attacked(self) -> list[Radius]:
        asked, radii = self.wanted.evaluation, []
        drawn = any(item.mask for item in self.images.items)
        for number, assault in enumerate(self.assaults):
            radius = Radius(self.model, self.images, self.rows, number, drawn)
            told = replace(assault, tell=self.count.add)
            radius.attack(told, asked.batch, asked.device, self.count)
            radii.append(radius)
        return radii

    def _search(self) -> Searched | None:
        asked = self.wanted.evaluation
        if self.searched is not None:
            self.searched.run(asked.batch, asked.device, self.count)
        return self.searched

    def _row(self, radius: Radius, assault: Assault) -> dict[str, Any]:
        """The figures of one radius, and whether they can be believed."""
        return {
            "norm": self.wanted.norm,
            "eps": float(assault.ball.eps),
            "suite": self.wanted.suite,
            **figures(radius, self.model.calibration.threshold),
            "passes": assault.total,
            "cost": assault.cost._asdict() | _of_source(assault),
            "health": self._health(radius, assault).as_dict(),
        }

    def _health(self, radius: Radius, assault: Assault) -> Health:
        """The checks on 8 + 8 of the images, for a quarter of what the attack took."""
        wanted, count = self.wanted, self.count
        if not wanted.health or not float(assault.ball.eps):
            return Health.skipped("eps is 0" if wanted.health else "not asked for")
        plan = _plan([assault], wanted, len(radius.images))[0]
        end = min(count.done + plan[1], count.total)
        gradients, forwards = assault.cost
        budget = (gradients + FORWARD * forwards) * len(radius.images) / 4
        told = replace(assault, tell=lambda number: count.add(min(number, end - count.done)))
        checked = examined(told, radius.sample(wanted.evaluation.device), budget, self.untouched)
        count.reach(end)
        return checked


def _of_source(assault: Assault) -> dict[str, int]:
    """What was spent on the source, beside what was on the detector."""
    spent = assault.source_cost
    return {f"source_{name}": number for name, number in spent._asdict().items() if any(spent)}


def _plan(assaults: Sequence[Assault], wanted: Threat, images: int) -> list[tuple[int, int]]:
    """Evaluations of each radius: of the attack, and at most of its checks."""
    costs = [assault.total * images for assault in assaults]
    checks = [wanted.health and float(assault.ball.eps) > 0 for assault in assaults]
    return [(c, c // 4 if checked else 0) for c, checked in zip(costs, checks, strict=True)]
