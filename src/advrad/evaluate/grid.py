"""A grid: detectors on data sets, over seeds, clean, attacked and certified; and defences.

A TOML file says what is compared. Every figure is a cell, and every cell a task that can be done
by any process at any time once its model is there: trainings are shared by all cells of a
detector, data set and seed. What a task finds lies in a folder of its own, so that a grid that
was stopped goes on, and a cell that fails costs no other one.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic import with_config as configured

from ..checks import fraction
from ..errors import DataError, UsageError
from .grid_checks import check, check_cells, slug
from .grid_defence import Defended

Kind = TypeVar("Kind")
STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class Data:
    """A data set: a folder or a known name, with its category and layout where it needs them.

    `limit` is the most test images of the clean cell, half good and half defective; None for all.
    """

    name: str
    category: str | None = None
    layout: str | None = None
    split_seed: int = 0
    limit: int | None = None

    @property
    def label(self) -> str:
        return self.name if self.category is None else f"{self.name}/{self.category}"


@dataclass(frozen=True)
class Method:
    """A detector with settings.

    Arguments:
        name, settings: as for a training.
        label: names it in tables.
        seeds: its own, where given.
        limit: the most test images of its clean cell, where it is too slow for the data's limit.
        attacked: whether attacks and certificates that name no detectors are for it too.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""
    seeds: Sequence[int] | None = None
    limit: int | None = None
    attacked: bool = True

    @property
    def title(self) -> str:
        return self.label or self.name


@dataclass(frozen=True)
class Assailed:
    """An attack. `eps` may be written 2/255; `detectors` are the titles that it is for, all where
    it is empty."""

    norm: str = "linf"
    eps: float | str = "2/255"
    suite: str = "quick"
    limit: int | None = None
    seeds: Sequence[int] | None = None
    detectors: Sequence[str] = ()

    @property
    def radius(self) -> float:
        """Raises UsageError for what is no number."""
        return fraction(str(self.eps), "eps")

    @property
    def title(self) -> str:
        return f"{self.norm} {self.eps}, {self.suite}"


@dataclass(frozen=True)
class Certified:
    """A certificate; `detectors` as for an attack."""

    sigma: float
    radii: Sequence[float] = (0.1, 0.2)
    samples: int = 1000
    alpha: float = 0.001
    scoring: str = ""
    limit: int | None = None
    seeds: Sequence[int] | None = None
    detectors: Sequence[str] = ()

    @property
    def title(self) -> str:
        return f"certified, sigma {self.sigma:g}" + (f", {self.scoring}" if self.scoring else "")


@dataclass(frozen=True)
class Grid:
    """What is compared.

    Arguments:
        data, detector, attack, certificate: the lists, as in the file.
        defence: classifiers behind purifiers, with data of their own.
        seeds: of trainings, for methods that name none of their own.
        size: side of the images that every detector is handed, in pixels, so that a radius means
            the same in each row; each brings them to its own. None hands each its own size.
        device: where it runs.
        name: of the table.
    """

    data: Sequence[Data] = ()
    detector: Sequence[Method] = ()
    attack: Sequence[Assailed] = ()
    certificate: Sequence[Certified] = ()
    defence: Sequence[Defended] = ()
    seeds: Sequence[int] = (0,)
    size: int | None = None
    device: str = "cpu"
    name: str = "grid"

    def checked(self) -> "Grid":
        """Raises UsageError for what no cell could do: unknown names, impossible settings, titles
        that occur twice."""
        check(self)
        check_cells(self, tasks(self)[1])
        return self


@dataclass(frozen=True)
class Task:
    """One thing to be done: the training of a model, or a cell that needs it.

    Arguments:
        data, method, seed: of the model.
        cell: None for the training, "clean", an attack, a certificate or a trial of a defence,
            whose purifier is the method.
        device: where it runs.
        size: of the images that are handed over, the detector's own where None.
    """

    data: Data
    method: Method
    seed: int
    cell: "str | Assailed | Certified | Defended | None"
    device: str = "cpu"
    size: int | None = None

    @property
    def model(self) -> Path:
        """The model's folder within the grid's."""
        return Path(slug(self.data.label), slug(self.method.title), str(self.seed), "model")

    @property
    def folder(self) -> Path:
        """The task's own."""
        return self.model if self.cell is None else self.model.parent / slug(self.title)

    @property
    def title(self) -> str:
        """What it does, in words."""
        if self.cell is None:
            return "training"
        return self.cell if isinstance(self.cell, str) else self.cell.title

    @property
    def words(self) -> str:
        return f"{self.method.title} on {self.data.label}, seed {self.seed}: {self.title}"


def tasks(grid: Grid) -> tuple[list[Task], list[Task]]:
    """The trainings, and the cells column by column, so that a stopped grid has whole ones."""
    trainings, cells = [], []
    others: list[Assailed | Certified] = [*grid.attack, *grid.certificate]
    common: Any = {"device": grid.device, "size": grid.size}
    for data in grid.data:
        for method in grid.detector:
            for seed in method.seeds if method.seeds is not None else grid.seeds:
                trainings.append(Task(data, method, seed, None, **common))
                cells.append(Task(data, method, seed, "clean", **common))
                for other in others:
                    named = other.detectors
                    meant = method.title in named if named else method.attacked
                    if meant and (other.seeds is None or seed in other.seeds):
                        cells.append(Task(data, method, seed, other, **common))
    cells.sort(key=lambda cell: ["clean", *others].index(cell.cell))  # type: ignore[arg-type]
    return trainings, [*cells, *_trials(grid)]


def _trials(grid: Grid) -> list[Task]:
    """A cell for each purifier of each defence."""
    return [
        Task(Data(one.data), Method(label), one.seed, replace(one, purifiers=[words]), grid.device)
        for one in grid.defence
        for words, label in zip(one.purifiers, one.labels(), strict=True)
    ]


def read(path: Path) -> Grid:
    """The grid of a TOML file. Raises DataError where it is missing or no TOML, UsageError for
    what is wrong in it."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DataError(f"{path} is no TOML file: {error}") from error
    return _typed(content, path).checked()


for _kind in (Data, Method, Assailed, Certified, Defended, Grid):
    configured(STRICT)(_kind)


def _typed(content: dict[str, Any], path: Path) -> Grid:
    try:
        return TypeAdapter(Grid).validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"{path}: {where}: {first['msg'].lower()}") from error
