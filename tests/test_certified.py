"""Certificates of whole models: a linear score whose figures are known, and attacks on them."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy import special
from torch import Tensor

from advrad.calibrate import NG, OK, calibrate
from advrad.certify import Bounds, largest_shift, ordered, ranks
from advrad.data import Dataset, load
from advrad.detectors.base import PLAIN, Anomaly, Detector, Images, Run
from advrad.errors import DataError, ModelError, UsageError
from advrad.evaluate import Evaluation, smoothed
from advrad.evaluate.certificate import Certificate
from advrad.evaluate.certified import certify, prepared
from advrad.evaluate.certified_figures import chief, columns, curve, floored, half, sure
from advrad.evaluate.certified_summary import certified as in_words
from advrad.evaluate.certified_summary import finding
from advrad.evaluate.challenge import Challenge, challenge
from advrad.evaluate.rows import ROWS
from advrad.evaluate.smoothed import Smoothed, Way
from advrad.images import Preprocess
from advrad.model import Model
from advrad.noise import Noise, fresh

SIDE = 16
WEIGHT = 1 / SIDE  # of each pixel, so that the weights' l2 norm is 1: the median moves by r


class Bright(Detector):
    """score = SIDE * mean brightness + own * noise: its median moves by exactly the radius."""

    def __init__(self, own: float = 0.0, lost: float = math.inf) -> None:
        super().__init__()
        self.size, self.channels, self.own, self.lost = SIDE, 1, own, lost

    def fit(self, images: Images, run: Run = PLAIN) -> "Bright":
        return self

    def forward(self, x: Tensor, noise: Noise = fresh, draws: int | None = None) -> Anomaly:
        score = WEIGHT * x.sum((1, 2, 3)) + self.own * noise(x[:, 0, 0, 0], 1)
        score = torch.where(score > self.lost, math.nan, score)
        return Anomaly(score, SIDE * x[:, 0])


@pytest.fixture(scope="module")
def dataset(parts: Path) -> Dataset:
    return load(str(parts))


def model_of(detector: Detector, dataset: Dataset) -> Model:
    """A model that has seen the training images, and calls them good up to the highest score."""
    from advrad.data import Images as Files

    preprocess = Preprocess(SIDE, 1)
    images = Files([i for i in dataset.train if not i.defect], preprocess)
    scores = [float(detector(images[i][None]).score) for i in range(len(images))]
    seen = {"train": tuple(images.ids), "calibrate": tuple(images.ids)}
    return Model(detector, preprocess, calibrate([s for s in scores if s == s], 0.1), seen)


def asked(**settings: Any) -> Certificate:
    base: dict[str, Any] = {"sigmas": (0.5,), "radii": (0.0, 0.25), "samples": 400}
    return Certificate(**base | {"evaluation": Evaluation(batch=64)} | settings)


@pytest.mark.parametrize("own", [0.0, 0.3])
def test_a_linear_score_has_the_certificate_of_its_closed_form(
    own: float, dataset: Dataset, tmp_path: Path
) -> None:
    """Median w.x, single draws w.x + N(0, sigma^2 + own^2); L = median - spread * Phi^-1(...)."""
    model, wanted = model_of(Bright(own), dataset), asked(radii=(0.0, 0.25, 0.5))
    result = certify(model, dataset, tmp_path, wanted)
    rows = [json.loads(line) for line in (tmp_path / ROWS).read_text().splitlines()]
    tests = [row for row in rows if row["part"] == "test"]
    assert len(tests) == 9
    spread, alpha = math.hypot(0.5, own), 0.001 / 9
    for row in tests:
        exact = WEIGHT * float(Preprocess(SIDE, 1)(Path(row["path"])).sum())
        error = spread * math.sqrt(math.pi / 2 / 400)  # of the median of 400 normal draws
        assert row["median"] == pytest.approx(exact, abs=4 * error)
        for radius, (low, high) in row["bounds"].items():
            for bound, rank in zip(
                (low, high), ranks(400, float(radius) / 0.5, alpha), strict=True
            ):
                place = exact + spread * special.ndtri(rank / 401)
                assert bound == pytest.approx(place, abs=0.6 * spread)
            assert low < exact - float(radius) <= exact + float(radius) < high
        assert row["scores"] == sorted(row["scores"])
    [found] = result["rows"]
    assert found["needed"] == {}
    areas = list(found["certified_auroc"].values())
    assert areas == sorted(areas, reverse=True)
    assert areas[0] <= found["smoothed_auroc"]


def test_bounds_in_rows_are_order_statistics_of_their_draws(
    dataset: Dataset, tmp_path: Path
) -> None:
    result = certify(model_of(Bright(), dataset), dataset, tmp_path, asked())
    alpha, threshold = 0.001 / 9, result["rows"][0]["threshold"]
    for row in map(json.loads, (tmp_path / ROWS).read_text().splitlines()):
        if row["part"] != "test":
            continue
        draws = ordered(torch.tensor(row["scores"]))
        for radius, pair in row["bounds"].items():
            assert pair == [float(end) for end in draws.bounds(float(radius) / 0.5, alpha)]
        both = draws.bounds((row["radius"] or 0.0) / 0.5 * (1 - 1e-9), alpha / 2)
        verdict = {NG: both.lower >= threshold, OK: both.upper < threshold}
        assert row["verdict"] == "ABSTAIN" or verdict[row["verdict"]]


def test_the_radius_at_one_half_is_where_the_certified_auroc_falls_below_it() -> None:
    """Gaussian draws of two classes 2 apart: the curve steps down, and 0.5 is passed at `half`."""
    source = torch.Generator().manual_seed(0)
    labels = torch.arange(30) % 2 == 1
    centre = 2.0 * labels + 0.5 * torch.randn(30, generator=source)
    draws, alpha = ordered(centre + torch.randn(300, 30, generator=source)), 1e-4
    names = labels.numpy()
    sigma = 0.3

    def area(radius: float) -> float:
        bounds = draws.bounds(radius / sigma, alpha)
        low, high = bounds.lower[labels], bounds.upper[~labels]
        return float(((low[:, None] > high).double() + (low[:, None] == high) / 2.0).mean())

    found = half(draws, names, sigma, alpha)
    assert found is not None
    assert area(found * (1 - 1e-9)) >= 0.5 > area(found * (1 + 1e-6))
    steps = curve(draws, names, sigma, alpha)
    assert steps["radius"] == sorted(steps["radius"])
    assert steps["radius"][-1] == pytest.approx(sigma * largest_shift(300, alpha))
    for radius, value in zip(steps["radius"], steps["auroc"], strict=True):
        assert value == pytest.approx(area(radius * (1 - 1e-9)))


def test_what_so_few_draws_cannot_bound_is_told_and_has_no_figure(
    dataset: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    model, wanted = model_of(Bright(), dataset), asked(radii=(0.1, 1.0), samples=100)
    result = certify(model, dataset, None, wanted)
    [row] = result["rows"]
    assert row["certified_auroc"]["1"] is None
    assert row["certified_auroc_ci"]["1"] is None
    assert row["certified"]["1"] is None
    assert result["best"]["1"] is None
    needed = row["needed"]["1"]
    assert f"sigma 0.5 at radius 1 needs {needed:,} samples" in caplog.text
    assert largest_shift(needed, 0.001 / 9) >= 2.0 > largest_shift(needed - 1, 0.001 / 9)
    with pytest.raises(UsageError, match=r"nothing can be certified with 100 samples.*needs"):
        certify(model, dataset, None, asked(radii=(1.0,), samples=100))


def test_the_best_of_several_sigmas_pays_for_the_choice(dataset: Dataset) -> None:
    wanted = asked(sigmas=(0.5, 0.4), radii=(0.2,))
    result = certify(model_of(Bright(), dataset), dataset, None, wanted)
    alone = certify(
        model_of(Bright(), dataset), dataset, None, replace(wanted, alpha=wanted.alpha / 2)
    )
    areas = {row["sigma"]: row["certified_auroc"]["0.2"] for row in alone["rows"]}
    best = result["best"]["0.2"]
    assert best["value"] == max(areas.values()) == areas[best["sigma"]]
    one_of_two = {row["sigma"]: row["certified_auroc"]["0.2"] for row in result["rows"]}
    assert best["value"] <= one_of_two[best["sigma"]]


def test_what_stands_for_a_result_pays_for_the_radii_it_was_chosen_from(dataset: Dataset) -> None:
    """Each of two radii gets half of alpha, so that the better one may be quoted."""
    model, wanted = model_of(Bright(), dataset), asked(radii=(0.1, 0.2))
    result = certify(model, dataset, None, wanted)
    each = certify(model, dataset, None, replace(wanted, alpha=wanted.alpha / 2))
    paid = {radius: area["value"] for radius, area in result["best"].items()}
    assert paid == each["rows"][0]["certified_auroc"]
    radius, area = chief(result)  # type: ignore[misc]
    assert area["value"] == paid[f"{radius:g}"]


def test_draws_that_are_not_finite_are_counted_and_drop_no_image(
    dataset: Dataset, tmp_path: Path
) -> None:
    whole = certify(model_of(Bright(), dataset), dataset, None, asked())
    top = sorted(Bright()(torch.rand(1, 1, SIDE, SIDE)).score.tolist())[-1] + 1.0
    spoilt = certify(model_of(Bright(lost=top), dataset), dataset, tmp_path, asked())
    [row], [before] = spoilt["rows"], whole["rows"]
    assert row["lost"] > 0
    assert spoilt["images"] == whole["images"]
    assert row["certified_auroc"]["0.25"] <= before["certified_auroc"]["0.25"]
    tests = [json.loads(line) for line in (tmp_path / ROWS).read_text().splitlines()]
    lost = [r for r in tests if r["part"] == "test" and r["lost"]]
    assert all(r["scores"].count(None) == r["lost"] for r in lost)
    read = columns([r for r in tests if r["part"] == "test"])
    assert int(read.lost.sum()) == row["lost"]


def test_an_image_without_a_clean_score_ends_nothing(dataset: Dataset, tmp_path: Path) -> None:
    """Lost without noise, found by most draws: a row as any other, now and when it is read."""

    class Fragile(Bright):
        def forward(self, x: Tensor, noise: Noise = fresh, draws: int | None = None) -> Anomaly:
            found = super().forward(x, noise, draws)
            clean = (x >= 0).all((1, 2, 3)) & (x <= 1).all((1, 2, 3))
            return Anomaly(torch.where(clean, math.nan, found.score), found.map)

    model = replace(model_of(Bright(), dataset), detector=Fragile())
    for _ in range(2):
        result = certify(model, dataset, tmp_path, asked())
        assert result["clean_auroc"] is None
        assert result["why"].startswith("9 of 9 images have no finite score without noise")
        assert result["rows"][0]["smoothed_auroc"] is not None
        assert finding(result).endswith("the detector without smoothing n/a.")


def test_lost_draws_behind_a_threshold_are_counted(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = [float(Bright()(Preprocess(SIDE, 1)(i.path)[None]).score) for i in dataset.train]
    fragile = Bright(lost=max(scores) + 1.0)
    model = replace(model_of(Bright(), dataset), detector=fragile)
    monkeypatch.setattr(smoothed, "restored", lambda files: fragile)
    result = certify(model, dataset, tmp_path / "out", asked(), folder=tmp_path)
    lines = (tmp_path / "out" / ROWS).read_text().splitlines()
    rows = [row for row in map(json.loads, lines) if row["part"] == "calibrate"]
    counted = result["rows"][0]["calibration_lost"]
    assert counted == sum(row["lost"] for row in rows) > 0
    assert f"{counted:,} draws of calibration images" in in_words(result, [], None)
    again = certify(model, dataset, None, asked(), folder=tmp_path)  # from what is kept
    assert again["rows"][0]["calibration_lost"] == counted


def test_numbers_are_those_that_name_them(dataset: Dataset, tmp_path: Path) -> None:
    wanted = asked(sigmas=(0.5000004, 1 / 3), radii=(-0.0, 0.1234567))
    assert wanted.sigmas == [0.5, 0.333333]
    assert wanted.radii == [0.0, 0.123457]
    assert math.copysign(1, wanted.radii[0]) == 1


def test_so_few_draws_that_no_verdict_is_certain_have_no_shares(dataset: Dataset) -> None:
    """AUROC takes one side of an image, a verdict two: between the two limits one has a figure."""
    one, both = (largest_shift(400, 0.001 / 9 / sides) for sides in (1, 2))
    wanted = asked(radii=(0.5 * (one + both) / 2, 0.25))
    [row] = certify(model_of(Bright(), dataset), dataset, None, wanted)["rows"]
    between = f"{wanted.radii[0]:g}"
    assert row["needed"] == {}
    assert row["certified_auroc"][between] is not None
    assert row["certified"][between] is None
    assert row["certified"]["0.25"] is not None
    assert "too few draws for any certain verdict" in in_words(
        certify(model_of(Bright(), dataset), dataset, None, wanted), [], None
    )


def test_an_endless_ratio_leaves_the_other_pairs(dataset: Dataset) -> None:
    wanted = asked(sigmas=(0.5, 1e-320), radii=(0.25, 1e308))
    assert set(wanted.impossible(9)) == {(s, r) for s in wanted.sigmas for r in wanted.radii} - {
        (0.5, 0.25)
    }


def test_a_detector_that_is_never_finite_under_noise_is_told(dataset: Dataset) -> None:
    model = model_of(Bright(), dataset)
    broken = replace(model, detector=Bright(lost=-math.inf))
    with pytest.raises(ModelError, match="no finite score under this noise"):
        certify(broken, dataset, None, asked())


def test_it_is_told_again_when_its_rows_are_read(dataset: Dataset, tmp_path: Path) -> None:
    broken = replace(model_of(Bright(), dataset), detector=Bright(lost=-math.inf))
    for _ in range(2):
        with pytest.raises(ModelError, match="no finite score under this noise"):
            certify(broken, dataset, tmp_path, asked())


def test_one_class_gives_what_can_be_had(dataset: Dataset) -> None:
    good = replace(dataset, test=tuple(item for item in dataset.test if not item.defect))
    result = certify(model_of(Bright(), dataset), good, None, asked())
    [row] = result["rows"]
    assert row["smoothed_auroc"] is None
    assert row["certified_auroc"] == {"0": None, "0.25": None}
    assert row["half"] is None
    assert row["curve"] == {"radius": [], "auroc": []}
    assert row["certified"]["0"]["defect"] is None
    assert 0 <= row["certified"]["0"]["good"] <= 1
    assert result["why"].startswith("no defective test images")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"sigmas": (0.0,)}, "sigma 0"),
        ({"sigmas": (-0.1,)}, "sigma -0.1"),
        ({"sigmas": (0.1, 0.1)}, "each once"),
        ({"sigmas": ()}, "one or more"),
        ({"radii": (0.1, 0.1000001)}, "to six digits"),
        ({"radii": (-0.1,)}, "radius -0.1"),
        ({"radii": (math.nan,)}, "radius nan"),
        ({"alpha": 0.0}, "alpha 0"),
        ({"alpha": 1.0}, "alpha 1"),
        ({"samples": 0}, "0 samples"),
        ({"block": -1}, "block -1"),
    ],
)
def test_impossible_requests_are_told(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        asked(**settings)


def test_an_unknown_scoring_is_told(dataset: Dataset) -> None:
    with pytest.raises(UsageError, match="Bright has plain"):
        certify(model_of(Bright(), dataset), dataset, None, asked(scorings=("matched",)))


def test_other_data_than_the_model_s_cannot_measure_it(dataset: Dataset) -> None:
    model = replace(model_of(Bright(), dataset), seen={"train": ("x",), "calibrate": ("x",)})
    with pytest.raises(DataError, match="0 of the 1 good images"):
        certify(model, dataset, None, asked())


def test_a_part_of_the_images_cannot_measure_it(dataset: Dataset) -> None:
    part = replace(dataset, train=dataset.train[:7])
    with pytest.raises(DataError, match="7 of the 12 good images that the model used to train"):
        prepared(model_of(Bright(), dataset), part, asked())  # before anything is scored


def test_more_noise_than_the_detector_knows_is_told(dataset: Dataset) -> None:
    model = model_of(Bright(), dataset)
    model.detector.largest_sigma = lambda scoring: 0.3  # type: ignore[method-assign]
    with pytest.raises(UsageError, match=r"sigma 0\.5: expected at most 0\.3"):
        certify(model, dataset, None, asked())


def test_fewer_draws_do_not_replace_more(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    model = model_of(Bright(), dataset)
    monkeypatch.setattr(smoothed, "restored", lambda files: Bright())
    for samples, kept in ((400, 400), (100, 400), (500, 500)):
        certify(model, dataset, None, asked(samples=samples, radii=(0.0,)), folder=tmp_path)
        found = smoothed.load(model, tmp_path, 0.5, "plain")
        assert found is not None
        assert found.way.samples == kept
    assert "stays as it is, with 400 samples" in caplog.text


def test_what_is_damaged_is_measured_again(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    model = model_of(Bright(), dataset)
    monkeypatch.setattr(smoothed, "restored", lambda files: Bright())
    first = certify(model, dataset, None, asked(), folder=tmp_path)
    place = tmp_path / "smoothing" / "0.5-plain"
    (place / "manifest.json").unlink()  # as a kill in the middle leaves it
    second = certify(model, dataset, None, asked(), folder=tmp_path)
    assert "measured again" in caplog.text
    assert first["best"] == second["best"]
    assert smoothed.load(model, tmp_path, 0.5, "plain") is not None


def test_regions_that_so_few_draws_cannot_have_have_no_figure(dataset: Dataset) -> None:
    """16 blocks of each of 9 images share alpha, and either side gets a half."""
    result = certify(
        model_of(Bright(), dataset), dataset, None, asked(block=4, radii=(0.0, 0.6), samples=40)
    )
    [row] = result["rows"]
    assert row["regions"]["0"] is not None
    assert row["regions"]["0.6"] is None
    each = 0.001 / 9 / 2 / 16
    assert largest_shift(row["regions_needed"]["0.6"], each) >= 1.2
    assert largest_shift(40, each) < 1.2


@pytest.mark.parametrize(
    ("value", "places", "words"),
    [(0.84951, 3, "0.849"), (0.85, 3, "0.850"), (1.0, 3, "1.000"), (0.29, 2, "0.29")],
)
def test_a_lower_bound_is_never_rounded_up(value: float, places: int, words: str) -> None:
    assert floored(value, places) == words
    assert sure(199 / 200 + 0.00499) == "99.9 %"


def test_what_stands_for_a_result() -> None:
    """The largest radius that still has a half; else the highest figure."""
    areas = {"0.05": {"value": 0.9}, "0.1": {"value": 0.6}, "0.2": {"value": 0.1}, "0.3": None}
    assert chief({"best": areas}) == (0.1, {"value": 0.6})
    assert chief({"best": {"0.1": {"value": 0.3}, "0.2": {"value": 0.2}}}) == (0.1, {"value": 0.3})
    assert chief({"best": {"0.1": None}}) is None


class Around:
    """Images in memory with the names of their draws."""

    def __init__(self) -> None:
        self.images = [torch.full((1, SIDE, SIDE), level) for level in (0.3, 0.4, 0.6, 0.7)]
        self.names = ["a", "b", "c", "d"]
        self.defect = [False, False, True, True]

    def bounds(self, under: Smoothed, radius: float, wrong: float = 1.0) -> list[Bounds]:
        found = [under.draws(x, n, 64) for x, n in zip(self.images, self.names, strict=True)]
        return [f.bounds(wrong * radius / under.way.sigma, 1e-3) for f in found]


def under(detector: Detector, sigma: float = 0.25, samples: int = 4000) -> Smoothed:
    return Smoothed(detector, Way(sigma, samples, "plain"), calibrate([0.0], 0.5))


@pytest.mark.parametrize("own", [0.0, 0.2])
def test_an_attack_within_the_radius_moves_the_median_by_it_and_violates_nothing(
    own: float,
) -> None:
    """The linear score is the worst case: the attacked median is at the exact end."""
    around, radius, made = Around(), 0.5, under(Bright(own))
    answers = challenge(
        made, around.images, around.names, around.defect, Challenge(radius, 5, 2, seed=3)
    )
    for answer, x, bad, bounds in zip(
        answers, around.images, around.defect, around.bounds(made, radius), strict=True
    ):
        assert answer.moved == pytest.approx(radius, rel=1e-3)
        exact = WEIGHT * float(x.sum()) + (-radius if bad else radius)
        assert float(answer.attacked.median) == pytest.approx(exact, abs=0.03)
        assert not answer.violates(bounds)


def test_a_certificate_of_half_the_noise_is_caught() -> None:
    """The planted bug: bounds for r / (2 sigma), as if sigma were in the scale [-1, 1]."""
    around, radius, made = Around(), 0.5, under(Bright())
    answers = challenge(
        made, around.images, around.names, around.defect, Challenge(radius, 5, 2, seed=3)
    )
    bold = around.bounds(made, radius, wrong=0.5)
    assert all(a.violates(b) for a, b in zip(answers, bold, strict=True))


def test_draws_belong_to_the_image_and_not_to_the_run(dataset: Dataset, tmp_path: Path) -> None:
    """Other batch, fewer images: the same draws for the same image."""
    model = model_of(Bright(0.2), dataset)
    certify(model, dataset, tmp_path / "a", asked())
    few = asked(evaluation=Evaluation(batch=7, limit=4))
    certify(model, dataset, tmp_path / "b", few)

    def drawn(folder: Path) -> dict[str, list[float]]:
        rows = [json.loads(line) for line in (folder / ROWS).read_text().splitlines()]
        return {row["sha256"]: row["scores"] for row in rows if row["part"] == "test"}

    whole, part = drawn(tmp_path / "a"), drawn(tmp_path / "b")
    assert len(part) == 4
    assert all(whole[name] == scores for name, scores in part.items())


def test_regions_count_blocks_and_are_kept_as_planes(dataset: Dataset, tmp_path: Path) -> None:
    import numpy as np

    model, wanted = model_of(Bright(), dataset), asked(block=4, radii=(0.0, 0.05), sigmas=(0.05,))
    result = certify(model, dataset, tmp_path, wanted)
    rows = [json.loads(line) for line in (tmp_path / ROWS).read_text().splitlines()]
    tests = [row for row in rows if row["part"] == "test"]
    for row in tests:
        planes = np.load(tmp_path / "regions" / f"{row['sha256']}-0.05-plain.npy")
        assert planes.shape == (2, 4, 4)
        for plane, (radius, cells) in zip(planes, row["regions"].items(), strict=True):
            assert cells["blocks"] == 16 == cells["defect"] + cells["good"]
            assert cells["above"] + cells["above_elsewhere"] == int((plane == 1).sum())
            assert cells["certain"] == int((plane > 0).sum())
            assert (cells["defect"] > 0) == row["defect"], radius
    found = result["rows"][0]["regions"]
    assert found["0.05"]["defect_above"] <= found["0"]["defect_above"]
    assert found["0.05"]["good_below"] <= found["0"]["good_below"]


class Summed(Bright):
    """As Bright, but its map's mean is the score: each place is far from the score's scale."""

    def forward(self, x: Tensor, noise: Noise = fresh, draws: int | None = None) -> Anomaly:
        score, places = super().forward(x, noise, draws)
        return Anomaly(score - 10, 50 * places)


def test_blocks_have_a_threshold_of_their_own(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However map and score are scaled, good images reach neither: the score's threshold, here
    far below any block, says nothing of blocks."""
    model, folder = model_of(Summed(), dataset), tmp_path / "model"
    monkeypatch.setattr(smoothed, "restored", lambda files: Summed())
    wanted = asked(block=4, radii=(0.01,), sigmas=(0.02,))
    result = certify(model, dataset, tmp_path / "out", wanted, folder=folder)
    [row] = result["rows"]
    assert row["block_threshold"] > row["threshold"] + 10
    assert row["regions"]["0.01"]["good_above"] == 0
    assert row["regions"]["0.01"]["good_below"] > 0.5
    rows = [json.loads(line) for line in (tmp_path / "out" / ROWS).read_text().splitlines()]
    peaks = [r["peak"] for r in rows if r["part"] == "calibrate"]
    assert calibrate(peaks, 0.1).threshold == row["block_threshold"]
    kept = smoothed.load(model, folder, 0.02, "plain")
    assert kept is not None
    assert (kept.block, kept.peak) == (4, row["block_threshold"])
    other = certify(model, dataset, None, replace(wanted, block=8), folder=folder)
    assert other["rows"][0]["block_threshold"] >= row["block_threshold"] - 1e-6
    kept = smoothed.load(model, folder, 0.02, "plain")
    assert kept is not None
    assert kept.block == 8


