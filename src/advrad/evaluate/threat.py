"""What is asked of an attack: the threat model, the suite, and what the result depends on."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..attacks.ball import BALLS, Ball
from ..attacks.strongest import SUITES
from ..data import Dataset, Images
from ..detectors import Detector
from ..errors import UsageError
from ..model import Model
from .attack_search import SETTINGS as SEARCHED
from .attack_search import Search
from .attack_smallest import Searched
from .clean import Evaluation, settings_of
from .robustness import Assault
from .rows import Rows

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


PLAIN = Threat()


def searched(model: Model, images: Images, rows: Rows, wanted: Threat) -> Searched | None:
    """The search that is wanted, its rows behind those of the radii."""
    search = wanted.search(model)
    return search if search is None else Searched(search, images, rows, len(wanted.eps))


def _transfers(suite: str) -> bool:
    return any(part.attack == "transfer" for part in SUITES[suite].parts)


def settings_under(
    model: Model, dataset: Dataset, images: Images, wanted: Threat
) -> dict[str, Any]:
    suite, source = SUITES[wanted.suite], wanted.source
    settings = settings_of(model, dataset, images, wanted.evaluation) | {
        "norm": wanted.norm,
        "eps": list(wanted.eps),
        "suite": wanted.suite,
        "parts": {
            part.name: {"draws": part.draws, **part.settings}
            for part in suite.tried(source is not None)
        },
        "known_draw_steps": suite.known,
        "resubmissions": suite.resubmit,
        "source": None if source is None else [type(source).__name__, source.resolved()],
    }
    if wanted.smallest is not None:
        settings["smallest"] = SEARCHED | {"up_to": wanted.smallest}
    return settings
