"""FastFlow against its formulas by hand, and planted defects."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from toys import SETTINGS, good, same

from advrad import detectors
from advrad.detectors import FastFlow, Progress, Run
from advrad.errors import DivergedError, ModelError, UsageError

TRAIN = good(12)
QUICK = SETTINGS["fastflow"]
LONGER = {"size": 32, "strides": [4], "coupling": 4, "steps": 60, "batch": 8}


def tiny(**settings: Any) -> FastFlow:
    return FastFlow(**QUICK | settings)


@pytest.fixture(scope="module")
def fitted() -> FastFlow:
    """Not to be changed."""
    return tiny().fit(TRAIN, Run(seed=4))


def still(detector: FastFlow) -> FastFlow:
    """With flows that change nothing but the order of the channels."""
    with torch.no_grad():
        for parameter in detector.flows.parameters():
            parameter.zero_()
    return detector.requires_grad_(False)


def features(detector: FastFlow, x: Tensor) -> list[Tensor]:
    """What the flows see, by hand, with what is measured on the good images."""
    found = []
    for m, good_ones in zip(detector.features(x), detector.features(TRAIN), strict=True):
        m, base = normalised(m), normalised(good_ones)
        mean = base.mean(0)
        spread = (base - mean).square().mean((0, 2, 3)).sqrt()
        spread = spread.clamp_min(0.01 * spread.mean())
        found.append((m - mean) / spread[:, None, None])
    return found


def normalised(m: Tensor) -> Tensor:
    """Each image by itself."""
    centred = m - m.mean((1, 2, 3), keepdim=True)
    return centred / (centred.square().mean((1, 2, 3), keepdim=True) + 1e-5).sqrt()


def test_the_flows_see_differences_from_good_images_at_the_same_place(fitted: FastFlow) -> None:
    x = good(3, seed=1)
    for one, other in zip(fitted._seen(x), features(fitted, x), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


def test_corners_are_like_any_place_to_begin_with(fitted: FastFlow) -> None:
    """The backbone's padding shows in every image, and is no news."""
    for m in fitted._seen(TRAIN):
        size = m.square().mean((0, 1))
        assert float(size.max()) < 5 * float(size.mean())


def test_the_map_is_the_mean_over_strides_of_half_the_mean_square() -> None:
    detector, x = still(tiny().fit(TRAIN)), good(3, seed=1)
    values = [m.square().mean(1) / 2 for m in features(detector, x)]
    large = [F.interpolate(v[:, None], 16, mode="bilinear")[:, 0] for v in values]
    score, where = detector(x)
    torch.testing.assert_close(where, (large[0] + large[1]) / 2, rtol=1e-3, atol=1e-4)
    assert torch.equal(score, where.amax((1, 2)))


def test_the_likelihood_counts_the_determinant() -> None:
    """Of a flow that only scales, by 3: z = 3 x, and log p = log N(3 x) + log 3."""
    detector, x = still(tiny(score="likelihood", strides=[4], coupling=1).fit(TRAIN)), good(2)
    detector.flows[0].blocks[0].log_scale.fill_(math.log(3))  # type: ignore[union-attr, index]
    [values] = features(detector, x)
    log_p = (-0.5 * (9 * values.square() + math.log(2 * math.pi)) + math.log(3)).mean(1)
    expected = F.interpolate(-log_p[:, None], 16, mode="bilinear")[:, 0]
    torch.testing.assert_close(detector(x).map, expected, rtol=1e-3, atol=1e-4)


def test_kernels_of_3_and_1_take_turns() -> None:
    kernels = [
        layer.kernel_size[0]
        for layer in tiny(coupling=5).flows[0].modules()
        if isinstance(layer, nn.Conv2d)
    ]
    assert kernels == [3, 3, 1, 1, 3, 3, 1, 1, 3, 3]


def test_training_raises_the_likelihood_and_leaves_the_backbone_alone() -> None:
    losses: list[float] = []

    def report(progress: Progress) -> None:
        if progress.loss is not None:
            losses.append(progress.loss)

    detector = tiny(**LONGER)
    before = {k: v.clone() for k, v in detector.features.state_dict().items()}
    detector.fit(good(12, size=32), Run(report=report))
    assert losses[-1] < losses[0] - 0.2
    gaussian = 0.5 * (1 + math.log(2 * math.pi))  # of features that are standardised
    assert losses[0] == pytest.approx(gaussian, abs=0.2)
    after = detector.features.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items())


