"""Liars must be found suspect, honest detectors sound."""

import math

import pytest
import torch
from fakes import LIARS, SIDE, Fake, bright, pictures
from torch.nn import functional as F
from toys import tiny

from advrad.adapters import ModuleDetector, Opened
from advrad.attacks.ball import L2, Linf
from advrad.attacks.strongest import SUITES
from advrad.detectors import Detector
from advrad.evaluate.examination import examined
from advrad.evaluate.health import (
    NOT_RUN,
    NOTED,
    ORDER,
    SOUND,
    SUSPECT,
    UNCHECKED,
    Health,
    Sample,
    in_words,
)
from advrad.evaluate.robustness import Assault

EXPECTED = {
    "without_gradient": "gradient_present",
    "half_detached": "gradient_nonzero",
    "detached": "gradient_present",
    "not_a_number": "gradient_finite",
    "rounded": "gradient_nonzero",
    "saturated": "not_saturated",
    "shattered": "black_box",
    "random_steps": "repeatable",
    "drawing": "repeatable",
    "batch_mates": "batch_independent",
}


def checked(detector: Detector, eps: float = 8 / 255, budget: float = math.inf) -> Health:
    x, defect, ids = pictures(16)
    assault = Assault(detector.eval(), Linf(eps), SUITES["quick"])
    adv = x
    if type(detector) is not Fake or detector.values not in LIARS.values():
        adv = assault(x, defect, ids).x
    return examined(assault, Sample(x, adv, defect, ids), budget)


def test_each_liar_has_its_line() -> None:
    assert EXPECTED.keys() == LIARS.keys()


@pytest.mark.parametrize("name", LIARS)
def test_a_detector_that_only_looks_robust_is_suspect(name: str) -> None:
    health = checked(Fake(LIARS[name]))
    assert health.verdict == SUSPECT
    failed = [check for check in ORDER if health.checks[check].status == "failed"]
    assert EXPECTED[name] in failed, health.as_dict()
    assert len(health.reasons) == len(failed)


def test_an_honest_detector_is_sound() -> None:
    health = checked(Fake(bright))
    assert health.verdict == SOUND, health.as_dict()
    assert not health.not_run
    assert list(health.checks) == list(ORDER)


class Nearest(Fake):
    """The distance of untrained features to those of good images: smooth, nothing to hide."""

    def __init__(self) -> None:
        super().__init__(self.distances)
        generator = torch.Generator().manual_seed(0)
        self.kernel = torch.randn(8, 1, 3, 3, generator=generator) / 3
        x, defect, _ = pictures(40, seed=5)
        good_ones = x[[i for i in range(40) if not defect[i]]]
        self.bank = self.features(good_ones).transpose(0, 1).flatten(1).T[::7]

    def features(self, x: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(F.softplus(4 * F.conv2d(x, self.kernel, padding=1)), 2)

    def distances(self, x: torch.Tensor) -> torch.Tensor:
        found = self.features(x)
        flat = found.flatten(2).transpose(1, 2)
        nearest = (flat[:, :, None] - self.bank).square().sum(-1).amin(-1)
        return nearest.view(len(x), *found.shape[2:])


def test_nearest_neighbours_on_untrained_features_are_sound() -> None:
    health = checked(Nearest())
    assert health.verdict == SOUND, health.as_dict()


@pytest.mark.parametrize("detector", [tiny(steps=60), tiny(steps=60, score="paper", top=0.0)])
def test_advrad_is_sound(detector: Detector) -> None:
    x, defect, _ = pictures(60, seed=3)
    detector.fit([x[i] for i in range(60) if not defect[i]])
    health = checked(detector, eps=16 / 255)
    assert health.verdict == SOUND, health.as_dict()


def test_what_does_not_fit_the_budget_is_listed() -> None:
    health = checked(Fake(bright), budget=500)
    assert health.verdict == SOUND
    assert set(health.not_run) == {"black_box", "steps", "eps"} or "steps" in health.not_run
    assert checked(Fake(bright), budget=0).not_run == ["floor", "black_box", "steps", "eps"]


def test_the_budget_is_kept() -> None:
    count = 0

    def counting(x: torch.Tensor) -> torch.Tensor:
        nonlocal count
        count += len(x) * (1.0 if x.requires_grad else 0.5)
        return bright(x)

    x, defect, ids = pictures(16)
    detector = Fake(counting).eval()
    assault = Assault(detector, Linf(8 / 255), SUITES["quick"])
    spent = {}
    for budget in (0, 2000):
        count = 0
        examined(assault, Sample(x, x, defect, ids), budget)
        spent[budget] = count
    assert spent[2000] - spent[0] <= 1.05 * 2000


def test_a_verdict_on_little_says_what_was_left_out() -> None:
    few, every = checked(Fake(bright), budget=0), checked(Fake(bright))
    assert in_words(few.as_dict()) == "sound (not run: floor, black_box, steps, eps)"
    assert in_words(every.as_dict()) == "sound"
    assert in_words(checked(Fake(LIARS["detached"])).as_dict()).startswith("suspect (not run: ")


def test_roots_of_zero_in_an_opened_module_are_noted() -> None:
    """At x = 0.5 exactly; the note is no check, and changes no verdict."""

    def score(x: torch.Tensor) -> torch.Tensor:
        far = (x - 0.3).square().sum((1, 2, 3))
        return far + (x - 0.5).square().sum((1, 2, 3)).pow(0.5)

    x, defect, ids = pictures(4)
    x[0] = 0.5
    opened = Opened(score)
    detector = ModuleDetector(opened, size=SIDE, channels=1).eval()
    assault = Assault(detector, Linf(8 / 255), SUITES["quick"])
    health = examined(assault, Sample(x, x, defect, ids), 0)
    noted = health.checks["zero_roots"]
    assert noted.status == NOTED
    assert opened.found.zero_roots > 0
    assert noted.words.startswith(f"{opened.found.zero_roots} numbers under a root were zero")
    assert (health.verdict, health.not_run) == (SOUND, ["floor", "black_box", "steps", "eps"])


def test_nothing_run_is_no_verdict() -> None:
    health = Health.skipped("eps is 0")
    assert health.verdict == UNCHECKED
    assert in_words(health.as_dict()) == UNCHECKED
    assert health.not_run == list(ORDER)
    assert {check.status for check in health.checks.values()} == {NOT_RUN}


def test_attacked_images_outside_the_ball_are_found() -> None:
    x, defect, ids = pictures(8)
    assault = Assault(Fake(bright).eval(), L2(0.1), SUITES["quick"])
    health = examined(assault, Sample(x, (x + 0.1).clamp(0, 1), defect, ids), 0)
    assert health.checks["inside_ball"].status == "failed"


def test_a_suite_that_is_beaten_by_its_own_black_box_is_found() -> None:
    x, defect, ids = pictures(16)
    detector = Fake(bright).eval()
    assault = Assault(detector, Linf(8 / 255), SUITES["quick"])
    clean = detector(x).score
    sign = torch.tensor([-1.0 if each else 1.0 for each in defect])
    parts = {
        "apgd log-sum-exp": clean.tolist(),
        "square score": (clean + sign * 0.01).tolist(),
    }
    adv = assault(x, defect, ids).x
    sample = Sample(x, adv, defect, ids, parts, defect)
    check = examined(assault, sample, math.inf).checks["black_box"]
    assert check.status == "failed"
    assert "square score" in check.words
