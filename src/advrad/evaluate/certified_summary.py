"""What `advrad certify` says to people: always of the smoothed detector, always with its error."""

from pathlib import Path
from typing import Any

from .certificate import needs
from .certified import Prepared
from .certified_figures import chief, floored, sure

Result = dict[str, Any]


def announced(ready: Prepared) -> str:
    """How much is drawn, said before it starts."""
    ways, wanted = ready.ways, ready.wanted
    each = f"{wanted.samples:,} draws for each of {len(ready.images)} test images"
    first = f", and of {ready.calibrating} calibration images where that is not done"
    many = "" if len(ways) == 1 else f", {len(ways)} times over (sigma and scoring)"
    return f"certificate: {each}{first}{many}"


def finding(result: Result) -> str:
    """One sentence: the certified AUROC that stands for the result."""
    asked, found = result["settings"]["certificate"], chief(result)
    if found is None:
        return f"No AUROC can be certified: {result['why'] or 'too few draws'}."
    radius, area = found
    smoothed = next(row for row in result["rows"] if _same(row, area))["smoothed_auroc"]
    ways, clean = len(result["rows"]), result["clean_auroc"]
    plain = "n/a" if clean is None else f"{clean:.3f}"
    chosen = f", the best of {ways}" if ways > 1 else ""
    if not area["value"]:
        return (
            f"Nothing useful is certain: at l2 radius {radius:g} the smoothed detector's "
            f"certified image AUROC is 0. With nobody attacking it has {smoothed:.3f}, the "
            f"detector without smoothing {plain}."
        )
    return (
        f"No change of l2 norm up to {radius:g} brings the smoothed detector's image AUROC below "
        f"{floored(area['value'])} (probability of error {asked['alpha']:g}; sigma "
        f"{area['sigma']:g}, {area['scoring']}{chosen}). With nobody attacking it has "
        f"{smoothed:.3f}, the detector without smoothing {plain}."
    )


def _same(row: Result, area: Result) -> bool:
    return (row["sigma"], row["scoring"]) == (area["sigma"], area["scoring"])


def certified(result: Result, verdicts: list[Result], page: Path | None) -> str:
    """The lines of every sigma and scoring, and what was required."""
    lines = [finding(result)]
    for row in result["rows"]:
        lines += ["", *_lines(row)]
    lines += [f"n/a: {result['why']}"] if result["why"] else []
    if result["skipped"]:
        lines.append(f"{len(result['skipped'])} unreadable images left out")
    lines += [_gate(verdict) for verdict in verdicts]
    return "\n".join([*lines, *([f"report: {page}"] if page else [])])


def certified_gates(result: Result) -> Result:
    """What `--require` compares: the best of all sigmas, as it holds after such a choice."""
    smoothed = [row["smoothed_auroc"] for row in result["rows"]]
    areas = {
        f"certified_auroc@{radius}": area and area["value"]
        for radius, area in result["best"].items()
    }
    known = [value for value in smoothed if value is not None]
    return Gates(
        {
            "clean_auroc": result["clean_auroc"],
            "smoothed_auroc": max(known, default=None),
            **areas,
        }
    )


class Gates(dict[str, Any]):
    """A radius that was not asked for has no figure."""

    def __missing__(self, name: str) -> None:
        return None


def within(interval: list[float] | None) -> str:
    """A bootstrap interval in words; empty where there is none."""
    return f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else ""


def _lines(row: Result) -> list[str]:
    lines = [
        f"sigma {row['sigma']:g}, {row['scoring']}: {row['samples']:,} samples, "
        f"{row['seconds_per_image']:.1f} s an image"
    ]
    if row["smoothed_auroc"] is not None:
        interval = within(row["smoothed_auroc_ci"])
        lines.append(f"  smoothed AUROC            {row['smoothed_auroc']:.4f}{interval}")
    for radius, area in row["certified_auroc"].items():
        name = f"  certified at radius {radius:<5} "
        if radius in row["needed"]:
            lines.append(f"{name}n/a    {needs(row['needed'][radius])}")
            continue
        decided = row["certified"][radius]
        interval = within(row["certified_auroc_ci"][radius])
        told = "n/a    " if area is None else f"{floored(area, 4)}{interval}"
        lines.append(f"{name}{told}  {_shares(decided)}")
    lines.append(f"  abstains                  {row['abstained']:.1%}")
    if row["half"] is not None:
        lines.append(f"  at least 0.5 up to radius {floored(row['half'], 4)}")
    if row["lost"]:
        lines.append(f"  {row['lost']:,} draws were no finite number and widen the bounds")
    if row["calibration_lost"]:
        lines.append(
            f"  {row['calibration_lost']:,} draws of calibration images were no finite number and "
            "are in no median behind the threshold"
        )
    for radius, found in row.get("regions", {}).items():
        told = _regions(found) if found else f"n/a    {needs(row['regions_needed'][radius])}"
        lines.append(f"  regions at radius {radius:<7} {told}")
    return lines


def _shares(decided: Result | None) -> str:
    if decided is None:
        return "too few draws for any certain verdict"
    parts = []
    for key, words in (("defect", "of defects surely NG"), ("good", "of good ones surely OK")):
        if decided[key] is not None:
            parts.append(f"{sure(decided[key])} {words}")
    return ", ".join(parts)


def _regions(found: Result) -> str:
    parts = []
    if found["defect_above"] is not None:
        parts.append(f"{sure(found['defect_above'])} of defective blocks surely above")
    if found["good_below"] is not None:
        parts.append(f"{sure(found['good_below'])} of good ones surely below")
    return ", ".join([*parts, f"{found['good_above']} good ones surely above"])


def _gate(verdict: Result) -> str:
    value = "n/a" if verdict["value"] is None else f"{verdict['value']:.4f}"
    return f"{'holds' if verdict['holds'] else 'FAILS'}: {verdict['requirement']} ({value})"
