"""Settings as they are given, made plain, typed, and refused where they are impossible."""

from collections.abc import Collection, Mapping
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
