"""`advrad calibrate`: thresholds from images that the model has not learnt from, or none."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from parts import TINY, make_parts, run
from PIL import Image

from advrad.cli import main
from advrad.images import fingerprint
from advrad.model import load

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """A flat folder of 30 good images that no model has seen."""
    folder, rng = tmp_path / "fresh", np.random.default_rng(1)
    folder.mkdir()
    for number in range(30):
        stripes = np.arange(20)[:, None] % 5 * 25 + rng.integers(40, 80, (20, 20))
        Image.fromarray(stripes.astype(np.uint8)).save(folder / f"{number:03}.png")
    return folder


def test_a_flat_folder_of_new_images_is_used_whole(
    model: Path, fresh: Path, capsys: Capture
) -> None:
    before = load(model)
    code, record, _ = run(capsys, "calibrate", model, fresh, "--level=0.05")
    assert code == 0
    found = record["calibration"]
    assert (found["count"], found["level"], found["approximate"]) == (30, 0.05, False)
    assert record["before"]["threshold"] == before.calibration.threshold
    after = load(model)
    assert set(after.seen["calibrate"]) == {fingerprint(path) for path in fresh.iterdir()}
    assert after.seen["train"] == before.seen["train"]
    assert after.calibration.threshold == pytest.approx(found["threshold"])
    assert after.secret == before.secret
    scores = np.array(after.calibration.scores)
    assert (scores >= after.calibration.threshold).sum() <= 0.05 * 31
    code, record, _ = run(capsys, "predict", model, fresh, "--seed=0")
    assert [row["score"] for row in record["images"]] == pytest.approx(
        sorted_back(after.calibration.scores, record), rel=1e-5
    )


def test_what_the_model_has_learnt_from_is_left_out(
    model: Path, parts: Path, fresh: Path, capsys: Capture
) -> None:
    for path in (parts / "train" / "good").iterdir():
        shutil.copy(path, fresh / f"old-{path.name}")
    code, record, _ = run(capsys, "calibrate", model, fresh)
    assert code == 0
    assert record["calibration"]["count"] == 30 + 3  # its own calibration images stay


def test_its_own_images_give_its_own_thresholds(model: Path, parts: Path, capsys: Capture) -> None:
    before = load(model).calibration
    code, record, _ = run(capsys, "calibrate", model, parts)
    assert code == 0
    assert record["calibration"]["threshold"] == pytest.approx(before.threshold, rel=1e-5)
    assert record["calibration"]["approximate"] is before.approximate is True


def test_a_given_depth_leaves_the_bound_exact(
    parts: Path, tmp_path: Path, capsys: Capture
) -> None:
    words = ["train", parts, tmp_path / "m", *TINY, "--set=depth=50"]
    assert run(capsys, *words)[1]["calibration"]["approximate"] is False


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--level=0.01"], 2, "needs at least 99"),
        (["--level=1.5"], 2, "between 0 and 1"),
        (["--limit=2", "--level=0.1"], 2, "there are 2"),
    ],
)
def test_a_failure_keeps_the_old_thresholds(
    words: list[str], code: int, said: str, model: Path, fresh: Path, capsys: Capture
) -> None:
    before = files(model)
    found, record, _ = run(capsys, "calibrate", model, fresh, *words)
    assert found == code
    assert said in record["error"]["message"]
    assert files(model) == before


def test_a_level_that_cannot_be_held_is_refused_before_the_scoring(
    model: Path, fresh: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("advrad.evaluate.recalibrate.scored")
    assert run(capsys, "calibrate", model, fresh, "--level=0.01")[0] == 2


def test_images_it_has_all_learnt_from_are_refused(
    model: Path, parts: Path, tmp_path: Path, capsys: Capture
) -> None:
    seen, before = load(model).seen, files(model)
    (tmp_path / "old").mkdir()
    for path in (parts / "train" / "good").iterdir():
        if fingerprint(path) in seen["train"]:
            shutil.copy(path, tmp_path / "old")
    code, record, _ = run(capsys, "calibrate", model, tmp_path / "old")
    assert (code, record["error"]["kind"]) == (3, "LeakError")
    assert files(model) == before


def test_without_a_model_or_images(model: Path, fresh: Path, tmp_path: Path) -> None:
    assert main(["calibrate", str(tmp_path / "none"), str(fresh)]) == 4
    (tmp_path / "empty").mkdir()
    assert main(["calibrate", str(model), str(tmp_path / "empty")]) == 3


def test_images_given_for_calibration_may_not_test(
    model: Path, tmp_path: Path, capsys: Capture
) -> None:
    root = make_parts(tmp_path / "other", train=3, good=3, defect=3)
    for number, path in enumerate(sorted((root / "train").rglob("*.png"))):
        with Image.open(path) as image:
            changed = image.copy()
        changed.putpixel((0, 0), number)
        changed.save(path)
    assert run(capsys, "calibrate", model, root)[0] == 0
    shutil.copy(root / "train" / "good" / "000.png", root / "test" / "good" / "copy.png")
    code, record, _ = run(capsys, "evaluate", model, root)
    assert (code, record["error"]["kind"]) == (3, "LeakError")


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def sorted_back(scores: tuple[float, ...], record: Any) -> list[float]:
    """The scores, which a calibration keeps in order, in the order of the rows."""
    ranks = np.argsort(np.argsort([row["score"] for row in record["images"]]))
    return [scores[rank] for rank in ranks]


def test_fewer_images_are_drawn_from_the_whole_folder_not_its_first(
    model: Path, fresh: Path, capsys: Capture
) -> None:
    code, record, _ = run(capsys, "calibrate", model, fresh, "--limit=20", "--level=0.05")
    assert code == 0
    assert record["calibration"]["count"] == 20
    first = {fingerprint(path) for path in sorted(fresh.iterdir())[:20]}
    assert set(load(model).seen["calibrate"]) != first


def test_thresholds_that_coincide_are_said_to_leave_no_room(
    model: Path, fresh: Path, capsys: Capture
) -> None:
    """With 3 images both levels take the highest score."""
    for path in sorted(fresh.iterdir())[3:]:
        path.unlink()
    assert main(["calibrate", str(model), str(fresh), "--level=0.25", "--unsure-level=0.3"]) == 0
    assert "UNSURE never" in capsys.readouterr().out
