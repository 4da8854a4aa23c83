"""AdvRAD's score: the paper's to the letter, and what draws, depths and good images make of it."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F
from toys import PAPER, good, names, same, tiny

from advrad import scoring
from advrad.detectors import AdvRAD, Run
from advrad.noise import STRIDE, Fixed, PerImage, redraw

TRAIN, TEST = good(10), good(3, seed=1)
NOISE = PerImage(9, names(3))


@pytest.fixture(scope="module")
def fitted() -> AdvRAD:
    """Two draws, depth 50, the deviation's top; not to be changed."""
    return tiny().fit(TRAIN, Run(seed=4))


def measured(fitted: AdvRAD, **settings: Any) -> AdvRAD:
    return fitted.variant(**settings).measure(TRAIN, Run(seed=4))


# --- the paper's score, to the letter ---


def enlarged(small: NDArray, side: int) -> NDArray:
    """Linear between pixel centres, (h, w) -> (side, side)."""
    places = (np.arange(side) + 0.5) * len(small) / side - 0.5
    grid = np.stack(np.meshgrid(places, places, indexing="ij"))
    return ndimage.map_coordinates(small, grid, order=1, mode="nearest")


def papers_error(detector: AdvRAD, image: Tensor, k: int, eps: Tensor) -> NDArray:
    """Algorithm 1 and Section 4 of the paper, one image (C, H, W), one-shot: Err_ms (H, W)."""
    a_k = float(np.prod(1 - np.linspace(1e-4, 0.02, 1000)[:k]))
    x = 2 * image.double().numpy() - 1
    x_k = math.sqrt(a_k) * x + math.sqrt(1 - a_k) * eps.double().numpy()
    with torch.no_grad():
        found, _ = detector.denoiser.network(
            torch.tensor(x_k).float()[None], torch.tensor([k - 1])
        )
    x_0 = (x_k - math.sqrt(1 - a_k) * found[0].double().numpy()) / math.sqrt(a_k)
    before, after = torch.tensor((x + 1) / 2)[None], torch.tensor((x_0 + 1) / 2)[None]
    side, errors = image.shape[-1], []
    for scale in (1, 2, 4, 8):
        small = [
            F.interpolate(y, scale_factor=1 / scale, mode="bilinear", antialias=True)[0].numpy()
            for y in (before, after)
        ]
        errors.append(enlarged(np.square(small[0] - small[1]).mean(0), side))
    filter_side = {16: 1, 32: 3, 64: 5}[side]
    return ndimage.uniform_filter(np.mean(errors, 0), filter_side, mode="constant")


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"draws": 3, "score": "deviation", "top": 0.1},
        {"depth": [50, 120], "score": "signed", "draws": 2},
        {"channels": 3, "size": 32},
    ],
    ids=str,
)
def test_the_paper_s_score_is_reported_to_the_letter(settings: dict[str, Any]) -> None:
    """max |Err_ms - mean Err_ms|: one draw, the first depth, whatever else is asked for."""
    settings = PAPER | settings
    shape = {"channels": settings.get("channels", 1), "size": settings.get("size", 16)}
    train, test = good(20, **shape), good(3, seed=1, **shape)
    detector = tiny(**settings).fit(train, Run(seed=6))
    errors = []
    for i, image in enumerate(train):
        eps = PerImage(6, [f"good-{i}"])(image[None], 50)[0]
        errors.append(papers_error(detector, image, 50, eps))
    typical = np.mean(errors, 0)
    np.testing.assert_allclose(detector.papers.numpy(), typical, rtol=2e-4, atol=1e-6)
    eps = NOISE(test, 50)
    expected = [
        np.abs(papers_error(detector, image, 50, e) - typical).max()
        for image, e in zip(test, eps, strict=True)
    ]
    with torch.no_grad():
        anomaly, beside = detector.examine(test, NOISE)
    assert beside.keys() == {"paper"}
    np.testing.assert_allclose(beside["paper"].numpy(), expected, rtol=1e-3)
    is_the_score = torch.equal(anomaly.score, beside["paper"])
    assert is_the_score == (settings["score"] == "paper")


def test_the_paper_s_score_beside_another_is_that_of_a_detector_of_its_own(
    fitted: AdvRAD,
) -> None:
    paper = measured(fitted, **PAPER)
    with torch.no_grad():
        _, beside = measured(fitted, draws=4, score="signed").examine(TEST, NOISE)
        torch.testing.assert_close(beside["paper"], paper(TEST, NOISE).score)


# --- what good images show ---


@pytest.mark.parametrize("score", scoring.SCORES)
def test_typical_is_the_mean_over_the_training_images_and_spread_their_deviation(
    fitted: AdvRAD, score: str
) -> None:
    """Twenty images: more than are measured at once, and the last batch is a smaller one."""
    images = good(20)
    detector = fitted.variant(score=score).measure(images, Run(seed=4))
    views = []
    for i in range(len(images)):
        noise = PerImage(4, [f"good-{i}"])
        with torch.no_grad():
            gaps = [
                images[i : i + 1] - detector.reconstruction(images[i : i + 1], redraw(noise, d))
                for d in range(2)
            ]
        views.append(torch.stack([scoring.SCORES[score].views(gap)[0] for gap in gaps]).mean(0))
    errors = torch.stack(views).double()
    close = {"rtol": 1e-4, "atol": 1e-6, "check_dtype": False}
    torch.testing.assert_close(detector.typical, errors.mean(0), **close)
    torch.testing.assert_close(detector.spread, errors.std(0, correction=0), **close)


