"""The depth, chosen without test labels; with an exact denoiser the right one is known."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from toys import PAPER, KnowsAt, good, names, same, tiny

from advrad import detectors, scoring
from advrad.detectors import AdvRAD, Run
from advrad.detectors._depth import candidates
from advrad.detectors._settings import DEPTHS
from advrad.diffusion import EpsDenoiser, Linear
from advrad.noise import PerImage

TRAIN, TEST = good(10), good(3, seed=1)
NOISE = PerImage(9, names(3))

TEMPLATE = good(1)[0]


def rig(monkeypatch: pytest.MonkeyPatch, *levels: int) -> None:
    """Every denoiser rebuilds the template exactly from these levels, and nothing from others."""

    def exact(detector: AdvRAD) -> EpsDenoiser:
        return EpsDenoiser(KnowsAt(Linear(), 2 * TEMPLATE - 1, set(levels)), Linear())

    monkeypatch.setattr(AdvRAD, "_denoiser", exact)


def near(count: int, seed: int) -> Tensor:
    """Images that hardly differ from the template."""
    source = torch.Generator().manual_seed(seed)
    return TEMPLATE + 0.01 * torch.rand(count, *TEMPLATE.shape, generator=source)


CHOOSING = PAPER | {"depth": None, "steps": 1}


@pytest.mark.parametrize("depth", DEPTHS)
def test_the_depth_from_which_defects_show_is_chosen_used_and_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, depth: int
) -> None:
    """With an exact denoiser the score is known: that of the image's gap to the template."""
    rig(monkeypatch, depth)
    train, tune = near(6, 1), near(5, 2)
    detector = tiny(**CHOOSING).fit(train, Run(tune=tune))
    (choice,) = detector.chosen()
    assert (choice["name"], choice["chosen"]) == ("depth", [depth])
    table = {tuple(row["depth"]): row["mean"] for row in choice["table"]}
    assert len(table) == 3 + 4 + 5
    assert {len(ladder) for ladder in table} == {1, 2, 3}
    assert table[(depth,)] > 0.95
    assert max(mean for ladder, mean in table.items() if depth not in ladder) < 0.9
    assert detector.depths == detector.resolved()["depth"] == [depth]
    assert detector.depth is None
    x = TEMPLATE[None].repeat(3, 1, 1, 1)
    x[1, :, 4:9, 4:9] += 0.3
    x[2, :, 2:4] -= 0.2
    typical = scoring.multiscale_error(train, TEMPLATE.expand_as(train)).mean(0)
    error = scoring.multiscale_error(x, TEMPLATE.expand_as(x))
    expected = (error - typical).abs().amax((1, 2))
    detector.save(tmp_path / "model")
    loaded = detectors.load(tmp_path / "model")
    assert isinstance(loaded, AdvRAD)
    assert loaded.depths == loaded.resolved()["depth"] == [depth]
    assert loaded.depth is None
    for each in (detector, loaded, detector.variant().measure(train)):
        torch.testing.assert_close(each(x, NOISE).score, expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("exact", "taken"),
    [
        ((50, 200), [50]),
        ((50, 100), [50, 100]),
        ((200, 300), [200, 300]),
        ((25, 50, 100), [25, 50, 100]),
        (DEPTHS, [25, 50, 100]),
    ],
)
def test_neighbouring_depths_that_are_as_good_are_taken_together_the_mildest_first(
    monkeypatch: pytest.MonkeyPatch, exact: tuple[int, ...], taken: list[int]
) -> None:
    rig(monkeypatch, *exact)
    detector = tiny(**CHOOSING).fit(near(6, 1), Run(tune=near(5, 2)))
    assert detector.depths == taken


@pytest.mark.parametrize(
    ("settings", "depths", "taken"),
    [
        ({"levels": [1, 120]}, [25, 50, 100], [25, 50, 100]),
        ({"levels": [60, 400]}, [100, 200, 300], [100, 200, 300]),
        ({"levels": [40, 100]}, [50, 100], [50, 100]),
        ({"levels": [25, 25]}, [25], [25]),
        ({"shots": 70}, [100, 200, 300], [100, 200, 300]),
    ],
)
def test_depths_that_were_not_trained_or_have_too_few_steps_are_not_tried(
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
    depths: list[int],
    taken: list[int],
) -> None:
    rig(monkeypatch, *range(1, 1001))
    detector = tiny(**CHOOSING | settings).fit(near(3, 1), Run(tune=near(2, 2)))
    tried = [row["depth"] for row in detector.chosen()[0]["table"]]
    assert [ladder[0] for ladder in tried if len(ladder) == 1] == depths
    assert tried == sorted(tried, key=lambda ladder: (-len(ladder), ladder))
    assert detector.depths == taken
    without = tiny(**CHOOSING | settings).fit(near(3, 1))
    assert without.depths == ([100] if 100 in depths else depths[:1])


def test_without_images_to_choose_on_it_is_the_paper_s_depth() -> None:
    detector = tiny(depth=None).fit(TRAIN)
    assert detector.depths == [100]
    assert detector.chosen() == []
    assert same(detector.variant().measure(TRAIN), detector)


def test_a_depth_that_is_given_is_not_chosen() -> None:
    detector = tiny(depth=[70, 90]).fit(TRAIN, Run(tune=good(3, seed=2)))
    assert detector.depths == [70, 90]
    assert detector.chosen() == []


def test_the_choice_depends_on_train_and_tune_images_and_the_seed_alone() -> None:
    """It is asked for nothing else, and no other randomness enters."""
    run = Run(seed=4, tune=good(4, seed=2))
    first = tiny(depth=None, draws=1).fit(TRAIN, run)
    torch.rand(5)
    with torch.no_grad():
        first(TEST, NOISE)
    again = tiny(depth=None, draws=1).fit(TRAIN, run)
    assert first.chosen() == again.chosen()
    assert same(first, again)
    json.dumps(first.chosen())


@pytest.mark.parametrize("score", list(scoring.SCORES))
def test_the_scores_of_the_choice_are_those_of_the_detector(score: str) -> None:
    """A tune image scores the same while the depth is chosen and after."""
    tune, run = good(4, seed=2), Run(seed=4)
    detector = tiny(depth=[50], score=score).fit(TRAIN, run)
    possible = [[50], [100], [50, 100], [25, 50, 100]]
    with torch.no_grad():
        found = candidates(detector, possible, TRAIN, run)(tune, names(4))
        for column, depth in zip(found.T, possible, strict=True):
            whole = detector.variant(depth=depth).measure(TRAIN, run)
            torch.testing.assert_close(column, whole(tune, PerImage(4, names(4))).score)


def test_fitting_again_forgets_the_choice() -> None:
    detector = tiny(depth=None, draws=1).fit(TRAIN, Run(tune=good(3, seed=2)))
    assert detector.chosen()
    detector.fit(TRAIN)
    assert detector.chosen() == []
    assert detector.taken is None
    assert same(detector, tiny(depth=None, draws=1).fit(TRAIN))
