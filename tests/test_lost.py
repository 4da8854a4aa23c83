"""Scores and maps that are no number under attack count as the worst, and are told."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import SIDE, Fake, bright, pictures
from test_attack_search import at
from torch import Tensor

from advrad import metrics
from advrad.attacks import Linf
from advrad.attacks.strongest import SUITES, Part, Suite
from advrad.data import Images, load
from advrad.errors import DataError
from advrad.evaluate.attack_gallery import remark, worth_seeing
from advrad.evaluate.attack_report import write_attack_report
from advrad.evaluate.attack_summary import attacked as summary
from advrad.evaluate.attacked import Threat, attack
from advrad.evaluate.clean import Evaluation
from advrad.evaluate.curves import moves_figure
from advrad.evaluate.lost import in_words, lost, told, worst, worst_map
from advrad.evaluate.robustness import Assault
from advrad.images import Preprocess
from advrad.model import Model

X, DEFECT, IDS = pictures(6)


@pytest.mark.parametrize("gone", [math.nan, math.inf, -math.inf, None])
def test_a_lost_score_is_the_worst_of_its_class(gone: float | None) -> None:
    labels = [False, False, True, True]
    assert metrics.auroc(worst([0.1, 0.2, 0.3, 0.4], labels), labels) == 1
    assert metrics.auroc(worst([gone, 0.2, 0.3, 0.4], labels), labels) == 0.5
    assert metrics.auroc(worst([0.1, 0.2, gone, 0.4], labels), labels) == 0.5
    assert metrics.auroc(worst([gone] * 4, labels), labels) == 0
    scores = worst([gone] * 4, labels)
    for rate in (metrics.miss_rate, metrics.false_alarm_rate):
        found = rate(scores, labels, 1e30)
        assert found is not None
        assert found.value == 1
    assert lost(gone)
    assert in_words(gone) == "no number"


def test_numbers_are_left_as_they_are() -> None:
    assert worst([0.5, -1e30], [True, False]).tolist() == [0.5, -1e30]
    values = torch.randn(4, 4)
    assert torch.equal(worst_map(values, None), values)
    assert not told(0)
    assert told(1).startswith("1 image has")


def test_lost_pixels_are_the_worst_of_their_class() -> None:
    values, mask = torch.full((2, 2), torch.nan), torch.tensor([[True, False], [False, False]])
    found = worst_map(values, mask)
    assert found.isfinite().all()
    assert float(found[0, 0]) == float(found.min()) < -1e38
    assert float(found[0, 1]) > 1e38


def model(values: Callable[[Tensor], Tensor]) -> Model:
    about = {"name": "falling", "split_seed": 0, "version": "0"}
    return Model(Fake(values).eval(), Preprocess(SIDE, 1), at(0.05), {}, about)


class Darkest:
    """`bright`, and infinite where an image is darker somewhere than any is without attack."""

    def __init__(self, level: float) -> None:
        self.level = level

    def __call__(self, x: Tensor) -> Tensor:
        below = x.amin((1, 2, 3)) < self.level
        return bright(x) + torch.where(below, torch.inf, 0.0)[:, None, None]


def test_a_run_goes_on_and_says_so(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Good images are raised by darkening what is dark, and then have no number."""
    climb = Part("pgd", "log-sum-exp", 1, {"steps": 3, "start": "zero"})
    monkeypatch.setitem(SUITES, "quick", Suite((climb,)))
    dataset = load(str(parts))
    lowest = min(float(x.min()) for x in Images(dataset.test, Preprocess(SIDE, 1)))
    fragile, out = model(Darkest(lowest - 1e-3)), tmp_path / "a"
    wanted = Threat(eps=(0.1,), health=False, evaluation=Evaluation(limit=6))
    result = attack(fragile, dataset, out, wanted)
    [row] = result["rows"]
    assert row["lost"] > 0
    assert 0 <= row["robust_auroc"] < result["clean_auroc"]
    assert row["pixel_auroc"] is not None
    rows = [json.loads(line) for line in (out / "images.jsonl").read_text().splitlines()]
    gone = [one for one in rows if one["attacked"] is None]
    assert len(gone) == row["lost"]
    assert not any(one["defect"] for one in gone)
    assert told(row["lost"]) in summary(result, [], None)
    smallest = {one["path"]: one["eps"] for one in result["smallest_eps"]}
    assert all(smallest[one["path"]] in (0, 0.1) for one in gone)
    again = attack(fragile, dataset, out, wanted)
    assert {**again, "seconds": 0} == {**result, "seconds": 0}
    assert told(row["lost"]) in write_attack_report(fragile, dataset, out).read_text()


def test_pictures_of_what_has_no_number() -> None:
    row: dict[str, Any] = {"clean": 0.5, "verdict_clean": "OK", "verdict_attacked": "UNSURE"}
    rows = [row | {"attacked": score, "defect": False} for score in (0.6, None, math.nan)]
    assert remark(rows[1]) == "no finite score under attack"
    assert worth_seeing(rows, 2)[0]["attacked"] is not rows[0]["attacked"]
    assert moves_figure(rows, 0.7).startswith(b"<?xml")


@pytest.mark.parametrize("gone", [math.nan, math.inf])
@pytest.mark.parametrize("eps", [0.0, 0.01])
def test_a_clean_score_that_is_no_number_is_named(gone: float, eps: float) -> None:
    def broken(x: Tensor) -> Tensor:
        bad = (x == X[3]).flatten(1).all(1)
        return bright(x) + torch.where(bad, gone, 0.0)[:, None, None]

    assault = Assault(Fake(broken).eval(), Linf(eps), SUITES["quick"])
    with pytest.raises(DataError, match=r"score of third.png is .*, without any") as error:
        assault(X, DEFECT, IDS, ["0", "1", "2", "third.png", "4", "5"])
    assert "gradient" not in str(error.value)
    with pytest.raises(DataError, match=IDS[3]):
        replace(assault, seed=1)(X, DEFECT, IDS)
