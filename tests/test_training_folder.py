"""A training's folder: settings that are remembered, one process at a time, sizes that fit."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from parts import TINY, run

from advrad.diffusion.batches import DrawnLoss
from advrad.errors import ModelError, ResourceError, UsageError
from advrad.evaluate import training_folder
from advrad.evaluate.training_folder import Asked, alone, recall, refuse_huge, remember
from advrad.model import load

Capture = pytest.CaptureFixture[str]


def stopped_at(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the training fail at a step."""
    loss = DrawnLoss.__call__

    def fail(self: Any, n: int) -> Any:
        if n == number:
            raise KeyboardInterrupt
        return loss(self, n)

    monkeypatch.setattr(DrawnLoss, "__call__", fail)


class TestResumedWithoutSettings:
    def test_an_interrupted_training_goes_on_with_its_own(
        self,
        parts: Path,
        trained: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: Capture,
    ) -> None:
        with monkeypatch.context() as patch:
            stopped_at(4, patch)
            assert run(capsys, "train", parts, tmp_path / "m", *TINY)[0] == 130
        code, _, err = run(capsys, "train", parts, tmp_path / "m", "--resume", "--device=cpu")
        assert code == 0
        assert "settings of the earlier training: size=16, widths=[4, 8]" in err
        assert "is trained already" not in err
        weights = [folder / "model.safetensors" for folder in (trained, tmp_path / "m")]
        assert weights[0].read_bytes() == weights[1].read_bytes()

    def test_a_finished_one_is_made_again(self, model: Path, parts: Path, capsys: Capture) -> None:
        before = load(model)
        code, _, err = run(capsys, "train", parts, model, "--resume", "--device=cpu")
        assert code == 0
        assert "is trained already" in err
        assert load(model).calibration == before.calibration

    def test_other_settings_are_refused_and_not_remembered(
        self, model: Path, parts: Path, capsys: Capture
    ) -> None:
        kept = recall(model)
        for words in (["--set=steps=7"], ["--seed=1"]):
            code, record, err = run(capsys, "train", parts, model, *TINY, *words, "--resume")
            assert (code, record["error"]["kind"]) == (2, "OtherTrainingError")
            assert "is trained already" not in err
        assert recall(model) == kept

    def test_the_detector_is_remembered_too(
        self, parts: Path, tmp_path: Path, capsys: Capture
    ) -> None:
        words = ["--set=size=16", "--set=widths=4", "--set=latent=4", "--set=steps=3"]
        plain = ["train", parts, tmp_path / "m", "--device=cpu"]
        assert run(capsys, *plain, "--detector=autoencoder", *words)[0] == 0
        code, record, _ = run(capsys, *plain, "--resume")
        assert (code, record["settings"]["detector"]) == (0, "Autoencoder")


def test_what_was_asked_is_kept(tmp_path: Path) -> None:
    assert recall(tmp_path) is None
    asked = Asked("advrad", {"size": 32, "depth": [25, 50], "score": None})
    remember(tmp_path / "training", asked)
    assert recall(tmp_path) == asked
    for text in ("", "[]", "{}", '{"detector": "advrad", "settings": 3}'):
        (tmp_path / "training" / "settings.json").write_text(text)
        with pytest.raises(ModelError, match="give the settings again"):
            recall(tmp_path)


OTHER = "import sys; from pathlib import Path; from advrad.evaluate.training_folder import alone\n"
OTHER += "with alone(Path(sys.argv[1])): print('in', flush=True); sys.stdin.read()"


def test_one_process_trains_in_a_folder(parts: Path, tmp_path: Path, capsys: Capture) -> None:
    pytest.importorskip("fcntl")
    with subprocess.Popen(
        [sys.executable, "-c", OTHER, str(tmp_path / "m")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "in\n"
        for words in ([], ["--resume"]):
            code, record, _ = run(capsys, "train", parts, tmp_path / "m", *TINY, *words)
            assert (code, record["error"]["kind"]) == (2, "UsageError")
            assert "another process is training in" in record["error"]["message"]
        other.communicate("")
    assert run(capsys, "train", parts, tmp_path / "m", *TINY)[0] == 0


def test_a_folder_is_free_again_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="x"), alone(tmp_path):
        raise ValueError("x")
    with alone(tmp_path):
        pass


@pytest.mark.parametrize(
    ("size", "batch", "named"), [(160_000, 4, "size"), (16, 100_000_000, "batch")]
)
def test_what_no_memory_can_hold_is_refused_by_name(
    size: int, batch: int, named: str, parts: Path, tmp_path: Path, capsys: Capture
) -> None:
    words = [*TINY, f"--set=size={size}", f"--set=batch={batch}", "--batch-size=999999999"]
    code, record, _ = run(capsys, "train", parts, tmp_path / "m", *words)
    assert (code, record["error"]["kind"]) == (5, "ResourceError")
    assert f"lower the setting {named}" in record["error"]["message"]
    assert not (tmp_path / "m").exists()


def test_the_bound_is_five_copies_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_folder, "_memory", lambda: 5 * 4 * 3 * 8 * 8 * 7)
    refuse_huge(8, 3, 7)
    with pytest.raises(ResourceError, match="setting batch, which is 8"):
        refuse_huge(8, 3, 8)
    with pytest.raises(ResourceError, match="setting size, which is 32"):
        refuse_huge(32, 3, 1)
    monkeypatch.setattr(training_folder, "_memory", lambda: None)
    refuse_huge(10**6, 3, 10**9)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "m").write_text("mine")
    with pytest.raises(UsageError, match="is a file"):
        training_folder.refuse_taken(tmp_path / "m", resume=False, overwrite=True)
