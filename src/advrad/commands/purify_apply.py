"""`advrad purify apply`: images on disk, without what an attacker has put into them."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from .device import resolve
from .options import BatchSize, Debug, Device, Json
from .output import one_line, print_json, printable
from .progress import progress

PURIFIER = (
    "Its name and settings in one word, as 'diffpure depth=100 shots=5'; adbm, agdm, defensegan, "
    "diffdefense, diffpure, gdmp, ode or sde."
)


def apply(
    generator: Annotated[
        Path, typer.Argument(metavar="GENERATOR", help="A trained diffusion model or WGAN.")
    ],
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH...", help="Images, and folders of images.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the purified images, under their names.")],
    purifier: Annotated[
        str, typer.Option(metavar="WORDS", help=PURIFIER)
    ] = "diffpure depth=100 shots=5",
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Seed of the noise; without it one that nobody learns."),
    ] = None,
    device: Device = None,
    batch_size: BatchSize = 16,
    limit: Annotated[
        int | None, typer.Option(min=1, help="At most this many images, the first by name.")
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Purify images and write them to a folder under their own names."""
    from ..evaluate.defence_apply import applied, planned
    from ..evaluate.defence_words import in_words, meant, purifier_of, read

    place, wanted = resolve(device), read(purifier, generator)
    purify, shape = purifier_of(wanted, place)
    print(in_words(wanted), file=sys.stderr)
    places = planned(paths, out)[:limit]
    rows: list[dict[str, Any]] = []
    with progress("purifying") as tell:
        found = applied(purify, places, shape, seed=seed, batch=batch_size, device=place)
        for done, row in enumerate(found, 1):
            rows.append(row)
            tell(done, len(places))
    if json:
        how = {"purifier": wanted.label, "noise": meant(wanted), "seed": seed, "device": place}
        print_json({"images": rows, "settings": how})
        return
    for row in rows:
        moved = f"{row['mean_change']:.3g} on average, {row['largest_change']:.3g} at most"
        print(printable(f"{one_line(row['purified'])}  moved by {moved}"))
