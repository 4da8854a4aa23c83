"""`advrad predict`: a row an image, whatever stands beside it; then the exit code."""

import csv
import io
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from parts import DAMAGES, damage, run

from advrad import images
from advrad.cli import main
from advrad.model import load

Capture = pytest.CaptureFixture[str]
ROW = ["path", "sha256", "score", "threshold", "margin", "verdict", "draws", "model", "seed"]
ROW += ["error"]


@pytest.fixture
def folder(parts: Path, tmp_path: Path) -> Path:
    """The test images, to be added to."""
    return Path(shutil.copytree(parts / "test", tmp_path / "images"))


def test_the_record(trained: Path, folder: Path, capsys: Capture) -> None:
    code, record, _ = run(capsys, "predict", trained, folder)
    assert code == 0
    assert set(record) == {"images", "settings"}
    rows = record["images"]
    assert [list(row) for row in rows] == [ROW] * 9
    assert [Path(row["path"]).parent.name for row in rows] == ["good"] * 4 + ["square"] * 5
    model = load(trained)
    for row in rows:
        assert row["sha256"] == images.fingerprint(Path(row["path"]))
        assert row["margin"] == pytest.approx(row["score"] - row["threshold"])
        assert row["verdict"] == model.calibration.verdict(row["score"])
        assert (row["seed"], row["error"], row["draws"]) == (None, None, 1)
    shape = [record["settings"][name] for name in ("channels", "height", "width", "draws")]
    assert shape == [1, 16, 16, 1]
    assert record["settings"]["seed"] is None


