"""The report of an attack: curve, checks, pictures; and a page that is true."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_robustness import fitted
from toys import SETTINGS

from advrad.attacks import Linf
from advrad.attacks.strongest import SUITES, Part, Suite
from advrad.cli import main
from advrad.detectors import Autoencoder
from advrad.evaluate import curves
from advrad.evaluate.attack_gallery import remark, worth_seeing
from advrad.evaluate.attack_summary import finding
from advrad.evaluate.robustness import Assault

PAGE = Path(__file__).parent.parent / "docs" / "attacks.md"


def health(verdict: str = "sound") -> dict[str, Any]:
    return {"verdict": verdict, "reasons": [], "not_run": [], "checks": {}}


def line(eps: float, area: float | None, verdict: str = "sound") -> dict[str, Any]:
    return {
        "norm": "linf",
        "eps": eps,
        "robust_auroc": area,
        "robust_auroc_missed": area,
        "robust_auroc_false_alarm": area,
        **dict.fromkeys(
            ("robust_auroc_ci", "robust_auroc_missed_ci", "robust_auroc_false_alarm_ci"),
            None if area is None else (area - 0.1, area + 0.1),
        ),
        "miss_rate": None if area is None else 0.5,
        "false_alarm_rate": 0.25,
        "health": health(verdict),
    }


def result(*rows: dict[str, Any], **rest: Any) -> dict[str, Any]:
    return {
        "clean_auroc": 0.95,
        "clean_auroc_ci": (0.9, 0.98),
        "clean_miss_rate": 0.0,
        "clean_false_alarm_rate": 0.0,
        "images": {"good": 4, "defect": 6},
        "rows": list(rows),
        "settings": {"norm": "linf"},
    } | rest


class TestFinding:
    def test_the_smallest_radius_above_zero_is_told(self) -> None:
        rows = (line(4 / 255, 0.1), line(0.0, 0.95), line(2 / 255, 0.6))
        assert finding(result(*rows)) == (
            "Under changes of at most 2/255 (linf), image AUROC goes from 0.950 to 0.600 "
            "(95 % interval 0.50 to 0.70); 3 of 6 defects are missed and 1 of 4 good images are "
            "called NG (0 and 0 without attack)."
        )

    def test_every_number_of_a_suspect_row_says_so(self) -> None:
        words = finding(result(line(2 / 255, 0.95, "suspect")))
        assert "stays at 0.950 suspect (" in words
        assert "missed suspect and" in words
        assert "called NG suspect (" in words

    def test_good_images_alone(self) -> None:
        alone = result(line(0.1, None), images={"good": 4, "defect": 0}, clean_miss_rate=None)
        assert finding(alone) == (
            "Under changes of at most 0.1 (linf), 1 of 4 good images are called NG "
            "(0 without attack)."
        )


class TestCurve:
    @pytest.fixture
    def axes(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        from matplotlib.figure import Figure

        empty = Figure().add_subplot()
        monkeypatch.setattr(curves, "drawn", lambda draw: draw(empty))
        return empty

    def test_it_begins_with_the_clean_figure_and_is_in_order(self, axes: Any) -> None:
        curves.curve_figure({"": result(line(4 / 255, 0.1), line(0.0, 0.95), line(2 / 255, 0.6))})
        first = axes.lines[0]
        assert first.get_xdata() == pytest.approx([0, 2 / 255, 4 / 255])
        assert first.get_ydata() == pytest.approx([0.95, 0.6, 0.1])
        assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0/255", "2/255", "4/255"]

    def test_only_what_was_run_has_a_tick(self, axes: Any) -> None:
        curves.curve_figure({"": result(line(2 / 255, 0.6))})
        assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0/255", "2/255"]

    def test_radii_too_close_to_be_read_share_whole_steps(self, axes: Any) -> None:
        curves.curve_figure({"": result(*(line(n / 255, 0.5) for n in (1, 2, 32)))})
        labels = [tick.get_text() for tick in axes.get_xticklabels()]
        assert labels == [f"{n}/255" for n in range(0, 33, 4)]

    def test_the_legend_of_the_moves_covers_no_line(self, axes: Any) -> None:
        rows = [{"clean": 0.1, "attacked": 0.9, "defect": False}] * 2
        curves.moves_figure([*rows, rows[0] | {"attacked": None}], 1.0)
        axes.figure.canvas.draw()
        legend = axes.get_legend().get_window_extent()
        assert legend.y0 >= axes.get_window_extent().y1

    def test_a_suspect_point_is_hollow_and_named(self, axes: Any) -> None:
        curves.curve_figure({"A": result(line(2 / 255, 0.6, "suspect")), "B": result()})
        names = [text.get_text() for text in axes.get_legend().get_texts()]
        assert names == ["A (suspect)", "B"]
        hollow = [each for each in axes.lines if each.get_markerfacecolor() == "white"]
        assert list(hollow[0].get_ydata()) == [0.6]

    def test_too_few_images_for_an_interval(self, axes: Any) -> None:
        bare = line(2 / 255, 0.6) | {"robust_auroc_ci": None}
        curves.curve_figure({"A": result(bare, clean_auroc_ci=None), "B": result()})
        assert list(axes.lines[0].get_ydata()) == [0.95, 0.6]

    def test_verdicts_that_stand_step_down_where_they_turn(self, axes: Any) -> None:
        """Of four good ones one is wrong already, two turn at 0.1 and 0.3, one never."""
        good = [{"eps": eps, "defect": False} for eps in (0.3, None, 0.0, 0.1)]
        bad = [{"eps": None, "defect": True}]
        curves.standing_figure(
            {
                "search": {"up_to": 0.5},
                "settings": {"norm": "l2"},
                "smallest_eps": [*good, *bad],
            }
        )
        first, second = axes.lines
        assert list(first.get_xdata()) == [0, 0, 0.1, 0.3, 0.5]
        assert list(first.get_ydata()) == [1, 0.75, 0.5, 0.25, 0.25]
        assert list(second.get_ydata()) == [1, 1]
        assert first.get_drawstyle() == "steps-post"

    def test_marks_of_good_and_defective_images(self, axes: Any) -> None:
        rows = [{"clean": 1.0, "attacked": 3.0, "defect": False}]
        rows += [{"clean": 9.0, "attacked": 2.0, "defect": True}]
        curves.moves_figure(rows, 5.0)
        assert [each.get_offsets().tolist() for each in axes.collections] == [[[1, 3]], [[9, 2]]]


def row(clean: str, attacked: str, *, defect: bool, score: float = 1.0) -> dict[str, Any]:
    verdicts = {"verdict_clean": clean, "verdict_attacked": attacked}
    return verdicts | {"defect": defect, "attacked": score}


@pytest.mark.parametrize(
    ("clean", "attacked", "defect", "expected"),
    [
        ("NG", "OK", True, "missed under attack"),
        ("NG", "UNSURE", True, "missed under attack"),
        ("OK", "OK", True, "missed"),
        ("NG", "NG", True, ""),
        ("OK", "NG", False, "false alarm under attack"),
        ("NG", "NG", False, "false alarm"),
        ("OK", "UNSURE", False, ""),
    ],
)
def test_remarks(clean: str, attacked: str, *, defect: bool, expected: str) -> None:
    assert remark(row(clean, attacked, defect=defect)) == expected


def test_turned_verdicts_come_first_and_both_classes_are_shown() -> None:
    rows = [row("NG", "NG", defect=True, score=8.0 + i) for i in range(9)]
    rows += [row("NG", "OK", defect=True, score=4.0)]
    rows += [row("OK", "OK", defect=False, score=1.0 + i) for i in range(3)]
    rows += [row("OK", "NG", defect=False, score=6.0)]
    shown = worth_seeing(rows, 6)
    assert [r["attacked"] for r in shown] == [4.0, 6.0, 8.0, 9.0, 3.0, 2.0]
    assert len(worth_seeing(rows, 12)) == 12
    assert len(worth_seeing(rows[:10], 6)) == 6


@pytest.fixture(scope="module")
def folder(trained: Path, parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SUITES, "quick", Suite((Part("pgd", "log-sum-exp", 1, {"steps": 5}),)))
        out = tmp_path_factory.mktemp("attacked")
        words = ["--eps=2/255", "--eps=0.2", "--limit=6", "--out", str(out)]
        assert main(["attack", str(trained), str(parts), *words]) == 0
    return out


class TestPage:
    def test_it_opens_with_the_finding_and_shows_every_part(self, folder: Path) -> None:
        page = (folder / "report.html").read_text()
        found = json.loads((folder / "result.json").read_text())
        assert finding(found) in page
        for heading in ("What an attacker can do", "Figures", "Can the figures be believed?"):
            assert f">{heading}</h2>" in page
        assert page.count("<figure>") == 2 + 6 * 5
        assert page.count("image/svg+xml") == 2
        for check in found["rows"][0]["health"]["checks"]:
            assert page.count(f"<bdi>{check.replace('_', ' ')}</bdi>") >= 2
        assert "pgd log-sum-exp" in page

    def test_the_magnification_fills_the_scale(self, folder: Path) -> None:
        page = (folder / "report.html").read_text()
        [times] = re.findall(r"The change is shown ([\d.]+) times as large", page)
        assert float(times) == pytest.approx(0.5 / (2 / 255), rel=0.01)

    def test_smallest_radii_are_counted(self, folder: Path) -> None:
        found = json.loads((folder / "result.json").read_text())
        defects = [one for one in found["smallest_eps"] if one["defect"]]
        lost = sum(one["eps"] is not None for one in defects)
        page = (folder / "report.html").read_text()
        assert f"<td>{lost} of {len(defects)}</td>" in page
        shares = [each["miss_rate"] for each in found["rows"]]
        assert lost / len(defects) >= max(shares)


def test_the_table_of_suites_is_true() -> None:
    table = PAGE.read_text().split("<!-- suites -->")[1].split("<!-- end of suites -->")[0]
    shown = {
        name: tuple(int(number.replace(",", "")) for number in rest.split("|")[:4])
        for name, rest in re.findall(r"^\| `([a-z][a-z-]*)` \|(.*)\|$", table, re.MULTILINE)
    }
    detectors = fitted(depth=[30, 60, 90], draws=2), Autoencoder(**SETTINGS["autoencoder"]).eval()
    costs = {
        name: sum((Assault(each, Linf(0.1), suite).cost for each in detectors), ())
        for name, suite in SUITES.items()
    }
    assert shown == costs
    other = Assault(fitted(depth=[30, 60], draws=2), Linf(0.1), SUITES["strong"])
    assert other.cost.gradients == 12_800, "as the page says of two depths"
    transferred = replace(other, source=detectors[1]).source_cost
    assert transferred == (100, 2)
