"""`advrad purify train-classifier`, `train-diffusion` and `finetune`."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .device import resolve
from .options import BatchSize, Debug, Device, Json, Overwrite, Resume, TrainingSeed
from .output import columns, print_json
from .progress import stages
from .settings import parse
from .stopping import stopping

if TYPE_CHECKING:
    from ..diffusion.run import Progress

Data = Annotated[
    str, typer.Argument(metavar="DATA", help="A data set with classes: a name, or its folder.")
]
Out = Annotated[Path, typer.Argument(metavar="MODEL", help="The folder of what is trained.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="A setting of the training; repeatable."),
]
Images = Annotated[
    int | None,
    typer.Option("--limit", min=1, help="At most this many training images, evenly of a class."),
]
GO_ON = "what was learnt is saved: to go on, run the same command with --resume"
FRACTION = re.compile(r"[0-9.]*[0-9]/[0-9]+")


def train_classifier(
    data: Data,
    model: Out,
    network: Annotated[
        str, typer.Option(help="a, b, wrn, wrn-16-2, wrn-28-10 or wrn-70-16.")
    ] = "a",
    loss: Annotated[
        str, typer.Option(help="natural, fgsm, pgd or trades; the last three need --set eps=.")
    ] = "natural",
    set_: Set = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    seed: TrainingSeed = 0,
    device: Device = None,
    batch_size: BatchSize = 500,
    limit: Images = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Train a classifier on DATA, measure it on its test images, and save it in MODEL."""
    given = settings(set_)
    from ..data.labelled import labelled
    from ..evaluate.defence_training import Circumstances, classifier_training, train_classifier

    wanted = classifier_training(network, loss, given)
    found = labelled(data)
    with watched() as report:
        under = Circumstances(model, seed, resolve(device), resume, overwrite, limit, report)
        record = train_classifier(found, wanted, under, batch_size)
    said = record["test_accuracy"]
    told = f"test accuracy {said['value']:.2%} ({said['low']:.2%} to {said['high']:.2%})"
    _tell(record, json, told)


def train_diffusion(
    data: Data,
    model: Out,
    kind: Annotated[str, typer.Option(help="diffusion, or wgan for Defense-GAN.")] = "diffusion",
    set_: Set = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    seed: TrainingSeed = 0,
    device: Device = None,
    limit: Images = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Train a model of the images of DATA, on which purifiers stand, and save it in MODEL."""
    given = settings(set_)
    from ..data.labelled import labelled
    from ..evaluate.defence_training import Circumstances, train_generator

    found = labelled(data)
    with watched() as report:
        under = Circumstances(model, seed, resolve(device), resume, overwrite, limit, report)
        record = train_generator(found, kind, given, under)
    _tell(record, json, f"{record['steps']} steps")


def finetune(
    generator: Annotated[
        Path, typer.Argument(metavar="GENERATOR", help="A trained diffusion model's folder.")
    ],
    data: Data,
    model: Out,
    method: Annotated[
        str,
        typer.Option(help="addt, adbm, clean (the control of equal cost) or unranked."),
    ] = "addt",
    classifier: Annotated[
        Path | None,
        typer.Option(metavar="MODEL", help="The classifier that guides; clean needs none."),
    ] = None,
    set_: Set = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    seed: TrainingSeed = 0,
    device: Device = None,
    limit: Images = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Go on with the diffusion model GENERATOR under another loss, and save it in MODEL."""
    given = settings(set_)
    from .. import classifiers
    from ..data.labelled import labelled
    from ..evaluate.defence_training import Circumstances, finetune_generator, finetuning
    from ..purifiers.stored import load

    wanted = finetuning(method, given)
    before = load(generator)
    guide = None if classifier is None else classifiers.load(classifier)
    found = labelled(data)
    with watched() as report:
        under = Circumstances(model, seed, resolve(device), resume, overwrite, limit, report)
        record = finetune_generator(before, found, guide, wanted, under)
    _tell(record, json, f"{method}, {record['steps']} steps")


def settings(words: list[str] | None) -> dict[str, Any]:
    """`name=value` words as plain values, `8/255` as the number that it is.

    Raises UsageError for a word that is none, and for a division by zero.
    """
    from ..errors import UsageError

    found = {}
    for word in words or []:
        name, equals, value = word.partition("=")
        if not equals:
            raise UsageError(f"--set {word}: expected name=value")
        found[name] = _number(word, value) if FRACTION.fullmatch(value) else parse(value)
    return found


def _number(word: str, fraction: str) -> float:
    from ..errors import UsageError

    above, below = map(float, fraction.split("/"))
    if below == 0:
        raise UsageError(f"--set {word}: a division by zero; expected a number, as 8/255")
    return above / below


@contextmanager
def watched() -> Iterator[Callable[["Progress"], None]]:
    """Shows how far a training is, and stops it between two steps."""
    with stopping(GO_ON) as check, stages(check) as report:
        yield report


def _tell(record: dict[str, Any], json: bool, told: str) -> None:
    if json:
        print_json(record)
        return
    rows = [("model", record["model"]), ("data", record["data"]), ("result", told)]
    typer.echo(columns(rows))
