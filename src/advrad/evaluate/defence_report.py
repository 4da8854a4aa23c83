"""What a trial of defences has found, as a table for people and as a page."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import __version__
from ..files import write_text
from .defence_metrics import SINGLE, in_percent
from .defence_modes import MODES
from .health import SOUND, in_words
from .report import Cell, Fact, Report
from .rows import PAGE
from .sections import add_settings, percent

Result = dict[str, Any]
TABLE = "table.md"
HEADER = ("defence", "mode", "attack", "radius", "N")
WORST = ("defence", "mode", "radius", "N", "attacks", "%", "health")
LEVELS = 32  # of 8 bits, below which a radius is told in them
DETECTION = ("detection AUROC", "unnoticed")
FIGURES = {
    "one_shot": "one shot",
    "average": "average",
    "worst": "worst of N",
    "majority": "majority vote of N",
}
KNOWS = {
    "transfer": "sees the classifier alone and not the purifier (grey box)",
    "bpda": "passes the gradient through the purifier as if it were the identity",
    "surrogate": "differentiates a coarser purifier with fewer steps",
    "full": "differentiates the purifier itself, over draws of his own",
    "resubmission": "as full, and hands the image in until one of N draws suits: the worst counts",
    "dw_forward": "as full, and knows the noise that the evaluation puts in",
    "dw_reverse": "as full, and knows the noise of the evaluation's steps out",
    "dw_both": "as full, and knows all noise of the evaluation: a fixed map",
}
CAPTION = (
    "Right answers in %, with 95 % intervals, under draws that had no part in the attack unless "
    "the mode says so. Average: the mean over N draws. Worst of N: every draw is right. Majority "
    "vote: no other class is answered as often. Of one draw all four are one. The clean figures "
    "are of the same N. Detection: changed images told from clean ones by the error of the "
    "purifier's reconstruction, one draw; unnoticed: changed images that mislead with an error no "
    "higher than a threshold that at most "
    "5 % of the clean images exceed."
)


def write_trial(result: Result, out: Path) -> Path:
    """Writes table.md and report.html beside the results in OUT, and says where the page is."""
    write_text(out / TABLE, markdown(result))
    report = Report("advrad purify evaluate", finding(result), _footer())
    report.facts(_facts(result))
    report.heading("What each defence is worth")
    add_tables(report, result)
    several = _several(result["clean"])
    report.heading("Without an attack")
    report.table(
        "Right answers in % with 95 % intervals, and what one answer costs.",
        ("defence", "N", *(FIGURES[name] for name in _names(several)), "seconds an image"),
        [_clean(row, several) for row in result["clean"]],
    )
    _add_modes(report, result)
    _add_health(report, result)
    add_settings(report, result["settings"])
    report.write(out / PAGE)
    return out / PAGE


def add_tables(report: Report, result: Result) -> None:
    """Every figure of every cell, and the worst of all attacks."""
    report.table(CAPTION, _header(result), _lines(result))
    report.table(
        "Of each image the smallest share of right draws that any attack has reached, averaged "
        "over the images (Fixed-AutoAttack). The draws that choose are those that are counted.",
        WORST,
        [_worst(row) for row in result["modes"]],
    )


def markdown(result: Result) -> str:
    """The tables as Markdown, below the finding."""
    return f"# {finding(result)}\n\n{tables(result)}"


def tables(result: Result) -> str:
    """The tables as Markdown, and what a reader must know of them."""
    worst: list[list[Cell]] = [[*WORST], *(_worst(row) for row in result["modes"])]
    parts = _marked(table(result))
    parts += [
        "",
        "Fixed-AutoAttack: of each image the smallest share that any attack has reached",
        "",
    ]
    parts += _marked([[_text(cell) for cell in row] for row in worst])
    parts += ["", *(f"- {each}" for each in notes(result))]
    return "\n".join(parts).rstrip() + "\n"


def _marked(rows: list[list[str]]) -> list[str]:
    ruled: list[list[str]] = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return [f"| {' | '.join(row)} |" for row in ruled]


def table(result: Result) -> list[list[str]]:
    """The same as rows of text, the header first, for a terminal."""
    return [_header(result)] + [[_text(cell) for cell in line] for line in _lines(result)]


def notes(result: Result) -> list[str]:
    """What a reader of the table must know: reasons of suspicion, and what was left out."""
    said: dict[str, None] = {}
    for row in result["rows"]:
        for reason in row["health"]["reasons"]:
            said[f"{row['defence']}, {row['mode']}, {row['attack']}: suspect: {reason}"] = None
        if row["lost"]:
            said[f"{_name(row)}: logits of {row['lost']} images were no numbers: wrong"] = None
        if (found := row.get("detection")) and found.get("lost"):
            told = f"errors of {found['lost']} images were no numbers: alarms"
            said[f"{_name(row)}: {told}"] = None
    for each in result["clean"]:
        reach = each.get("purified") or {"low": 0, "high": 1}
        if reach["low"] < 0 or reach["high"] > 1:
            told = f"from {reach['low']:.3g} to {reach['high']:.3g}, outside [0, 1]"
            said[f"{each['defence']}: purified images reach {told}"] = None
    for each in result["left_out"]:
        said[f"{each['defence']}, {each['mode']}: not run: {each['why']}"] = None
    return list(said)


def finding(result: Result) -> str:
    """One sentence: each defence clean, and against the attacker of the lowest figure."""
    said = []
    for clean in result["clean"]:
        rows = [row for row in result["rows"] if row["defence"] == clean["defence"]]
        told = f"{clean['defence']} {percent(clean['accuracy']['average']['value'])} clean"
        if rows:
            lowest = min(rows, key=_own)
            told += f", {percent(_own(lowest))}{_doubt(lowest)} against {_against(lowest)}"
        said.append(told)
    return f"{'; '.join(said)} ({result['images']} images)."


def _header(result: Result) -> list[str]:
    several = _several(result["rows"])
    figures = [FIGURES[name] for name in _names(several)]
    clean = ["clean average", "clean worst of N"] if several else ["clean"]
    detection = DETECTION if _detected(result) else ()
    return [*HEADER, *figures, *clean, *detection, "health"]


def _several(rows: Sequence[Result]) -> bool:
    """Whether any image was drawn for more than once; else all figures are that of one shot."""
    return any(row["draws"] > 1 for row in rows)


def _names(several: bool) -> Sequence[str]:
    return SINGLE if several else SINGLE[:1]


def _lines(result: Result) -> list[list[Cell]]:
    detected, several = _detected(result), _several(result["rows"])
    return [_line(row, detected, several) for row in result["rows"]]


def _detected(result: Result) -> bool:
    """Whether a defence of the table has a score by which attacks are detected."""
    return any(row.get("detection") for row in result["rows"])


def _line(row: Result, detected: bool, several: bool) -> list[Cell]:
    robust = [in_percent(row["robust"][name]) for name in _names(several)]
    kinds = ("average", "worst") if several else SINGLE[:1]
    clean = [in_percent(row["clean"][name]) for name in kinds]
    told = [*_named(row), row["attack"], _radius(row), row["draws"], *robust, *clean]
    return [*told, *(_seen(row) if detected else ()), in_words(row["health"])]


def _seen(row: Result) -> list[Cell]:
    """How well attacks are told from clean images, and how many mislead unnoticed."""
    found = row.get("detection")
    if not found:
        return [None, None]
    area = found["auroc"]
    told = f"{area['value']:.3f} ({area['low']:.3f} to {area['high']:.3f})"
    return [told, in_percent(found["unnoticed"])]


def _worst(row: Result) -> list[Cell]:
    attacks = ", ".join(row["attacks"])
    figure = in_percent(row["fixed_autoattack"])
    return [*_named(row), _radius(row), row["draws"], attacks, figure, in_words(row["health"])]


def _clean(row: Result, several: bool) -> list[Cell]:
    figures = [in_percent(row["accuracy"][name]) for name in _names(several)]
    return [row["defence"], row["draws"], *figures, f"{row['seconds_per_image']:.3g}"]


def _named(row: Result) -> list[Cell]:
    return [row["defence"], row["mode"]]


def _name(row: Result) -> str:
    return f"{row['defence']}, {row['mode']}, {row['attack']}"


def _radius(row: Result) -> str:
    steps = round(255 * row["eps"], 6)
    short = row["norm"] == "linf" and steps.is_integer() and steps < LEVELS
    return f"{row['norm']} " + (f"{steps:g}/255" if short else f"{row['eps']:.4g}")


def _kind(row: Result) -> str:
    """The figure that a mode is told by: who hands images in again needs one wrong draw."""
    return "worst" if MODES[row["mode"]].again else "average"


def _own(row: Result) -> float:
    return float(row["robust"][_kind(row)]["value"])


def _against(row: Result) -> str:
    """The attacker; where his figure is no average, what it is, and the clean one of its kind."""
    told = f"{row['mode']}, {row['attack']}"
    if _kind(row) == "average":
        return told
    clean = percent(row["clean"][_kind(row)]["value"])
    return f"{told} (the worst of {row['draws']} draws; {clean} of the clean images)"


def _doubt(row: Result) -> str:
    """Behind a figure that is not sound; nothing where nothing was to be checked."""
    verdict = row["health"]["verdict"]
    return f" ({verdict})" * (verdict != SOUND and bool(row["health"]["checks"]))


def _facts(result: Result) -> list[Fact]:
    facts = []
    for clean in result["clean"]:
        rows = [row for row in result["rows"] if row["defence"] == clean["defence"]]
        if not rows:
            continue
        lowest = min(rows, key=_own)
        before = percent(clean["accuracy"]["average"]["value"])
        note = f"{_against(lowest)}, {_radius(lowest)}; clean {before}"
        facts.append(Fact(clean["defence"], f"{percent(_own(lowest))}{_doubt(lowest)}", note))
    return facts


def _add_modes(report: Report, result: Result) -> None:
    used = dict.fromkeys(row["mode"] for row in result["rows"])
    report.heading("What each attacker knew")
    report.table(
        "The attack is the same in all modes; what it is allowed to see differs.",
        ("mode", "the attacker"),
        [[mode, KNOWS[mode]] for mode in MODES if mode in used],
    )
    for each in result["left_out"]:
        report.text(f"{each['defence']}, {each['mode']}: not run, {each['why']}.")


def _add_health(report: Report, result: Result) -> None:
    report.heading("Can the figures be believed?")
    for row in result["rows"]:
        found = row["health"]
        if not found["checks"]:
            continue
        report.table(
            f"{_name(row)}, {_radius(row)}: {in_words(found)}.",
            ("check", "status", "what was seen"),
            [
                [name.replace("_", " "), check["status"].replace("_", " "), check["words"]]
                for name, check in found["checks"].items()
            ],
        )


def _text(cell: Cell) -> str:
    return "n/a" if cell is None else str(cell)


def _footer() -> str:
    return f"advrad {__version__}. This page loads nothing from elsewhere."
