"""Settings as they are given, made plain, typed, and refused where they are impossible."""

import difflib
import inspect
import math
import re
from collections.abc import Callable, Collection, Mapping
from functools import cache
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from .errors import UsageError

Kind = TypeVar("Kind")


def plain(value: Any) -> Any:
    """A sequence or an array as a list of plain numbers or words, the rest as it is."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return list(value) if isinstance(value, (tuple, range)) else value


def typed(kind: type[Kind], values: Mapping[str, Any]) -> Kind:
    """The values as a dataclass. Raises UsageError for one of another type."""
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        name, why = first["loc"][0], first["msg"]
        raise UsageError(f"{name}={values[str(name)]}: {why[0].lower()}{why[1:]}") from error


def fitting(maker: Callable[..., Any], settings: Mapping[str, Any], name: str) -> None:
    """Raises UsageError for a setting that the maker does not know, with the nearest one, and for
    a value of another type than it expects; an integer is a number."""
    expected = _expected(maker)
    for setting, value in settings.items():
        if setting not in expected:
            raise UsageError(f"{name}: unknown setting {setting}; {nearest(setting, expected)}")
        try:
            expected[setting].validate_python(plain(value), strict=True)
        except ValidationError as error:
            why = error.errors()[0]["msg"]
            raise UsageError(f"{name}: {setting}={value}: {why[0].lower()}{why[1:]}") from error


@cache
def _expected(maker: Callable[..., Any]) -> dict[str, TypeAdapter[Any]]:
    parameters = inspect.signature(maker, eval_str=True).parameters
    return {name: TypeAdapter(each.annotation) for name, each in parameters.items()}


def nearest(name: str, known: Collection[str]) -> str:
    """A hint at the name that was meant, and all names there are."""
    near = difflib.get_close_matches(name.lower(), known, n=1)
    return (f"did you mean {near[0]}? " if near else "") + f"there are {', '.join(known)}"


def fraction(words: str, name: str) -> float:
    """`2/255` or `0.0078` as a number; raises UsageError for what is none, or below zero."""
    numbers = re.split(r"\s*/\s*", words.strip())
    try:
        first, *rest = (float(number) for number in numbers)
        value = first / rest[0] if len(rest) == 1 else first
        if len(rest) > 1 or not (math.isfinite(value) and value >= 0):
            raise ValueError
    except (ValueError, ZeroDivisionError):
        raise UsageError(
            f"{name} {words!r}: expected a number from 0 on, as 2/255 or 0.0078"
        ) from None
    return value


def one_of(name: str, value: object, allowed: Collection[Any]) -> None:
    """Raises UsageError for a value that is not among the allowed ones."""
    if value not in allowed:
        expected = ", ".join(map(str, allowed))
        raise UsageError(f"{name}={value}: expected one of {expected}")


def at_least(name: str, value: float, least: float) -> None:
    """Raises UsageError for a number below `least`, and for NaN."""
    if not value >= least:
        raise UsageError(f"{name}={value}: expected {least} or more")


def share(name: str, value: float) -> None:
    """Raises UsageError for a number outside [0, 1], and for NaN."""
    if not 0 <= value <= 1:
        raise UsageError(f"{name}={value}: expected a share between 0 and 1")
