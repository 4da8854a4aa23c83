"""What is wrong in a grid's file is told before its first task, and not task by task."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from ..data.layouts import LAYOUTS
from ..detectors import build
from ..errors import UsageError
from .attacked import Threat
from .certificate import Certificate
from .grid_defence import Defended

if TYPE_CHECKING:
    from .grid import Assailed, Certified, Grid, Task

PAIR = 2  # images: one good and one defective


def check(grid: "Grid") -> None:
    """Raises UsageError for what no cell could do: unknown names, impossible settings, names that
    no folder can have, or that occur twice."""
    titles = [method.title for method in grid.detector]
    if bool(titles) != bool(grid.data) or not (titles or grid.defence):
        raise UsageError(
            "a grid needs at least one [[data]] and one [[detector]], or a [[defence]]"
        )
    _check_names("detector", titles, "give one a label")
    _check_names(
        "data",
        [data.label for data in grid.data],
        "a data set stands once in a grid; another split or limit is a grid of its own",
    )
    _check_device(grid)
    _check_seeds("seeds", grid.seeds)
    for data in grid.data:
        _check_data(data.layout, data.limit)
    for method in grid.detector:
        build(method.name, method.settings)
        _check_seeds(f"seeds of {method.title}", method.seeds)
        _check_limit(method.limit)
    for other in _others(grid):
        known(other.detectors, titles)
        _check_seeds(f"seeds of {other.title}", other.seeds)
        _check_limit(other.limit)
    for attack in grid.attack:
        _check_attack(attack)
    for one in grid.certificate:
        ways = (one.scoring,) if one.scoring else ()
        Certificate((one.sigma,), one.radii, one.samples, one.alpha, ways)
    _check_defences(grid.defence)


def check_cells(grid: "Grid", cells: Sequence["Task"]) -> None:
    """Raises UsageError where two cells would share a folder, and for an attack or certificate
    that is for no detector under any seed."""
    for folder, count in Counter(cell.folder for cell in cells).items():
        if count > 1:
            cell = next(cell for cell in cells if cell.folder == folder)
            raise UsageError(
                f"two entries are both {cell.title!r} for {cell.method.title}: name other "
                "detectors or seeds in one of them"
            )
    meant = {cell.title for cell in cells}
    for other in _others(grid):
        if grid.detector and other.title not in meant:
            raise UsageError(
                f"{other.title!r} is for no detector: its seeds are those of no training, or no "
                "detector is attacked"
            )


def _others(grid: "Grid") -> list["Assailed | Certified"]:
    return [*grid.attack, *grid.certificate]


def slug(words: str) -> str:
    """The words as a folder's name."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", words.replace("/", "_")).strip("-").lower()


def known(wanted: Sequence[str], titles: Sequence[str], where: str = "detectors") -> None:
    """Raises UsageError for a name that is no title."""
    for name in wanted:
        if name not in titles:
            raise UsageError(
                f"{where} {name!r}: no entry has this name or label; there are "
                f"{', '.join(map(repr, titles))}"
            )


def _check_names(what: str, names: Sequence[str], hint: str) -> None:
    for name in names:
        if not slug(name).strip("."):
            raise UsageError(
                f"[[{what}]] {name!r}: no folder can be named so; give it a name with letters or "
                "digits of ASCII"
            )
    if len({slug(name) for name in names}) < len(names):
        raise UsageError(f"[[{what}]]: two have the same name: {hint}")


def _check_seeds(name: str, seeds: Sequence[int] | None) -> None:
    if seeds is not None and (
        not seeds or len(set(seeds)) < len(seeds) or not all(seed >= 0 for seed in seeds)
    ):
        raise UsageError(f"{name} {list(seeds)}: expected one or more from 0 on, each once")


def _check_limit(limit: int | None) -> None:
    if limit is not None and limit < PAIR:
        raise UsageError(f"limit {limit}: expected {PAIR} or more, half good and half defective")


def _check_data(layout: str | None, limit: int | None) -> None:
    _check_limit(limit)
    if layout is not None and layout not in LAYOUTS:
        raise UsageError(f"layout {layout!r}: expected one of {', '.join(LAYOUTS)}")


def _check_attack(attack: "Assailed") -> None:
    radius = attack.radius
    if not 0 < radius < math.inf:
        raise UsageError(f"eps {attack.eps!r}: expected a number above 0, as 2/255")
    Threat(attack.norm, (radius,), attack.suite)


def _check_device(grid: "Grid") -> None:
    if grid.size is not None and (grid.certificate or grid.size < 1):
        raise UsageError(
            f"size = {grid.size}: expected pixels, and no certificate, whose noise is of each "
            "detector's own size"
        )
    try:
        torch.device(grid.device)
    except RuntimeError as error:
        raise UsageError(f"device {grid.device!r}: expected cpu, cuda, or cuda:1") from error


def _check_defences(some: Sequence[Defended]) -> None:
    """Raises UsageError where two of them would share a folder, and as a trial does."""
    taken: dict[tuple[str, ...], Defended] = {}
    for one in some:
        one.trial()
        for label in one.labels():
            folder = (slug(one.data), slug(label), str(one.seed), slug(one.title))
            if folder in taken:
                raise UsageError(
                    f"[[defence]]: two purifiers {label!r} {_differing(taken[folder], one)}: give "
                    f"one a name of its own, as '{label} label=NAME'"
                )
            taken[folder] = one


def _differing(one: Defended, other: Defended) -> str:
    """In which settings two entries differ, in words."""
    pairs = {name: (getattr(one, name), getattr(other, name)) for name in vars(one)}
    pairs.pop("purifiers")
    told = [f"{name} ({a} and {b})" for name, (a, b) in pairs.items() if a != b]
    return f"differ in {', '.join(told)} alone" if told else "are the same"
