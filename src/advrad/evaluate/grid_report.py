"""What a grid leaves behind: table.md, table.csv, result.json and a page."""

from pathlib import Path

from ..files import write_json, write_text
from .defence_report import add_tables
from .grid import Grid
from .grid_defence import joined
from .grid_run import unfinished
from .grid_table import COST, Done, as_csv, figures, markdown, rows, summaries, trials
from .report import Report
from .rows import PAGE, RESULT

CAPTION = (
    "Image AUROC. Over several seeds: mean ± standard deviation; of one: its 95 % bootstrap "
    "interval. Under attack: the worst of the suite for each image, both sides; the floor is 0. "
    "Rank: the mean place over the columns that all detectors have; none where a cell failed."
)


def write_grid(grid: Grid, done: Done, out: Path) -> Path:
    """Writes the tables, and says where the page is."""
    listed = figures(grid, done)
    write_text(out / "table.md", markdown(grid, done))
    write_text(out / "table.csv", as_csv(grid, done))
    defended = joined(trials(done))
    content = {"figures": listed, "detectors": summaries(grid, done), "defences": defended}
    write_json(out / RESULT, {"name": grid.name} | content)
    failed = [(task, record) for task, record in done if record["error"]]
    cells = sum(task.cell is not None for task, _ in done)
    told = f"{len(grid.detector)} detectors on {len(grid.data)} data sets, {cells} cells"
    if grid.defence:
        told = f"{sum(len(one.purifiers) for one in grid.defence)} defences, {told}"
    report = Report(
        f"advrad benchmark: {grid.name}",
        f"{told}; {_state(len(failed), unfinished(done))}",
    )
    columns = list(dict.fromkeys(figure["column"] for figure in listed))
    for data in grid.data:
        report.heading(data.label)
        report.table(
            CAPTION,
            ["detector", *columns, *COST, "rank"],
            rows(grid, done, data.label, listed),
        )
    for name, found in defended.items():
        report.heading(f"Defences: {name}")
        add_tables(report, found)
    if failed:
        report.heading("What failed")
        report.table(
            "Each with its reason; run the same command to try them again.",
            ["task", "reason"],
            [[task.words, str(record["error"])] for task, record in failed],
        )
    page = out / PAGE
    report.write(page)
    return page


def _state(failed: int, waiting: int) -> str:
    """What became of the tasks, in words."""
    some = [f"{failed} tasks failed"] * bool(failed) + [f"{waiting} not run"] * bool(waiting)
    return f"{', '.join(some) or 'all of them done'}."
