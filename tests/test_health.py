"""Liars must be found suspect, honest detectors sound."""

import math
import threading
from functools import partial

import pytest
import torch
from fakes import LIARS, SIDE, Fake, Scaled, bright, level, pictures
from torch.nn import functional as F
from toys import tiny

from advrad.adapters import ModuleDetector, Opened
from advrad.attacks.ball import L2, Linf
from advrad.attacks.strongest import SUITES
from advrad.detectors import Detector
from advrad.errors import BlindAttackError
from advrad.evaluate.examination import copied, examined
from advrad.evaluate.health import (
    COSTLY,
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

EXPECTED = {  # of what must fail, whatever the budget
    "without_gradient": "gradient_present",
    "half_detached": "gradient_nonzero",
    "detached": "gradient_present",
    "not_a_number": "gradient_finite",
    "rounded": "gradient_nonzero",
    "saturated": "not_saturated",
    "shattered": "gradient_true",
    "random_steps": "repeatable",
    "drawing": "repeatable",
    "batch_mates": "batch_independent",
    "wrong_sign": "gradient_true",
    "level_wrong_sign": "gradient_true",
    "decoy_gradient": "gradient_true",
    "level_decoy_gradient": "gradient_true",
    "faint_gradient": "gradient_true",
    "vanishing_gradient": "not_saturated",
    "decoy_map": "gradient_true",
    "cache": "stateless",
    "tired": "stateless",
}
HONEST = {
    "bright": partial(Fake, bright),
    "level": partial(Fake, level),
    "peaks": partial(Fake, lambda x: (x - 0.3).abs()[:, 0]),
    "halves": partial(Fake, lambda x: bright(x.bfloat16()).float()),
}
UNITS = [(1.0, 0.0), (1.0, 100.0), (1e-9, 0.0), (1e6, -1e6)]
COSTS = sum(SUITES["quick"].cost(False)) / 4  # an image; what a suite may spend on its checks


def checked(
    detector: Detector,
    eps: float = 8 / 255,
    budget: float = math.inf,
    images: int = 16,
) -> Health:
    x, defect, ids = pictures(images)
    before = copied(detector.eval())
    assault = Assault(detector, Linf(eps), SUITES["quick"])
    try:
        adv = assault(x, defect, ids).x
    except BlindAttackError:
        adv = x
    return examined(assault, Sample(x, adv, defect, ids), budget, before)


def failed(health: Health) -> list[str]:
    return [name for name in ORDER if health.checks[name].status == "failed"]


def test_each_liar_has_its_line() -> None:
    assert EXPECTED.keys() == LIARS.keys()


@pytest.mark.parametrize("name", LIARS)
@pytest.mark.parametrize(("images", "budget"), [(12, 12 * COSTS), (4, 0.0)], ids=["6+6", "2+2"])
def test_a_detector_that_only_looks_robust_is_suspect(
    name: str, images: int, budget: float
) -> None:
    """`quick` on six images of each class, and where the budget holds nothing that costs."""
    health = checked(LIARS[name](), budget=budget, images=images)
    assert health.verdict == SUSPECT
    assert EXPECTED[name] in failed(health), health.as_dict()
    assert len(health.reasons) == len(failed(health))


@pytest.mark.parametrize("name", HONEST)
@pytest.mark.parametrize("images", [4, 12])
def test_an_honest_detector_is_sound(name: str, images: int) -> None:
    health = checked(HONEST[name](), budget=images * COSTS, images=images)
    assert health.verdict == SOUND, health.as_dict()
    assert list(health.checks) == list(ORDER)


def test_with_a_large_budget_every_check_is_run() -> None:
    health = checked(Fake(bright))
    assert (health.verdict, health.not_run) == (SOUND, []), health.as_dict()


@pytest.mark.parametrize(("factor", "offset"), UNITS[1:])
@pytest.mark.parametrize("name", [*LIARS, *HONEST])
def test_the_unit_of_a_score_changes_no_verdict(name: str, factor: float, offset: float) -> None:
    """Neither does an offset; what floats then round away may only add to what has failed."""
    own = (LIARS | HONEST)[name]
    health = checked(Scaled(own(), factor, offset), budget=12 * COSTS, images=12)
    assert health.verdict == (SUSPECT if name in LIARS else SOUND), health.as_dict()
    assert name in HONEST or EXPECTED[name] in failed(health), health.as_dict()


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
    health = checked(Fake(bright), budget=12 * COSTS, images=12)
    assert (health.verdict, health.not_run) == (SOUND, ["steps", "eps"])
    assert "do not fit" in health.checks["eps"].words
    assert checked(Fake(bright), budget=0).not_run == list(COSTLY)


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
    assert in_words(few.as_dict()) == "sound (not run: black_box, floor, steps, eps)"
    assert in_words(every.as_dict()) == "sound"
    assert in_words(checked(LIARS["detached"]()).as_dict()).startswith("suspect (not run: ")


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
    assert (health.verdict, health.not_run) == (SOUND, list(COSTLY))


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


class TestStateless:
    def test_a_detector_that_cannot_be_copied_is_named(self) -> None:
        detector = Fake(bright)
        detector.lock = threading.Lock()  # type: ignore[assignment]
        check = checked(detector, budget=0).checks["stateless"]
        assert check.status == NOT_RUN
        assert "cannot be copied: TypeError" in check.words

    def test_what_the_attack_itself_changed_shows_beside_a_copy_from_before(self) -> None:
        x, defect, ids = pictures(4)
        detector = LIARS["tired"]().eval()
        assault = Assault(detector, Linf(8 / 255), SUITES["quick"])
        before, sample = copied(detector), Sample(x, assault(x, defect, ids).x, defect, ids)
        for own, status in ((before, "failed"), (None, "passed")):
            assert examined(assault, sample, 0, own).checks["stateless"].status == status
