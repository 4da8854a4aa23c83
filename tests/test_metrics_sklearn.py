"""The same figures as scikit-learn's, where that is installed."""

import numpy as np
import pytest

from advrad.metrics import auroc, average_precision, f1_max, roc_curve

pytestmark = pytest.mark.interop


@pytest.mark.parametrize("decimals", [1, 3, 12])
@pytest.mark.parametrize("seed", range(5))
def test_image_figures_equal_scikit_learn(seed: int, decimals: int) -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    source = np.random.default_rng(seed)
    labels = source.random(300) < 0.3
    scores = np.round(source.normal(labels, 1), decimals)
    assert auroc(scores, labels) == pytest.approx(sklearn.roc_auc_score(labels, scores), abs=1e-12)
    expected = sklearn.average_precision_score(labels, scores)
    assert average_precision(scores, labels) == pytest.approx(expected, abs=1e-12)
    best = f1_max(scores, labels)
    assert best is not None
    assert best.value == pytest.approx(sklearn.f1_score(labels, scores >= best.threshold))
    precision, recall, _ = sklearn.precision_recall_curve(labels, scores)
    sums = np.maximum(precision + recall, 1e-12)
    assert best.value == pytest.approx((2 * precision * recall / sums).max())


def test_roc_curve_equals_scikit_learn() -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    source = np.random.default_rng(9)
    labels = source.random(200) < 0.5
    scores = np.round(source.normal(labels, 1), 1)
    false_alarm, detection, threshold = sklearn.roc_curve(labels, scores, drop_intermediate=False)
    curve = roc_curve(scores, labels)
    assert curve is not None
    assert curve.false_alarm == pytest.approx(false_alarm)
    assert curve.detection == pytest.approx(detection)
    assert curve.threshold[1:] == pytest.approx(threshold[1:])


def test_pixel_auroc_equals_scikit_learn() -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    torch = pytest.importorskip("torch")
    from advrad.pixels import PixelMetrics

    source, pixels = np.random.default_rng(3), PixelMetrics()
    maps = source.normal(size=(6, 32, 32)).astype(np.float32)
    masks = np.zeros((6, 32, 32), bool)
    masks[:3, 4:9, 10:20] = True
    maps += masks
    for anomaly, mask in zip(maps, masks, strict=True):
        pixels.add(torch.from_numpy(anomaly), torch.from_numpy(mask))
    area = pixels.auroc()
    assert area is not None
    expected = sklearn.roc_auc_score(masks.ravel(), maps.ravel())
    assert area.value == pytest.approx(expected, abs=1e-12)
    assert area.error == 0
