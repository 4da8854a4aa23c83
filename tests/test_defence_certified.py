"""Certified accuracy: a plane's distances are known, and no certificate is longer."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from defences import images, plane
from torch import Tensor, nn

from advrad.certify import Smoothing
from advrad.certify.vote import ABSTAIN, least_share
from advrad.errors import UsageError
from advrad.evaluate.defence_certified import ClassCertificate, certify_classes, markdown, table
from advrad.evaluate.defence_trial import Examples

ASKED = {"sigmas": [0.25], "radii": [0.0, 0.1, 0.25], "samples": 400, "selecting": 50}


def distances(classifier: nn.Module, x: Tensor) -> Tensor:
    """Of images to the plane, in l2."""
    weight, bound = classifier.weight.detach(), classifier.bound
    return (x.flatten(1) @ weight - bound).abs() / weight.norm()


def test_no_certificate_of_a_plane_is_longer_than_the_distance_to_it(tmp_path: Path) -> None:
    classifier = plane()
    tested = images(classifier, 20)
    found = certify_classes(classifier, None, tested, ClassCertificate(**ASKED), tmp_path / "out")
    [row] = found["rows"]
    true = distances(classifier, tested.x)
    for radius, share in row["certified"].items():
        assert share["value"] <= float((true >= float(radius)).double().mean())
    assert row["certified"]["0.0"]["value"] >= 0.5
    assert row["mean_radius"] >= 0.5 * float(true.clamp(max=row["largest"]).mean())
    assert (tmp_path / "out" / "table.md").read_text() == markdown(found)


def test_an_image_whose_draws_all_agree_reaches_the_largest_radius() -> None:
    asked = ClassCertificate(**ASKED)
    expected = 0.25 * float(torch.special.ndtri(torch.tensor(least_share(400, 400, 0.001))))
    assert asked.largest(0.25) == pytest.approx(expected, rel=1e-5)
    classifier, x = plane(), torch.zeros(1, 1, 8, 8)
    away = x + 20 * (classifier.weight / classifier.weight.norm()).detach().view(1, 1, 8, 8)
    tested = Examples(away.clamp(0, 1), classifier(away.clamp(0, 1)).argmax(1), ["far"])
    [row] = certify_classes(classifier, None, tested, asked)["rows"]
    assert row["mean_radius"] == pytest.approx(expected, rel=1e-5)


def test_a_wrong_class_is_certified_at_no_radius() -> None:
    classifier = plane()
    tested = images(classifier, 6)
    wrong = Examples(tested.x, 1 - tested.labels, tested.ids)
    [row] = certify_classes(classifier, None, wrong, ClassCertificate(**ASKED))["rows"]
    assert row["right"]["value"] == 0
    assert {share["value"] for share in row["certified"].values()} == {0}


def test_a_coin_abstains() -> None:
    class Coin(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            side = x.flatten(1).sum(1).mul(1e4).sin()
            return torch.stack([side, -side], 1)

    tested = images(plane(), 4)
    [row] = certify_classes(Coin(), None, tested, ClassCertificate(**ASKED))["rows"]
    assert row["abstains"]["value"] == 1
    assert row["mean_radius"] == 0
    assert ABSTAIN == -1


class Stopped(Exception):
    pass


def test_a_run_that_stopped_goes_on_and_other_radii_need_no_draw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier, out = plane(), tmp_path / "out"
    tested = images(classifier, 6)

    def stop(done: int, total: int) -> None:
        if done == 4:
            raise Stopped

    asked = ClassCertificate(**ASKED | {"sigmas": [0.25, 0.5]})
    with pytest.raises(Stopped):
        certify_classes(classifier, None, tested, asked, out, stop)
    whole = certify_classes(classifier, None, tested, asked, out)
    plain = certify_classes(classifier, None, tested, asked)
    assert timeless(whole["rows"]) == timeless(plain["rows"])
    monkeypatch.setattr(Smoothing, "batches", None)
    other = ClassCertificate(**ASKED | {"sigmas": [0.25, 0.5], "radii": [0.2]})
    again = certify_classes(classifier, None, tested, other, out)
    assert list(again["rows"][0]["certified"]) == ["0.2"]
    changed = ClassCertificate(**ASKED | {"sigmas": [0.25, 0.5], "samples": 500})
    with pytest.raises(UsageError, match="other settings"):
        certify_classes(classifier, None, tested, changed, out)


def timeless(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if "seconds" not in k} for row in rows]


def test_the_table_says_what_draws_can_reach() -> None:
    classifier = plane()
    found = certify_classes(classifier, None, images(classifier, 3), ClassCertificate(**ASKED))
    header, line = table(found)
    assert header[4:7] == ["l2 0", "l2 0.1", "l2 0.25"]
    assert line[:2] == ["0.25", "3"]
    assert line[-2] == f"{ClassCertificate(**ASKED).largest(0.25):.3g}"


def test_a_radius_beyond_what_the_draws_can_reach_is_told() -> None:
    classifier = plane()
    asked = ClassCertificate(sigmas=[0.25], radii=[0.1, 9.0], samples=10, selecting=10)
    assert 0 < asked.largest(0.25) < 0.1
    found = certify_classes(classifier, None, images(classifier, 3), asked)
    assert table(found)[1][4:6] == ["more draws needed"] * 2


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"sigmas": []}, "sigma"),
        ({"sigmas": [0.1, 0.1]}, "each once"),
        ({"sigmas": [0.0]}, "sigma"),
        ({"radii": [-0.1]}, "radius -0.1"),
        ({"radii": [math.nan]}, "radius nan"),
        ({"alpha": 0.0}, "alpha 0"),
        ({"alpha": 0.5}, "alpha 0.5"),
        ({"samples": 0}, "0 "),
        ({"samples": 9}, "9 draws certify nothing with alpha 0.001.*expected 10 or more"),
        ({"samples": 1, "alpha": 0.49999}, "expected 2 or more"),
        ({"selecting": 0}, "0 draws"),
    ],
)
def test_what_is_impossible_is_refused(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        ClassCertificate(**ASKED | wrong)
