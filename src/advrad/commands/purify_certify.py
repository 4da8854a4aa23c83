"""`advrad purify certify`: classes that no change within a radius can alter."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from .device import resolve
from .options import Debug, Device, Json, NoiseSeed, Out
from .output import columns, print_json
from .progress import progress
from .purify_train import Data
from .stopping import stopping
from .tested import kept


def certify(
    classifier: Annotated[
        Path, typer.Argument(metavar="CLASSIFIER", help="The folder of what is certified.")
    ],
    data: Data,
    generator: Annotated[
        Path | None,
        typer.Option(
            metavar="GENERATOR",
            help="A diffusion model that takes the noise away before CLASSIFIER; without it the "
            "classifier meets the noise itself.",
        ),
    ] = None,
    sigma: Annotated[
        list[float] | None,
        typer.Option(
            metavar="S",
            help="Standard deviation of the noise, for images in [0, 1]; repeatable. 0.25 "
            "without it.",
        ),
    ] = None,
    radius: Annotated[
        list[float] | None,
        typer.Option(
            metavar="R",
            help="l2 norm of the changes that are covered, in the same scale; repeatable. 0.1, "
            "0.25 and 0.5 without it.",
        ),
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Draws of the noise an image.")] = 1000,
    alpha: Annotated[
        float, typer.Option(help="Probability that the certificate of an image is wrong.")
    ] = 0.001,
    out: Out = None,
    seed: NoiseSeed = 0,
    device: Device = None,
    batch_size: Annotated[int, typer.Option(min=1, help="How many draws are held at once.")] = 64,
    limit: Annotated[
        int, typer.Option(min=1, help="At most this many test images, evenly of a class.")
    ] = 100,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Say of how many test images of DATA no change within a radius can alter the class.

    Speaks of the smoothed classifier: the class that most draws of Gaussian noise get.
    """
    from ..data.labelled import labelled
    from ..evaluate.defence_certified import ClassCertificate, certify_classes, opened, table
    from ..evaluate.defence_trial import examples

    wanted = ClassCertificate(
        sigma or [0.25], radius or [0.1, 0.25, 0.5], samples, alpha=alpha, seed=seed,
        batch=batch_size, device=resolve(device),
    )  # fmt: skip
    network, denoiser = opened(classifier, generator)
    tested = examples(labelled(data), limit)
    with stopping(partial(kept, out)) as check, progress("certifying") as tell:

        def report(done: int, total: int) -> None:
            tell(done, total)
            check()

        result = certify_classes(network, denoiser, tested, wanted, out, report)
    if json:
        print_json(result)
        return
    typer.echo(columns(table(result)))
