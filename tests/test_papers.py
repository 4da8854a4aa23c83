"""The papers' tables: what their own means say of the figures, the marks, and ours beside them."""

import json
from pathlib import Path
from statistics import mean
from typing import Any

import pytest

from advrad.cli import main
from advrad.data.cifar import CLASSES
from advrad.detectors import ALL
from advrad.evaluate import papers
from advrad.evaluate.papers import MEAN, NAMES, beside, facts, markdown

TABLES = facts()["table"]
MVTEC = [
    *("carpet", "grid", "leather", "tile", "wood", "bottle", "cable", "capsule", "hazelnut"),
    *("metal_nut", "pill", "screw", "toothbrush", "transistor", "zipper"),
]


def figure(data: str, method: str, column: str, **more: Any) -> dict[str, Any]:
    plain = {"value": 0.5, "deviation": None, "low": 0.4, "high": 0.6, "health": "", "error": None}
    return {"data": data, "detector": method, "method": method, "column": column} | plain | more


@pytest.mark.parametrize("part", ["robust", "clean"])
@pytest.mark.parametrize("table", TABLES, ids=lambda table: table["name"])
def test_the_printed_means_are_those_of_the_rows_but_for_marked_misprints(
    table: dict[str, Any], part: str
) -> None:
    if part not in table:
        return
    marked = {place.partition(".")[2] for place in table["marks"]}
    for place, method in enumerate(table["methods"]):
        rows = [values[place] for row, values in table[part].items() if row != MEAN]
        if method not in marked:
            assert mean(rows) == pytest.approx(table[part][MEAN][place], abs=0.06)


def test_the_marked_misprints_are_what_the_means_need() -> None:
    """With 98.4 for Cable and 0 for Screw, as the marks say, the printed means are met."""
    linf, l2 = TABLES[0], TABLES[1]
    at = linf["methods"].index("fastflow")
    clean = [98.4 if r == "cable" else v[at] for r, v in linf["clean"].items() if r != MEAN]
    assert mean(clean) == pytest.approx(linf["clean"][MEAN][at], abs=0.05)
    for table in (linf, l2):
        robust = [0.0 if r == "screw" else v[at] for r, v in table["robust"].items() if r != MEAN]
        assert mean(robust) == pytest.approx(table["robust"][MEAN][at], abs=0.06)


def test_rows_methods_and_marks_are_known() -> None:
    for table in TABLES:
        rows = list(table["robust"])
        assert rows[-1] == MEAN
        assert sorted(rows[:-1]) == sorted(MVTEC if table["data"] == "mvtec" else CLASSES)
        for part in ("robust", "clean"):
            for values in table.get(part, {}).values():
                assert len(values) == len(table["methods"])
                assert all(0 <= value <= 100 for value in values)
        assert set(table["methods"]) <= NAMES.keys()
        for place in table["marks"]:
            row, _, method = place.partition(".")
            assert row in rows
            assert method in table["methods"]
    assert {"spade", "cflow", "fastflow", "cfa", "advrad"} <= ALL.keys() & NAMES.keys()


@pytest.mark.parametrize(
    ("data", "method", "column", "value", "of"),
    [
        ("hazelnut_toy", "advrad", "linf 2/255, quick", 0.805, "FreeRAD, Table 2, mean"),
        ("hazelnut_toy", "advrad", "l2 0.2, quick", 0.888, "FreeRAD, Table 3, mean"),
        ("elpv-mono", "cfa", "clean", 0.992, "FreeRAD, Table 2, mean"),
        ("datasets/mvtec/pill", "advrad", "clean", 0.972, "FreeRAD, Table 2, pill"),
        ("datasets/mvtec/pill", "advrad", "linf 0.00784313725, x", 0.39, "FreeRAD, Table 2, pill"),
        ("cifar10/cat", "cfa", "l2 0.2, quick", 0.013, "FreeRAD, Table 14, right, cat"),
        ("cifar10/cat", "fastflow", "clean", 0.456, "FreeRAD, Table 14, left, cat"),
    ],
)
def test_what_a_figure_of_ours_stands_beside(
    data: str, method: str, column: str, value: float, of: str
) -> None:
    [row] = beside([figure(data, method, column)])
    assert row["papers"] == pytest.approx(value)
    assert row["papers_of"] == of


@pytest.mark.parametrize(
    ("method", "column"),
    [
        ("patchcore", "clean"),
        ("advrad", "l2 2.0, quick"),
        ("advrad", "linf 4/255, quick"),
        ("advrad", "certified, sigma 0.12, radius 0.2"),
    ],
)
def test_nothing_stands_beside_what_the_papers_do_not_have(method: str, column: str) -> None:
    assert beside([figure("elpv-mono", method, column)])[0]["papers"] is None


def test_a_marked_figure_is_never_shown_without_its_mark() -> None:
    [row] = beside([figure("mvtec/cable", "fastflow", "clean")])
    assert "misprint" in row["papers_of"]
    page = markdown([])
    assert (
        "| cable | 0 (71.5) | 0 (84.8) | 0 (98.7) | 0 (67.4)* | 0.8 (99.8) | 38.9 (79.5) |" in page
    )
    assert "- * cable, FastFlow: misprint" in page
    assert "FreeRAD, Table 13" in page


def test_the_command_prints_the_papers_and_ours(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["benchmark", "--papers"]) == 0
    alone = capsys.readouterr().out
    assert "FreeRAD, Table 14, left" in alone
    assert "## What differs" in alone
    assert "Ours: give a grid's folder" in alone
    ours = [
        figure("elpv-mono", "advrad", "clean", value=0.93, low=0.9, high=0.95),
        figure("elpv-mono", "advrad", "linf 2/255, quick", value=0.7, health="sound"),
        figure("elpv-mono", "patchcore", "clean"),
        figure("elpv-mono", "patchcore", "linf 2/255, quick", value=None, error="lost"),
    ]
    (tmp_path / "result.json").write_text(json.dumps({"name": "g", "figures": ours}))
    assert main(["benchmark", "--papers", "--out", str(tmp_path)]) == 0
    page = capsys.readouterr().out
    assert "| detector | ours: clean | papers | ours: linf 2/255, quick | papers |" in page
    assert "| advrad | 0.930 (0.90 to 0.95) | 0.957 | 0.700 (0.40 to 0.60) sound | 0.805 |" in page
    assert "| patchcore | 0.500 (0.40 to 0.60) | n/a | failed | n/a |" in page
    assert main(["benchmark", "--papers", "--out", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found.keys() == {"papers", "beside", "differs"}
    assert len(found["beside"]) == 4


def test_what_is_asked_wrongly_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark"]) == 2
    assert "GRID.toml --out DIR" in capsys.readouterr().err
    assert main(["benchmark", "grid.toml", "--papers"]) == 2
    assert main(["benchmark", "--papers", "--out", str(tmp_path)]) == 3
    assert "holds no figures of a grid" in capsys.readouterr().err
    for content in ("{}", '{"figures": [{"data": "d", "value": 0.5}]}', '{"figures": [3]}'):
        (tmp_path / "result.json").write_text(content)
        assert main(["benchmark", "--papers", "--out", str(tmp_path)]) == 3


def test_the_facts_come_with_the_package() -> None:
    assert papers.FACTS.parent.name == "evaluate"
    assert papers.FACTS.is_file()
