"""Charts of a report, as SVG: ROC curve, scores by class, loss curve.

Drawn by matplotlib's object interface, so no display, no global figure and no back end is chosen.
The same input gives the same bytes. Blue is good and vermilion is defective in every chart
(Okabe and Ito, 2008, https://jfly.uni-koeln.de/color/), and shapes tell them apart without colour.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import MissingExtraError
from ..metrics import (
    Floats,
    Values,
    auroc,
    checked,
    false_alarm_rate,
    interval,
    miss_rate,
    roc_band,
    roc_curve,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GOOD, DEFECT, INK, SOFT = "#0072b2", "#d55e00", "#24292f", "#8c959f"
STYLE: Any = {
    "axes.edgecolor": SOFT,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.axisbelow": True,
    "figure.facecolor": "white",
    "font.size": 9.5,
    "grid.color": "#e6e8eb",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "svg.hashsalt": "advrad",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
}
DOTS = 400  # up to so many images each has a dot, above a histogram is clearer
POINTS = 2000  # of a loss curve
SIZE = (5.2, 3.6)  # inches; one for all, so that charts line up


def roc_figure(scores: Values, labels: Values, threshold: float | None = None) -> bytes:
    """The ROC curve with its 95 % band, and the threshold with its exact 95 % intervals."""

    def draw(axes: "Axes") -> None:
        axes.plot([0, 1], [0, 1], color=SOFT, linewidth=0.8, linestyle=":")
        grid = np.linspace(0, 1, 201)
        curve, band = roc_curve(scores, labels), roc_band(scores, labels, grid)
        if curve is not None and band is not None:
            axes.fill_between(grid, *band, step="post", color=GOOD, alpha=0.15, linewidth=0)
            axes.plot(
                curve.false_alarm, curve.detection, color=GOOD, linewidth=2, clip_on=False,
                label=_area_label(scores, labels),
            )  # fmt: skip
            axes.legend(loc="lower right")
        if threshold is not None:
            _operating_point(axes, scores, labels, threshold)
        axes.set(
            xlim=(0, 1), ylim=(0, 1),
            xlabel="good images called NG", ylabel="defects called NG",
        )  # fmt: skip

    return drawn(draw)


def scores_figure(
    scores: Values, labels: Values, thresholds: Mapping[str, float] | None = None
) -> bytes:
    """Each image's score by class, with named thresholds; a histogram where images are many."""
    values, defect = checked(scores, labels)
    positive = bool(len(values)) and values.min() > 0
    logarithmic = positive and values.max() / values.min() > 30
    forward: Callable[[Floats], Floats] = np.log10 if logarithmic else np.asarray

    def draw(axes: "Axes") -> None:
        shown = forward(values)
        edges = np.histogram_bin_edges(shown, 48 if len(values) <= DOTS else 80)
        for part, name, colour, mark in (
            (defect, "defect", DEFECT, "D"),
            (~defect, "good", GOOD, "o"),
        ):
            if len(values) <= DOTS:
                _dots(axes, values[part], shown[part], edges, colour, mark, name)
            else:
                steps = 10**edges if logarithmic else edges
                axes.hist(values[part], bins=steps.tolist(), color=colour, alpha=0.55, label=name)
        for (name, place), line in zip(
            (thresholds or {}).items(), ("--", ":", "-."), strict=False
        ):
            axes.axvline(place, color=INK, linewidth=1.1, linestyle=line, label=name)
        if logarithmic:
            axes.set_xscale("log")
        _score_axes(axes, len(values) <= DOTS)

    return drawn(draw)