def test_streams_hold_the_same_rows(trained: Path, folder: Path, capsys: Capture) -> None:
    _, record, _ = run(capsys, "predict", trained, folder)
    assert main(["predict", str(trained), str(folder), "--format=jsonl"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line) for line in lines] == record["images"]
    assert main(["predict", str(trained), str(folder), "--format=csv"]) == 0
    table = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert list(table[0]) == ROW
    assert [row["path"] for row in table] == [row["path"] for row in record["images"]]
    assert [float(row["score"]) for row in table] == [row["score"] for row in record["images"]]
    assert main(["predict", str(trained), str(folder)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 9


def test_without_a_seed_the_secret_one_is_drawn_from(
    trained: Path, folder: Path, capsys: Capture
) -> None:
    secret = load(trained).secret
    scores = {}
    for seed in (None, 5, secret):
        words = [] if seed is None else [f"--seed={seed}"]
        _, record, _ = run(capsys, "predict", trained, folder, *words)
        scores[seed] = [row["score"] for row in record["images"]]
        assert {row["seed"] for row in record["images"]} == {seed}
    assert scores[None] == scores[secret] != scores[5]
    assert str(secret) not in json.dumps(
        run(capsys, "predict", trained, folder)[1] | {"name": str(trained)}
    )


def test_a_score_belongs_to_its_image(trained: Path, folder: Path, capsys: Capture) -> None:
    paths = sorted(folder.rglob("*.png"))
    _, together, _ = run(capsys, "predict", trained, *paths)
    _, apart, _ = run(capsys, "predict", trained, *reversed(paths), "--batch-size=2")
    assert [row["score"] for row in apart["images"]] == pytest.approx(
        [row["score"] for row in reversed(together["images"])], rel=1e-5
    )
    _, few, _ = run(capsys, "predict", trained, *paths, "--limit=2")
    assert [row["path"] for row in few["images"]] == [str(path) for path in paths[:2]]


@pytest.mark.parametrize(
    ("verdict", "fail_on", "code"),
    [
        ("NG", "ng", 1),
        ("NG", "unsure", 1),
        ("UNSURE", "unsure", 1),
        ("UNSURE", "ng", 0),
        ("OK", "unsure", 0),
        ("NG", None, 0),
    ],
)
def test_fail_on(
    verdict: str, fail_on: str | None, code: int, model: Path, folder: Path, capsys: Capture
) -> None:
    from dataclasses import replace

    made = load(model)
    score = float("-inf") if verdict == "NG" else float("inf")
    unsure = float("inf") if verdict == "OK" else float("-inf")
    high = float(torch.finfo(torch.float32).max)
    bounds = {"threshold": max(min(score, high), -high), "unsure": max(min(unsure, high), -high)}
    replace(made, calibration=replace(made.calibration, **bounds)).save(model)
    words = [f"--fail-on={fail_on}"] if fail_on else []
    found, record, _ = run(capsys, "predict", model, folder, *words)
    assert {row["verdict"] for row in record["images"]} == {verdict}
    assert len(record["images"]) == 9
    assert found == code


def test_heat_maps_share_one_scale(
    trained: Path, folder: Path, tmp_path: Path, capsys: Capture
) -> None:
    code, record, _ = run(capsys, "predict", trained, folder, "--heatmaps", tmp_path / "h")
    assert code == 0
    names = {path.name for path in (tmp_path / "h").iterdir()}
    assert len(names) == 9
    digests = {row["sha256"][:8] for row in record["images"]}
    twice = {name for name in names if name != "004.png"}  # 000 to 003 are good and defective
    assert {name.split("-")[1].removesuffix(".png") for name in twice} <= digests
    assert "004.png" in names
    heat = images.read(tmp_path / "h" / "004.png")
    assert heat.shape == (3, 20, 20)


def test_a_name_that_is_no_utf8_is_written_out(
    trained: Path, folder: Path, capsys: Capture
) -> None:
    strange = folder / os.fsdecode(b"caf\xe9 \xe4\xb8\xad.png")
    strange.write_bytes((folder / "good" / "000.png").read_bytes())
    code, record, _ = run(capsys, "predict", trained, strange)
    assert (code, record["images"][0]["path"]) == (0, str(strange))
    for form in ("text", "csv", "jsonl"):
        assert main(["predict", str(trained), str(strange), f"--format={form}"]) == 0
        assert "\\udce9" in capsys.readouterr().out


class TestHeatMapsHarmNothing:
    def test_photographs_are_not_overwritten(
        self, trained: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
    ) -> None:
        before = contents(folder)
        photographs = sorted((folder / "square").iterdir())
        code, record, _ = run(
            capsys, "predict", trained, *photographs, "--heatmaps", folder / "square"
        )
        assert (code, contents(folder)) == (2, before)
        assert "name another folder" in record["error"]["message"]
        monkeypatch.chdir(folder / "square")
        names = [path.name for path in photographs]
        assert run(capsys, "predict", trained, *names, "--heatmaps", ".")[0] == 2
        assert contents(folder) == before

    @pytest.mark.parametrize("below", ["", "square", "new", "new/heat"])
    def test_a_folder_among_the_images_is_refused(
        self, below: str, trained: Path, folder: Path, capsys: Capture
    ) -> None:
        before = contents(folder)
        code, record, _ = run(capsys, "predict", trained, folder, "--heatmaps", folder / below)
        assert (code, contents(folder)) == (2, before)
        assert "outside of it" in record["error"]["message"]
        assert not (folder / "new").exists()

    @pytest.mark.parametrize("name", ["004.png", "004.PNG", "000-0a1b2c3d.png"])
    def test_somebody_s_pictures_stay(
        self, name: str, trained: Path, folder: Path, tmp_path: Path, capsys: Capture
    ) -> None:
        heat = tmp_path / "heat"
        heat.mkdir()
        (heat / name).write_bytes((folder / "good" / "000.png").read_bytes())
        (heat / "other.png").write_bytes(b"is in nobody's way")
        before = contents(heat)
        code, record, _ = run(capsys, "predict", trained, folder, "--heatmaps", heat)
        assert (code, contents(heat)) == (2, before)
        assert name in record["error"]["message"]
        (heat / name).unlink()
        (heat / name).symlink_to(folder / "good" / "000.png")
        assert run(capsys, "predict", trained, folder, "--heatmaps", heat)[0] == 2

    def test_heat_maps_of_an_earlier_run_are_replaced_but_not_by_their_own(
        self, trained: Path, folder: Path, tmp_path: Path, capsys: Capture
    ) -> None:
        heat = tmp_path / "heat"
        words = ["predict", trained, folder, "--seed=1", "--heatmaps", heat]
        assert run(capsys, *words)[0] == 0
        first = contents(heat)
        assert run(capsys, *words)[0] == 0
        assert contents(heat) == first
        assert run(capsys, "predict", trained, *sorted(heat.iterdir()), words[-2], heat)[0] == 2
        assert contents(heat) == first


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_line_break_in_a_name_stays_within_its_row(
    trained: Path, folder: Path, capsys: Capture
) -> None:
    strange = folder / "good\nNG  \x1b[31m fake.png"
    strange.write_bytes((folder / "good" / "000.png").read_bytes())
    assert main(["predict", str(trained), str(strange)]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert len(rows) == 1
    assert "good\\nNG  \\x1b[31m fake.png" in rows[0]


def test_a_model_published_without_its_secret_predicts(
    model: Path, folder: Path, capsys: Capture
) -> None:
    (model / "secret.json").unlink()
    code, record, err = run(capsys, "predict", model, folder)
    assert (code, len(record["images"])) == (0, 9)
    assert err.count("has no secret.json") == 1
    words = ["predict", model, folder, "--seed=4"]
    assert run(capsys, *words)[1] == run(capsys, *words)[1]


def test_a_pipe_does_not_hang(trained: Path, folder: Path, capsys: Capture) -> None:
    os.mkfifo(folder / "pipe.png")
    code, record, _ = run(capsys, "predict", trained, folder)
    assert (code, record["error"]["kind"]) == (3, "ImageError")
    assert "this is no file" in record["error"]["message"]


class TestBadInput:
    @pytest.mark.parametrize("kind", DAMAGES)
    def test_a_bad_image_stops_after_the_rows_before_it_or_is_a_row(
        self, kind: str, trained: Path, folder: Path, capsys: Capture
    ) -> None:
        bad = damage(folder / "square", kind)
        assert main(["predict", str(trained), str(folder), "--format=jsonl"]) == 3
        out, err = capsys.readouterr()
        assert len(out.splitlines()) == 9
        assert bad.name in err
        code, record, _ = run(capsys, "predict", trained, folder, "--skip-bad")
        assert code == 0
        row = record["images"][-1]
        assert (row["verdict"], row["score"], row["path"]) == ("UNSURE", None, str(bad))
        assert row["error"]
        assert run(capsys, "predict", trained, folder, "--skip-bad", "--fail-on=unsure")[0] == 1

    def test_a_missing_model_is_told_before_a_missing_image(
        self, tmp_path: Path, trained: Path, capsys: Capture
    ) -> None:
        code, record, _ = run(capsys, "predict", tmp_path / "m", tmp_path / "none.png")
        assert (code, record["error"]["kind"]) == (4, "ModelError")
        code, record, _ = run(capsys, "predict", trained, tmp_path / "none.png")
        assert (code, record["error"]["kind"]) == (3, "DataError")

    def test_a_folder_without_images(self, tmp_path: Path, trained: Path, capsys: Capture) -> None:
        assert run(capsys, "predict", trained, tmp_path)[0] == 3

    @pytest.mark.parametrize("words", [["--format=xml"], ["--fail-on=ok"], ["--device=cuda:99"]])
    def test_wrong_words(
        self, words: list[str], trained: Path, folder: Path, capsys: Capture
    ) -> None:
        assert run(capsys, "predict", trained, folder, *words)[0] == 2

    def test_heat_maps_where_a_file_is(
        self, trained: Path, folder: Path, tmp_path: Path, capsys: Capture
    ) -> None:
        taken = tmp_path / "taken"
        taken.write_text("mine")
        code, record, _ = run(capsys, "predict", trained, folder, "--heatmaps", taken)
        assert (code, taken.read_text()) == (2, "mine")
        assert "name a folder" in record["error"]["message"]


class TestDamagedModel:
    @pytest.mark.parametrize(
        "name", ["model.safetensors", "config.json", "calibration.json", "preprocess.json"]
    )
    @pytest.mark.parametrize("harm", ["flipped", "missing", "truncated"])
    def test_every_file_is_verified(
        self, name: str, harm: str, model: Path, folder: Path, capsys: Capture
    ) -> None:
        path = model / name
        whole = bytearray(path.read_bytes())
        whole[len(whole) // 2] ^= 1
        if harm == "missing":
            path.unlink()
        else:
            path.write_bytes(whole if harm == "flipped" else whole[: len(whole) // 2])
        code, record, _ = run(capsys, "predict", model, folder)
        assert (code, record["error"]["kind"]) == (4, "ModelError")
        assert name in record["error"]["message"]

    def test_another_version(self, model: Path, folder: Path, capsys: Capture) -> None:
        manifest = json.loads((model / "manifest.json").read_text())
        (model / "manifest.json").write_text(json.dumps(manifest | {"format": 99}))
        code, record, _ = run(capsys, "predict", model, folder)
        assert code == 4
        assert "format 99" in record["error"]["message"]

    def test_an_unfinished_training(self, model: Path, folder: Path, capsys: Capture) -> None:
        (model / "manifest.json").unlink()
        code, record, _ = run(capsys, "predict", model, folder)
        assert code == 4
        assert "--resume" in record["error"]["message"]
