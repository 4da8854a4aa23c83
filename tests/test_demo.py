"""`advrad demo`: one folder, one report; interrupted it goes on, finished it begins again."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from parts import TINY, run

from advrad.attacks.strongest import SUITES, Part, Suite
from advrad.cli import main
from advrad.detectors._log import TrainingLog
from advrad.evaluate import demo as room
from advrad.evaluate.attack_rows import Radius
from advrad.evaluate.demo_robustness import sentence
from advrad.evaluate.rows import Rows

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """An autoencoder and an attack of a second."""
    monkeypatch.setattr(room, "AUTOENCODER", {"steps": 2, "widths": [4, 8], "latent": 4})
    monkeypatch.setitem(SUITES, "quick", Suite((Part("pgd", "log-sum-exp", 1, {"steps": 2}),)))


def demo(capsys: Capture, out: Path, *words: str) -> tuple[int, Any, str]:
    return run(capsys, "demo", "--out", out, *TINY, *words)


def interrupting(monkeypatch: pytest.MonkeyPatch, home: type, name: str, at: int) -> list[None]:
    """Sends Ctrl-C at the call number `at` of a method; collects a mark a call."""
    method, calls = getattr(home, name), list[None]()

    def call(*arguments: Any) -> Any:
        calls.append(None)
        result = method(*arguments)
        if len(calls) == at:
            os.kill(os.getpid(), signal.SIGINT)
        return result

    monkeypatch.setattr(home, name, call)
    return calls


def test_it_is_made_and_made_again(tmp_path: Path, capsys: Capture) -> None:
    code, record, _ = demo(capsys, tmp_path / "demo")
    assert code == 0
    assert record["images"] == {"good": 6, "defect": 17}
    assert "of 17 stained hazelnuts" in record["finding"]
    assert record["seconds"] > record["training"]["seconds"] > 0
    found = {path.name for path in (tmp_path / "demo").iterdir()}
    files = {"result.json", "images.jsonl", "settings.json", "report.html"}
    assert found == files | {"model", "autoencoder", "robustness"}
    assert json.loads((tmp_path / "demo" / "result.json").read_text()) == record
    page = (tmp_path / "demo" / "report.html").read_text()
    assert record["finding"] in page
    assert page.count("<h2") >= 4
    both = record["robustness"]
    assert set(both) == {"advrad", "autoencoder"}
    for each in both.values():
        assert each["images"] == {"good": 6, "defect": 6}
        assert each["settings"]["height"] == 16
        assert [row["eps"] for row in each["rows"]] == [2 / 255]
        assert each["rows"][0]["health"]["verdict"] in ("sound", "suspect")
    assert (
        both["advrad"]["smallest_eps"][0]["path"] == both["autoencoder"]["smallest_eps"][0]["path"]
    )
    code, again, err = demo(capsys, tmp_path / "demo")
    assert code == 0
    assert "made again" in err
    assert again["image_auroc"] == record["image_auroc"]
    code, other, _ = demo(capsys, tmp_path / "demo", "--seed=1")
    assert code == 0
    assert other["settings"]["seed"] == 1


def test_interrupted_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    steps = interrupting(monkeypatch, TrainingLog, "add", 2)
    code, record, _ = demo(capsys, tmp_path / "demo")
    assert code == 130
    assert "run the same command again" in record["error"]["message"]
    interrupting(monkeypatch, Rows, "add", 5)
    assert demo(capsys, tmp_path / "demo")[0] == 130
    attacked = interrupting(monkeypatch, Radius, "_keep_image", 20)
    assert demo(capsys, tmp_path / "demo", "--batch-size=4")[0] == 130
    assert demo(capsys, tmp_path / "demo", "--batch-size=4")[0] == 0
    assert len(attacked) == 24
    assert len(steps) == 8


def test_other_settings_begin_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    interrupting(monkeypatch, TrainingLog, "add", 2)
    assert demo(capsys, tmp_path / "demo")[0] == 130
    code, record, err = demo(capsys, tmp_path / "demo", "--set=steps=3")
    assert code == 0
    assert "begins anew" in err
    assert record["settings"]["detector_settings"]["steps"] == 3


def test_a_folder_of_other_things_is_left_alone(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "thesis.tex").write_text("important")
    code, record, _ = demo(capsys, tmp_path)
    assert code == 2
    assert "thesis.tex" in record["error"]["message"]
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    assert main(["demo", "--out", str(tmp_path / "thesis.tex")]) == 2


def test_a_suspect_number_is_told_with_that_word() -> None:
    row = {"norm": "linf", "eps": 2 / 255, "robust_auroc": 0.9}
    found = {
        name: {
            "clean_auroc": 0.95,
            "images": {"good": 6, "defect": 6},
            "rows": [row | {"health": {"verdict": verdict}}],
        }
        for name, verdict in (("advrad", "suspect"), ("autoencoder", "sound"))
    }
    assert sentence(found) == (
        "Under an attack of 2/255 (linf) on 6 + 6 images, that of AdvRAD goes from 0.95 to 0.90 "
        "suspect and that of a plain autoencoder goes from 0.95 to 0.90."
    )


@pytest.mark.parametrize("result", [None, "mine", "{}", "[]"])
def test_a_foreign_report_is_not_taken_for_a_finished_demo(
    result: str | None, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "report.html").write_text("mine")
    if result is not None:
        (tmp_path / "result.json").write_text(result)
    code, record, _ = demo(capsys, tmp_path)
    assert (code, (tmp_path / "report.html").read_text()) == (2, "mine")
    assert "is no report of a demo" in record["error"]["message"]
    assert not (tmp_path / "model").exists()
