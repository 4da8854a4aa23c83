"""`advrad demo`: one folder, one report; interrupted it goes on, finished it begins again."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from parts import TINY, run

from advrad.cli import main
from advrad.detectors._log import TrainingLog
from advrad.evaluate.rows import Rows

Capture = pytest.CaptureFixture[str]


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
    assert found == {"model", "result.json", "images.jsonl", "settings.json", "report.html"}
    assert json.loads((tmp_path / "demo" / "result.json").read_text()) == record
    page = (tmp_path / "demo" / "report.html").read_text()
    assert record["finding"] in page
    assert page.count("<h2") >= 4
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
    rows = interrupting(monkeypatch, Rows, "add", 5)
    assert demo(capsys, tmp_path / "demo")[0] == 130
    assert demo(capsys, tmp_path / "demo")[0] == 0
    assert len(steps) == 6
    assert len(rows) == 23


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
