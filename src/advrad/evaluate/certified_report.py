"""The report of a certificate: AUROC against the radius, and what is certain of each image."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data import Dataset
from ..model import Model
from .certificate import needs
from .certified_figures import floored, sure
from .certified_summary import finding
from .curves import COLOURS
from .figures import DEFECT, GOOD, drawn
from .report import Cell, Fact, Report
from .rows import RESULT, ROWS
from .sections import Chart, add_charts, add_settings, footer, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Result = dict[str, Any]
STYLES = ("-", "--", ":", "-.")
MEANING = (
    "What is certified is the smoothed detector: the median of the score over Gaussian noise "
    "around the image, with a threshold of its own. Whatever is done to an image within the "
    "radius, that median stays between its bounds. The radius is an l2 norm over all pixels, in "
    "the [0, 1] scale; an l_inf change of eps can have an l2 norm of eps times the square root of "
    "their number, so that a certificate in l2 says little about such a change."
)
CAPTION = (
    "Each line holds for all images together with the stated probability, at one radius. n/a: so "
    "few draws cannot bound it."
)


def write_certified_report(model: Model, dataset: Dataset, out: Path) -> Path:
    """Writes OUT/report.html from the results in OUT, and says where it is."""
    result = json.loads((out / RESULT).read_text())
    report = Report(f"advrad certify: {dataset.name}", finding(result), footer(model))
    add_certificate(report, out)
    add_settings(report, result["settings"])
    page = out / "report.html"
    report.write(page)
    return page


def add_certificate(report: Report, out: Path) -> None:
    """Key figures, charts and tables of the results in OUT."""
    result = json.loads((out / RESULT).read_text())
    rows = [json.loads(line) for line in (out / ROWS).read_text().splitlines()]
    tested = [row for row in rows if row["part"] == "test"]
    report.facts(_facts(result))
    report.heading("What no attack can change")
    report.text(MEANING)
    charts: list[Chart] = []
    alpha = result["settings"]["certificate"]["alpha"]
    if any(row["curve"]["radius"] for row in result["rows"]):
        charts.append(
            (
                lambda: curve_figure(result),
                "Certified image AUROC against the l2 radius, a line for each sigma and scoring.",
                "No attack within a radius brings AUROC below the line; each point of it holds by "
                f"itself, with error {alpha:g}. Dots: the AUROC of the medians with nobody "
                "attacking.",
            )
        )
    shown = result["rows"][0]  # the first that was asked for: a choice by results costs error
    own = [row for row in tested if _of(row) == _of(shown)]
    if any(row["radius"] is not None for row in own):
        charts.append(
            (
                lambda: radii_figure(own),
                "Share of images whose right verdict no change up to the radius can turn.",
                f"At the threshold of the smoothed detector, sigma {shown['sigma']:g}, "
                f"{shown['scoring']}.",
            )
        )
    add_charts(report, charts)
    _add_figures(report, result)
    _add_images(report, own, shown)


def curve_figure(result: Result) -> bytes:
    """Certified AUROC against the radius, a step for each sigma and scoring."""
    scorings = list(dict.fromkeys(row["scoring"] for row in result["rows"]))
    sigmas = list(dict.fromkeys(row["sigma"] for row in result["rows"]))

    def draw(axes: "Axes") -> None:
        for row in result["rows"]:
            colour = COLOURS[sigmas.index(row["sigma"]) % len(COLOURS)]
            style = STYLES[scorings.index(row["scoring"]) % len(STYLES)]
            name = f"sigma {row['sigma']:g}, {row['scoring']}"
            places, areas = row["curve"]["radius"], row["curve"]["auroc"]
            if places:
                axes.step(
                    [0.0, *places], [areas[0], *areas], where="pre",
                    color=colour, linestyle=style, linewidth=2, label=name,
                )  # fmt: skip
            axes.plot([0], [row["smoothed_auroc"]], "o", color=colour, clip_on=False)
        axes.axhline(0.5, color="#999999", linewidth=0.8)
        axes.set(ylim=(-0.02, 1.02), xlabel="l2 radius", ylabel="certified image AUROC")
        axes.set_xlim(left=0)
        axes.legend(loc="upper right")

    return drawn(draw)


def radii_figure(rows: Sequence[Result]) -> bytes:
    """Share of certified right verdicts against the radius, defects and good images."""

    def draw(axes: "Axes") -> None:
        for defect, right, name, colour in (
            (False, "OK", "good ones surely OK", GOOD),
            (True, "NG", "defects surely NG", DEFECT),
        ):
            some = [row for row in rows if row["defect"] is defect]
            if not some:
                continue
            held = sorted(row["radius"] for row in some if row["verdict"] == right)
            left = [(len(held) - i) / len(some) for i in range(len(held) + 1)]
            axes.step(
                [0.0, *held], left, where="post", color=colour, linewidth=2,
                label=f"{name} ({len(some)})",
            )  # fmt: skip
        axes.set(ylim=(-0.02, 1.02), xlabel="l2 radius", ylabel="share of images")
        axes.set_xlim(left=0)
        axes.legend(loc="upper right")

    return drawn(draw)


def _of(row: Result) -> tuple[float, str]:
    return row["sigma"], row["scoring"]


def _radius(pair: tuple[str, Any]) -> float:
    return float(pair[0])


def _facts(result: Result) -> list[Fact]:
    asked = result["settings"]["certificate"]
    facts = [Fact("image AUROC without noise", result["clean_auroc"])]
    for radius, area in sorted(result["best"].items(), key=_radius):
        if area:
            note = f"sigma {area['sigma']:g}, {area['scoring']}"
            shares = len(result["rows"]) * len(result["best"])
            note += (
                f"; each of {shares} has 1/{shares} of alpha, to be chosen from"
                if shares > 1
                else ""
            )
            facts.append(Fact(f"certified at radius {radius}", floored(area["value"]), note))
    note = "of each statement, all images together"
    facts.append(Fact("probability of error", f"{asked['alpha']:g}", note))
    images = result["images"]
    facts.append(Fact("images", f"{images['good']} good, {images['defect']} defective"))
    return facts


def _add_figures(report: Report, result: Result) -> None:
    report.table(
        "The smoothed detector with nobody attacking, and how far its AUROC is certain.",
        [
            "sigma",
            "scoring",
            "samples",
            "AUROC",
            "low",
            "high",
            "abstains",
            "0.5 up to",
            "s an image",
        ],
        [
            [
                *_name(row),
                f"{row['samples']:,}",
                row["smoothed_auroc"],
                *(row["smoothed_auroc_ci"] or [None, None]),
                percent(row["abstained"]),
                None if row["half"] is None else floored(row["half"], 4),
                round(row["seconds_per_image"], 2),
            ]
            for row in result["rows"]
        ],
    )
    report.table(
        f"Certified image AUROC. {CAPTION} Low and high: its 95 % bootstrap interval over images.",
        [
            "sigma",
            "scoring",
            "radius",
            "AUROC",
            "low",
            "high",
            "defects surely NG",
            "good surely OK",
        ],
        [_certified(row, r) for row in result["rows"] for r in row["certified_auroc"]],
    )
    if "regions" in result["rows"][0]:
        report.table(
            f"Blocks of {result['rows'][0]['block']} px of which it is certain on which side of "
            "their threshold the largest value stays; it is set on the largest blocks of the "
            "calibration images. All blocks of an image hold together.",
            ["sigma", "scoring", "radius", "defective, above", "good, below", "good, above"],
            [_blocks(row, r) for row in result["rows"] for r in row["regions"]],
        )
    if result["why"]:
        report.text(f"n/a: {result['why']}.")
    lost = sum(row["lost"] for row in result["rows"])
    if lost:
        report.text(f"{lost:,} draws were no finite number; each widens its image's bounds.")


def _name(row: Result) -> list[Cell]:
    return [f"{row['sigma']:g}", row["scoring"]]


def _certified(row: Result, radius: str) -> list[Cell]:
    if radius in row["needed"]:
        return [*_name(row), radius, needs(row["needed"][radius]), *[None] * 4]
    area, decided = row["certified_auroc"][radius], row["certified"][radius]
    shares = (decided["defect"], decided["good"]) if decided else (None, None)
    return [
        *_name(row),
        radius,
        None if area is None else floored(area),
        *(row["certified_auroc_ci"][radius] or [None, None]),
        *("n/a" if share is None else sure(share) for share in shares),
    ]


def _blocks(row: Result, radius: str) -> list[Cell]:
    found = row["regions"][radius]
    if found is None:
        return [*_name(row), radius, needs(row["regions_needed"][radius]), None, None]
    shares = (found["defect_above"], found["good_below"])
    told = (None if share is None else sure(share) for share in shares)
    return [*_name(row), radius, *told, found["good_above"]]


def _add_images(report: Report, rows: Sequence[Result], shown: Result) -> None:
    report.heading("Image by image")
    ordered = sorted(rows, key=lambda row: -1.0 if row["median"] is None else row["median"])
    report.table(
        f"Medians and verdicts at sigma {shown['sigma']:g}, {shown['scoring']}; threshold "
        f"{shown['threshold']:.4g}. The radius is how far the verdict holds.",
        ["image", "truth", "median", "verdict", "radius"],
        [
            [
                "/".join(Path(row["path"]).parts[-2:]),
                "defect" if row["defect"] else "good",
                row["median"],
                row["verdict"],
                None if row["radius"] is None else floored(row["radius"], 4),
            ]
            for row in ordered
        ],
    )
