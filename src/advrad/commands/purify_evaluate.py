"""`advrad purify evaluate`: what defences are worth against attackers who know more and more."""

import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from .attack import radius
from .device import resolve
from .options import BatchSize, Debug, Device, Json, NoiseSeed, Out
from .output import columns, print_json
from .progress import progress
from .purify_apply import PURIFIER
from .purify_train import Data
from .stopping import stopping
from .tested import kept

MODES = (
    "What the attacker knows: transfer, bpda, surrogate, full, resubmission, dw_forward, "
    "dw_reverse or dw_both; repeatable."
)
ATTACKS = (
    "fgsm, pgd, pgd-unseen, apgd-ce, apgd-dlr, apgd-t, fab-t, square, deepfool, elastic-net, "
    "autoattack-standard or autoattack-rand; repeatable."
)


def evaluate(
    classifier: Annotated[
        Path, typer.Argument(metavar="CLASSIFIER", help="The folder of what is defended.")
    ],
    data: Data,
    purifier: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WORDS",
            help=PURIFIER + " none is no defence; generator=DIR and label=NAME are for this one "
            "alone, coarse.shots=2 is for the mode surrogate. Repeatable.",
        ),
    ] = None,
    generator: Annotated[
        Path | None,
        typer.Option(metavar="GENERATOR", help="What purifiers stand on that name no other."),
    ] = None,
    mode: Annotated[list[str] | None, typer.Option(help=MODES)] = None,
    attack: Annotated[list[str] | None, typer.Option(help=ATTACKS)] = None,
    norm: Annotated[str, typer.Option(help="linf, l2 or l1.")] = "linf",
    eps: Annotated[
        list[str] | None,
        typer.Option(metavar="RADIUS", help="As 8/255 or 0.3, for images in [0, 1]; repeatable."),
    ] = None,
    draws: Annotated[
        int, typer.Option(min=1, help="Of each image's evaluation: N of worst and majority.")
    ] = 10,
    eot: Annotated[
        int, typer.Option(min=1, help="Draws that each step of an attack averages over.")
    ] = 10,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Of attacks that walk; without it, their own.")
    ] = None,
    resubmit: Annotated[
        int, typer.Option(min=1, help="How often resubmission hands an image in.")
    ] = 20,
    weight: Annotated[
        float | None,
        typer.Option(
            help="Of a purifier's error for pgd-unseen, which lowers it besides; without it 100."
        ),
    ] = None,
    health: Annotated[bool, typer.Option(help="Check that the attacks could see.")] = True,
    out: Out = None,
    seed: NoiseSeed = 0,
    device: Device = None,
    batch_size: BatchSize = 64,
    limit: Annotated[
        int, typer.Option(min=1, help="At most this many test images, evenly of a class.")
    ] = 512,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Say how often CLASSIFIER behind each purifier is right on test images under attack."""
    radii = [radius(words) for words in eps or ["8/255"]]
    from .. import classifiers
    from ..data.labelled import labelled
    from ..evaluate.defence_report import notes, table, write_trial
    from ..evaluate.defence_trial import Trial, examples
    from ..evaluate.defence_words import defences, in_words, read
    from ..evaluate.defended import defend

    trial = Trial(
        mode or ["full"], attack or ["pgd"], norm, radii, draws, eot, steps, resubmit, weight,
        health, seed, batch_size, resolve(device),
    )  # fmt: skip
    wanted = [read(words, generator) for words in purifier or ["none"]]
    tried = defences(wanted, classifiers.load(classifier), trial.device)
    tested = examples(labelled(data), limit)
    print("\n".join(map(in_words, wanted)), file=sys.stderr)
    with stopping(partial(kept, out)) as check, progress("attacking") as tell:

        def report(done: int, total: int) -> None:
            tell(done, total)
            check()

        result = defend(tried, tested, trial, out, report)
    page = write_trial(result, out) if out else None
    if json:
        print_json(result)
        return
    typer.echo(columns(table(result)))
    typer.echo("\n".join(["", *notes(result), *([f"report: {page}"] if page else [])]).rstrip())
