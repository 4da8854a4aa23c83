"""What `advrad attack` says to people; a suspect number never without that word beside it."""

from pathlib import Path
from typing import Any

from .attack_expected import Expected
from .attack_smallest import CLEAN
from .health import SUSPECT, in_words
from .lost import told
from .requirements import HARDLY
from .sections import seconds_in_words
from .threat import Threat

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
    search = ""
    if wanted.smallest is not None and expected.search is not None:
        search = (
            f"; the search for the smallest eps up to {number(wanted.smallest, wanted.norm)}: at "
            f"most {expected.search.gradients} and {expected.search.forwards}"
        )
    source = ""
    if any(expected.source):
        source = "; of the source {} and {}".format(*expected.source)
    return (
        f"suite {wanted.suite}: {gradients} evaluations with a gradient and {forwards} without, "
        f"an image{source}{search}; {expected.images} images{radii}: {time}"
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


def found_eps(eps: float, norm: str) -> str:
    """A radius that was searched, to three digits: in steps of 8 bits for linf."""
    if norm == "patch" or not eps:
        return number(eps, norm)
    return f"{255 * eps:.3g}/255" if norm == "linf" else f"{eps:.3g}"


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
        lines += ["", f"{radius(row)}, suite {row['suite']}, {passes(row)}"]
        lines += [_figure(result, row, name) for name in FIGURES if row[name] is not None]
        lines += [f"  {told(row['lost'])}"] if row.get("lost") else []
        lines += health(row)
    lines += searched(result)
    lines += ["", *([f"n/a: {result['why']}"] if result["why"] else [])]
    if result["skipped"]:
        lines.append(f"{len(result['skipped'])} unreadable images left out")
    lines += [_gate(verdict) for verdict in verdicts]
    return "\n".join([*lines, *([f"report: {page}"] if page else [])]).rstrip()


def passes(row: Result) -> str:
    """`89 passes an image`, and how many of them were the source's."""
    spent = sum(number for name, number in row["cost"].items() if name.startswith("source"))
    return f"{row['passes']} passes an image" + (f", {spent} of them the source's" * bool(spent))


def health(row: Result) -> list[str]:
    """The verdict with the checks that were not run, and the reasons of a suspect one."""
    found = row["health"]
    return [f"  health: {in_words(found)}", *(f"    {reason}" for reason in found["reasons"])]


def searched(result: Result) -> list[str]:
    """The smallest eps of each class, where it was searched."""
    if "search" not in result:
        return []
    search, norm = result["search"], result["settings"]["norm"]
    limit = found_eps(search["up_to"], norm)
    lines = ["", f"smallest eps that turns a verdict ({norm}), searched up to {limit}"]
    for name, words in (("defect", "defects missed"), ("good", "good ones called NG")):
        each = [one for one in result["smallest_eps"] if one["defect"] is (name == "defect")]
        if each:
            lines.append(f"  {words:<24} {spread(each, search['median'][name], norm)}")
            lines[-1] += distrust(result)
    return lines


def spread(found: list[Result], median: float | None, norm: str) -> str:
    """`median 1.2/255; 1 of 6 wrong without attack, 2 never`."""
    middle = "more than half stand" if median is None else f"median {found_eps(median, norm)}"
    clean = sum(one["why"] == CLEAN for one in found)
    never = sum(one["eps"] is None for one in found)
    return f"{middle}; of {len(found)} images {clean} wrong without attack, {never} never turned"


def distrust(result: Result) -> str:
    """` suspect`, where the health of any radius is: the search follows the same gradient."""
    doubts = [doubt(row) for row in result["rows"]]
    return next(filter(None, doubts), "")


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
    beside = f" {verdict['health']}" if verdict["health"] in (SUSPECT, HARDLY) else ""
    return f"{state}: {verdict['requirement']} ({value}{beside})"