@pytest.mark.parametrize("score", ["latent", "likelihood"])
def test_a_planted_defect_raises_the_score_and_is_found_on_the_map(score: str) -> None:
    detector = tiny(**LONGER, score=score).fit(good(12, size=32)).requires_grad_(False)
    x = good(6, size=32, seed=1)
    defective = x.clone()
    defective[:, :, 18:26, 10:18] = 1 - defective[:, :, 18:26, 10:18]
    (clean, _), (score_of, where) = detector(x), detector(defective)
    assert score_of.min() > clean.max()
    row, column = where[0].argmax().div(32, rounding_mode="floor"), where[0].argmax() % 32
    assert 14 <= int(row) < 30
    assert 6 <= int(column) < 22


def test_a_plain_defect_still_has_a_slope() -> None:
    """Where the published score, -exp(-score), has lost it."""
    detector = tiny(**LONGER).fit(good(12, size=32)).requires_grad_(False)
    x = torch.zeros(1, 1, 32, 32)
    x[:, :, ::4, ::4] = 1
    x.requires_grad_()
    score = detector(x).score
    (slope,) = torch.autograd.grad(score.sum(), x)
    assert slope.abs().max() > 1e-3 * score


def test_a_mean_of_another_size_is_refused(fitted: FastFlow) -> None:
    files = fitted.files()
    config = json.loads(files["config.json"])
    config["params"]["size"] = 32
    with pytest.raises(ModelError, match="do not fit"):
        detectors.restore(files | {"config.json": json.dumps(config).encode()})


# --- training ---


class Killed(Exception):
    """As if the process had been stopped."""


def stop_at(step: int) -> Any:
    def report(progress: Progress) -> None:
        if progress.stage == "training" and progress.done == step:
            raise Killed

    return report


def test_a_training_goes_on_bit_by_bit(fitted: FastFlow, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        tiny().fit(TRAIN, Run(seed=4, folder=tmp_path, report=stop_at(5)))
    resumed = tiny().fit(TRAIN, Run(seed=4, folder=tmp_path, resume=True))
    assert same(resumed, fitted)
    rows = [json.loads(row) for row in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 9))
    assert resumed.cost()["training_seconds"] == rows[-1]["seconds"]


@pytest.mark.parametrize("changed", [{"steps": 9}, {"coupling": 3}, {"strides": [8]}])
def test_another_training_is_not_resumed(tmp_path: Path, changed: dict[str, Any]) -> None:
    tiny().fit(TRAIN, Run(seed=4, folder=tmp_path))
    with pytest.raises(UsageError, match="other settings or other images"):
        tiny(**changed).fit(TRAIN, Run(seed=4, folder=tmp_path, resume=True))


def test_how_it_scores_may_change_when_a_training_is_resumed(tmp_path: Path) -> None:
    tiny().fit(TRAIN, Run(seed=4, folder=tmp_path))
    other = {"score": "likelihood", "top": 0.1}
    again = tiny(**other).fit(TRAIN, Run(seed=4, folder=tmp_path, resume=True))
    assert same(again, tiny(**other).fit(TRAIN, Run(seed=4)))


def test_images_that_are_no_numbers_stop_the_training_at_the_step() -> None:
    with pytest.raises(DivergedError, match="diverged at step 1"):
        tiny().fit(torch.full_like(TRAIN, math.nan))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"channels": 2}, "channels=2: expected one of 1, 3"),
        ({"backbone": "vgg"}, "backbone=vgg: expected one of lite0"),
        ({"strides": [5]}, "strides=5"),
        ({"size": 4}, "size=4"),
        ({"score": "exp"}, "score=exp: expected one of latent, likelihood"),
        ({"top": 2}, "top=2: expected a share"),
        ({"coupling": 0}, "coupling=0: expected 1 or more"),
        ({"steps": 0}, "steps=0: expected 1 or more"),
        ({"batch": 0}, "batch=0: expected 1 or more"),
        ({"ratio": -1}, "ratio=-1: expected 0 or more"),
        ({"rate": math.nan}, "rate=nan: expected 0 or more"),
    ],
)
def test_impossible_settings_are_told(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        tiny(**settings)
