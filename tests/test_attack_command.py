"""`advrad attack`: figures under attack, gates, resumption, bad input, and the word suspect."""

import json
import math
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import without_gradient
from parts import make_parts, run
from test_evaluate_command import repaint
from torch import Tensor

from advrad import metrics
from advrad.attacks.strongest import SUITES, Cost, Part, Suite
from advrad.cli import main
from advrad.commands.attack import radius
from advrad.commands.tested import kept
from advrad.detectors import AdvRAD, Anomaly
from advrad.errors import UsageError
from advrad.evaluate import attacked
from advrad.evaluate.attack_expected import Expected
from advrad.evaluate.attack_summary import announced, number, passes
from advrad.evaluate.requirements import ROBUST, Requirement, judged_under_attack
from advrad.evaluate.rows import Rows
from advrad.evaluate.threat import Threat

Capture = pytest.CaptureFixture[str]
PAIRS = {
    name + end
    for name in (
        *("robust_auroc", "robust_auroc_missed", "robust_auroc_false_alarm", "pixel_auroc"),
        *("robust_auroc_known_draw", "clean_auroc_known_draw"),
        *("robust_auroc_resubmitted", "clean_auroc_resubmitted"),
    )
    for end in ("", "_ci")
}
ROW = PAIRS | {"norm", "eps", "suite", "passes", "cost", "health", "parts", "lost"}
ROW |= {"miss_rate", "false_alarm_rate"}
DESIGN = {"clean_auroc", "clean_auroc_ci", "clean_pixel_auroc", "clean_pixel_auroc_ci", "rows"}
DESIGN |= {"clean_miss_rate", "clean_false_alarm_rate", "images", "seconds", "settings", "skipped"}
DESIGN |= {"smallest_eps", "why"}


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """The quick suite with a few steps."""
    monkeypatch.setitem(SUITES, "quick", Suite((Part("pgd", "log-sum-exp", 2, {"steps": 3}),)))


