"""`advrad certify` and `predict --certify`: the record, resumption, what is kept, bad input."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from killing import killed_at
from parts import run

from advrad import store
from advrad.certify.vote import least_share
from advrad.cli import main
from advrad.evaluate.rows import ROWS

Capture = pytest.CaptureFixture[str]
QUICK = ["--sigma=0.3", "--radius=0.1", "--radius=0.2", "--samples=40", "--device=cpu"]
ROW = {
    *("sigma", "scoring", "samples", "alpha", "smoothed_auroc", "smoothed_auroc_ci"),
    *("certified_auroc", "certified_auroc_ci", "needed", "certified", "abstained", "half"),
    *("curve", "threshold", "lost", "calibration_lost", "seconds_per_image"),
}
RECORD = {"clean_auroc", "clean_auroc_ci", "rows", "best", "images", "skipped", "why", "settings"}


def test_the_record(model: Path, parts: Path, tmp_path: Path, capsys: Capture) -> None:
    words = [*QUICK, "--scoring=matched", "--scoring=plain", "--out", tmp_path / "a"]
    code, record, err = run(capsys, "certify", model, parts, *words)
    assert code == 0
    assert record.keys() == RECORD
    assert json.loads((tmp_path / "a" / "result.json").read_text()) == record
    assert "40 draws for each of 9 test images" in err
    assert [(row["sigma"], row["scoring"]) for row in record["rows"]] == [
        (0.3, "matched"),
        (0.3, "plain"),
    ]
    for row in record["rows"]:
        assert row.keys() == ROW
        assert row["certified_auroc"].keys() == {"0.1", "0.2"}
        assert (row["samples"], row["alpha"]) == (40, 0.001)
    asked = record["settings"]["certificate"]
    assert asked["scorings"] == ["matched", "plain"]
    assert (record["settings"]["channels"], record["settings"]["height"]) == (1, 16)


def test_in_words(model: Path, parts: Path, tmp_path: Path, capsys: Capture) -> None:
    words = [*QUICK, "--radius=2", "--block=4", "--out", str(tmp_path)]
    assert main(["certify", str(model), str(parts), *words]) == 0
    out, err = capsys.readouterr()
    assert "Nothing useful is certain: at l2 radius 0.2 the smoothed detector's certified" in out
    assert "sigma 0.3, matched: 40 samples" in out
    assert "certified at radius 2     n/a    needs " in out
    assert "regions at radius 0.1" in out
    assert "not everything can be certified: sigma 0.3 at radius 2 needs" in err
    page = (tmp_path / "report.html").read_text()
    assert "What no attack can change" in page
    assert "Image by image" in page


def test_a_killed_run_goes_on_and_makes_the_same_draws(
    model: Path, parts: Path, tmp_path: Path, capsys: Capture
) -> None:
    whole, again = tmp_path / "whole", tmp_path / "again"
    code, record, _ = run(capsys, "certify", model, parts, *QUICK, "--out", whole)
    assert code == 0
    shutil.rmtree(model / "smoothing")
    again.mkdir()
    shutil.copy(whole / "settings.json", again)
    lines = (whole / ROWS).read_text().splitlines(keepends=True)
    (again / ROWS).write_text("".join(lines[:16]) + lines[16][:20])  # cut off in a row
    code, resumed, _ = run(capsys, "certify", model, parts, *QUICK, "--out", again)
    assert code == 0
    for row, other in zip(record["rows"], resumed["rows"], strict=True):
        assert row | {"seconds_per_image": 0} == other | {"seconds_per_image": 0}
    rows, others = (
        [json.loads(line) | {"seconds": 0} for line in (place / ROWS).read_text().splitlines()]
        for place in (whole, again)
    )
    assert rows == others


@pytest.mark.slow
def test_whatever_the_moment_a_killed_run_can_go_on(
    model: Path, parts: Path, tmp_path: Path, capsys: Capture
) -> None:
    whole = tmp_path / "whole"
    _, record, _ = run(capsys, "certify", model, parts, *QUICK, "--limit=4", "--out", whole)
    for operation in range(0, 400, 23):
        out = tmp_path / str(operation)
        shutil.rmtree(model / "smoothing", ignore_errors=True)
        words = ["certify", str(model), str(parts), *QUICK, "--limit=4", "--out", str(out)]
        ended = not killed_at(operation, lambda words=words: main(words))  # type: ignore[misc]
        _, resumed, _ = run(capsys, *words)
        assert resumed["best"] == record["best"]
        if ended:
            return


def test_what_was_measured_is_kept_in_the_model_and_taken_from_there(
    model: Path, parts: Path, tmp_path: Path, capsys: Capture
) -> None:
    _, first, _ = run(capsys, "certify", model, parts, *QUICK)
    kept = model / "smoothing" / "0.3-matched"
    files = store.read(kept)
    assert set(files) == {"smoothing.json", "statistics.safetensors"}
    told = store.read_json(files, "smoothing.json")
    assert told["way"] == {"sigma": 0.3, "samples": 40, "scoring": "matched", "seed": 0}
    assert told["params"]["carried"] == pytest.approx(0.3, rel=0.01)
    state = store.read_tensors(files, "statistics.safetensors")
    assert set(state) <= {"typical", "spread", "papers", "taken"}  # not the weights again
    _, second, _ = run(capsys, "certify", model, parts, *QUICK)
    assert first["best"] == second["best"]
    assert first["rows"][0]["threshold"] == second["rows"][0]["threshold"]
    assert main(["predict", str(model), str(parts / "test" / "good")]) == 0  # it is still a model


def test_predict_adds_the_radius_of_the_smoothed_detector(
    model: Path, parts: Path, capsys: Capture
) -> None:
    run(capsys, "certify", model, parts, *QUICK, "--alpha=0.5")
    good = parts / "test" / "good"
    _, plain, _ = run(capsys, "predict", model, good, "--seed=3", "--device=cpu")
    words = ["--certify", "--alpha=0.5", "--seed=3", "--device=cpu"]
    code, record, _ = run(capsys, "predict", model, good, *words)
    assert code == 0
    for row, old in zip(record["images"], plain["images"], strict=True):
        assert old.items() <= row.items()
        assert row["certified_draws"] == 40
        assert row["certified_verdict"] in ("OK", "NG", "ABSTAIN")
        if row["certified_verdict"] == "ABSTAIN":
            assert row["certified_radius"] is None
        else:
            most = least_share(40, 40, 0.25)
            assert 0 <= row["certified_radius"] <= 0.3 * 3 * most
    settings = record["settings"]
    assert (settings["sigma"], settings["scoring"], settings["alpha"]) == (0.3, "matched", 0.5)


def test_at_a_radius_predict_stops_early_with_the_verdict_of_all_draws(
    model: Path, parts: Path, capsys: Capture
) -> None:
    """Four draws at once for a batch of one: it may stop after any four."""
    run(capsys, "certify", model, parts, *QUICK, "--alpha=0.5")
    words = ["predict", model, parts / "test", "--certify", "--alpha=0.5", "--seed=3"]
    words.append("--batch-size=1")
    _, whole, _ = run(capsys, *words, "--device=cpu")
    _, early, _ = run(capsys, *words, "--device=cpu", "--radius=0.05")
    fewer = 0
    for full, row in zip(whole["images"], early["images"], strict=True):
        holds = full["certified_radius"] is not None and full["certified_radius"] >= 0.05
        assert row["certified_verdict"] == (full["certified_verdict"] if holds else "ABSTAIN")
        fewer += row["certified_draws"] < 40
    assert fewer


@pytest.mark.parametrize("style", ["text", "jsonl", "csv"])
def test_every_format_shows_the_certificate(
    style: str, model: Path, parts: Path, capsys: Capture
) -> None:
    run(capsys, "certify", model, parts, *QUICK)
    assert main(
        ["predict", str(model), str(parts / "test" / "good"), "--certify", "--format", style]
    ) == 0  # fmt: skip
    out = capsys.readouterr().out
    assert ("smoothed: " if style == "text" else "certified_verdict") in out


def test_gates(model: Path, parts: Path, capsys: Capture) -> None:
    words = [*QUICK, "--require=certified_auroc@0.1>=0", "--require=clean_auroc<=1"]
    code, record, _ = run(capsys, "certify", model, parts, *words)
    assert code == 0
    assert [verdict["holds"] for verdict in record["requirements"]] == [True, True]
    code, record, _ = run(
        capsys, "certify", model, parts, *words[:3], "--require=certified_auroc@1.0e-1>=1"
    )
    assert code == 1
    assert record["requirements"][0]["requirement"] == "certified_auroc@0.1>=1"


def told(capsys: Capture, *words: object) -> tuple[int, str]:
    code = main([str(word) for word in words])
    return code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--sigma=0"], "sigma 0: expected a finite number above 0"),
        (["--sigma=-1"], "sigma -1"),
        (["--sigma=nan"], "sigma nan"),
        (["--alpha=0"], "alpha 0: expected a number between 0 and 1"),
        (["--alpha=1.5"], "alpha 1.5"),
        (["--radius=-1"], "radius -1"),
        (["--radius=inf"], "radius inf"),
        (["--samples=0"], "samples"),
        (["--scoring=best"], "AdvRAD has matched, coarse, deep, plain"),
        (["--radius=9"], "nothing can be certified"),
        (["--sigma=1000"], "sigma 1000: expected at most 1.015"),
        (["--require=certified_auroc@0.7>=0"], "add  --radius 0.7  too"),
        (["--require=certified@0.1>=1"], "metrics are clean_auroc, smoothed_auroc"),
        (["--require=certified_auroc>=x"], "certified_auroc@0.2>=0.8"),
    ],
)
def test_wrong_words_are_told(
    words: list[str], message: str, model: Path, parts: Path, capsys: Capture
) -> None:
    code, err = told(capsys, "certify", model, parts, "--samples=40", *words)
    assert code == 2
    assert message in err
    assert not (model / "smoothing").exists()


def test_predict_without_a_certificate_says_how_to_get_one(
    model: Path, parts: Path, capsys: Capture
) -> None:
    good = parts / "test" / "good"
    code, err = told(capsys, "predict", model, good, "--certify")
    assert code == 2
    assert "advrad certify" in err
    for word in ("--sigma=0.1", "--alpha=0.1", "--radius=0", "--scoring=plain"):
        code, err = told(capsys, "predict", model, good, word)
        assert code == 2
        assert "belong to --certify" in err
    code, err = told(capsys, "predict", model, good, "--certify", "--scoring=best")
    assert code == 2
    assert "AdvRAD has matched, coarse, deep, plain" in err
    words = ["--sigma=0.2", "--sigma=0.3", "--radius=0.1", "--samples=40"]
    assert told(capsys, "certify", model, parts, *words)[0] == 0
    code, err = told(capsys, "predict", model, good, "--certify")
    assert code == 2
    assert "--sigma 0.2 --scoring matched, --sigma 0.3 --scoring matched" in err
    assert told(capsys, "predict", model, good, "--certify", "--sigma=0.3")[0] == 0
    for words, message in (
        (["--alpha=0"], "alpha 0"),
        (["--radius=5"], "samples"),
        (["--radius=-1"], "radius"),
        (["--sigma=nan"], "sigma nan: expected a finite number above 0"),
    ):
        code, err = told(capsys, "predict", model, good, "--certify", "--sigma=0.3", *words)
        assert code == 2
        assert message in err


def test_other_thresholds_make_what_was_kept_stale(
    model: Path, parts: Path, capsys: Capture
) -> None:
    run(capsys, "certify", model, parts, *QUICK)
    assert main(["calibrate", str(model), str(parts), "--level=0.3"]) == 0
    code, err = told(capsys, "predict", model, parts / "test" / "good", "--certify")
    assert code == 2
    assert "no thresholds under noise that are its own" in err


def test_a_test_image_that_the_model_has_seen_is_refused(
    model: Path, parts: Path, tmp_path: Path, capsys: Capture
) -> None:
    root = Path(shutil.copytree(parts, tmp_path / "parts"))
    shutil.copy(root / "train" / "good" / "000.png", root / "test" / "good" / "seen.png")
    code, err = told(capsys, "certify", model, root, *QUICK)
    assert code == 3
    assert "Figures on them would be too good" in err


def test_other_settings_in_the_same_folder_are_refused(
    model: Path, parts: Path, tmp_path: Path, capsys: Capture
) -> None:
    words: list[Any] = ["certify", model, parts, *QUICK, "--limit=4", "--out", tmp_path / "a"]
    assert told(capsys, *words)[0] == 0
    code, err = told(capsys, *words, "--alpha=0.01")
    assert code == 2
    assert "other settings (certificate)" in err
