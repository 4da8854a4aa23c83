"""CFlow against its formulas by hand, planted defects, and patches in the wrong place."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from toys import SETTINGS, good, same

from advrad.detectors import CFlow, Progress, Run
from advrad.detectors import cflow as module
from advrad.errors import DivergedError, UsageError
from advrad.networks.flow import log_density

TRAIN = good(12)
QUICK = SETTINGS["cflow"]
LONGER = {"size": 32, "strides": [4], "coupling": 4, "steps": 80, "batch": 8, "places": 512}


def tiny(**settings: Any) -> CFlow:
    return CFlow(**QUICK | settings)


@pytest.fixture(scope="module")
def fitted() -> CFlow:
    """Not to be changed."""
    return tiny().fit(TRAIN, Run(seed=4))


def test_the_code_of_a_place_is_that_of_the_paper() -> None:
    """Sines and cosines of the column, then of the row, with wavelengths up to 10,000."""
    found = module.positions(8, 3, 5)
    assert found.shape == (8, 3, 5)
    for row in range(3):
        for column in range(5):
            expected = [
                wave(place / 10_000 ** (2 * i / 4))
                for place in (column, row)
                for i in range(2)
                for wave in (math.sin, math.cos)
            ]
            torch.testing.assert_close(found[:, row, column], torch.tensor(expected))


def test_no_two_places_have_the_same_code() -> None:
    codes = module.positions(128, 28, 30).flatten(1).T
    apart = torch.cdist(codes, codes) + 10 * torch.eye(len(codes))
    assert float(apart.min()) > 0.1


@torch.no_grad()
def test_the_score_is_the_largest_surprise_patch_by_patch(fitted: CFlow) -> None:
    """One vector after the other, each with the code of its own place."""
    assert fitted.mean is not None
    assert fitted.spread is not None
    x, start, large = good(2, seed=1), 0, []
    for flow, m in zip(fitted.flows, fitted.features(x), strict=True):
        here = slice(start, start := start + m.shape[1])
        m = (m - fitted.mean[here, None, None]) / fitted.spread[here, None, None]
        codes, values = module.positions(8, *m.shape[2:]), torch.empty(len(m), *m.shape[2:])
        for image in range(len(m)):
            for i in range(m.shape[2]):
                for j in range(m.shape[3]):
                    z, log_det = flow(m[image, :, i, j][None], codes[:, i, j][None])
                    log_p = -0.5 * (z.square() + math.log(2 * math.pi)).sum() + log_det[0]
                    values[image, i, j] = -(log_p / m.shape[1]).sigmoid().log()
        large.append(F.interpolate(values[:, None], 16, mode="bilinear")[:, 0])
    score, where = fitted(x)
    torch.testing.assert_close(where, (large[0] + large[1]) / 2, rtol=1e-4, atol=1e-5)
    assert torch.equal(score, where.amax((1, 2)))


def test_a_surprise_has_no_ceiling_and_keeps_its_slope(fitted: CFlow) -> None:
    flow, codes = fitted.flows[0], torch.zeros(1, 8)
    rows = torch.full((1, 16), 100.0, requires_grad=True)
    found = module.surprise(flow, rows, codes)
    assert found.item() > 100
    torch.testing.assert_close(found, -log_density(*flow(rows, codes)))
    found.sum().backward()
    assert rows.grad is not None
    assert float(rows.grad.norm()) > 1


def test_training_lowers_the_surprise_and_leaves_the_backbone_alone() -> None:
    losses: list[float] = []

    def report(progress: Progress) -> None:
        if progress.loss is not None:
            losses.append(progress.loss)

    detector = tiny(**LONGER)
    before = {k: v.clone() for k, v in detector.features.state_dict().items()}
    detector.fit(good(12, size=32), Run(report=report))
    assert losses[-1] < losses[0] - 0.3
    after = detector.features.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items())


def test_a_planted_defect_raises_the_score_and_is_found_on_the_map() -> None:
    detector = tiny(**LONGER).fit(good(12, size=32)).requires_grad_(False)
    x = good(6, size=32, seed=1)
    defective = x.clone()
    defective[:, :, 18:26, 10:18] = 1 - defective[:, :, 18:26, 10:18]
    (clean, _), (score, where) = detector(x), detector(defective)
    assert score.min() > clean.max()
    row, column = where[0].argmax().div(32, rounding_mode="floor"), where[0].argmax() % 32
    assert 14 <= int(row) < 30
    assert 6 <= int(column) < 22


def halves(count: int, seed: int = 0) -> Tensor:
    """Images that are dark on the left and bright on the right."""
    x = 0.05 * torch.rand(count, 1, 32, 32, generator=torch.Generator().manual_seed(seed))
    x[..., 16:] += 0.7
    return x


def test_a_good_patch_in_the_wrong_place_is_a_surprise() -> None:
    """What the other half shows is good there, and not here: its code tells them apart."""
    detector = tiny(**LONGER | {"steps": 160}).fit(halves(12)).requires_grad_(False)
    flow, [maps] = detector.flows[0], detector._seen(halves(4, seed=1))
    rows, codes = detector._rows(maps)
    side = maps.shape[-1]
    column = torch.arange(len(rows)) % side
    inner = (column == 2) | (column == side - 3)  # far from the edges, where padding is seen
    swapped = codes.view(-1, side, 8).flip(1).reshape(-1, 8)
    here, there = (module.surprise(flow, rows, c)[inner].mean() for c in (codes, swapped))
    assert float(there) > 1.3 * float(here)


@pytest.mark.parametrize(("places", "expected"), [(7, 7), (10_000, 64)])
def test_a_step_draws_patches_with_their_codes(fitted: CFlow, places: int, expected: int) -> None:
    """No patch twice, and each beside the code of its own place."""
    detector = tiny(places=places)
    maps = torch.arange(64.0).view(4, 1, 4, 4)
    rows, codes = detector._drawn(maps, torch.Generator().manual_seed(0))
    assert len(rows.unique()) == len(rows) == expected
    own = module.positions(8, 4, 4).flatten(1).T
    assert torch.equal(codes, own[rows[:, 0].long() % 16])


# --- training ---


class Killed(Exception):
    """As if the process had been stopped."""


def stop(progress: Progress) -> None:
    if progress.stage == "training" and progress.done == 5:
        raise Killed


def test_a_training_goes_on_bit_by_bit(fitted: CFlow, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        tiny().fit(TRAIN, Run(seed=4, folder=tmp_path, report=stop))
    assert same(tiny().fit(TRAIN, Run(seed=4, folder=tmp_path, resume=True)), fitted)


@pytest.mark.parametrize("changed", [{"places": 9}, {"positions": 4}, {"ratio": 1.0}])
def test_another_training_is_not_resumed(tmp_path: Path, changed: dict[str, Any]) -> None:
    tiny().fit(TRAIN, Run(seed=4, folder=tmp_path))
    with pytest.raises(UsageError, match="other settings or other images"):
        tiny(**changed).fit(TRAIN, Run(seed=4, folder=tmp_path, resume=True))


def test_images_that_are_no_numbers_stop_the_training_at_the_step() -> None:
    with pytest.raises(DivergedError, match="diverged at step 1"):
        tiny().fit(torch.full_like(TRAIN, math.nan))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"channels": 2}, "channels=2: expected one of 1, 3"),
        ({"strides": [5]}, "strides=5"),
        ({"top": 2}, "top=2: expected a share"),
        ({"positions": 6}, "positions=6: expected a multiple of 4"),
        ({"positions": 0}, "positions=0: expected a multiple of 4"),
        ({"places": 0}, "places=0: expected 1 or more"),
        ({"coupling": 0}, "coupling=0: expected 1 or more"),
        ({"rate": -1}, "rate=-1: expected 0 or more"),
    ],
)
def test_impossible_settings_are_told(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        tiny(**settings)
