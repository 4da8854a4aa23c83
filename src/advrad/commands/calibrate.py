"""`advrad calibrate`: new thresholds from good images, without training."""

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
    NoiseSeed,
    Root,
    SkipBad,
    SplitSeed,
    UnsureLevel,
)
from .output import print_json
from .progress import progress
from .stopping import stopping


def calibrate(
    model: Model,
    root: Root,
    level: Level = None,
    unsure_level: UnsureLevel = None,
    skip_bad: SkipBad = False,
    seed: NoiseSeed = 0,
    device: Device = None,
    batch_size: BatchSize = 16,
    limit: Limit = None,
    layout: Layout = None,
    category: Category = None,
    split_seed: SplitSeed = 0,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Set new thresholds from the good images of ROOT that MODEL was not trained on."""
    from ..data import load
    from ..evaluate.recalibrate import Recalibration, recalibrate
    from ..evaluate.summary import calibrated, calibration_record
    from ..model import load as load_model

    old = load_model(model)
    dataset = load(root, layout=layout, category=category, split_seed=split_seed)
    wanted = Recalibration(level, unsure_level, seed, batch_size, resolve(device), limit, skip_bad)
    with stopping("the thresholds are as they were") as check, progress("scoring") as tell:

        def report(done: int, total: int) -> None:
            tell(done, total)
            check()

        made = recalibrate(old, dataset, wanted, report)
    made.save(model)
    if json:
        print_json(calibration_record(made, old))
    else:
        typer.echo(calibrated(made, old))
