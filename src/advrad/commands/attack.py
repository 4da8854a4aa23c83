"""`advrad attack`: metrics on the test images while somebody attacks each of them."""

import sys
from functools import partial
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
    Limit,
    Model,
    ModelSplit,
    Out,
    Root,
    SkipBad,
    TrainingSeed,
)
from .output import print_json
from .progress import progress
from .stopping import stopping
from .tested import dataset_for, kept

SUITE = "quick, standard, strong, paper-pgd, paper-eot or paper-bpda; each says what it costs."


def attack(
    model: Model,
    root: Root,
    norm: Annotated[str, typer.Option(help="linf, l2, l1 or patch.")] = "linf",
    eps: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RADIUS",
            help="Most that may be changed, as 2/255 or 0.2, for images in [0, 1]; a square's "
            "side in pixels for patch; 0 for the clean row; repeatable. Without it 2/255 for "
            "linf, 0.2 for l2, 12 for l1, 8 for patch.",
        ),
    ] = None,
    suite: Annotated[str, typer.Option(help=SUITE)] = "quick",
    smallest_eps: Annotated[
        str | None,
        typer.Option(
            metavar="RADIUS",
            help="Also search, image by image, the smallest eps that turns its verdict at the "
            "model's threshold, up to this one; it says what that costs.",
        ),
    ] = None,
    out: Out = None,
    require: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METRIC>=VALUE",
            help="Exit with 1 unless it holds for every eps and its health is not suspect, as "
            "robust_auroc>=0.5; repeatable.",
        ),
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(metavar="MODEL2", help="A model whose attacked images are tried too."),
    ] = None,
    health: Annotated[
        bool, typer.Option(help="Check that the attack could see; a quarter of its cost.")
    ] = True,
    skip_bad: SkipBad = False,
    seed: TrainingSeed = 0,
    device: Device = None,
    batch_size: BatchSize = 16,
    limit: Limit = None,
    layout: Layout = None,
    category: Category = None,
    split_seed: ModelSplit = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Say how well MODEL tells good from defective test images of ROOT under attack."""
    radii = [radius(words) for words in eps or []]
    largest = None if smallest_eps is None else radius(smallest_eps, "--smallest-eps")
    from ..evaluate import Evaluation
    from ..evaluate.attack_expected import expected
    from ..evaluate.attack_report import write_attack_report
    from ..evaluate.attack_summary import announced, attacked
    from ..evaluate.attacked import EPS, Threat, attack
    from ..evaluate.requirements import ROBUST, Requirement, judged_under_attack
    from ..model import load as load_model

    asked = Evaluation(seed, batch_size, resolve(device), limit, skip_bad)
    gates = [Requirement.parse(words, ROBUST) for words in require or []]
    wanted = Threat(
        norm,
        radii or [EPS.get(norm, 0.0)],
        suite,
        health=health,
        smallest=largest,
        evaluation=asked,
    )
    fitted = load_model(model)
    if source is not None:
        wanted = wanted.through(load_model(source).detector)
    wanted.assaults(fitted)  # an impossible radius is told before any image is read
    wanted.search(fitted)
    dataset = dataset_for(fitted, root, layout, category, split_seed)
    print(announced(wanted, expected(fitted, dataset, wanted, out)), file=sys.stderr)
    with stopping(partial(kept, out)) as check, progress("attacking") as tell:

        def report(done: int, total: int) -> None:
            tell(done, total)
            check()

        result = attack(fitted, dataset, out, wanted, report)
    page = write_attack_report(fitted, dataset, out, asked.device) if out else None
    verdicts = judged_under_attack(gates, result)
    if json:
        print_json(result | ({"requirements": verdicts} if gates else {}))
    else:
        typer.echo(attacked(result, verdicts, page))
    if not all(verdict["holds"] for verdict in verdicts):
        raise typer.Exit(1)


def radius(words: str, option: str = "--eps") -> float:
    """`2/255` or `0.0078` as a number; raises UsageError for what is none, or below zero."""
    from ..checks import fraction

    return fraction(words, option)
