"""Options that several verbs share, so that each is spelled and explained once."""

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on standard output, nothing else.")
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Seed = Annotated[
    int | None,
    typer.Option(min=0, help="Seed of the noise; without it, the model's stored secret one."),
]
LARGEST = 2**63 - 1  # seed that torch takes
TrainingSeed = Annotated[
    int,
    typer.Option(
        "--seed", min=0, max=LARGEST, help="Seed of all that is drawn: weights, batches, noise."
    ),
]
NoiseSeed = Annotated[int, typer.Option("--seed", min=0, help="Seed of the noise.")]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1, ...; without it the fastest one found.")
]
BatchSize = Annotated[int, typer.Option(min=1, help="How many images are held at once.")]
Limit = Annotated[
    int | None,
    typer.Option(min=1, help="At most this many images, half good and half defective."),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="A setting of the detector; repeatable."),
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on from the folder's checkpoint, bit by bit the same.")
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Lose the model or the training that lies there.")
]
Level = Annotated[
    float | None,
    typer.Option(help="Bound on false alarms, as 0.01; without it, what the images can hold."),
]
UnsureLevel = Annotated[
    float | None,
    typer.Option(help="The laxer bound: below its threshold is OK; without it, twice the level."),
]
Layout = Annotated[
    str | None,
    typer.Option(help="How the folder is laid out; without it, it is recognised."),
]
Category = Annotated[
    str | None, typer.Option(help="Which of several products in the folder, by its name.")
]
SplitSeed = Annotated[
    int, typer.Option(min=0, help="Seed of the split, where one has to be drawn.")
]
ModelSplit = Annotated[
    int | None,
    typer.Option(
        "--split-seed", min=0, help="Seed of the split; without it, the one of the training."
    ),
]
SkipBad = Annotated[
    bool, typer.Option("--skip-bad", help="Leave unreadable images out, and count them.")
]
Out = Annotated[Path | None, typer.Option(help="Folder for results; without it none are kept.")]

Root = Annotated[
    str, typer.Argument(metavar="ROOT", help="A folder, a manifest, or a data set's name.")
]
Model = Annotated[Path, typer.Argument(metavar="MODEL", help="A model's folder.")]
