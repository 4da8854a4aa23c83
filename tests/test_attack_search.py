"""The smallest eps that turns a verdict, against distances on paper."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import SIDE, Fake
from parts import run
from test_robustness import DEFECT, EPS, IDS, SIGN, WEIGHT, Linear, X, fitted
from torch import Tensor

from advrad.attacks.ball import BALLS
from advrad.attacks.strongest import SUITES, Part, Suite
from advrad.calibrate import Calibration
from advrad.data import load
from advrad.errors import UsageError
from advrad.evaluate import attack_search
from advrad.evaluate.attack_search import Search
from advrad.evaluate.attack_smallest import smallest
from advrad.evaluate.attack_summary import found_eps, searched
from advrad.evaluate.attacked import Threat, attack
from advrad.evaluate.robustness import Assault
from advrad.evaluate.rows import Rows
from advrad.images import Preprocess
from advrad.model import Model
from advrad.noise import PerImage

Capture = pytest.CaptureFixture[str]
DUAL = {"linf": WEIGHT.abs().sum(), "l2": WEIGHT.norm(), "l1": WEIGHT.abs().max()}


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SUITES, "quick", Suite((Part("pgd", "log-sum-exp", 1, {"steps": 3}),)))


def at(threshold: float) -> Calibration:
    return Calibration(threshold, threshold, 0.05, 0.1, 10, False, (0.0,))


def middle(detector: Fake) -> float:
    """A threshold with verdicts that are right and wrong on both sides."""
    return float(detector(X, PerImage(3, IDS)).score.sort().values[2:4].mean())


def distances(detector: Fake, norm: str, threshold: float) -> Tensor:
    gap = SIGN * (threshold - detector(X, PerImage(3, IDS)).score)
    return (gap / DUAL[norm]).clamp_min(0)


class TestSearch:
    @pytest.mark.parametrize(("norm", "limit"), [("linf", 0.3), ("l2", 3.0), ("l1", 1.0)])
    @pytest.mark.parametrize("loud", [0.0, 0.02])
    def test_the_distance_of_a_linear_score(self, norm: str, limit: float, loud: float) -> None:
        """Within a hundredth, 0 where the verdict is wrong already."""
        detector = Linear(draws=2 * bool(loud), loud=loud).eval()
        threshold = middle(detector)
        assault = Assault(detector, BALLS[norm](limit), SUITES["quick"], seed=3)
        found = Search(assault, at(threshold))(X, DEFECT, IDS)
        expected = distances(detector, norm, threshold)
        assert 0 < int((expected == 0).sum()) < len(X)
        torch.testing.assert_close(found.eps, expected, rtol=1e-2, atol=0)
        scores = detector(found.x, PerImage(3, IDS)).score
        torch.testing.assert_close(found.scores, scores)
        assert ((scores >= threshold) != torch.tensor(DEFECT)).all()

    def test_what_is_beyond_the_limit_is_not_turned(self) -> None:
        detector = Linear().eval()
        threshold = middle(detector)
        expected = distances(detector, "linf", threshold)
        limit = float(expected.sort().values[-2:].mean())
        assault = Assault(detector, BALLS["linf"](limit), SUITES["quick"], seed=3)
        found = Search(assault, at(threshold))(X, DEFECT, IDS)
        assert torch.equal(found.eps.isinf(), expected > limit)
        beyond = found.eps.isinf()
        assert torch.equal(found.x[beyond], X[beyond])

    def test_a_score_at_the_threshold_is_still_ng(self) -> None:
        """A defect has to fall below it, a good image only to reach it."""
        flat = Fake(lambda x: x[:, 0]).eval()
        x = torch.full((2, 1, SIDE, SIDE), 0.5)
        x[1] = 0.25
        assault = Assault(flat, BALLS["linf"](0.5), SUITES["quick"])
        found = Search(assault, at(0.5))(x, [True, False], ["a", "b"])
        assert float(found.scores[0]) < 0.5 <= float(found.scores[1])
        assert 0 < float(found.eps[0]) < 1e-3
        assert float(found.eps[1]) == pytest.approx(0.25, rel=1e-2)

    def test_the_draws_of_the_evaluation_only_confirm(self) -> None:
        """Draws that move the score's slope: the eps found is still the one that they ask for."""
        detector = Linear(draws=2, shaken=0.2).eval()
        threshold = middle(detector)
        assault = Assault(detector, BALLS["linf"](0.3), SUITES["quick"], seed=3)
        found = Search(assault, at(threshold))(X, DEFECT, IDS)
        asked = [noise for noise in detector.asked if isinstance(noise, PerImage)]
        evaluation = [noise for noise in asked if noise.seed == 3]
        assert 2 <= len(evaluation) <= 3 + len(attack_search.STRETCHES)
        slope = (WEIGHT * (1 + 0.2 * PerImage(3, IDS)(X, 0))).abs().flatten(1).sum(1)
        exact = (SIGN * (threshold - detector(X, PerImage(3, IDS)).score) / slope).clamp_min(0)
        turned = exact > 0
        ratio = found.eps[turned] / exact[turned]
        assert ((ratio > 0.999) & (ratio < 1.1)).all(), ratio

    @pytest.mark.parametrize("draws", [0, 2])
    @pytest.mark.parametrize("norm", ["linf", "patch"])
    def test_it_spends_no_more_than_it_says(self, norm: str, draws: int) -> None:
        spent = 0

        def tell(count: int) -> None:
            nonlocal spent
            spent += count

        detector = Linear(draws=draws, loud=0.1 * draws).eval()
        ball = BALLS[norm](0.3 if norm == "linf" else 4)
        assault = Assault(detector, ball, SUITES["quick"], seed=3, tell=tell)
        search = Search(assault, at(middle(detector)))
        search(X, DEFECT, IDS)
        most = len(X) * sum(search.cost)
        assert (
            most - len(X) * search.assault.passes * len(attack_search.STRETCHES) <= spent <= most
        )

    def test_an_image_does_not_depend_on_its_batch(self) -> None:
        detector = Linear(draws=2, shaken=0.2).eval()
        assault = Assault(detector, BALLS["linf"](0.3), SUITES["quick"], seed=3)
        search = Search(assault, at(middle(detector)))
        whole = search(X, DEFECT, IDS)
        parts = [search(X[i : i + 2], DEFECT[i : i + 2], IDS[i : i + 2]) for i in (0, 2, 4)]
        torch.testing.assert_close(torch.cat([part.eps for part in parts]), whole.eps)


