"""What `advrad attack` says to people; a suspect number never without that word beside it."""

from pathlib import Path
from typing import Any

from .attacked import Expected, Threat
from .health import SUSPECT, UNCHECKED
from .sections import seconds_in_words

Result = dict[str, Any]
FIGURES = {  # name: its words, the clean figure beside it
    "robust_auroc": ("image AUROC, both sides", "clean_auroc"),
    "robust_auroc_missed": ("defects lowered only", "clean_auroc"),
    "robust_auroc_false_alarm": ("good ones raised only", "clean_auroc"),
    "robust_auroc_known_draw": ("known draw", "clean_auroc_known_draw"),
    "robust_auroc_resubmitted": ("resubmitted", "clean_auroc_resubmitted"),
    "pixel_auroc": ("pixel AUROC", "clean_pixel_auroc"),
    "miss_rate": ("defects missed", "clean_miss_rate"),
    "false_alarm_rate": ("good ones called NG", "clean_false_alarm_rate"),
}


def announced(wanted: Threat, expected: Expected) -> str:
    """What the suite costs and how long it will take, said before it starts."""
    gradients, forwards = expected.cost
    radii = "" if len(wanted.eps) == 1 else f", {len(wanted.eps)} radii"
    checks = ", and up to a quarter more for its checks" if wanted.health else ""
    time = (
        f"about {seconds_in_words(expected.seconds)}{checks}"
        if expected.seconds
        else "all of it is done"
    )
    return (
        f"suite {wanted.suite}: {gradients} evaluations with a gradient and {forwards} without, "
        f"an image; {expected.images} images{radii}: {time}"
    )


def finding(result: Result) -> str:
    """One sentence that says what the attack of the smallest radius found."""
    row = chief(result)
    where = f"Under changes of at most {radius(row)}"
    parts = []
    if row["robust_auroc"] is not None:
        clean, robust = result["clean_auroc"], row["robust_auroc"]
        moved = f"goes from {clean:.3f} to" if robust < clean else "stays at"
        within = between(row, "robust_auroc", 2)
        parts.append(
            f"image AUROC {moved} {robust:.3f}{doubt(row)}" + (f" ({within})" if within else "")
        )
    counts, before = [], []
    for key, kind, words in (
        ("miss_rate", "defect", "defects are missed"),
        ("false_alarm_rate", "good", "good images are called NG"),
    ):
        total = result["images"][kind]
        if row[key] is not None:
            counts.append(f"{round(row[key] * total)} of {total} {words}{doubt(row)}")
            before.append(str(round(result[f"clean_{key}"] * total)))
    parts.append(f"{' and '.join(counts)} ({' and '.join(before)} without attack)")
    return f"{where}, {'; '.join(parts)}."


def chief(result: Result) -> Result:
    """The row of the smallest radius above zero, or of zero where there is no other."""
    rows = sorted(result["rows"], key=lambda row: float(row["eps"]))
    return next((row for row in rows if row["eps"]), rows[0])


def radius(row: Result) -> str:
    """`2/255 (linf)`, and in pixels for a square."""
    return f"{number(row['eps'], row['norm'])} ({row['norm']})"


def number(eps: float, norm: str) -> str:
    """A radius as one would write it: in steps of 8 bits for linf, where it is such a step."""
    if norm == "patch":
        return f"{eps:g} px"
    steps = round(255 * eps, 9)
    short = steps.is_integer() or ((4 * steps).is_integer() and steps < 4)
    return f"{steps:g}/255" if norm == "linf" and eps and short else f"{eps:.4g}"


def doubt(row: Result) -> str:
    """` suspect`, where the checks say so; stands behind every number of the row."""
    return f" {SUSPECT}" if row["health"]["verdict"] == SUSPECT else ""


def between(row: Result, name: str, places: int = 3) -> str:
    """The interval of a figure in words; empty where it has none, or too few images for one."""
    interval = row.get(f"{name}_ci")
    if not interval:
        return ""
    return f"95 % interval {interval[0]:.{places}f} to {interval[1]:.{places}f}"


def attacked(result: Result, verdicts: list[Result], page: Path | None) -> str:
    """The lines of all radii, their health, and what was required."""
    lines = [finding(result)]
    for row in result["rows"]:
        lines += ["", f"{radius(row)}, suite {row['suite']}, {row['passes']} passes an image"]
        lines += [_figure(result, row, name) for name in FIGURES if row[name] is not None]
        lines += health(row)
    lines += ["", *([f"n/a: {result['why']}"] if result["why"] else [])]
    if result["skipped"]:
        lines.append(f"{len(result['skipped'])} unreadable images left out")
    lines += [_gate(verdict) for verdict in verdicts]
    return "\n".join([*lines, *([f"report: {page}"] if page else [])]).rstrip()


def health(row: Result) -> list[str]:
    """The verdict, the reasons of a suspect one, and the checks that were not run."""
    found = row["health"]
    lines = [f"  health: {found['verdict']}"]
    lines += [f"    {reason}" for reason in found["reasons"]]
    if found["not_run"] and found["verdict"] != UNCHECKED:
        lines.append(f"    not run: {', '.join(found['not_run'])}")
    return lines


def _figure(result: Result, row: Result, name: str) -> str:
    words, beside = FIGURES[name]
    clean = row.get(beside, result.get(beside))
    within = between(row, name)
    within = f"  ({within})" if within else ""
    before = "" if clean is None else f"  clean {clean:.4f}"
    return f"  {words:<24} {row[name]:.4f}{doubt(row)}{within}{before}"


def _gate(verdict: Result) -> str:
    value = "n/a" if verdict["value"] is None else f"{verdict['value']:.4f}"
    state = "holds" if verdict["holds"] else "FAILS"
    beside = f" {SUSPECT}" if verdict["health"] == SUSPECT else ""
    return f"{state}: {verdict['requirement']} ({value}{beside})"
