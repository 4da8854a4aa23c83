"""Pixel AUROC and PRO against brute force, within the error they state."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import label

from advrad import pixels as module
from advrad.errors import DataError
from advrad.pixels import PixelMetrics


def collect(maps: NDArray, masks: NDArray, **settings: int) -> PixelMetrics:
    pixels = PixelMetrics(**settings)
    for anomaly, mask in zip(maps, masks, strict=True):
        pixels.add(torch.from_numpy(anomaly), torch.from_numpy(mask) if mask.any() else None)
    return pixels


def pairs(maps: NDArray, masks: NDArray) -> float:
    good, bad = np.sort(maps[~masks]), maps[masks]
    below = np.searchsorted(good, bad, "left") + np.searchsorted(good, bad, "right")
    return float(below.sum() / (2 * len(good) * len(bad)))


def pro_by_definition(maps: NDArray, masks: NDArray, limit: float = 0.3) -> float:
    """Each threshold in turn: mark, measure every region's overlap, interpolate at the limit."""
    regions = []
    for mask in masks:
        numbered, count = label(mask, np.ones((3, 3)))
        regions.append([numbered == number + 1 for number in range(count)])
    x, y = [0.0], [0.0]
    for threshold in sorted(set(maps.ravel()), reverse=True):
        marked = maps >= threshold
        x.append(marked[~masks].mean())
        overlaps = [m[r].mean() for m, found in zip(marked, regions, strict=True) for r in found]
        y.append(np.mean(overlaps))
    area = 0.0
    for x0, x1, y0, y1 in zip(x, x[1:], y, y[1:], strict=False):
        if x0 < limit:
            cut = min(x1, limit)
            height = y0 + (y1 - y0) * ((cut - x0) / (x1 - x0) if x1 > x0 else 1)
            area += (cut - x0) * (y0 + height) / 2
    return area / limit


def case(seed: int, side: int = 12, images: int = 4) -> tuple[NDArray, NDArray]:
    source = np.random.default_rng(seed)
    masks = source.random((images, side, side)) < 0.1
    masks[0] = False
    maps = np.round(source.normal(masks * 1.0, 1), int(source.integers(0, 5)))
    return maps.astype(np.float32), masks


@pytest.mark.parametrize("seed", range(12))
def test_both_areas_equal_brute_force(seed: int) -> None:
    maps, masks = case(seed)
    pixels = collect(maps, masks)
    area, pro = pixels.auroc(), pixels.pro()
    assert area is not None
    assert pro is not None
    assert area.value == pytest.approx(pairs(maps, masks), abs=1e-12)
    assert pro.value == pytest.approx(pro_by_definition(maps, masks), abs=1e-12)
    assert area.error == pro.error == 0


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e12])
def test_merged_neighbours_stay_within_the_stated_error(seed: int, scale: float) -> None:
    source = np.random.default_rng(seed)
    masks = source.random((6, 64, 64)) < 0.05
    maps = (np.exp(source.normal(masks * 1.0, 1)) * scale).astype(np.float32)
    exact, rough = collect(maps, masks), collect(maps, masks, bins=512)
    for figure in ("auroc", "pro"):
        true, near = getattr(exact, figure)(), getattr(rough, figure)()
        assert true.error == 0
        assert 0 < near.error < 5e-3
        assert abs(true.value - near.value) <= near.error


def test_the_default_agrees_with_the_exact_value_to_1e_4() -> None:
    source = np.random.default_rng(0)
    masks = np.zeros((40, 128, 128), bool)
    masks[:20, 40:60, 40:60] = True
    maps = np.exp(3 * source.normal(masks * 0.5, 1)).astype(np.float32)
    area = collect(maps, masks).auroc()
    assert area is not None
    assert 0 < area.error < 1e-5
    assert abs(area.value - pairs(maps, masks)) <= area.error


def test_the_order_of_the_images_changes_nothing() -> None:
    maps, masks = case(3, side=48, images=8)
    maps += np.random.default_rng(0).normal(size=maps.shape).astype(np.float32)
    ahead, back = collect(maps, masks, bins=300), collect(maps[::-1], masks[::-1], bins=300)
    assert ahead.auroc() == back.auroc()
    one, two = ahead.pro(), back.pro()
    assert one is not None
    assert two is not None
    assert one.value == pytest.approx(two.value, abs=1e-12)


def test_asking_in_between_changes_nothing() -> None:
    maps, masks = case(4, side=32)
    asked = PixelMetrics(bins=300)
    for anomaly, mask in zip(maps, masks, strict=True):
        asked.add(torch.from_numpy(anomaly), torch.from_numpy(mask))
        asked.auroc()
    assert asked.auroc() == collect(maps, masks, bins=300).auroc()


def test_memory_is_bounded() -> None:
    source, pixels = np.random.default_rng(0), PixelMetrics(bins=1024)
    mask = torch.zeros(64, 64, dtype=torch.bool)
    mask[:4] = True
    for _ in range(50):
        pixels.add(torch.from_numpy(source.normal(size=(64, 64))), mask)
        assert len(pixels._keys) <= 1024
        assert sum(len(keys) for keys, _ in pixels._waiting) < 1024 + 64 * 64
    pixels.auroc()
    assert len(pixels._keys) > 256
    assert pixels._table[:2].sum() == 50 * 64 * 64