def test_scoring_other_images_changes_nothing(fitted: AdvRAD) -> None:
    before = {name: value.clone() for name, value in fitted.state_dict().items()}
    for x in (TEST, 1 - TEST):
        fitted(x, NOISE)
        fitted.examine(x, NOISE)
    assert all(torch.equal(value, before[name]) for name, value in fitted.state_dict().items())


def test_the_spread_is_what_the_deviation_is_measured_in(fitted: AdvRAD) -> None:
    wide, bare = measured(fitted), measured(fitted)
    wide.spread *= 4
    with torch.no_grad():
        ratio = bare(TEST, NOISE).score / wide(TEST, NOISE).score
    torch.testing.assert_close(ratio, torch.full((3,), 4.0), rtol=1e-3, atol=0)


@pytest.mark.parametrize("top", [0.0, 0.1, 1.0])
def test_the_score_is_the_mean_of_the_top_of_its_map(fitted: AdvRAD, top: float) -> None:
    with torch.no_grad():
        score, where = measured(fitted, top=top)(TEST, NOISE)
    count = max(1, round(top * 256))
    expected = np.sort(where.flatten(1).numpy(), 1)[:, -count:].mean(1)
    np.testing.assert_allclose(score.numpy(), expected, rtol=1e-5)


# --- draws and depths ---


def errors_alone(fitted: AdvRAD, **settings: Any) -> AdvRAD:
    """A detector whose map is the error itself: nothing is typical."""
    detector = measured(fitted, **PAPER | settings)
    detector.typical = torch.zeros_like(detector.typical)
    return detector


@pytest.mark.parametrize("by_argument", [False, True])
def test_errors_are_averaged_over_independent_draws(fitted: AdvRAD, by_argument: bool) -> None:
    """Not the maps nor the images: errors. Draw number i uses `redraw(noise, i)`."""
    one = errors_alone(fitted)
    with torch.no_grad():
        if by_argument:
            found = one(TEST, NOISE, draws=3)
        else:
            found = errors_alone(fitted, draws=3)(TEST, NOISE)
        alone = [one(TEST, redraw(NOISE, i)).map for i in range(3)]
    torch.testing.assert_close(found.map, torch.stack(alone).mean(0))
    assert not torch.allclose(alone[0], alone[1], rtol=0.1)


def test_each_draw_and_depth_asks_for_noise_of_its_own(fitted: AdvRAD) -> None:
    asked: list[int] = []

    def watched(like: Tensor, step: int) -> Tensor:
        asked.append(step)
        return Fixed(0)(like, step)

    detector = measured(fitted, depth=[50, 120], draws=3)
    detector(TEST, watched)
    assert sorted(asked) == [k + i * STRIDE for i in range(3) for k in (50, 120)]
    asked.clear()
    detector(TEST, watched, draws=1)
    assert sorted(asked) == [50, 120]


def test_more_draws_scatter_less(fitted: AdvRAD) -> None:
    one, many = errors_alone(fitted), errors_alone(fitted, draws=16)
    with torch.no_grad():
        scatter = [
            torch.stack([detector(TEST, Fixed(seed)).map for seed in range(12)]).std(0).mean()
            for detector in (one, many)
        ]
    assert scatter[0] / scatter[1] == pytest.approx(4, rel=0.25)


def test_a_depth_is_one_or_a_ladder_whose_deviations_are_averaged(fitted: AdvRAD) -> None:
    assert tiny(depth=70).depths == [70]
    assert tiny(depth=[70]).depths == [70]
    assert tiny(depth=(70, 90)).params["depth"] == [70, 90]
    for score in scoring.SCORES:
        single = [measured(fitted, depth=k, score=score) for k in (50, 120)]
        both = measured(fitted, depth=[50, 120], score=score)
        with torch.no_grad():
            maps = [detector(TEST, NOISE).map for detector in single]
            torch.testing.assert_close(both(TEST, NOISE).map, (maps[0] + maps[1]) / 2)


def test_the_reconstruction_is_in_the_images_scale(fitted: AdvRAD) -> None:
    with torch.no_grad():
        found = fitted.reconstruction(TEST, NOISE)
    assert found.shape == TEST.shape
    assert abs(found.mean() - TEST.mean()) < 0.3


# --- other settings of the same denoiser ---


@pytest.mark.parametrize(
    "settings",
    [PAPER, {"score": "signed", "depth": [50, 120]}, {"draws": 1, "top": 0.5}, {"shots": 5}],
    ids=str,
)
def test_a_variant_that_is_measured_is_a_fit_under_its_settings(
    fitted: AdvRAD, settings: dict[str, Any]
) -> None:
    assert same(measured(fitted, **settings), tiny(**settings).fit(TRAIN, Run(seed=4)))


def test_a_variant_leaves_the_detector_alone_and_is_not_measured(fitted: AdvRAD) -> None:
    before = fitted.resolved()
    other = fitted.variant(depth=70)
    with pytest.raises(ValueError, match="not fitted"):
        other(TEST, NOISE)
    with torch.no_grad():
        next(other.parameters()).add_(1)
    assert same(fitted, measured(fitted))
    assert fitted.resolved() == before


@pytest.mark.parametrize("score", scoring.SCORES)
def test_half_precision_scores_like_full(fitted: AdvRAD, score: str) -> None:
    full, half = (
        measured(fitted, score=score, precision=precision) for precision in ("float32", "bfloat16")
    )
    with torch.no_grad():
        expected, found = full(TEST, NOISE), half(TEST, NOISE)
    assert found.score.dtype == found.map.dtype == torch.float32
    assert not torch.equal(found.map, expected.map)
    torch.testing.assert_close(found.score, expected.score, rtol=0.05, atol=0)
