"""How well a model tells good from defective while somebody attacks it.

Several radii give the security curve. A figure stands beside the verdict of its health: whether
the attack could see, and whether it behaved as an attack does that finds what there is.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..attacks.ball import BALLS, Ball
from ..attacks.strongest import SUITES, Cost
from ..data import Dataset, Images
from ..detectors import Detector
from ..errors import UsageError
from ..model import Model
from .attack_figures import clean_figures, figures, why
from .attack_rows import Count, Radius, Tell
from .attack_search import SETTINGS as SEARCHED
from .attack_search import Search
from .attack_smallest import Searched, smallest, summed_up
from .clean import Evaluation, settings_of, test_images
from .examination import FORWARD, examined
from .health import Health
from .robustness import Assault
from .rows import Rows
from .views import rungs

EPS = {"linf": 2 / 255, "l2": 0.2, "l1": 12.0, "patch": 8.0}  # where none is asked for


@dataclass(frozen=True)
class Threat:
    """What is asked of an attack.

    Arguments:
        norm: a name of BALLS.
        eps: radii in the [0, 1] scale, a square's side in pixels for `patch`; 0 is the clean row.
        suite: a name of SUITES.
        source: a detector whose attacked images are tried too.
        health: whether the result is checked.
        smallest: the largest eps up to which the smallest one that turns an image's verdict is
            searched, image by image; None leaves the search out.
        evaluation: seed, batch, device, limit, bad files, as for the clean figures.

    Raises UsageError for a name that is not known, for radii that are missing or repeated, and for
    a search up to 0.
    """

    norm: str = "linf"
    eps: Sequence[float] = (2 / 255,)
    suite: str = "quick"
    source: Detector | None = None
    health: bool = True
    smallest: float | None = None
    evaluation: Evaluation = field(default_factory=Evaluation)

    def __post_init__(self) -> None:
        for name, value, allowed in (("norm", self.norm, BALLS), ("suite", self.suite, SUITES)):
            if value not in allowed:
                raise UsageError(f"{name} {value!r}: expected one of {', '.join(allowed)}")
        if not self.eps:
            raise UsageError("no eps: expected one radius or more")
        if len(set(self.eps)) < len(self.eps):
            raise UsageError(f"eps {list(self.eps)}: each radius counts once")
        if self.smallest is not None and not self.smallest > 0:
            raise UsageError(
                f"the smallest eps searched up to {self.smallest:g}: expected a radius above 0"
            )
        if self.source is not None and not _transfers(self.suite):
            able = ", ".join(name for name in SUITES if _transfers(name))
            raise UsageError(
                f"suite {self.suite!r} transfers nothing from another detector: expected "
                f"{able}, or no source"
            )

    def through(self, source: Detector) -> "Threat":
        """The same, and images that were attacked on another detector are tried too."""
        return replace(self, source=source)

    def balls(self, shape: Sequence[int]) -> list[Ball]:
        """One for each radius; raises UsageError where one is impossible for images (C, H, W)."""
        return [BALLS[self.norm](eps).check(shape) for eps in self.eps]

    def assaults(self, model: Model) -> list[Assault]:
        """One for each radius; raises as `balls` does."""
        asked, prepared = self.evaluation, model.preprocess
        shape = (prepared.channels, prepared.size, prepared.size)
        source = None if self.source is None else self.source.to(asked.device).eval()
        attacked = model.detector.to(asked.device).eval()
        suite = SUITES[self.suite]
        return [Assault(attacked, b, suite, asked.seed, source) for b in self.balls(shape)]

    def search(self, model: Model) -> Search | None:
        """That of the smallest eps, where it is asked for; raises as `balls` does."""
        if self.smallest is None:
            return None
        [assault] = replace(self, eps=(self.smallest,)).assaults(model)
        return Search(assault, model.calibration)


def attack(
    model: Model,
    dataset: Dataset,
    out: Path | None = None,
    wanted: Threat = Threat(),
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
    settings = _settings(model, dataset, images, wanted)
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
        self.searched = _searched(model, images, rows, wanted)
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
            "passes": sum(assault.cost),
            "cost": assault.cost._asdict(),
            "health": _health(radius, assault, self.wanted, self.count).as_dict(),
        }


class Expected(NamedTuple):
    """What an attack will take: evaluations an image and radius, seconds in all, images.

    The seconds are those of what is left to do, without the checks of health, which take up to a
    quarter more. `search`: evaluations an image, at most, of the search for its smallest eps.
    """

    cost: Cost
    seconds: float
    images: int
    search: Cost | None = None


def expected(model: Model, dataset: Dataset, wanted: Threat, out: Path | None = None) -> Expected:
    """Measured on one batch, with and without a gradient; not where `out` has all rows already.

    Raises what `attack` raises before its work begins.
    """
    assaults = wanted.assaults(model)
    images = test_images(model, dataset, wanted.evaluation)
    cost = max(assault.cost for assault in assaults)
    rows = Rows(out, _settings(model, dataset, images, wanted))
    searched = _searched(model, images, rows, wanted)
    search = None if searched is None else searched.search.cost
    left = [len(Radius(model, images, rows, i, False).missing) for i in range(len(assaults))]
    work = [(n, a.cost) for n, a in zip(left, assaults, strict=True) if n and sum(a.cost)]
    if searched is not None and searched.missing:
        work.append((len(searched.missing), searched.search.cost))
    if not work:
        return Expected(cost, 0.0, len(images), search)
    device, some = wanted.evaluation.device, range(min(wanted.evaluation.batch, len(images)))
    x = torch.stack([images[i] for i in some]).to(device)
    part = rungs(assaults[0].detector)[0]
    _timed(part, x[:1])  # the first call of all is slower
    forward, whole = _timed(part, x)
    each = sum(n * (whole * c.gradients + forward * c.forwards) for n, c in work)
    return Expected(cost, each / len(x), len(images), search)


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


def _searched(model: Model, images: Images, rows: Rows, wanted: Threat) -> Searched | None:
    """The search that is wanted, its rows behind those of the radii."""
    search = wanted.search(model)
    return search if search is None else Searched(search, images, rows, len(wanted.eps))


def _transfers(suite: str) -> bool:
    return any(part.attack == "transfer" for part in SUITES[suite].parts)


def _settings(model: Model, dataset: Dataset, images: Images, wanted: Threat) -> dict[str, Any]:
    suite, source = SUITES[wanted.suite], wanted.source
    settings = settings_of(model, dataset, images, wanted.evaluation) | {
        "norm": wanted.norm,
        "eps": list(wanted.eps),
        "suite": wanted.suite,
        "parts": {
            part.name: {"draws": part.draws, **part.settings}
            for part in suite.parts
            if source or part.attack != "transfer"
        },
        "known_draw_steps": suite.known,
        "resubmissions": suite.resubmit,
        "source": None if source is None else [type(source).__name__, source.resolved()],
    }
    if wanted.smallest is not None:
        settings["smallest"] = SEARCHED | {"up_to": wanted.smallest}
    return settings


def _plan(assaults: Sequence[Assault], wanted: Threat, images: int) -> list[tuple[int, int]]:
    """Evaluations of each radius: of the attack, and at most of its checks."""
    costs = [sum(assault.cost) * images for assault in assaults]
    return [(cost, cost // 4 if wanted.health else 0) for cost in costs]


def _health(radius: Radius, assault: Assault, wanted: Threat, count: Count) -> Health:
    """The checks on 8 + 8 of the images, for a quarter of what the attack took."""
    if not wanted.health or not float(assault.ball.eps):
        return Health.skipped("eps is 0" if wanted.health else "not asked for")
    plan = _plan([assault], wanted, len(radius.images))[0]
    end = min(count.done + plan[1], count.total)
    gradients, forwards = assault.cost
    budget = (gradients + FORWARD * forwards) * len(radius.images) / 4
    told = replace(assault, tell=lambda number: count.add(min(number, end - count.done)))
    checked = examined(told, radius.sample(wanted.evaluation.device), budget)
    count.reach(end)
    return checked
