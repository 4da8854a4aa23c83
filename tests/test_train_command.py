"""`advrad train`: what it writes and says, and that bad input costs nothing but a message."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from parts import DAMAGES, TINY, damage, make_parts, run

from advrad import files
from advrad.cli import main
from advrad.diffusion.batches import DrawnLoss
from advrad.model import load

Capture = pytest.CaptureFixture[str]


def train(capsys: Capture, root: Path, folder: Path, *words: str) -> tuple[int, Any, str]:
    return run(capsys, "train", root, folder, *TINY, *words)


def test_the_record(parts: Path, tmp_path: Path, capsys: Capture) -> None:
    code, record, err = train(capsys, parts, tmp_path / "m", "--seed=3")
    assert code == 0
    assert record["images"] == {"train": 9, "tune": 3, "calibrate": 3}
    assert record["calibration"]["level"] == pytest.approx(1 / 4)
    assert record["settings"]["seed"] == 3
    assert record["settings"]["detector_settings"]["widths"] == [4, 8]
    shape = [record["settings"][name] for name in ("channels", "height", "width", "draws")]
    assert shape == [1, 16, 16, 1]
    assert record["chosen"][0]["name"] == "depth"
    assert "9 train, 3 tune and calibrate" in err
    assert "seen at 16 x 16" in err
    assert "parameters" in err
    model = load(tmp_path / "m")
    assert model.calibration.threshold == pytest.approx(record["calibration"]["threshold"])
    assert Path(record["report"]).read_text().startswith("<!DOCTYPE html>")


def test_the_same_words_make_the_same_model(parts: Path, trained: Path, tmp_path: Path) -> None:
    assert main(["train", str(parts), str(tmp_path / "m"), *TINY]) == 0
    assert weights(tmp_path / "m") == weights(trained)
    assert main(["train", str(parts), str(tmp_path / "n"), *TINY, "--seed=1"]) == 0
    assert weights(tmp_path / "n") != weights(trained)


def test_a_model_in_the_way_stays(model: Path, parts: Path, capsys: Capture) -> None:
    before = weights(model)
    code, record, _ = train(capsys, parts, model, "--seed=1")
    assert (code, weights(model)) == (2, before)
    assert "--overwrite" in record["error"]["message"]
    assert train(capsys, parts, model, "--seed=1", "--overwrite")[0] == 0
    assert weights(model) != before


def test_a_folder_of_something_else_is_no_place_for_a_model(
    parts: Path, tmp_path: Path, capsys: Capture
) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "README.md").write_text("mine")
    for words in ([], ["--resume"]):
        code, record, _ = train(capsys, parts, own, *words)
        assert (code, [path.name for path in own.iterdir()]) == (2, ["README.md"])
        assert "README.md" in record["error"]["message"]
    assert (own / "README.md").read_text() == "mine"
    code, record, _ = train(capsys, parts, own / "README.md")
    assert code == 2
    assert "is a file" in record["error"]["message"]


def test_a_note_beside_an_unfinished_training_does_no_harm(
    parts: Path, trained: Path, tmp_path: Path, capsys: Capture
) -> None:
    folder = tmp_path / "m"
    assert train(capsys, parts, folder)[0] == 0
    (folder / "manifest.json").unlink()
    (folder / "notes.txt").write_text("mine")
    assert train(capsys, parts, folder, "--resume")[0] == 0
    assert weights(folder) == weights(trained)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--set=dept=3"], 2, "did you mean depth?"),
        (["--set=size=17"], 2, "multiple of"),
        (["--detector=advard"], 2, "did you mean advrad?"),
        (["--device=tpu"], 2, "expected one of cpu"),
        (["--level=0.01"], 2, "needs at least 99 held-out good images"),
        (["--level=0.5", "--unsure-level=0.3"], 2, "below that of NG"),
        (["--layout=visa"], 3, "not laid out as visa"),
        (["--category=nut"], 3, "leave the category out"),
    ],
)
def test_wrong_words_are_refused_before_anything_is_learnt(
    words: list[str], code: int, said: str, parts: Path, tmp_path: Path, capsys: Capture
) -> None:
    found, record, _ = train(capsys, parts, tmp_path / "m", *words)
    assert found == code
    assert said in record["error"]["message"]
    assert not (tmp_path / "m").exists()


def test_levels_are_held(parts: Path, tmp_path: Path, capsys: Capture) -> None:
    levels = ["--level=0.3", "--unsure-level=0.6"]
    code, record, _ = train(capsys, parts, tmp_path / "m", *levels)
    assert code == 0
    assert (record["calibration"]["level"], record["calibration"]["unsure_level"]) == (0.3, 0.6)
    assert record["calibration"]["unsure"] < record["calibration"]["threshold"]


class TestBadData:
    def test_no_folder(self, tmp_path: Path, capsys: Capture) -> None:
        code, record, _ = train(capsys, tmp_path / "none", tmp_path / "m")
        assert (code, record["error"]["kind"]) == (3, "DataError")

    def test_an_empty_folder(self, tmp_path: Path, capsys: Capture) -> None:
        (tmp_path / "empty").mkdir()
        code, record, _ = train(capsys, tmp_path / "empty", tmp_path / "m")
        assert code == 3
        assert "is empty" in record["error"]["message"]

    def test_no_good_images(self, tmp_path: Path, capsys: Capture) -> None:
        root = make_parts(tmp_path / "parts", train=0, good=0)
        (root / "train" / "good").mkdir(parents=True)
        code, _, _ = train(capsys, root, tmp_path / "m")
        assert code == 3

    @pytest.mark.parametrize("kind", DAMAGES)
    def test_a_bad_image_is_named_or_left_out_and_counted(
        self, kind: str, tmp_path: Path, capsys: Capture
    ) -> None:
        root = make_parts(tmp_path / "parts", good=1, defect=0)
        bad = damage(root / "train" / "good", kind)
        code, record, _ = train(capsys, root, tmp_path / "m")
        assert code == 3
        assert bad.name in record["error"]["message"]
        code, record, err = train(capsys, root, tmp_path / "m", "--skip-bad", "--overwrite")
        assert code == 0
        assert [Path(path).name for path, _ in record["skipped"]] == [bad.name]
        assert sum(record["images"][part] for part in ("train", "calibrate")) == 12
        assert "1 unreadable ones left out" in err

    def test_mixed_sizes_and_channels(self, tmp_path: Path, capsys: Capture) -> None:
        from PIL import Image

        root = make_parts(tmp_path / "parts", good=1, defect=0)
        Image.new("RGBA", (31, 9), "red").save(root / "train" / "good" / "other.png")
        code, record, _ = train(capsys, root, tmp_path / "m")
        assert (code, record["settings"]["channels"]) == (0, 3)

    def test_a_name_that_is_no_utf8(self, tmp_path: Path, capsys: Capture) -> None:
        root = make_parts(tmp_path / "parts", good=2, defect=2)
        (root / "train" / "good" / "003.png").rename(
            root / "train" / "good" / os.fsdecode(b"caf\xe9.png")
        )
        (root / "test" / "good" / "001.png").rename(
            root / "test" / "good" / os.fsdecode(b"\xe9.png")
        )
        assert train(capsys, root, tmp_path / "m")[0] == 0
        assert run(capsys, "evaluate", tmp_path / "m", root, "--out", tmp_path / "e")[0] == 0
        assert run(capsys, "evaluate", tmp_path / "m", root, "--out", tmp_path / "e")[0] == 0


class TestTrouble:
    def test_a_loss_that_is_no_number_keeps_the_last_good_step(
        self, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
    ) -> None:
        loss = DrawnLoss.__call__
        monkeypatch.setattr(
            DrawnLoss, "__call__", lambda self, n: loss(self, n) * (torch.nan if n == 4 else 1)
        )
        code, record, _ = train(capsys, parts, tmp_path / "m")
        assert code == 4
        assert record["error"]["kind"] == "DivergedError"
        assert "step 4" in record["error"]["message"]
        log = (tmp_path / "m" / "training" / "log.jsonl").read_text().splitlines()
        assert [json.loads(line)["step"] for line in log] == [1, 2, 3]
        monkeypatch.undo()
        assert train(capsys, parts, tmp_path / "m", "--resume")[0] == 0

    def test_a_full_disk_keeps_the_old_model(
        self, model: Path, parts: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
    ) -> None:
        before = {path.name: path.read_bytes() for path in model.iterdir() if path.is_file()}
        write, full = files.os.fdopen, OSError(errno.ENOSPC, "No space left on device")

        def fail(handle: int, *rest: Any) -> Any:
            if ".model.safetensors." in str(Path(f"/proc/self/fd/{handle}").readlink()):
                os.close(handle)
                raise full
            return write(handle, *rest)

        monkeypatch.setattr(files.os, "fdopen", fail)
        code, record, _ = train(capsys, parts, model, "--overwrite", "--seed=1")
        monkeypatch.undo()
        assert code == 5
        assert "the disk is full" in record["error"]["message"]
        assert {p.name: p.read_bytes() for p in model.iterdir() if p.is_file()} == before
        load(model)
        assert train(capsys, parts, model, "--resume", "--seed=1")[0] == 0

    def test_out_of_memory_says_what_to_lower(
        self, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
    ) -> None:
        def fail(self: Any, number: int) -> None:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried")

        monkeypatch.setattr(DrawnLoss, "__call__", fail)
        code, record, _ = train(capsys, parts, tmp_path / "m")
        assert code == 5
        assert "--set batch=" in record["error"]["message"]


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def test_resuming_a_finished_training_makes_the_same_model_again_and_keeps_its_secret(
    model: Path, parts: Path, capsys: Capture
) -> None:
    before = load(model)
    capsys.readouterr()
    assert main(["train", str(parts), str(model), *TINY, "--resume"]) == 0
    assert "is trained already" in capsys.readouterr().err
    after = load(model)
    assert after.secret == before.secret
    assert after.calibration == before.calibration
    for name, value in before.detector.state_dict().items():
        assert torch.equal(value, after.detector.state_dict()[name]), name


def test_resuming_does_not_undo_thresholds_that_were_set_anew(
    model: Path, parts: Path, capsys: Capture
) -> None:
    assert main(["calibrate", str(model), str(parts), "--level=0.5"]) == 0
    before = (model / "calibration.json").read_bytes()
    capsys.readouterr()
    code, _, err = run(capsys, "train", parts, model, *TINY, "--resume")
    assert code == 2
    assert "set anew by `advrad calibrate`" in err
    assert (model / "calibration.json").read_bytes() == before


def test_images_that_cannot_be_divided_are_warned_about(tmp_path: Path, capsys: Capture) -> None:
    few = make_parts(tmp_path / "few", train=2)
    assert main(["train", str(few), str(tmp_path / "model"), *TINY]) == 0
    err = capsys.readouterr().err
    assert "2 good images cannot be divided" in err
    assert "2 the same calibrate" in (tmp_path / "model/training/report.html").read_text()
