"""The checks that attack again: who gets how much, and what a large ball must do."""

from collections.abc import Callable

import pytest
import torch
from fakes import LIARS, Fake, bright, level, pictures
from toys import tiny

from advrad.attacks.ball import Linf
from advrad.attacks.strongest import SUITES
from advrad.detectors import Detector
from advrad.evaluate.health import COSTLY, Sample
from advrad.evaluate.health_attacks import LEVELS, Level, checked, cost, least, planned
from advrad.evaluate.health_subject import Subject
from advrad.evaluate.robustness import Assault


def subject(detector: Detector, images: int = 16, *kinds: bool) -> Subject:
    x, defect, ids = pictures(images)
    kept = [i for i in range(images) if not kinds or defect[i] in kinds]
    sample = Sample(x[kept], x[kept], [defect[i] for i in kept], [ids[i] for i in kept])
    return Subject(Assault(detector.eval(), Linf(8 / 255), SUITES["quick"]), sample)


@pytest.fixture(scope="module")
def ladder() -> Detector:
    """Each score of it takes four passes."""
    x, defect, _ = pictures(8, seed=3)
    return tiny(depth=(10, 20)).fit([x[i] for i in range(8) if not defect[i]])


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0, 2.0, 8.0, 1e3])
@pytest.mark.parametrize("draws", [0, 2, None])
def test_a_plan_keeps_to_the_budget_and_its_order(
    draws: int | None, share: float, ladder: Detector
) -> None:
    seen = subject(ladder if draws is None else Fake(bright, draws))
    budget = share * sum(least(seen, name) for name in COSTLY)
    plan = planned(seen, budget)
    assert sum(cost(seen, name, level) for name, level in plan.items()) <= budget
    if share >= 1:
        assert set(plan) == set(COSTLY), "all get a little before any gets more"
    if share == 1:
        assert all(plan[name] == LEVELS[name][0] for name in COSTLY)
    if share == 1e3:
        assert all(plan[name] == LEVELS[name][-1] for name in COSTLY)


def test_the_black_box_comes_first() -> None:
    seen = subject(Fake(bright))
    assert list(planned(seen, least(seen, "black_box"))) == ["black_box"]
    assert planned(seen, least(seen, "black_box") - 0.1) == {}


@pytest.mark.parametrize("name", COSTLY)
@pytest.mark.parametrize("draws", [0, 2])
def test_a_check_costs_what_was_planned(name: str, draws: int) -> None:
    count = 0.0

    def counting(x: torch.Tensor) -> torch.Tensor:
        nonlocal count
        count += len(x) * (1.0 if x.requires_grad else 0.5)
        return bright(x)

    seen, level = subject(Fake(counting)), Level(*LEVELS[name][0])
    checked(seen, name, level)
    assert count <= cost(seen, name, level) <= 1.5 * count


@pytest.mark.parametrize("values", [bright, level])
@pytest.mark.parametrize("size", LEVELS["floor"])
def test_a_large_ball_turns_an_honest_order_round(
    values: Callable[[torch.Tensor], torch.Tensor], size: tuple[int, int]
) -> None:
    held, words = checked(subject(Fake(values)), "floor", Level(*size))
    assert held, words
    assert "100% of the good images rise and 100% of the defects fall" in words


@pytest.mark.parametrize(
    "name", ["wrong_sign", "level_wrong_sign", "decoy_gradient", "half_detached", "saturated"]
)
@pytest.mark.parametrize("size", LEVELS["floor"])
def test_no_random_start_does_a_gradient_s_work(name: str, size: tuple[int, int]) -> None:
    held, words = checked(subject(LIARS[name]()), "floor", Level(*size))
    assert not held, words


@pytest.mark.parametrize("kind", [False, True])
def test_one_class_is_checked_without_auroc(kind: bool) -> None:
    seen = subject(Fake(bright), 16, kind)
    lying = subject(LIARS["wrong_sign"](), 16, kind)
    for name in ("black_box", "floor"):
        size = Level(*LEVELS[name][-1])
        held, words = checked(seen, name, size)
        assert held or name == "black_box"  # which was not attacked before
        assert "AUROC" not in words
    assert not checked(lying, "black_box", Level(8, 200))[0]
    if kind:
        assert not checked(lying, "floor", Level(8, 20))[0]
