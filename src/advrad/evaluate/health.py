"""Whether an attack could see, and behaved as an attack does that finds what there is.

A detector that cuts, shatters or saturates its gradient looks robust to whoever follows that
gradient, and is not. Each check states something that holds for every honest detector and attack;
where one fails, the figure is *suspect*, and the reason stands beside it. What was not run, for
want of budget, is listed.

Athalye et al., 2018 (https://arxiv.org/abs/1802.00420), Section 3.1; Carlini et al., 2019
(https://arxiv.org/abs/1902.06705), Section 5.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

SOUND, SUSPECT, UNCHECKED = "sound", "suspect", "not checked"
PASSED, FAILED, NOT_RUN = "passed", "failed", "not_run"
NOTED = "noted"  # of what is neither good nor bad, and should be known
SIDE = (8, 4, 2)  # images of a class that a check takes, as many as the budget holds

CHEAP = (
    "gradient_present",
    "gradient_finite",
    "gradient_nonzero",
    "not_saturated",
    "gradient_true",
    "repeatable",
    "batch_independent",
    "stochastic_declared",
    "stateless",
    "inside_ball",
)
COSTLY = ("black_box", "floor", "steps", "eps")  # what comes first gets its share first
ATTACKED_AGAIN = ("black_box", "floor")  # without both, a figure has not been put to the test
ORDER = (*CHEAP, *COSTLY)


@dataclass(frozen=True)
class Check:
    """One check: passed, failed, not_run or noted, and in words what was seen."""

    status: str
    words: str


@dataclass(frozen=True)
class Health:
    """All checks by name; the verdict is `suspect` where one failed."""

    checks: dict[str, Check] = field(default_factory=dict)

    @staticmethod
    def skipped(why: str) -> "Health":
        """No check was run."""
        return Health({name: Check(NOT_RUN, why) for name in ORDER})

    @property
    def verdict(self) -> str:
        """`sound`, `suspect`, or `not checked` where nothing was run."""
        statuses = {check.status for check in self.checks.values()}
        if FAILED in statuses:
            return SUSPECT
        return SOUND if PASSED in statuses else UNCHECKED

    @property
    def reasons(self) -> list[str]:
        """What failed, in words."""
        return [check.words for check in self.checks.values() if check.status == FAILED]

    @property
    def not_run(self) -> list[str]:
        """The names of the checks that were not run."""
        return [name for name, check in self.checks.items() if check.status == NOT_RUN]

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "verdict": self.verdict,
            "reasons": self.reasons,
            "not_run": self.not_run,
            "checks": {
                name: {"status": check.status, "words": check.words}
                for name, check in self.checks.items()
            },
        }


def hardly_checked(found: Mapping[str, Any]) -> bool:
    """Whether a health as JSON has it says `sound` though no other attack was tried."""
    return found["verdict"] == SOUND and set(ATTACKED_AGAIN) <= set(found["not_run"])


def in_words(found: Mapping[str, Any]) -> str:
    """The verdict of a health as JSON has it, and behind it what was not run.

    `sound (not run: black_box, steps, eps)`; a verdict on little never stands alone.
    """
    verdict, left_out = str(found["verdict"]), found["not_run"]
    if verdict == UNCHECKED or not left_out:
        return verdict
    return f"{verdict} (not run: {', '.join(left_out)})"


@dataclass(frozen=True)
class Sample:
    """The images that the checks look at, good ones and defects in turn.

    Arguments:
        x: clean, (N, C, H, W).
        adv: attacked by the suite.
        defect: which are defects.
        ids: sha256 of their files.
        parts: scores of the suite's candidates under the evaluation's noise, by part, (M,) of all
            images attacked, with `all_defect` which of those are defects.
    """

    x: Tensor
    adv: Tensor
    defect: Sequence[bool]
    ids: Sequence[str]
    parts: dict[str, list[float]] = field(default_factory=dict)
    all_defect: Sequence[bool] = ()

    def first(self, side: int) -> "Sample":
        """At most `side` of each class."""
        places: list[int] = []
        for kind in (False, True):
            places += [i for i, defect in enumerate(self.defect) if defect is kind][:side]
        places.sort()
        return replace(
            self,
            x=self.x[places],
            adv=self.adv[places],
            defect=[self.defect[i] for i in places],
            ids=[self.ids[i] for i in places],
        )


def joined(found: Mapping[str, Health]) -> Health:
    """The health of a figure that several cells make up: what failed in any of them failed."""
    checks: dict[str, Check] = {}
    for name, health in found.items():
        for check, own in health.checks.items():
            before = checks.get(check)
            told = Check(own.status, f"{name}: {own.words}")
            if before is None or _order(own) > _order(before):
                checks[check] = told
    return Health(checks)


def _order(check: Check) -> int:
    return (NOT_RUN, PASSED, FAILED).index(check.status)
