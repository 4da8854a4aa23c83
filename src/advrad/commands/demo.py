"""`advrad demo`: the proof of a few minutes, on photographs that come with advrad."""

from pathlib import Path
from typing import Annotated

import typer

from .device import resolve
from .options import BatchSize, Debug, Device, Json, Settings, TrainingSeed
from .output import print_json
from .progress import stages
from .settings import settings
from .stopping import stopping


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the model and the report.")] = Path(
        "runs/demo"
    ),
    set_: Settings = None,
    seed: TrainingSeed = 0,
    device: Device = None,
    batch_size: BatchSize = 16,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Train on the embedded photographs of hazelnuts, test on stained ones, write a report."""
    given = settings("advrad", set_ or [])

    from ..evaluate.demo import Demo, demo
    from ..evaluate.summary import demonstrated

    wanted = Demo(given, seed, resolve(device), batch_size)
    kept = "what was done is kept: to go on, run the same command again"
    with stopping(kept) as check, stages(check) as report:
        result = demo(out, wanted, report)
    if json:
        print_json(result)
    else:
        typer.echo(demonstrated(result, out))