def test_keys_keep_the_order_of_floats() -> None:
    values = np.array([-3e38, -1, -1e-45, -0.0, 0.0, 1e-45, 1, 3e38], np.float32)
    keys = module._keys(values)
    assert (np.diff(keys.astype(np.int64))[[0, 1, 2, 4, 5, 6]] > 0).all()
    assert keys[3] == keys[4]


def test_pro_counts_regions_and_not_pixels() -> None:
    """A large region found and a small one missed: half, whatever their sizes."""
    mask = torch.zeros(10, 10, dtype=torch.bool)
    mask[:5, :5] = True
    mask[9, 9] = True
    anomaly = torch.zeros(10, 10)
    anomaly[:5, :5] = 1
    pixels = PixelMetrics()
    pixels.add(anomaly, mask)
    area, pro = pixels.auroc(), pixels.pro()
    assert area is not None
    assert pro is not None
    # all else ties, so the curve climbs straight from (0, 1/2) to (1, 1)
    assert pro.value == pytest.approx(0.5 + 0.5 * 0.3 / 2)
    assert area.value == pytest.approx(25.5 / 26)


def test_regions_touch_at_corners() -> None:
    """Two pixels corner to corner are one region: one found is half a region, not half of two."""
    mask = torch.zeros(6, 6, dtype=torch.bool)
    mask[0, 0] = mask[1, 1] = mask[5, 5] = True
    anomaly = torch.zeros(6, 6)
    anomaly[5, 5] = 1
    pixels = PixelMetrics()
    pixels.add(anomaly, mask)
    pro = pixels.pro(1.0)
    assert pro is not None
    assert pro.value == pytest.approx(0.75)  # three regions would give 2/3


@pytest.mark.parametrize(("value", "expected"), [(1.0, 1.0), (-1.0, 0.0)])
def test_perfect_and_worst_maps(value: float, expected: float) -> None:
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[2:4, 2:6] = True
    pixels = PixelMetrics()
    pixels.add(mask * value, mask)
    area, pro = pixels.auroc(), pixels.pro()
    assert area is not None
    assert pro is not None
    assert (area.value, pro.value) == (expected, expected)


def test_good_images_count_as_false_alarms() -> None:
    mask = torch.zeros(4, 4, dtype=torch.bool)
    mask[0, 0] = True
    pixels = PixelMetrics()
    pixels.add(mask.float(), mask)
    pixels.add(torch.full((4, 4), 2.0), None)
    area = pixels.auroc()
    assert area is not None
    assert area.value == pytest.approx(15 / 31)


def test_what_is_missing_is_none_and_what_is_wrong_is_refused() -> None:
    pixels = PixelMetrics()
    assert pixels.auroc() is None
    pixels.add(torch.zeros(4, 4), None)
    assert pixels.auroc() is None
    assert pixels.pro() is None
    assert pixels.auroc_interval() is None
    with pytest.raises(DataError, match="1 of 16 pixels"):
        pixels.add(torch.tensor([[float("nan")] + [0.0] * 15]).view(4, 4), None)
    with pytest.raises(DataError, match="mask of shape"):
        pixels.add(torch.zeros(4, 4), torch.zeros(5, 5, dtype=torch.bool))
    with pytest.raises(DataError, match="0, 1"):
        pixels.pro(0.0)
    with pytest.raises(DataError, match="256"):
        PixelMetrics(bins=10)


def clustered(source: np.random.Generator, each: int = 8) -> tuple[NDArray, NDArray]:
    """Maps whose images differ as a whole: pixels alone would claim far too much."""
    masks = np.zeros((2 * each, 12, 12), bool)
    masks[:each, 2:6, 2:6] = True
    shifts = source.normal(0, 0.7, (2 * each, 1, 1))
    maps = source.normal(masks * 1.5 + shifts * masks + 0.5 * shifts, 1)
    return maps.astype(np.float32), masks


def test_the_interval_equals_a_bootstrap_of_whole_images() -> None:
    maps, masks = clustered(np.random.default_rng(5))
    low, high = collect(maps, masks).auroc_interval(resamples=2000) or (0, 0)
    source, figures = np.random.default_rng(1), []
    for _ in range(600):
        rows = np.concatenate([source.integers(8, size=8), 8 + source.integers(8, size=8)])
        figures.append(pairs(maps[rows], masks[rows]))
    expected = np.quantile(figures, (0.025, 0.975))
    assert (low, high) == pytest.approx(expected, abs=0.015)
    assert high - low > 0.04


def test_the_interval_covers_the_truth() -> None:
    """A percentile interval of 30 + 30 images covers about 92 %, give or take 2.2 of 150 runs.

    With 8 + 8 images it is 86 %, as it is for a plain bootstrap of the images.
    """
    source = np.random.default_rng(2)
    truth = np.mean([pairs(*clustered(source, 30)) for _ in range(1500)])
    covered = 0
    for trial in range(150):
        interval = collect(*clustered(source, 30)).auroc_interval(resamples=200, seed=trial)
        low, high = interval or (1, 0)
        covered += low <= truth <= high
    assert 0.85 <= covered / 150 < 1.0


def test_one_defective_image_has_no_interval() -> None:
    maps, masks = case(1, images=2)
    assert collect(maps, masks).auroc() is not None
    assert collect(maps, masks).auroc_interval() is None
