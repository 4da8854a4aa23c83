"""`advrad evaluate`: figures, gates, results that resume, images that must not be tested on."""

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from parts import DAMAGES, damage, make_parts, run

from advrad import metrics
from advrad.cli import main
from advrad.errors import UsageError
from advrad.evaluate.requirements import Requirement, judged
from advrad.evaluate.rows import Rows

Capture = pytest.CaptureFixture[str]
DESIGN = {
    *("image_auroc", "image_auroc_ci", "image_ap", "f1_max", "pixel_auroc", "pixel_auroc_ci"),
    *("pro", "miss_rate", "false_alarm_rate", "seconds_per_image", "images", "settings"),
    *("why", "beside", "verdicts", "skipped", "masks"),
}


def test_the_record(trained: Path, parts: Path, tmp_path: Path, capsys: Capture) -> None:
    code, record, _ = run(capsys, "evaluate", trained, parts, "--out", tmp_path / "e")
    assert code == 0
    assert set(record) == DESIGN
    assert record["images"] == {"good": 4, "defect": 5}
    assert json.loads((tmp_path / "e" / "result.json").read_text()) == record
    rows = [json.loads(line) for line in lines(tmp_path / "e")]
    scores, labels = [row["score"] for row in rows], [row["defect"] for row in rows]
    assert record["image_auroc"] == metrics.auroc(scores, labels)
    assert sum(record["verdicts"]["defect"].values()) == 5
    low, high = record["image_auroc_ci"]
    assert 0 <= low <= record["image_auroc"] <= high <= 1
    assert (tmp_path / "e" / "report.html").exists()


def test_without_out_nothing_is_kept(
    trained: Path, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", str(trained), str(parts)]) == 0
    assert list(tmp_path.iterdir()) == []


def test_without_defects_a_figure_is_null_and_says_why(
    trained: Path, tmp_path: Path, capsys: Capture
) -> None:
    root = make_parts(tmp_path / "parts", train=1, good=3, defect=0)
    for number, path in enumerate(sorted(root.rglob("*.png"))):
        repaint(path, number)
    code, record, _ = run(capsys, "evaluate", trained, root, "--require=image_auroc>=0.1")
    assert code == 1
    assert record["image_auroc"] is None
    assert "no defective test images" in record["why"]
    assert record["requirements"][0]["holds"] is False
    assert main(["evaluate", str(trained), str(root), "--out", str(tmp_path / "e")]) == 0
    assert (tmp_path / "e" / "report.html").exists()


def test_it_says_over_how_many_masks_the_figures_for_pixels_are(
    trained: Path, parts: Path, tmp_path: Path, capsys: Capture
) -> None:
    _, record, err = run(capsys, "evaluate", trained, parts)
    assert (record["masks"], "have masks" in err) == (5, False)
    root = Path(shutil.copytree(parts, tmp_path / "parts"))
    for number in (0, 2, 3):
        (root / "ground_truth" / "square" / f"{number:03}_mask.png").unlink()
    _, record, err = run(capsys, "evaluate", trained, root, "--out", tmp_path / "e")
    assert record["masks"] == 2
    assert record["pixel_auroc"] is not None
    assert "2 of 5 defects have masks: the figures for pixels are over these" in err
    assert "2 of 5 defects have masks" in (tmp_path / "e" / "report.html").read_text()


def test_limit_takes_half_of_each(trained: Path, parts: Path, capsys: Capture) -> None:
    _, record, _ = run(capsys, "evaluate", trained, parts, "--limit=4")
    assert record["images"] == {"good": 2, "defect": 2}


class TestRequirements:
    def test_they_decide_the_exit_code_after_all_is_said(
        self, trained: Path, parts: Path, capsys: Capture
    ) -> None:
        code, record, _ = run(
            capsys, "evaluate", trained, parts, "--require=image_auroc>=0", "--require=pro>1"
        )
        assert code == 1
        assert [row["holds"] for row in record["requirements"]] == [True, False]
        assert main(["evaluate", str(trained), str(parts), "--require=pro>1"]) == 1
        assert "FAILS: pro>1" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("words", "expected"),
        [
            ("image_auroc>=0.97", Requirement("image_auroc", ">=", 0.97)),
            ("miss_rate <= 1e-2", Requirement("miss_rate", "<=", 0.01)),
            ("pro>.5", Requirement("pro", ">", 0.5)),
        ],
    )
    def test_words(self, words: str, expected: Requirement) -> None:
        assert Requirement.parse(words) == expected

    @pytest.mark.parametrize("words", ["image_auroc", "pro>=nan", "pro=1", "imge_auroc>=1", ""])
    def test_wrong_words(self, words: str) -> None:
        with pytest.raises(UsageError, match=r"expected METRIC|did you mean image_auroc"):
            Requirement.parse(words)

    @pytest.mark.parametrize(
        ("sign", "value", "holds"),
        [
            (">=", 0.5, True),
            (">", 0.5, False),
            ("<=", 0.5, True),
            ("<", 0.5, False),
            (">=", None, False),
            ("<=", None, False),
        ],
    )
    def test_bounds(self, sign: str, value: float | None, holds: bool) -> None:
        assert judged([Requirement("pro", sign, 0.5)], {"pro": value})[0]["holds"] is holds


