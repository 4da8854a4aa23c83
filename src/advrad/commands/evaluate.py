"""`advrad evaluate`: metrics on the test images, misses and false alarms at the threshold."""

from functools import partial
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
    Limit,
    Model,
    ModelSplit,
    NoiseSeed,
    Out,
    Root,
    SkipBad,
)
from .output import print_json
from .progress import progress
from .stopping import stopping
from .tested import dataset_for, kept

Requirements = Annotated[
    list[str] | None,
    typer.Option(
        "--require",
        metavar="METRIC>=VALUE",
        help="Exit with 1 unless it holds, as image_auroc>=0.97; repeatable.",
    ),
]


def evaluate(
    model: Model,
    root: Root,
    out: Out = None,
    require: Requirements = None,
    skip_bad: SkipBad = False,
    seed: NoiseSeed = 0,
    device: Device = None,
    batch_size: BatchSize = 16,
    limit: Limit = None,
    layout: Layout = None,
    category: Category = None,
    split_seed: ModelSplit = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Say how well MODEL tells the good from the defective test images of ROOT."""
    from ..evaluate import Evaluation, evaluate
    from ..evaluate.evaluation_report import write_evaluation_report
    from ..evaluate.requirements import Requirement, judged
    from ..evaluate.summary import evaluated
    from ..model import load as load_model

    wanted = Evaluation(seed, batch_size, resolve(device), limit, skip_bad)
    gates = [Requirement.parse(words) for words in require or []]
    fitted = load_model(model)
    dataset = dataset_for(fitted, root, layout, category, split_seed)
    with stopping(partial(kept, out)) as check, progress("scoring") as tell:

        def report(done: int, total: int) -> None:
            tell(done, total)
            check()

        result = evaluate(fitted, dataset, out, wanted, report)
    page = write_evaluation_report(fitted, dataset, out, wanted.device) if out else None
    verdicts = judged(gates, result)
    if json:
        print_json(result | ({"requirements": verdicts} if gates else {}))
    else:
        typer.echo(evaluated(result, verdicts, page))
    if not all(verdict["holds"] for verdict in verdicts):
        raise typer.Exit(1)