def test_a_small_sigma_is_found_by_its_folder(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(Bright(), dataset)
    monkeypatch.setattr(smoothed, "restored", lambda files: Bright())
    certify(model, dataset, None, asked(sigmas=(5e-5,), radii=(0.0,)), folder=tmp_path)
    assert smoothed.choose(model, tmp_path, None, None).way.sigma == 5e-5
    assert smoothed.choose(model, tmp_path, 5.0000001e-5, None).way.sigma == 5e-5
    with pytest.raises(UsageError, match=r"ROOT --sigma 0\.25 --scoring plain$"):
        smoothed.choose(model, tmp_path, 0.25, "plain")


def test_what_was_measured_is_kept_and_taken_again_for_this_model_alone(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, folder = model_of(Bright(), dataset), tmp_path / "model"
    monkeypatch.setattr(smoothed, "restored", lambda files: Bright())
    result = certify(model, dataset, None, asked(), folder=folder)
    kept = smoothed.load(model, folder, 0.5, "plain")
    assert kept is not None
    assert kept.calibration.threshold == result["rows"][0]["threshold"]
    assert kept.way == Way(0.5, 400, "plain")
    other = replace(model, calibration=calibrate([0.0], 0.5))
    assert smoothed.load(other, folder, 0.5, "plain") is None
    assert smoothed.load(model, folder, 0.4, "plain") is None
    (folder / "smoothing" / "0.5-plain" / "smoothing.json").write_text("{}")
    with pytest.raises(ModelError, match="damaged"):
        smoothed.load(model, folder, 0.5, "plain")


def test_the_sentence_names_its_terms_and_does_not_boast_of_nothing() -> None:
    row = {"sigma": 0.5, "scoring": "plain", "smoothed_auroc": 0.9}
    area = {"sigma": 0.5, "scoring": "plain", "value": 0.7199}
    settings = {"certificate": {"alpha": 0.001}}
    result = {"rows": [row], "best": {"0.1": area}, "clean_auroc": 0.95, "settings": settings}
    assert finding(result).startswith(
        "No change of l2 norm up to 0.1 brings the smoothed detector's image AUROC below 0.719 "
        "(probability of error 0.001; sigma 0.5, plain)"
    )
    nothing = finding(result | {"best": {"0.1": area | {"value": 0.0}}})
    assert nothing.startswith("Nothing useful is certain: at l2 radius 0.1")
