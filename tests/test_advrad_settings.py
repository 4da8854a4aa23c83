"""AdvRAD's presets, and what it refuses before it begins."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toys import tiny

from advrad import detectors
from advrad.detectors import AdvRAD
from advrad.detectors._settings import PRESETS
from advrad.diffusion import Linear
from advrad.errors import UsageError


def test_the_paper_s_preset_is_its_recipe() -> None:
    """Section 5 of the paper, and the code it builds on (improved-diffusion)."""
    with torch.device("meta"):
        detector = AdvRAD("paper")
    assert detector.cost()["parameters"] == 113_676_678
    assert detector.denoiser.schedule == Linear(1000)
    assert detector.resolved() == {
        "preset": "paper",
        "channels": 3,
        "size": 256,
        "depth": [100],
        "shots": 1,
        "draws": 1,
        "score": "paper",
        "top": 0.0,
        "schedule": "linear",
        "patch": 1,
        "widths": (128, 128, 256, 256, 512, 512),
        "blocks": 2,
        "attention": (16,),
        "levels": (1, 1000),
        "steps": 30_000,
        "batch": 2,
        "rate": 1e-4,
        "warmup": 0,
        "decay": False,
        "average": 0.9999,
        "clip": 0.0,
        "augment": (),
        "precision": "float32",
        "carried": 0.0,
    }


def test_the_default_is_the_fast_preset() -> None:
    with torch.device("meta"):
        default, fast = AdvRAD(), AdvRAD("fast")
    assert default.resolved() == fast.resolved()
    found = fast.resolved()
    assert (found["size"], found["patch"], found["batch"]) == (128, 2, 16)
    assert found["widths"] == (64, 96, 128, 128)
    assert (found["precision"], found["score"], found["draws"]) == ("bfloat16", "deviation", 2)
    assert fast.settings.depth is None
    assert fast.cost()["parameters"] < 113_676_678 / 10


@pytest.mark.parametrize("preset", ["paper", "fast"])
def test_what_is_given_takes_the_preset_s_place_and_nothing_else_moves(preset: str) -> None:
    with torch.device("meta"):
        plain, other = AdvRAD(preset), AdvRAD(preset, size=64, channels=1, top=0.5, attention=[])
    changes = {"size": 64, "channels": 1, "top": 0.5, "attention": ()}
    assert other.resolved() == plain.resolved() | changes
    assert other.size == 64
    assert other.depth is None


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"preset": "slow"}, "preset=slow: expected one of paper, fast"),
        ({"channels": 2}, "channels=2: expected one of 1, 3"),
        ({"score": "best"}, "score=best: expected one of paper, deviation, coarse, signed"),
        ({"schedule": "square"}, "schedule=square: expected one of linear, cosine"),
        ({"precision": "float16"}, "precision=float16: expected one of float32, bfloat16"),
        ({"augment": ["flips", "shear"]}, "augment=shear: expected one of flips"),
        ({"size": 0}, "size=0: expected 1 or more"),
        ({"size": 20, "patch": 4}, "size=20: with patch=4 and 2 widths .* a multiple of 8"),
        ({"size": 18}, "size=18: with patch=2 and 2 widths it must be a multiple of 4"),
        ({"shots": 0}, "shots=0: expected 1 or more"),
        ({"draws": 0}, "draws=0: expected 1 or more"),
        ({"patch": 0}, "patch=0: expected 1 or more"),
        ({"blocks": 0}, "blocks=0: expected 1 or more"),
        ({"steps": 0}, "steps=0: expected 1 or more"),
        ({"batch": -1}, "batch=-1: expected 1 or more"),
        ({"rate": -1e-4}, r"rate=-0\.0001: expected 0 or more"),
        ({"rate": math.nan}, "rate=nan: expected 0 or more"),
        ({"warmup": -1}, "warmup=-1: expected 0 or more"),
        ({"clip": -1.0}, r"clip=-1\.0: expected 0 or more"),
        ({"clip": math.nan}, "clip=nan: expected 0 or more"),
        ({"average": 1.0}, r"average=1\.0: expected a share from 0 up to, not including, 1"),
        ({"average": -0.1}, r"average=-0\.1: expected a share"),
        ({"top": -0.1}, r"top=-0\.1: expected a share between 0 and 1"),
        ({"top": 1.1}, r"top=1\.1: expected a share between 0 and 1"),
        ({"top": math.nan}, "top=nan: expected a share between 0 and 1"),
        ({"widths": []}, "widths=.*: expected even numbers from 4 on, one a level"),
        ({"widths": [8, 2]}, "widths=.*: expected even numbers"),
        ({"widths": [8, 9]}, "widths=.*: expected even numbers"),
        ({"levels": [1]}, "levels=.*: expected two numbers, 1 <= low <= high <= 1000"),
        ({"levels": [0, 9]}, "levels=.*: expected two numbers"),
        ({"levels": [9, 8]}, "levels=.*: expected two numbers"),
        ({"levels": [1, 1001]}, "levels=.*: expected two numbers"),
        ({"attention": [5]}, "attention=5: expected one of 8, 4"),
        ({"depth": 0}, "depth=0 with shots=1: expected 1 <= shots <= depth <= 1000"),
        ({"depth": 1001}, "depth=1001 with shots=1: expected"),
        ({"depth": [50, 3], "shots": 4}, "depth=3 with shots=4: expected"),
        ({"depth": []}, "depth=.*: expected one depth or more"),
        ({"depth": None, "levels": [1, 20]}, "levels=.*none of 25, 50, .*give a depth"),
        ({"depth": None, "size": 8}, "size=8: a depth is chosen on injected.*16 px.*give a depth"),
        ({"depth": [50, 50]}, "depth=.*50, 50.*: each depth counts once"),
        ({"depth": 50.5}, "depth=50.5: "),
        ({"size": "wide"}, "size=wide: input should be a valid integer"),
        ({"widths": 16}, "widths=16: input should be a valid tuple"),
        ({"levels": 400}, "levels=400: expected two numbers"),
        ({"depth": None, "shots": 301}, "shots=301: none of 25, 50"),
    ],
)
def test_an_impossible_setting_is_refused_with_what_is_possible(
    settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        tiny(**settings)


def test_settings_may_be_asked_for_that_only_matter_later() -> None:
    tiny(rate=0.0, average=0.0, clip=0.0, warmup=0, top=1.0, levels=[7, 7], depth=1000)


@pytest.mark.parametrize(
    "depth", [(50, 75), range(50, 100, 25), np.array([50, 75]), torch.tensor([50, 75])]
)
def test_numbers_in_any_sequence_are_stored_as_plain_ones(depth: Any) -> None:
    detector = tiny(depth=depth)
    assert detector.depth == detector.depths == [50, 75]
    assert {type(each) for each in detector.depth} == {int}
    json.dumps(detector.params)


def test_a_saved_detector_stays_what_it_is_when_the_preset_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = tiny(depth=30)
    detector.save(tmp_path / "kept")
    changed = PRESETS["fast"] | {"draws": 7, "levels": (1, 77), "top": 0.5, "score": "signed"}
    monkeypatch.setitem(PRESETS, "fast", changed)
    assert tiny(depth=30).settings != detector.settings, "the change must be one that shows"
    again = detectors.load(tmp_path / "kept")
    assert isinstance(again, AdvRAD)
    assert again.settings == detector.settings
    assert again.params == detector.params