def linear_model(parts: Path) -> tuple[Model, Any]:
    """A model whose score is linear, and a data set."""
    dataset = load(str(parts))
    detector = Linear().eval()
    preprocess = Preprocess(SIDE, 1)
    model = Model(detector, preprocess, at(0.0), {}, {"name": "linear"})
    return model, dataset


class TestThreat:
    def test_the_whole_way_finds_the_distance(self, parts: Path, tmp_path: Path) -> None:
        model, dataset = linear_model(parts)
        out = tmp_path / "a"
        attack(model, dataset, out, Threat(eps=(0.0,)))
        rows = [json.loads(line) for line in (out / "images.jsonl").read_text().splitlines()]
        threshold = sorted(row["clean"] for row in rows)[4] + 0.01
        model = replace(model, calibration=at(threshold))
        wanted = Threat(eps=(0.0, EPS), smallest=0.5)
        found = attack(model, dataset, tmp_path / "b", wanted)
        assert found["search"]["up_to"] == 0.5
        assert found["search"]["cost"] == {"gradients": 100, "forwards": 24}
        for row, one in zip(rows, found["smallest_eps"], strict=True):
            gap = threshold - row["clean"] if not row["defect"] else row["clean"] - threshold
            expected = max(gap / float(DUAL["linf"]), 0.0)
            assert one["eps"] == pytest.approx(expected, rel=1e-2), "away from the box"
            assert one["found"] == "search"
            assert (one["why"] is None) == (expected > 0)
        kept = (tmp_path / "b" / "images.jsonl").read_text().splitlines()
        last = [json.loads(line) for line in kept][2 * len(rows) :]
        assert [row["index"] for row in last] == list(range(2 * len(rows), 3 * len(rows)))
        assert all((row["verdict_attacked"] == "NG") != row["defect"] for row in last)
        for name, defect in (("good", False), ("defect", True)):
            each = sorted(one["eps"] for one in found["smallest_eps"] if one["defect"] is defect)
            assert found["search"]["median"][name] == each[len(each) // 2]
        words = "\n".join(searched(found))
        assert found_eps(found["search"]["median"]["good"], "linf") in words

    def test_the_smaller_of_search_and_curve_counts(self) -> None:
        class Given:
            def __init__(self, rows: list[dict[str, Any]]) -> None:
                self.ordered, self.limit = rows, 0.5

        rows = [
            {"path": str(place), "defect": True, "attacked": 0.5}
            | {"verdict_clean": clean, "verdict_attacked": found}
            for place, (clean, found) in enumerate(
                [("NG", "OK"), ("NG", "OK"), ("NG", "NG"), ("NG", "NG"), ("OK", "OK")]
            )
        ]
        searches = [{"smallest_eps": eps} for eps in (0.05, 0.2, 0.3, None, 0.0)]
        found = smallest([(0.1, Given(rows))], Given(searches))  # type: ignore[arg-type, list-item]
        assert [(one["eps"], one["found"]) for one in found] == [
            (0.05, "search"), (0.1, "curve"), (0.3, "search"), (None, "search"), (0.0, "search"),
        ]  # fmt: skip
        assert "found nothing up to eps 0.5" in found[3]["why"]
        assert found[4]["why"] == "its verdict is wrong without attack"
        [*_, fourth, fifth] = smallest([(0.1, Given(rows))], None)  # type: ignore[list-item]
        assert (fourth["eps"], fourth["found"]) == (None, "curve")
        assert "up to eps 0.1, the largest asked for" in fourth["why"]
        assert fifth["eps"] == 0

    @pytest.mark.parametrize(("smallest", "said"), [(0.0, "above 0"), (-1.0, "above 0")])
    def test_a_limit_that_is_none(self, smallest: float, said: str) -> None:
        with pytest.raises(UsageError, match=said):
            Threat(smallest=smallest)


class TestCommand:
    def test_a_run_that_was_killed_goes_on(
        self,
        trained: Path,
        parts: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: Capture,
    ) -> None:
        monkeypatch.setattr(attack_search, "STEPS", 5)
        words = ["attack", trained, parts, "--batch-size=2", "--limit=6", "--no-health"]
        words += ["--smallest-eps=0.5", "--out"]
        _, whole, err = run(capsys, *words, tmp_path / "whole")
        assert "the search for the smallest eps up to 0.5: at most" in err
        added, add = [], Rows.add

        def signalling(self: Rows, row: Any, anomaly: Any = None) -> None:
            add(self, row, anomaly)
            added.append(row["index"])
            if len(added) == 9:
                os.kill(os.getpid(), signal.SIGINT)

        monkeypatch.setattr(Rows, "add", signalling)
        assert run(capsys, *words, tmp_path / "a")[0] == 130
        kept = (tmp_path / "a" / "images.jsonl").read_text().splitlines()
        assert 9 <= len(kept) < 12
        code, record, _ = run(capsys, *words, tmp_path / "a")
        assert code == 0
        assert added == list(range(12))
        assert {**record, "seconds": 0} == {**whole, "seconds": 0}
        assert record["search"].keys() == {"up_to", "median", "cost", "verdict"}
        code, record, err = run(capsys, *words, tmp_path / "a")
        assert "all of it is done" in err
        assert added == list(range(12))
        assert {**record, "seconds": 0} == {**whole, "seconds": 0}
        page = (tmp_path / "a" / "report.html").read_text()
        assert "share of images whose verdict stands" in page.lower()

    def test_other_limits_are_other_settings(
        self, trained: Path, parts: Path, tmp_path: Path, capsys: Capture
    ) -> None:
        words = ["attack", trained, parts, "--no-health", "--limit=2", "--out", tmp_path / "a"]
        assert run(capsys, *words)[0] == 0
        assert "smallest" not in json.loads((tmp_path / "a" / "settings.json").read_text())
        code, record, _ = run(capsys, *words, "--smallest-eps=0.1")
        assert code == 2
        assert "other settings (smallest)" in record["error"]["message"]

    @pytest.mark.parametrize(
        ("limit", "said"), [("2", "from 0 to 1,"), ("0", "above 0"), ("x", "--smallest-eps 'x'")]
    )
    def test_an_impossible_limit(
        self, limit: str, said: str, trained: Path, parts: Path, capsys: Capture
    ) -> None:
        code, record, _ = run(capsys, "attack", trained, parts, f"--smallest-eps={limit}")
        assert code == 2
        assert said in record["error"]["message"]


def test_the_table_of_costs_is_true() -> None:
    page = (Path(__file__).parent.parent / "docs" / "attacks.md").read_text()
    table = page.split("<!-- search -->")[1].split("<!-- end of search -->")[0]
    shown = [line.split("|")[2:4] for line in table.strip().splitlines()[2:]]
    costs = [
        Search(Assault(detector.eval(), BALLS["linf"](0.1), SUITES["quick"]), at(0.0)).cost
        for detector in (Linear(), Linear(draws=1), fitted(depth=[30, 60, 90], draws=2))
    ]
    assert [tuple(map(int, pair)) for pair in shown] == costs


def test_radii_that_were_found_in_words() -> None:
    assert found_eps(0.01234, "linf") == "3.15/255"
    assert found_eps(0.01234, "l2") == "0.0123"
    assert found_eps(0.0, "linf") == "0"
    assert found_eps(3.0, "patch") == "3 px"
