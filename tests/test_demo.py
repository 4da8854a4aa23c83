"""`advrad demo`: one folder, one report; interrupted it goes on, finished it begins again."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from parts import TINY, run

from advrad.attacks.strongest import SUITES, Part, Suite
from advrad.certify import largest_shift
from advrad.cli import main
from advrad.diffusion.log import TrainingLog
from advrad.evaluate import demo as room
from advrad.evaluate import demo_certificate
from advrad.evaluate.attack_rows import Radius
from advrad.evaluate.certificate import Certificate
from advrad.evaluate.certified_rows import Work
from advrad.evaluate.demo_robustness import sentence
from advrad.evaluate.rows import Rows

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """An autoencoder, an attack and a certificate of a second; radius 0.2 needs more draws."""
    monkeypatch.setattr(demo_certificate, "SAMPLES", 60)
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
    assert found == files | {"model", "autoencoder", "robustness", "certificate"}
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
    check_certificate(record, tmp_path / "demo", page)
    code, again, err = demo(capsys, tmp_path / "demo")
    assert code == 0
    assert "made again" in err
    assert again["certificate"]["best"] == record["certificate"]["best"]
    assert again["image_auroc"] == record["image_auroc"]
    code, other, _ = demo(capsys, tmp_path / "demo", "--seed=1")
    assert code == 0
    assert other["settings"]["seed"] == 1


def check_certificate(record: Any, out: Path, page: str) -> None:
    found = record["certificate"]
    assert found["images"] == {"good": 6, "defect": 6}
    asked = {"sigmas": [0.12], "radii": [0.05, 0.1, 0.2], "scorings": ["matched"]}
    asked |= {"samples": 60, "alpha": 0.001, "block": 2}
    assert found["settings"]["certificate"] == asked
    lines = (out / "certificate" / "images.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    tested = {row["path"] for row in rows if row["part"] == "test"}
    attacked = record["robustness"]["advrad"]["smallest_eps"]
    assert tested == {row["path"] for row in attacked}, "what was attacked is certified"
    kept = json.loads((out / "certificate" / "result.json").read_text())
    assert kept == {key: value for key, value in found.items() if key != "seconds"}
    assert (out / "model" / "smoothing" / "0.12-matched").is_dir()
    assert demo_certificate.sentence(found) in record["finding"]
    needed = found["rows"][0]["needed"]
    assert list(needed) == ["0.2"]
    for words in ("What no attack can change", "Where a defect is certain", "surely NG"):
        assert words in page
    assert f"needs {needed['0.2']:,} samples" in page


def test_interrupted_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    steps = interrupting(monkeypatch, TrainingLog, "add", 2)
    code, record, _ = demo(capsys, tmp_path / "demo")
    assert code == 130
    assert "run the same command again" in record["error"]["message"]
    rows = interrupting(monkeypatch, Rows, "add", 5)
    assert demo(capsys, tmp_path / "demo")[0] == 130
    attacked = interrupting(monkeypatch, Radius, "_keep_image", 20)
    assert demo(capsys, tmp_path / "demo", "--batch-size=4")[0] == 130
    drawn = interrupting(monkeypatch, Work, "_drawn", 3)
    assert demo(capsys, tmp_path / "demo")[0] == 130
    assert demo(capsys, tmp_path / "demo")[0] == 0
    assert len(attacked) == 24
    assert len(drawn) == 12
    certificate = 12 + 8 + 12  # without noise, calibration, under noise
    assert len(rows) == 23 + 24 + certificate, "what was done is never done again"
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


def test_a_certificate_is_told_at_its_largest_radius() -> None:
    found = {
        "best": {"0.05": {"value": 0.9}, "0.1": {"value": 0.75}, "0.2": None},
        "settings": {"certificate": {"alpha": 0.001}},
        "why": None,
    }
    assert demo_certificate.sentence(found) == (
        "Whatever the attack, no change of l2 norm up to 0.1 of the same images brings that of "
        "the smoothed AdvRAD below 0.75 (certified, with probability of error 0.001)."
    )
    none = found | {"best": {"0.05": None}}
    assert demo_certificate.sentence(none) == "No AUROC can be certified: too few draws."


def test_the_draws_of_a_demo_are_enough_for_each_radius(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    asked = demo_certificate
    wanted = Certificate((asked.SIGMA,), asked.RADII, asked.SAMPLES, asked.ALPHA)
    assert wanted.impossible(room.IMAGES) == {}
    blocks = asked.ACROSS**2
    each = asked.ALPHA / room.IMAGES / 2 / blocks  # Holm's first step
    assert max(asked.RADII) / asked.SIGMA <= largest_shift(asked.SAMPLES, each)


def test_blocks_are_coloured_by_the_radius_up_to_which_they_are_certain(tmp_path: Path) -> None:
    planes = np.array([[[1, 1], [2, 0]], [[1, 0], [2, 0]], [[1, 0], [0, 0]]], np.uint8)
    (tmp_path / "regions").mkdir()
    np.save(tmp_path / "regions" / "ab-0.12-matched.npy", planes)
    row = {"sigma": 0.12, "samples": 9, "scoring": "matched", "sha256": "ab"}
    found = demo_certificate.certain(tmp_path, row)
    assert found.tolist() == [[3, 1], [0, 0]]
    assert demo_certificate.spread(found, 3, 2).tolist() == [[3, 3, 1], [3, 3, 1], [0, 0, 0]]


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
