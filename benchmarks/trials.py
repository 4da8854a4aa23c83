"""What the benchmarks of defences share: models trained by the command line's own verbs, trials of
defences that go on where they were stopped, and what of both stands in a record."""

import json
from argparse import ArgumentParser
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from common import Told, earlier

from advrad import classifiers
from advrad.cli import main as advrad
from advrad.data.labelled import labelled
from advrad.evaluate.defence_trial import Trial, examples
from advrad.evaluate.defence_words import defences, read
from advrad.evaluate.defended import defend
from advrad.evaluate.rows import RESULT
from advrad.files import write_json
from advrad.store import MANIFEST

KEPT = ("clean", "rows", "modes", "left_out", "images")


def chosen(parser: ArgumentParser, only: Sequence[str] | None, known: Iterable[str]) -> list[str]:
    """What `--only` names, all without it; ends with the names where one is unknown."""
    names = list(known)
    if unknown := set(only or names) - set(names):
        parser.error(f"--only {min(unknown)}: expected some of {', '.join(names)}")
    return list(only or names)


def trained(folder: Path, words: Sequence[str]) -> None:
    """One model, unless it is there; an interrupted training goes on. The words are those of
    `advrad purify` with MODEL in the place of the folder, and stand in a file beside it: what was
    made by others is refused."""
    told = folder.with_name(f"{folder.name}.json")
    if folder.exists() and told.exists() and json.loads(told.read_text()) != [*words]:
        raise SystemExit(f"{folder} was trained by other words, see {told}: remove both")
    write_json(told, [*words])
    if not (folder / MANIFEST).exists():
        begun = ["--resume"] * folder.exists()
        asked = [str(folder) if word == "MODEL" else word for word in words]
        if advrad(["purify", *asked, "--device", "cpu", *begun]):
            raise SystemExit(f"{folder}: its training did not come to its end")


def tried(
    classifier: Path, data: str, purifiers: Iterable[str], images: int, asked: Trial, out: Path
) -> None:
    """One trial, with its result in the folder."""
    some = defences([read(words) for words in purifiers], classifiers.load(classifier))
    defend(some, examples(labelled(data), images), asked, out, Told(out.name))


def found(out: Path) -> dict[str, Any] | None:
    """A trial's figures; None before its end."""
    if not (out / RESULT).exists():
        return None
    result = json.loads((out / RESULT).read_text())
    return {name: result[name] for name in KEPT}


def told(root: Path, names: Iterable[str]) -> dict[str, Any]:
    """How each model was made, as its folder says; those that are there."""
    paths = {name: root / name / "about.json" for name in names}
    return {name: json.loads(path.read_text()) for name, path in paths.items() if path.exists()}


def before(record: str, eps: float, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Trials and models of the record that is there, which one that adds to it keeps; none where
    it is of another radius or seed."""
    figures = earlier(record)
    same = (figures.get("eps"), figures.get("seed")) == (eps, seed)
    return (figures["trials"], figures["models"]) if same else ({}, {})


def place(root: Path, name: str, images: int, seed: int) -> Path:
    """The folder of a trial."""
    return root / (f"{name}-{images}" + f"-seed-{seed}" * bool(seed))
