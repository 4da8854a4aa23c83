"""The report of a training says what was learnt and chosen, and what the threshold promises."""

import builtins
from pathlib import Path
from typing import Any

import pytest
import torch
from parts import TINY, run
from torch import Tensor

from advrad.data import load as load_data
from advrad.detectors import Anomaly, Detector
from advrad.evaluate.gallery import Gallery, remark
from advrad.evaluate.heatmaps import span
from advrad.evaluate.report import Report
from advrad.evaluate.sections import seconds_in_words
from advrad.evaluate.training_report import held_out, read_losses
from advrad.images import fingerprint
from advrad.model import load


def page_of(folder: Path) -> str:
    return (folder / "training" / "report.html").read_text()


def test_it_holds_what_a_reader_needs(trained: Path) -> None:
    page, model = page_of(trained), load(trained)
    assert "Learnt from 9 good images of parts in" in page
    assert "about 25 % of good images or fewer" in page
    assert page.count("data:image/svg+xml") == 1  # the loss
    assert f"{model.calibration.threshold:.4g}" in page
    assert "without test labels" in page
    assert "approximate" in page
    assert "of processor time" in page
    for row in model.about["chosen"][0]["table"]:
        assert f"{row['mean']:.4g}" in page
    assert page.count('alt="reconstruction of') == page.count('alt="heat map of') == 3
    assert "its middle is the threshold of NG" in page
    assert f"{2 * model.calibration.threshold:.4g} and above" in page


def test_the_pictures_are_of_images_it_has_not_trained_on(trained: Path, parts: Path) -> None:
    model = load(trained)
    shown = {fingerprint(item.path) for item in held_out(model, load_data(str(parts)))}
    assert shown == set(model.seen["calibrate"])
    assert shown.isdisjoint(model.seen["train"])


def test_losses_are_those_of_the_log(trained: Path, tmp_path: Path) -> None:
    assert [step for step, _ in read_losses(trained)] == [1, 2, 3, 4, 5, 6]
    assert read_losses(tmp_path) == []


def test_without_matplotlib_it_says_what_to_install(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    load_module = builtins.__import__

    def missing(name: str, *rest: Any, **named: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return load_module(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", missing)
    code, _, err = run(capsys, "train", parts, tmp_path / "m", *TINY)
    assert code == 0
    assert "pip install 'advrad[report]'" in err
    assert "pip install" in page_of(tmp_path / "m")
    assert run(capsys, "evaluate", tmp_path / "m", parts, "--out", tmp_path / "e")[0] == 0
    page = (tmp_path / "e" / "report.html").read_text()
    assert "pip install" in page
    assert "svg" not in page


class Brightness(Detector):
    """A detector that rebuilds nothing."""

    def __init__(self, size: int = 16, channels: int = 1) -> None:
        super().__init__()
        self.size, self.channels = size, channels

    def fit(self, images: Any, run: Any = None) -> "Brightness":
        return self

    def forward(self, x: Tensor, noise: Any = None, draws: int | None = None) -> Anomaly:
        return Anomaly(x.flatten(1).amax(1), x.mean(1))


def test_a_detector_that_rebuilds_nothing_has_no_such_picture(trained: Path, parts: Path) -> None:
    from dataclasses import replace

    model, dataset = replace(load(trained), detector=Brightness()), load_data(str(parts))
    report = Report("title", "finding")
    Gallery(model, dataset).add(report, dataset.test[:2])
    assert "reconstruction of" not in report.html()
    assert report.html().count('alt="heat map of') == 2


@pytest.mark.parametrize(
    ("threshold", "expected"), [(2.0, (0, 4)), (0.0, (-1, 1)), (-3.0, (-4, -2))]
)
def test_the_threshold_is_the_middle_of_the_scale(
    threshold: float, expected: tuple[float, float]
) -> None:
    low, high = span(threshold)
    assert (low, high) == expected
    assert (low + high) / 2 == threshold


def test_what_went_wrong_is_said() -> None:
    assert [remark(v, True) for v in ("OK", "UNSURE", "NG")] == [
        "missed",
        "left for a second look",
        "",
    ]
    assert [remark(v, False) for v in ("OK", "NG")] == ["", "false alarm"]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (59.4, "59 s"), (59.9, "1 min 0 s"), (215.0, "3 min 35 s")],
)
def test_seconds_in_words(seconds: float, words: str) -> None:
    assert seconds_in_words(seconds) == words


def test_gradients_are_not_kept(trained: Path, parts: Path) -> None:
    model, dataset = load(trained), load_data(str(parts))
    with torch.enable_grad():
        Gallery(model, dataset).add(Report("title", "finding"), dataset.test[:1])
    assert all(parameter.grad is None for parameter in model.detector.parameters())