def suspect(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks what the checks look at: a score that draws without saying so."""
    forward = AdvRAD.forward

    def shaken(self: AdvRAD, x: Tensor, *rest: Any, **settings: Any) -> Anomaly:
        score, values = forward(self, x, *rest, **settings)
        return Anomaly(score + torch.rand(len(score)), values)

    monkeypatch.setattr(AdvRAD, "forward", shaken)


def test_the_record(trained: Path, parts: Path, tmp_path: Path, capsys: Capture) -> None:
    words = ["--eps=0", "--eps=2/255", "--eps=0.1", "--out", tmp_path / "a"]
    code, record, err = run(capsys, "attack", trained, parts, *words)
    assert code == 0
    assert record.keys() == DESIGN
    assert json.loads((tmp_path / "a" / "result.json").read_text()) == record
    assert "6 evaluations with a gradient and " in err
    assert "9 images, 3 radii: about" in err
    for row in record["rows"]:
        assert row.keys() == ROW
    clean, small, large = record["rows"]
    assert [row["eps"] for row in record["rows"]] == [0.0, 2 / 255, 0.1]
    assert clean["robust_auroc"] == record["clean_auroc"]
    assert clean["pixel_auroc"] == record["clean_pixel_auroc"]
    assert clean["passes"] == clean["cost"]["forwards"] > 0, "it is scored"
    assert clean["health"]["verdict"] == "not checked"
    assert large["robust_auroc"] <= small["robust_auroc"] <= record["clean_auroc"]
    assert small["robust_auroc"] <= small["robust_auroc_missed"] <= record["clean_auroc"]
    assert small["robust_auroc_known_draw"] is None
    assert "tries no known draw" in record["why"]
    lines = (tmp_path / "a" / "images.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert len(rows) == 27
    last = rows[18:]
    labels = [row["defect"] for row in last]
    assert large["robust_auroc"] == metrics.auroc([row["attacked"] for row in last], labels)
    assert max(row["size"] for row in last) <= 0.1 + 1e-6
    for one, *others in zip(record["smallest_eps"], rows[:9], rows[9:18], last, strict=True):
        wrong = [(row["verdict_attacked"] == "NG") != row["defect"] for row in others]
        expected = next((e for e, w in zip((0.0, 2 / 255, 0.1), wrong, strict=True) if w), None)
        assert one["eps"] == expected
    kept = sorted((tmp_path / "a" / "attacked").iterdir(), key=lambda path: int(path.stem))
    assert [path.name for path in kept] == [f"{row['index']}.npy" for row in rows]


def test_without_out_nothing_is_kept(
    trained: Path, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["attack", str(trained), str(parts), "--no-health", "--limit=2"]) == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("good", "defect"), [(3, 0), (0, 3)])
def test_one_class_gives_what_can_be_had(
    good: int, defect: int, trained: Path, tmp_path: Path, capsys: Capture
) -> None:
    root = make_parts(tmp_path / "parts", train=1, good=good, defect=defect)
    for at, path in enumerate(
        path for path in sorted(root.rglob("*.png")) if "_mask" not in path.name
    ):
        repaint(path, at)
    words = ["attack", trained, root, "--out", tmp_path / "a"]
    code, record, _ = run(capsys, *words, "--require=robust_auroc>=0")
    assert code == 1
    assert record["clean_auroc"] is record["rows"][0]["robust_auroc"] is None
    assert f"no {'good' if defect else 'defective'} test images" in record["why"]
    rates = [record["rows"][0][name] for name in ("false_alarm_rate", "miss_rate")]
    assert [rate is None for rate in rates] == [not good, not defect]
    health = record["rows"][0]["health"]
    assert health["verdict"] == "sound"
    assert health["not_run"] == ["black_box", "floor", "steps", "eps"]
    assert "do not fit" in health["checks"]["floor"]["words"]
    assert main([*map(str, words)]) == 0
    said = capsys.readouterr().out
    assert "3 of 3" in said or "0 of 3" in said or "1 of 3" in said or "2 of 3" in said
    assert (tmp_path / "a" / "report.html").exists()


class TestSuspect:
    def test_no_number_is_printed_without_the_word(
        self, trained: Path, parts: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
    ) -> None:
        suspect(monkeypatch)
        words = ["attack", str(trained), str(parts), "--require=robust_auroc>=0"]
        assert main(words) == 1
        out = capsys.readouterr().out
        finding, *lines = out.splitlines()
        assert finding.count("suspect") == 3
        figures = [line for line in lines if line.startswith("  ") and "clean" in line]
        assert len(figures) == 6
        assert all(" suspect" in line for line in figures)
        assert "health: suspect" in out
        assert "scored twice differs" in out
        assert "FAILS: robust_auroc>=0" in out

    def test_in_json_it_stands_in_the_same_row(
        self,
        trained: Path,
        parts: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: Capture,
    ) -> None:
        suspect(monkeypatch)
        words = ["--require=robust_auroc>=0", "--out", tmp_path / "a"]
        code, record, _ = run(capsys, "attack", trained, parts, *words)
        assert code == 1
        assert record["rows"][0]["health"]["verdict"] == "suspect"
        assert record["rows"][0]["health"]["reasons"]
        [gate] = record["requirements"]
        assert (gate["holds"], gate["health"]) == (False, "suspect")
        page = (tmp_path / "a" / "report.html").read_text()
        assert page.count("suspect") > 10

    def test_a_blind_attack_is_refused(
        self, trained: Path, parts: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
    ) -> None:
        def cut(self: AdvRAD, x: Tensor, *rest: Any, **settings: Any) -> Anomaly:
            values = without_gradient(x)
            return Anomaly(values.flatten(1).amax(1), values)

        monkeypatch.setattr(AdvRAD, "forward", cut)
        code, record, _ = run(capsys, "attack", trained, parts)
        assert (code, record["error"]["kind"]) == (4, "BlindAttackError")
        assert "no_grad" in record["error"]["message"]


class TestResumption:
    @pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_a_run_that_was_stopped_goes_on(
        self,
        number: int,
        expected: int,
        trained: Path,
        parts: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: Capture,
    ) -> None:
        words = ["attack", trained, parts, "--batch-size=2", "--limit=6", "--out"]
        _, whole, _ = run(capsys, *words, tmp_path / "whole")
        added, add = [], Rows.add

        def signalling(self: Rows, row: Any, anomaly: Any = None) -> None:
            add(self, row, anomaly)
            added.append(row["index"])
            if len(added) == 3:
                os.kill(os.getpid(), number)

        monkeypatch.setattr(Rows, "add", signalling)
        code, record, _ = run(capsys, *words, tmp_path / "a")
        assert code == expected
        assert "run the same command again" in record["error"]["message"]
        assert len((tmp_path / "a" / "images.jsonl").read_text().splitlines()) == 4
        code, record, _ = run(capsys, *words, tmp_path / "a")
        assert code == 0
        assert added == list(range(6))
        assert figures(record) == figures(whole)
        code, record, err = run(capsys, *words, tmp_path / "a")
        assert "all of it is done" in err
        assert added == list(range(6))
        assert figures(record) == figures(whole)

    def test_an_attacked_image_that_is_gone_is_made_again(
        self, trained: Path, parts: Path, tmp_path: Path, capsys: Capture
    ) -> None:
        words = ["attack", trained, parts, "--limit=4", "--out", tmp_path / "a"]
        _, whole, _ = run(capsys, *words)
        (tmp_path / "a" / "attacked" / "1.npy").unlink()
        _, record, _ = run(capsys, *words)
        assert (tmp_path / "a" / "attacked" / "1.npy").exists()
        assert record["rows"][0]["robust_auroc"] == whole["rows"][0]["robust_auroc"]

    def test_other_settings_are_refused(
        self,
        trained: Path,
        parts: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: Capture,
    ) -> None:
        words = ["attack", trained, parts, "--no-health", "--limit=2", "--out", tmp_path / "a"]
        assert run(capsys, *words)[0] == 0
        code, record, _ = run(capsys, *words, "--eps=0.1")
        assert code == 2
        assert "other settings (eps)" in record["error"]["message"]
        monkeypatch.setitem(SUITES, "quick", Suite((Part("pgd", "log-sum-exp", 9, {"steps": 3}),)))
        assert "(parts)" in run(capsys, *words)[1]["error"]["message"]

    def test_a_signal_stops_the_checks_too(
        self,
        trained: Path,
        parts: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: Capture,
    ) -> None:
        examined = attacked.examined

        def signalling(*given: Any) -> Any:
            os.kill(os.getpid(), signal.SIGINT)
            return examined(*given)

        monkeypatch.setattr(attacked, "examined", signalling)
        code, _, _ = run(capsys, "attack", trained, parts, "--out", tmp_path / "a")
        assert code == 130
        assert len((tmp_path / "a" / "images.jsonl").read_text().splitlines()) == 9


class TestBadInput:
    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["--eps=-1"], "a number from 0 on"),
            (["--eps=nan"], "a number from 0 on"),
            (["--eps=inf"], "a number from 0 on"),
            (["--eps=much"], "a number from 0 on"),
            (["--eps=2/0"], "a number from 0 on"),
            (["--eps=1/2/3"], "a number from 0 on"),
            (["--eps=1.01"], "from 0 to 1,"),
            (["--norm=l2", "--eps=16.1"], "from 0 to 16,"),
            (["--norm=l1", "--eps=257"], "from 0 to 256,"),
            (["--norm=patch", "--eps=17"], "eps 17"),
            (["--norm=patch", "--eps=2.5"], "eps 2.5"),
            (["--eps=0.1", "--eps=1/10"], "each radius counts once"),
            (["--norm=l3"], "linf, l2, l1, patch"),
            (["--suite=weak"], "quick, standard, strong"),
            (["--require=image_auroc>=1"], "robust_auroc"),
            (["--require=robust"], "as robust_auroc>=0.5"),
        ],
    )
    def test_it_is_refused_before_any_image_is_read(
        self,
        words: list[str],
        said: str,
        trained: Path,
        parts: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: Capture,
    ) -> None:
        monkeypatch.setattr(attacked, "test_images", None)
        code, record, _ = run(capsys, "attack", trained, parts, *words)
        assert code == 2
        assert said in record["error"]["message"]

    def test_a_source_that_the_suite_has_no_use_for(
        self, trained: Path, parts: Path, capsys: Capture
    ) -> None:
        code, record, _ = run(capsys, "attack", trained, parts, "--source", trained)
        assert code == 2
        assert "expected strong" in record["error"]["message"]

    def test_a_missing_model_is_told_first(self, tmp_path: Path, capsys: Capture) -> None:
        assert run(capsys, "attack", tmp_path / "m", tmp_path / "none")[0] == 4

    def test_an_image_that_the_model_has_seen(
        self, trained: Path, parts: Path, tmp_path: Path, capsys: Capture
    ) -> None:
        root = Path(shutil.copytree(parts, tmp_path / "parts"))
        shutil.copy(root / "train" / "good" / "003.png", root / "test" / "good" / "new.png")
        code, record, _ = run(capsys, "attack", trained, root)
        assert (code, record["error"]["kind"]) == (3, "LeakError")


@pytest.mark.parametrize("norm", ["l2", "l1", "patch"])
def test_every_threat_model(norm: str, trained: Path, parts: Path, capsys: Capture) -> None:
    words = ["--norm", norm, "--limit=2", "--no-health"]
    code, record, _ = run(capsys, "attack", trained, parts, *words)
    assert code == 0
    assert record["rows"][0]["norm"] == norm


def test_transfer_known_draw_and_resubmission(
    trained: Path, parts: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    few = {"steps": 2}
    parts_of = (Part("apgd", "top", 1, few), Part("transfer", "log-sum-exp", settings=few))
    monkeypatch.setitem(SUITES, "strong", Suite(parts_of, select=1, known=2, resubmit=2))
    words = ["--suite=strong", "--source", trained, "--limit=4"]
    code, record, _ = run(capsys, "attack", trained, parts, *words)
    assert code == 0
    [row] = record["rows"]
    assert set(row["parts"]) == {"apgd top", "transfer log-sum-exp"}
    for name in ("known_draw", "resubmitted"):
        assert row[f"robust_auroc_{name}"] <= row[f"clean_auroc_{name}"]
    assert record["why"] is None


class TestRequirements:
    def result(self, *rows: tuple[float, float | None, str]) -> dict[str, Any]:
        names = ("eps", "robust_auroc", "health")
        found = [dict(zip(names, row, strict=True)) for row in rows]
        return {
            "clean_auroc": 0.9,
            "rows": [row | {"health": self.health(row["health"])} for row in found],
        }

    def health(self, verdict: str) -> dict[str, Any]:
        """`sound, on little`: neither another attack nor a large ball was tried."""
        verdict, *little = verdict.split(", ")
        not_run = ["black_box", "floor"] if little or verdict == "not checked" else ["floor"]
        return {"verdict": verdict, "not_run": [*not_run, "steps", "eps"]}

    @pytest.mark.parametrize(
        ("rows", "words", "holds", "eps"),
        [
            ([(0.1, 0.7, "sound"), (0.2, 0.6, "sound")], "robust_auroc>=0.5", True, 0.2),
            ([(0.1, 0.7, "sound"), (0.2, 0.4, "sound")], "robust_auroc>=0.5", False, 0.2),
            ([(0.1, 0.7, "suspect"), (0.2, 0.6, "sound")], "robust_auroc>=0.5", False, 0.1),
            ([(0.1, None, "sound"), (0.2, 0.6, "sound")], "robust_auroc>=0.5", False, 0.1),
            ([(0.1, 0.7, "not checked")], "robust_auroc>=0.5", True, 0.1),
            ([(0.1, 0.7, "sound"), (0.2, 0.6, "sound")], "robust_auroc<0.65", False, 0.1),
            ([(0.1, 0.7, "suspect")], "clean_auroc>=0.5", True, 0.0),
            ([(0.1, 0.7, "sound, on little")], "robust_auroc>=0.5", False, 0.1),
            ([(0.1, 0.7, "sound, on little")], "clean_auroc>=0.5", True, 0.0),
            ([(0.0, 0.7, "not checked"), (0.1, 0.6, "sound")], "robust_auroc>=0.5", True, 0.1),
        ],
    )
    def test_the_worst_row_decides(
        self, rows: list[Any], words: str, holds: bool, eps: float
    ) -> None:
        gate = Requirement.parse(words, ROBUST)
        [verdict] = judged_under_attack([gate], self.result(*rows))
        assert (verdict["holds"], verdict["eps"]) == (holds, eps)
        little = verdict["eps"] > 0 and rows[0][2] == "sound, on little"
        assert (verdict["health"] == "hardly checked") == little


@pytest.mark.parametrize(
    ("words", "expected"),
    [("2/255", 2 / 255), ("0.0078", 0.0078), (" 1 / 4 ", 0.25), ("0", 0.0), ("8e-3", 0.008)],
)
def test_radii(words: str, expected: float) -> None:
    assert radius(words) == expected


def test_wrong_radii() -> None:
    with pytest.raises(UsageError, match="as 2/255"):
        radius("")


@pytest.mark.parametrize(
    ("eps", "norm", "expected"),
    [
        (2 / 255, "linf", "2/255"),
        (0.5 / 255, "linf", "0.5/255"),
        (0.0078, "linf", "0.0078"),
        (0.0, "linf", "0"),
        (0.2, "l2", "0.2"),
        (8.0, "patch", "8 px"),
    ],
)
def test_radii_in_words(eps: float, norm: str, expected: str) -> None:
    assert number(eps, norm) == expected


@pytest.mark.parametrize("name", ["attacked", "0"])
def test_a_foreign_folder_is_left_as_it_is(
    name: str, trained: Path, parts: Path, tmp_path: Path, capsys: Capture
) -> None:
    """A file where attacked images would go, and somebody's folder of that name."""
    foreign = tmp_path / ("attacked" if name == "attacked" else "attacked/0.npy")
    foreign.parent.mkdir(exist_ok=True)
    foreign.write_text("somebody's")
    code, record, _ = run(capsys, "attack", trained, parts, "--no-health", "--out", tmp_path)
    assert code == 2
    assert "another --out" in record["error"]["message"]
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [foreign]


def test_a_clean_row_is_announced_and_done(
    trained: Path, parts: Path, tmp_path: Path, capsys: Capture
) -> None:
    words = ["attack", trained, parts, "--eps=0", "--limit=2", "--out", tmp_path / "a"]
    assert "all of it is done" not in run(capsys, *words)[2]
    assert "all of it is done" in run(capsys, *words)[2]


def test_what_is_kept_is_told_as_it_is(tmp_path: Path) -> None:
    assert kept(None) == "nothing is kept"
    assert "no row is finished yet" in kept(tmp_path)
    (tmp_path / "images.jsonl").write_text("{}\n")
    assert kept(tmp_path).startswith("rows are kept")


def test_the_source_s_cost_is_told_apart() -> None:
    words = announced(
        Threat(suite="strong"), Expected(Cost(12000, 5042), 0.0, 4, source=Cost(100, 2))
    )
    assert "5042 without, an image; of the source 100 and 2; 4 images" in words
    row = {"passes": 17144, "cost": {"gradients": 12000, "source_gradients": 100}}
    assert passes(row) == "17144 passes an image, 100 of them the source's"
    assert passes(row | {"cost": {"gradients": 12000}}) == "17144 passes an image"


def test_what_is_announced() -> None:
    cost = SUITES["standard"].cost(True)
    words = announced(Threat(suite="standard"), Expected(cost, 95.0, 100))
    assert words == (
        f"suite standard: {cost.gradients} evaluations with a gradient and {cost.forwards} "
        "without, an image; 100 images: about 1 min 35 s, and up to a quarter more for its checks"
    )
    assert math.isclose(cost.gradients, 800, rel_tol=0.01)


def figures(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name != "seconds"}