def loss_figure(
    losses: Sequence[tuple[int, float]], held_out: Sequence[tuple[int, float]] = ()
) -> bytes:
    """The loss at each step, on a logarithmic scale, with its running mean.

    `held_out` is the loss on images that were not trained on, where it was measured.
    """

    def draw(axes: "Axes") -> None:
        steps, values = _points(losses)
        thin = slice(None, None, max(1, len(steps) // POINTS))
        axes.plot(steps[thin], values[thin], color=GOOD, linewidth=0.6, alpha=0.3)
        axes.plot(
            steps[thin], _running_mean(values)[thin], color=GOOD, linewidth=1.8,
            label="training (running mean)",
        )  # fmt: skip
        if len(held_out):
            axes.plot(
                *_points(held_out), color=DEFECT, marker="o", markersize=3.5, label="held out"
            )
        axes.set_yscale("log")
        axes.set(xlabel="step", ylabel="loss")
        axes.legend(loc="upper right")

    return drawn(draw)


def _area_label(scores: Values, labels: Values) -> str:
    low, high = interval(auroc, scores, labels) or (0.0, 1.0)
    return f"AUROC {auroc(scores, labels):.3f}  [{low:.3f}, {high:.3f}]"


def _operating_point(axes: "Axes", scores: Values, labels: Values, threshold: float) -> None:
    missed = miss_rate(scores, labels, threshold)
    alarmed = false_alarm_rate(scores, labels, threshold)
    if missed is None or alarmed is None:
        return
    x, y = alarmed.value, 1 - missed.value
    axes.errorbar(
        x, y, clip_on=False, color=INK, marker="s", markersize=5, elinewidth=1, capsize=2.5,
        xerr=[[x - alarmed.low], [alarmed.high - x]],
        yerr=[[y - (1 - missed.high)], [1 - missed.low - y]],
        linestyle="none", label="threshold, exact 95 % intervals", zorder=3,
    )  # fmt: skip
    axes.legend(loc="lower right")


def _dots(
    axes: "Axes", values: Floats, shown: Floats, edges: Floats, colour: str, mark: str, name: str
) -> None:
    """A dot for each image at its score, stacked away from the line of its class."""
    places = np.digitize(shown, edges[1:-1])
    order = shown.argsort(kind="stable")
    height = np.zeros(len(values))
    for place in np.unique(places):
        members = order[places[order] == place]
        ranks = np.arange(len(members))
        height[members] = (ranks + 1) // 2 * np.where(ranks % 2, 1, -1)
    line = 1.0 if name == "defect" else 0.0
    spread = 0.38 / max(3.0, np.abs(height).max(initial=0))
    axes.scatter(
        values, line + spread * height, s=22, marker=mark, color=colour, alpha=0.75,
        linewidths=0, label=name,
    )  # fmt: skip


def _score_axes(axes: "Axes", dotted: bool) -> None:
    axes.set_xlabel("score")
    if dotted:
        axes.set_yticks([0, 1], ["good", "defect"])
        axes.set_ylim(-0.55, 1.55)
        axes.grid(visible=False, axis="y")
    else:
        axes.set_ylabel("images")
    handles, names = axes.get_legend_handles_labels()
    kept = [at for at, name in enumerate(names) if not (dotted and name in ("good", "defect"))]
    if kept:
        axes.legend(
            [handles[at] for at in kept], [names[at] for at in kept], ncols=4,
            loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0.2,
        )  # fmt: skip


def _points(losses: Sequence[tuple[int, float]]) -> tuple[Floats, Floats]:
    """Steps and losses; what a logarithmic scale cannot show is left out."""
    steps, values = np.asarray(losses, np.float64).reshape(-1, 2).T
    return steps, np.where(np.isfinite(values) & (values > 0), values, np.nan)


def _running_mean(values: Floats) -> Floats:
    """The mean over a window of a fiftieth of the curve, shorter at both ends; holes left out."""
    reach = max(1, len(values) // 100)
    total = np.concatenate([[0.0], np.nan_to_num(values).cumsum()])
    count = np.concatenate([[0], np.isfinite(values).cumsum()])
    first = np.maximum(np.arange(len(values)) - reach, 0)
    last = np.minimum(np.arange(len(values)) + reach + 1, len(values))
    held = (count[last] - count[first]).astype(np.float64)
    return (total[last] - total[first]) / np.where(held == 0, np.nan, held)


def drawn(draw: Callable[["Axes"], None]) -> bytes:
    """What `draw` puts on empty axes, as SVG."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("a report", "report") from error
    with rc_context(STYLE), io.BytesIO() as buffer:
        figure = Figure(figsize=SIZE, layout="constrained")
        draw(figure.add_subplot())
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
        return buffer.getvalue()
