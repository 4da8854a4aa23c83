"""The command line: verbs are put together here, and nothing else.

A verb lives in `commands/`: it parses, calls one library function, and prints. Modules of verbs
import typer and no more at their top, the library inside the verbs; so `--help` costs no torch.
"""

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from . import __version__
from .commands import (
    attack,
    benchmark,
    boundary,
    calibrate,
    certify,
    data,
    demo,
    doctor,
    evaluate,
    predict,
    purify,
    train,
)

app = typer.Typer(
    name="advrad",
    help="Visual inspection that holds under attack.",
    epilog="Exit codes: 0 done, 1 negative verdict, 2 usage, 3 data, 4 model, 5 resources.",
    add_completion=False,
    rich_markup_mode=None,  # rich would double the time of --help
)


@app.callback(invoke_without_command=True)
def options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and end.")] = False,
) -> None:
    """Visual inspection that holds under attack."""
    if version:
        typer.echo(f"advrad {__version__}")
        raise typer.Exit


app.command("demo")(demo.demo)
app.add_typer(data.app, name="data")
app.command("train")(train.train)
app.command("predict")(predict.predict)
app.command("evaluate")(evaluate.evaluate)
app.command("attack")(attack.attack)
app.command("certify")(certify.certify)
app.command("benchmark")(benchmark.benchmark)
app.add_typer(purify.app, name="purify")
app.command("calibrate")(calibrate.calibrate)
app.command("doctor")(doctor.doctor)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command, by default the process's own, and returns its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    return boundary.run(typer.main.get_command(app), words or ["--help"])