class TestResumption:
    def test_a_run_that_was_stopped_goes_on(
        self,
        trained: Path,
        parts: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: Capture,
    ) -> None:
        words = ["evaluate", trained, parts, "--batch-size=1", "--out"]
        _, whole, _ = run(capsys, *words, tmp_path / "whole")
        added, add = [], Rows.add

        def signalling(self: Rows, row: Any, anomaly: Any = None) -> None:
            add(self, row, anomaly)
            added.append(row["index"])
            if len(added) == 3:
                os.kill(os.getpid(), signal.SIGTERM)

        monkeypatch.setattr(Rows, "add", signalling)
        code, record, _ = run(capsys, *words, tmp_path / "e")
        assert code == 143
        assert "run the same command again" in record["error"]["message"]
        code, record, _ = run(capsys, *words, tmp_path / "e")
        assert code == 0
        assert added == list(range(9))
        for each in (record, whole):
            del each["seconds_per_image"]
        assert record == whole

    def test_a_row_cut_off_by_a_kill_is_made_again(
        self, trained: Path, parts: Path, tmp_path: Path, capsys: Capture
    ) -> None:
        words = ["evaluate", trained, parts, "--out", tmp_path / "e"]
        _, whole, _ = run(capsys, *words)
        rows = tmp_path / "e" / "images.jsonl"
        rows.write_bytes(rows.read_bytes()[:-20])
        (tmp_path / "e" / "result.json").unlink()
        _, record, _ = run(capsys, *words)
        assert record["image_auroc"] == whole["image_auroc"]
        assert record["pixel_auroc"] == pytest.approx(whole["pixel_auroc"])

    @pytest.mark.parametrize("name", ["report.html", "result.json", "images.jsonl"])
    def test_somebody_else_s_results_stay(
        self, name: str, trained: Path, parts: Path, tmp_path: Path, capsys: Capture
    ) -> None:
        (tmp_path / name).write_text("mine")
        code, record, _ = run(capsys, "evaluate", trained, parts, "--out", tmp_path)
        assert (code, (tmp_path / name).read_text()) == (2, "mine")
        assert f"holds {name}" in record["error"]["message"]
        assert [path.name for path in tmp_path.iterdir()] == [name]

    @pytest.mark.parametrize("text", ["mine", "[1]", "3", '{"a": 1}'])
    def test_settings_of_something_else_stay(
        self, text: str, trained: Path, parts: Path, tmp_path: Path, capsys: Capture
    ) -> None:
        (tmp_path / "settings.json").write_text(text)
        assert run(capsys, "evaluate", trained, parts, "--out", tmp_path)[0] == 2
        assert (tmp_path / "settings.json").read_text() == text

    def test_a_model_s_folder_and_a_file_are_no_place_for_results(
        self, model: Path, parts: Path, capsys: Capture
    ) -> None:
        before = sorted(model.rglob("*"))
        code, record, _ = run(capsys, "evaluate", model, parts, "--out", model)
        assert (code, sorted(model.rglob("*"))) == (2, before)
        assert "is a model's folder" in record["error"]["message"]
        card = model / "README.md"
        code, record, _ = run(capsys, "evaluate", model, parts, "--out", card)
        assert code == 2
        assert "is a file: results need a folder" in record["error"]["message"]

    def test_other_settings_are_refused(
        self, trained: Path, parts: Path, tmp_path: Path, capsys: Capture
    ) -> None:
        words = ["evaluate", trained, parts, "--out", tmp_path / "e"]
        assert run(capsys, *words)[0] == 0
        code, record, _ = run(capsys, *words, "--seed=1")
        assert code == 2
        assert "other settings (seed)" in record["error"]["message"]


class TestBadData:
    def test_an_image_that_the_model_has_seen(
        self, trained: Path, parts: Path, tmp_path: Path, capsys: Capture
    ) -> None:
        root = Path(shutil.copytree(parts, tmp_path / "parts"))
        shutil.copy(root / "train" / "good" / "003.png", root / "test" / "good" / "new.png")
        code, record, _ = run(capsys, "evaluate", trained, root, "--out", tmp_path / "e")
        assert (code, record["error"]["kind"]) == (3, "LeakError")
        assert "new.png" in record["error"]["message"]

    @pytest.mark.parametrize("kind", DAMAGES)
    def test_a_bad_image(
        self, kind: str, trained: Path, parts: Path, tmp_path: Path, capsys: Capture
    ) -> None:
        root = Path(shutil.copytree(parts, tmp_path / "parts"))
        bad = damage(root / "test" / "good", kind)
        code, record, _ = run(capsys, "evaluate", trained, root)
        assert code == 3
        assert bad.name in record["error"]["message"]
        words = ["--skip-bad", "--out", tmp_path / "e"]
        code, record, _ = run(capsys, "evaluate", trained, root, *words)
        assert code == 0
        assert [Path(path).name for path, _ in record["skipped"]] == [bad.name]
        assert record["images"] == {"good": 4, "defect": 5}

    def test_a_mask_of_another_size(
        self, trained: Path, parts: Path, tmp_path: Path, capsys: Capture
    ) -> None:
        from PIL import Image

        root = Path(shutil.copytree(parts, tmp_path / "parts"))
        mask = root / "ground_truth" / "square" / "002_mask.png"
        Image.new("L", (9, 9)).save(mask)
        code, record, _ = run(capsys, "evaluate", trained, root)
        assert code == 3
        assert "002_mask.png" in record["error"]["message"]

    def test_a_missing_model_is_told_first(self, tmp_path: Path, capsys: Capture) -> None:
        code, _, _ = run(capsys, "evaluate", tmp_path / "m", tmp_path / "none")
        assert code == 4


def repaint(path: Path, number: int) -> None:
    """Makes an image one that no model has seen."""
    from PIL import Image

    with Image.open(path) as image:
        changed = image.copy()
    changed.putpixel((0, 0), number)
    changed.save(path)


def lines(folder: Path) -> list[str]:
    return (folder / "images.jsonl").read_text().splitlines()
