"""Charts show the numbers they were given; the axes are asked, not the eye."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from advrad.errors import MissingExtraError
from advrad.evaluate import figures
from advrad.evaluate.figures import loss_figure, roc_figure, scores_figure
from advrad.metrics import roc_curve

pytest.importorskip("matplotlib")
SCORES, LABELS = [0.1, 0.2, 0.35, 0.3, 0.5, 0.9], [0, 0, 0, 1, 1, 1]


@pytest.fixture
def axes(monkeypatch: pytest.MonkeyPatch) -> object:
    """The axes that the next chart is drawn on."""
    from matplotlib.figure import Figure

    drawn = Figure().add_subplot()
    monkeypatch.setattr(figures, "drawn", lambda draw: draw(drawn))
    return drawn


CHARTS: list[Callable[[], bytes]] = [
    lambda: roc_figure(SCORES, LABELS, 0.3),
    lambda: roc_figure(SCORES[:3], LABELS[:3], 0.3),
    lambda: scores_figure(SCORES, LABELS, {"NG": 0.3, "UNSURE <b>$x_{": 0.2}),
    lambda: scores_figure([], []),
    lambda: scores_figure([0.0, 0.0], [0, 1]),
    lambda: scores_figure(np.logspace(-3, 3, 900), np.arange(900) % 2),
    lambda: loss_figure([(step, 1 / (step + 1)) for step in range(5000)], [(0, 1.0), (9, 0.3)]),
    lambda: loss_figure([(0, 1.0)]),
    lambda: loss_figure([(0, 1.0), (1, float("nan")), (2, -1.0)]),
]


@pytest.mark.parametrize("chart", CHARTS)
def test_the_same_input_gives_the_same_svg(chart: Callable[[], bytes]) -> None:
    content = chart()
    assert ElementTree.fromstring(content).tag == "{http://www.w3.org/2000/svg}svg"
    assert content.startswith(b"<?xml")
    assert len(content) < 400_000
    assert content == chart()


def test_the_roc_line_is_the_roc_curve(axes: Any) -> None:
    roc_figure(SCORES, LABELS, 0.35)
    curve = roc_curve(SCORES, LABELS)
    lines = {line.get_label(): line.get_xydata() for line in axes.lines}
    (drawn,) = (points for name, points in lines.items() if name.startswith("AUROC 0.889"))
    assert curve is not None
    np.testing.assert_allclose(drawn, np.stack([curve.false_alarm, curve.detection], 1))
    (mark,) = (bars for bars in axes.containers if "threshold" in bars.get_label())
    np.testing.assert_allclose(mark[0].get_xydata(), [[1 / 3, 2 / 3]])


def test_each_image_has_one_dot_at_its_score(axes: Any) -> None:
    scores_figure(SCORES, LABELS, {"NG": 0.3})
    dots = {group.get_label(): np.asarray(group.get_offsets()) for group in axes.collections}
    assert sorted(dots["good"][:, 0]) == [0.1, 0.2, 0.35]
    assert sorted(dots["defect"][:, 0]) == [0.3, 0.5, 0.9]
    assert (np.abs(dots["good"][:, 1]) < 0.5).all()
    assert (np.abs(dots["defect"][:, 1] - 1) < 0.5).all()
    (line,) = axes.lines
    assert line.get_label() == "NG"
    assert list(line.get_xdata()) == [0.3, 0.3]


def test_equal_scores_do_not_hide_each_other(axes: Any) -> None:
    scores_figure([1.0] * 40 + [2.0], [0] * 40 + [1])
    good = next(group for group in axes.collections if group.get_label() == "good")
    assert len({tuple(dot) for dot in np.asarray(good.get_offsets())}) == 40


@pytest.mark.parametrize("top", [2.0, 1e4])
def test_a_histogram_counts_every_image(axes: Any, top: float) -> None:
    scores = np.geomspace(1, top, 1000)
    scores_figure(scores, np.arange(1000) < 700)
    counts = {
        bars[0].get_label(): sum(bar.get_height() for bar in bars) for bars in axes.containers
    }
    assert counts == {"defect": 700, "good": 300}
    assert [words.get_text() for words in axes.get_legend().get_texts()] == ["defect", "good"]
    assert axes.get_xscale() == ("log" if top > 30 else "linear")


def test_the_running_mean_equals_the_loop() -> None:
    values = np.random.default_rng(0).random(500)
    values[[3, 100, 101]] = np.nan
    expected = [np.nanmean(values[max(0, at - 5) : at + 6]) for at in range(500)]
    np.testing.assert_allclose(figures._running_mean(values), expected)
    assert np.isnan(figures._running_mean(np.full(3, np.nan))).all()


def test_drawing_leaves_no_trace() -> None:
    """No pyplot, no change of anybody's settings."""
    program = (
        "import sys, matplotlib\n"
        "names = sorted(set(matplotlib.rcParams) - {'backend'})\n"  # reading it would choose one
        "before = [matplotlib.rcParams[name] for name in names]\n"
        "from advrad.evaluate.figures import loss_figure\n"
        "loss_figure([(0, 1.0)])\n"
        "assert [matplotlib.rcParams[name] for name in names] == before\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_without_matplotlib_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"advrad\[report\]"):
        loss_figure([(0, 1.0)])
