"""Cells of a grid that try defences of classifiers, each as `advrad purify evaluate` does.

They need no training of the grid's: classifiers and generators are folders that are there. Every
purifier is a cell of its own, under all modes, attacks and radii of its entry, since its figures
are held against each other.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import classifiers
from ..checks import fraction
from ..data.labelled import labelled
from ..files import sha256
from ..store import MANIFEST
from .defence_report import tables
from .defence_trial import Trial, examples
from .defence_words import defences, folders, read
from .defended import defend

Record = dict[str, Any]
LISTS = ("clean", "rows", "modes", "left_out")


@dataclass(frozen=True)
class Defended:
    """Purifiers before a classifier.

    Arguments:
        classifier: its folder.
        data: a data set with classes, a name or a folder.
        purifiers: in words, as on the command line.
        generator: the folder of the model that they stand on, where they name no other.
        modes, attacks, norm, eps, draws, eot, steps, resubmit, weight: of the trial; eps as
            `8/255`.
        limit: at most so many test images.
        seed: of the noise.
    """

    classifier: str
    data: str
    purifiers: Sequence[str] = ("none",)
    generator: str | None = None
    modes: Sequence[str] = ("full",)
    attacks: Sequence[str] = ("pgd",)
    norm: str = "linf"
    eps: Sequence[float | str] = ("8/255",)
    draws: int = 10
    eot: int = 10
    steps: int | None = None
    resubmit: int = 20
    weight: float | None = None
    limit: int = 512
    seed: int = 0

    @property
    def radii(self) -> list[float]:
        """Raises UsageError for what is no number."""
        return [fraction(str(each), "eps") for each in self.eps]

    def trial(self, device: str = "cpu") -> Trial:
        """What is asked; raises UsageError as `Trial` does."""
        return Trial(
            self.modes, self.attacks, self.norm, self.radii, self.draws, self.eot, self.steps,
            self.resubmit, self.weight, seed=self.seed, device=device,
        )  # fmt: skip

    def labels(self) -> list[str]:
        """The names of the purifiers in tables; raises UsageError for words that ask for none."""
        return [read(words).label for words in self.purifiers]

    @property
    def title(self) -> str:
        """As a cell."""
        radii = ", ".join(map(str, self.eps))
        return f"{', '.join(self.modes)}: {', '.join(self.attacks)}, {self.norm} {radii}"


def tried(entry: Defended, place: Path, device: str) -> Record:
    """The result of an entry, without its settings; rows are kept below `place`, those of other
    models in another folder, and go on there."""
    generator = None if entry.generator is None else Path(entry.generator)
    wanted = [read(words, generator) for words in entry.purifiers]
    made = defences(wanted, classifiers.load(entry.classifier), device)
    tested, rows = examples(labelled(entry.data), entry.limit), place / _digest(contents(entry))
    found = defend(made, tested, entry.trial(device), rows)
    return {name: value for name, value in found.items() if name != "settings"}


def contents(entry: Defended) -> dict[str, str | None]:
    """The sha256 of what lies in each folder that the entry names, None where nothing does."""
    generator = None if entry.generator is None else Path(entry.generator)
    named = {Path(entry.classifier)}
    for words in entry.purifiers:
        named |= set(folders(read(words, generator)).values())
    manifests = {str(folder): folder / MANIFEST for folder in sorted(named)}
    return {name: sha256(path) if path.is_file() else None for name, path in manifests.items()}


def replaced(before: Mapping[str, Any] | None, entry: Defended) -> bool:
    """Whether a folder holds another model than before; one that is gone holds no other."""
    now = contents(entry)
    return before is None or any(
        found is not None and before.get(name) != found for name, found in now.items()
    )


def joined(records: Sequence[Mapping[str, Any]]) -> dict[str, Record]:
    """What records of tasks have found, by the data set."""
    by_data: dict[str, Record] = {}
    for record in records:
        found = record["found"]
        if found is None:
            continue
        kept = by_data.setdefault(record["task"]["data"]["name"], {name: [] for name in LISTS})
        for name in LISTS:
            kept[name] = [*kept[name], *found[name]]
    return by_data


def markdown(records: Sequence[Mapping[str, Any]]) -> str:
    """Tables, one a data set; empty without defences."""
    parts = [
        f"\n## Defences: {data}\n\n{tables(found)}" for data, found in joined(records).items()
    ]
    return "".join(parts)


def _digest(models: Mapping[str, str | None]) -> str:
    """A folder's name that stands for the models."""
    return hashlib.sha256("/".join(map(str, models.values())).encode()).hexdigest()[:12]
