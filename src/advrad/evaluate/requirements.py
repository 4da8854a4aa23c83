"""Requirements on a result, as a gate in front of a release: `image_auroc>=0.97`."""

import difflib
import operator
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from ..errors import UsageError

METRICS = (
    "image_auroc",
    "image_ap",
    "f1_max",
    "pixel_auroc",
    "pro",
    "miss_rate",
    "false_alarm_rate",
    "seconds_per_image",
)
SIGNS = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}
WORDS = re.compile(r"\s*(\w+)\s*(>=|<=|>|<)\s*(\d*\.?\d+(?:[eE][+-]?\d+)?)\s*")


@dataclass(frozen=True)
class Requirement:
    """A metric, a comparison and a number."""

    metric: str
    sign: str
    bound: float

    @classmethod
    def parse(cls, words: str) -> Self:
        """Raises UsageError where the words are no requirement on a known metric."""
        match = WORDS.fullmatch(words)
        if not match:
            raise UsageError(f"--require {words!r}: expected METRIC>=VALUE, as image_auroc>=0.97")
        metric, sign, bound = match.groups()
        if metric not in METRICS:
            near = difflib.get_close_matches(metric, METRICS, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise UsageError(f"--require {words!r}: {hint}metrics are {', '.join(METRICS)}")
        return cls(metric, sign, float(bound))

    def __str__(self) -> str:
        return f"{self.metric}{self.sign}{self.bound:g}"


def judged(requirements: Sequence[Requirement], result: dict[str, Any]) -> list[dict[str, Any]]:
    """For each requirement its words, the value found, and whether it holds; None never does."""
    found = []
    for requirement in requirements:
        value = result[requirement.metric]
        holds = value is not None and SIGNS[requirement.sign](value, requirement.bound)
        found.append({"requirement": str(requirement), "value": value, "holds": bool(holds)})
    return found
