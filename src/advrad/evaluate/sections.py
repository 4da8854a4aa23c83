"""Parts that the reports of a training, an evaluation and the demo have in common."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

from .. import __version__
from ..errors import MissingExtraError
from ..files import as_given
from ..model import Model
from .report import Cell, Picture, Report

Chart = tuple[Callable[[], bytes], str, str]  # draws it, what it shows, caption


def add_charts(report: Report, charts: list[Chart]) -> None:
    """The charts; without matplotlib a line that says what to install stands in their place."""
    try:
        drawn = [Picture(draw(), shows, caption) for draw, shows, caption in charts]
    except MissingExtraError as error:
        logging.getLogger("advrad").warning(f"the report has no charts: {error}")
        report.text(f"Charts are missing here: {error}")
        return
    report.figures(drawn)


def add_settings(report: Report, values: Mapping[str, Any]) -> None:
    """What is needed to run it again; a table within is spread out under dotted names."""
    report.heading("Settings")
    report.settings("All settings, to run it again", dict(_flat(values)))


def footer(model: Model) -> str:
    """Who made the page, and that it needs nothing else."""
    machine = model.about.get("machine", {})
    threads = machine.get("threads")
    where = f", trained on {threads} thread{'s' * (threads != 1)}" if threads else ""
    return (
        f"advrad {__version__}, model {model.name}{where}. This page loads nothing from elsewhere."
    )


def seconds_in_words(seconds: float) -> str:
    """`95` -> 1 min 35 s."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    return f"{whole // 60} min {whole % 60} s"


def percent(share: float) -> str:
    """`0.1111` -> 11.1 %."""
    return f"{100 * share:.3g} %"


def cell(value: Any) -> Cell:
    """A value as a cell of a table."""
    return value if isinstance(value, (int, float, str, type(None))) else str(value)


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{prefix}{name}.")
        else:
            found.append((f"{prefix}{name}", as_given(value)))
    return found
