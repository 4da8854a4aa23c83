"""`advrad data`: the data sets known, where they lie, and what a folder would be used for."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from .options import Category, Debug, Json, Layout, Root, SplitSeed
from .output import columns, print_json
from .progress import progress

app = typer.Typer(help="Data sets known by name, and what a folder holds.", rich_markup_mode=None)


@app.command("list")
def list_(json: Json = False, debug: Debug = False) -> None:
    """List the data sets known by name."""
    from ..data.catalogue import entries

    found = entries()
    if json:
        print_json({"datasets": [asdict(entry) for entry in found]})
        return
    rows = [(e.name, e.missing or "ready", e.licence, e.summary) for e in found]
    typer.echo(columns([("NAME", "STATE", "LICENCE", "WHAT"), *rows]))


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="A name from `advrad data list`.")],
    given: Annotated[
        Path | None,
        typer.Option(
            "--from", metavar="PATH", help="A file or folder of your own, in place of fetching."
        ),
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Make a named data set ready and say where it lies."""
    from ..data import catalogue

    found = catalogue.fetch(name, given)
    if json:
        print_json(asdict(found))
    else:
        typer.echo(f"{found.folder}\n{found.name}: {found.summary}\nlicence: {found.licence}")


@app.command()
def check(
    root: Root,
    layout: Layout = None,
    category: Category = None,
    split_seed: SplitSeed = 0,
    quick: Annotated[
        bool, typer.Option("--quick", help="Read headers only: finds no damage, no duplicates.")
    ] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Say exactly which image would be used for what, and what is wrong; exit 3 if anything is."""
    from ..data import catalogue
    from ..data.check import check

    dataset = catalogue.load(root, layout=layout, category=category, split_seed=split_seed)
    with progress("checking") as tell:
        found = check(dataset, deep=not quick, progress=tell)
    if json:
        print_json(found.as_dict())
    else:
        typer.echo(found.text())
    if found.problems:
        raise typer.Exit(3)
