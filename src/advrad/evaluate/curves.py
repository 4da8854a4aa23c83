"""Charts of an attack, as SVG: AUROC against the radius, scores before and under attack."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .figures import DEFECT, GOOD, INK, SOFT, drawn
from .health import SUSPECT
from .lost import lost

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = (GOOD, DEFECT, "#009e73", "#cc79a7", "#56b4e9", "#e69f00")  # Okabe and Ito
FEW = 6  # radii that each have a tick
SIDES = {"robust_auroc_missed": "defects lowered", "robust_auroc_false_alarm": "good ones raised"}


def curve_figure(results: Mapping[str, Mapping[str, Any]]) -> bytes:
    """The security curve: AUROC against eps with its 95 % band, a line for each result by name.

    A single result also shows what lowering defects and raising good images do alone. Suspect
    figures have hollow marks.
    """

    def draw(axes: "Axes") -> None:
        for colour, (name, result) in zip(COLOURS, results.items(), strict=False):
            _line(axes, result, "robust_auroc", colour, name or "both sides", band=True)
        if len(results) == 1:
            (result,) = results.values()
            for style, (key, words) in zip(("--", ":"), SIDES.items(), strict=True):
                _line(axes, result, key, INK, words, style=style)
        norm = next(iter(results.values()))["settings"]["norm"]
        run = sorted({point[0] for each in results.values() for point in _points(each)})
        _radii(axes, run[-1], norm, run)
        axes.set(ylim=(-0.02, 1.02), xlabel=_unit("radius of the attack", norm))
        axes.set_ylabel("image AUROC")
        axes.legend(loc="lower left")

    return drawn(draw)


def standing_figure(result: Mapping[str, Any]) -> bytes:
    """The share of images whose verdict stands, against eps: steps down, good ones and defects."""

    def draw(axes: "Axes") -> None:
        most, norm = result["search"]["up_to"], result["settings"]["norm"]
        for defect, name, colour, style in (
            (False, "good ones", GOOD, "-"),
            (True, "defects", DEFECT, "--"),
        ):
            each = [one["eps"] for one in result["smallest_eps"] if one["defect"] is defect]
            if not each:
                continue
            lost = np.sort([eps for eps in each if eps is not None and eps <= most])
            left = 1 - np.arange(len(lost) + 1) / len(each)
            axes.step(
                [0, *lost, most], [1, *left[1:], left[-1]], where="post",
                color=colour, linestyle=style, linewidth=2, label=f"{name} ({len(each)})",
            )  # fmt: skip
        _radii(axes, most, norm)
        axes.set(ylim=(-0.02, 1.02), xlabel=_unit("eps", norm))
        axes.set_ylabel("share whose verdict stands")
        axes.legend(loc="upper right")

    return drawn(draw)


def moves_figure(rows: Sequence[Mapping[str, Any]], threshold: float) -> bytes:
    """Each image's score under attack against its clean score, with the threshold of NG.

    An image whose score is no finite number under attack has no mark.
    """
    rows = [row for row in rows if not lost(row["attacked"])]

    def draw(axes: "Axes") -> None:
        values = [row[key] for row in rows for key in ("clean", "attacked")]
        low, high = min([*values, threshold]), max([*values, threshold])
        logarithmic = low > 0 and high / low > 30
        axes.axvline(threshold, color=INK, linewidth=1, linestyle="--")
        axes.axhline(threshold, color=INK, linewidth=1, linestyle="--", label="NG")
        axes.plot([low, high], [low, high], color=SOFT, linewidth=0.8, linestyle=":")
        for defect, name, colour, mark in (
            (False, "good", GOOD, "o"),
            (True, "defect", DEFECT, "D"),
        ):
            some = [row for row in rows if row["defect"] is defect]
            axes.scatter(
                [row["clean"] for row in some], [row["attacked"] for row in some], s=26,
                marker=mark, color=colour, alpha=0.75, linewidths=0, label=name, zorder=3,
            )  # fmt: skip
        if logarithmic:
            axes.set(xscale="log", yscale="log")
        axes.set(xlabel="score, nobody attacks", ylabel="score under attack")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3)  # no place inside is free

    return drawn(draw)


def _points(result: Mapping[str, Any], key: str = "robust_auroc") -> list[tuple[Any, ...]]:
    """eps, area, low, high, whether suspect; the clean figure at 0 first."""
    start = (0.0, result["clean_auroc"], *_band(result, "clean_auroc"), False)
    rest = [
        (row["eps"], row[key], *_band(row, key), row["health"]["verdict"] == SUSPECT)
        for row in result["rows"]
        if row["eps"] and row[key] is not None
    ]
    return [start, *sorted(rest)]


def _band(row: Mapping[str, Any], key: str) -> tuple[float, float]:
    """The interval; none with too few images."""
    low, high = row[f"{key}_ci"] or (np.nan, np.nan)
    return low, high


def _line(
    axes: "Axes",
    result: Mapping[str, Any],
    key: str,
    colour: str,
    name: str,
    *,
    style: str = "-",
    band: bool = False,
) -> None:
    points = _points(result, key)
    eps, area, low, high = np.array([point[:4] for point in points], np.float64).T
    doubtful = np.array([point[4] for point in points])
    width = 2 if band else 1.2
    label = f"{name} ({SUSPECT})" if doubtful.any() else name
    axes.plot(eps, area, color=colour, linewidth=width, linestyle=style, label=label, zorder=3)
    if band:
        axes.fill_between(eps, low, high, color=colour, alpha=0.15, linewidth=0)
    for some, face in ((doubtful, "white"), (~doubtful, colour)):
        axes.plot(
            eps[some], area[some], color=colour, marker="o", markersize=5 if band else 3.5,
            markerfacecolor=face, linestyle="none", zorder=4, clip_on=False,
        )  # fmt: skip


def _unit(words: str, norm: str) -> str:
    return f"{words}, {norm}" + (" (pixels a side)" if norm == "patch" else "")


def _radii(axes: "Axes", most: float, norm: str, run: Sequence[float] = ()) -> None:
    """Ticks as one writes a radius, linf in steps of 8 bits; where few were run, at these."""
    if 2 <= len(run) <= FEW and min(np.diff(run)) >= most / 10:
        axes.set_xticks(run)
    elif norm == "linf":
        ticks, places = axes.get_xticks(), _steps(most)
        axes.set_xticks(places if len(places) < 12 else list(ticks))
    if norm == "linf":
        axes.set_xticklabels([f"{255 * place:.3g}/255" for place in axes.get_xticks()])


def _steps(most: float) -> list[float]:
    """Ticks in whole steps of 8 bits, few enough to be read."""
    whole = max(1, round(255 * most))
    stride = next((s for s in (1, 2, 4, 8, 16, 32, 64) if whole / s <= 8), 64)
    return [place / 255 for place in range(0, whole + 1, stride)]
