"""`--set name=value`: words of the command line as arguments of a detector's constructor.

A value is JSON where it can be, else a list where it has commas, else a word. The constructor's
annotations decide whether it fits.
"""

import inspect
import json
from collections.abc import Sequence
from typing import Any

from ..checks import nearest
from ..errors import UsageError


def settings(detector: str, words: Sequence[str]) -> dict[str, Any]:
    """The settings in `name=value` words, by name.

    Raises UsageError for an unknown detector or setting, with the nearest name, and for a value
    of the wrong type.
    """
    from ..detectors import ALL

    if detector.lower() not in ALL:
        raise UsageError(f"unknown detector {detector!r}: {nearest(detector, ALL)}")
    known = inspect.signature(ALL[detector.lower()], eval_str=True).parameters
    found: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise UsageError(f"--set {word}: expected name=value")
        if name not in known:
            raise UsageError(f"--set {word}: unknown setting; {nearest(name, known)}")
        found[name] = _fitting(word, parse(value), known[name].annotation)
    return found


def parse(text: str) -> Any:
    """`8` -> 8, `8,16` -> [8, 16], `[8]` -> [8], `null` -> None, `flips` -> "flips"."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except ValueError:
        parts = text.split(",")
        return [parse(part.strip()) for part in parts] if len(parts) > 1 else text


def _fitting(word: str, value: Any, kind: Any) -> Any:
    """The value, or a list of it alone where a list is expected."""
    from pydantic import TypeAdapter, ValidationError

    adapter = TypeAdapter(kind)
    try:
        return adapter.validate_python(value, strict=True)
    except ValidationError as error:
        try:
            return adapter.validate_python([value], strict=True)
        except ValidationError:
            why = error.errors()[0]["msg"]
            raise UsageError(f"--set {word}: {why[0].lower()}{why[1:]}") from error


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")
