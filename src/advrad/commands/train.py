"""`advrad train`: learns from good images, calibrates, saves."""

from pathlib import Path
from typing import Annotated

import typer

from .device import resolve
from .options import (
    BatchSize,
    Category,
    Debug,
    Device,
    Json,
    Layout,
    Level,
    Limit,
    Model,
    Overwrite,
    Resume,
    Root,
    Settings,
    SkipBad,
    SplitSeed,
    TrainingSeed,
    UnsureLevel,
)
from .output import print_json
from .progress import stages
from .settings import settings
from .stopping import stopping

GO_ON = "what was learnt is kept: to go on, run the same command with --resume"


def train(
    root: Root,
    model: Model,
    detector: Annotated[str, typer.Option(help="Its name; see the documentation.")] = "advrad",
    set_: Settings = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    level: Level = None,
    unsure_level: UnsureLevel = None,
    skip_bad: SkipBad = False,
    seed: TrainingSeed = 0,
    device: Device = None,
    batch_size: BatchSize = 16,
    limit: Limit = None,
    layout: Layout = None,
    category: Category = None,
    split_seed: SplitSeed = 0,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Learn from the good images of ROOT, calibrate on others, and save in the folder MODEL."""
    given = settings(detector, set_ or [])

    from ..data import load
    from ..evaluate import Training, train
    from ..evaluate.summary import trained, training_record
    from ..evaluate.training_report import write_training_report

    wanted = Training(
        detector=detector,
        settings=given,
        seed=seed,
        level=level,
        unsure_level=unsure_level,
        skip_bad=skip_bad,
        resume=resume,
        overwrite=overwrite,
        limit=limit,
        device=resolve(device),
        batch=batch_size,
    )
    dataset = load(root, layout=layout, category=category, split_seed=split_seed)
    with stopping(GO_ON) as check, stages(check) as report:
        made = train(dataset, model, wanted, report)
    page: Path = write_training_report(made, dataset, model, wanted.device)
    if json:
        print_json(training_record(made, model, page))
    else:
        typer.echo(trained(made, model, page))
