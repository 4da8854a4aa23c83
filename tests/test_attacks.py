"""What every attack of the table promises, in every ball."""

import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from oracles import LinearScore
from torch import Tensor

import advrad.attacks
from advrad.attacks import ALL, BALLS, L1, L2, Aim, Ball, Linf, Patch, pgd
from advrad.errors import BlindAttackError, UsageError
from advrad.noise import Noise, PerImage

SHAPE = (1, 8, 8)
EPS = {"linf": 0.05, "l2": 0.4, "l1": 0.6, "patch": 3}
PER_IMAGE = {"linf": [0, 0.05, 0.2], "l2": [0, 0.4, 1], "l1": [0, 0.6, 3], "patch": [0, 3, 5]}
NAMES = ["a", "b", "c"]
SMALLEST = ["minimal", "fab", "deepfool", "elasticnet"]  # they need a threshold, and return radii
BY_GRADIENTS = ["fgsm", "pgd", "apgd", *SMALLEST]
WITHOUT = {"fab": ["patch"], "deepfool": ["l1", "patch"], "elasticnet": ["patch"]}

# Small, for the contract; a new attack adds its line here.
SMALL: dict[str, dict[str, Any]] = {
    "fgsm": {},
    "pgd": {"steps": 5},
    "apgd": {"steps": 10},
    "square": {"queries": 30},
    "spsa": {"steps": 5, "samples": 2},
    "transfer": {"attack": partial(pgd, steps=5)},
    "minimal": {"steps": 20},
    "fab": {"steps": 20, "restarts": 2},
    "deepfool": {"steps": 20},
    "elasticnet": {"steps": 20, "searches": 4, "c": 1.0},
}
# Enough for the optimum of a linear score, and how much of it is asked for.
LARGE: dict[str, tuple[dict[str, Any], float]] = {
    "fgsm": ({}, 0.999),
    "pgd": ({}, 0.999),
    "apgd": ({}, 0.999),
    "spsa": ({"steps": 20, "samples": 100}, 0.75),
    "transfer": ({"attack": pgd}, 0.999),
}

each = pytest.mark.parametrize("name", ALL)
every = pytest.mark.parametrize(
    ("name", "norm"), [(n, ball) for n in ALL for ball in BALLS if ball not in WITHOUT.get(n, [])]
)


def bowl(x: Tensor) -> Tensor:
    """A bent score that treats each image by itself."""
    centre = torch.linspace(0, 1, 64).view(SHAPE).to(x)
    return (x - centre).square().flatten(1).sum(1) + x[:, 0, 0].sum(1).sin()


def run(
    name: str, objective: Callable, x: Tensor, ball: Ball, noise: Noise, **settings: Any
) -> Tensor:
    """The images an attack finds, whatever else it needs."""
    if name == "transfer":
        settings = {"source": objective} | settings
    if name in SMALLEST and "threshold" not in settings:
        settings = {"threshold": 1.05 * bowl(x)} | settings
    found = ALL[name](objective, x, ball, noise=noise, **settings)
    return found.x if name in SMALLEST else found


def small(name: str, x: Tensor, ball: Ball, noise: Noise, objective: Callable = bowl) -> Tensor:
    return run(name, objective, x, ball, noise, **SMALL[name])


def pictures() -> Tensor:
    """Images with values at the border of the box."""
    x = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(1))
    return (1.4 * x - 0.2).clamp(0, 1)


def ball_of(norm: str, varied: bool = False) -> Ball:
    return BALLS[norm](torch.tensor(PER_IMAGE[norm]) if varied else EPS[norm])


def test_every_module_of_the_folder_is_in_the_table() -> None:
    modules = {p.stem for p in Path(advrad.attacks.__file__).parent.glob("[!_]*.py")}
    shared = {"ball", "gradient", "objective", "strongest"}
    classifiers = {"classification", "recipes", "autoattack"}
    assert modules - shared - classifiers == set(ALL) == set(SMALL)
    assert all(attack.__name__ == name for name, attack in ALL.items())


@each
def test_objective_image_and_ball_come_first_and_the_noise_last(name: str) -> None:
    names = list(inspect.signature(ALL[name]).parameters)
    assert names[:3] == ["objective", "x", "ball"]
    assert names[-1] == "noise"


@every
@pytest.mark.parametrize("varied", [False, True], ids=["one eps", "eps per image"])
def test_what_comes_out_lies_in_the_ball_and_in_the_box(
    name: str, norm: str, varied: bool
) -> None:
    x, ball = pictures(), ball_of(norm, varied)
    adv = small(name, x, ball, PerImage(0, NAMES))
    eps = torch.as_tensor(ball.eps, dtype=torch.float32).expand(3)
    assert (ball.size(adv - x) <= eps * (1 + 1e-5) + 1e-6).all()
    assert adv.min() >= 0
    assert adv.max() <= 1
    assert adv.shape == x.shape
    assert adv.dtype == x.dtype
    assert not adv.requires_grad
    assert (bowl(adv) >= bowl(x)).all() or name == "fgsm"
    assert (bowl(adv)[1:] > bowl(x)[1:]).any()


@every
def test_eps_zero_gives_the_image_back(name: str, norm: str) -> None:
    x = pictures()
    assert torch.equal(small(name, x, BALLS[norm](0), PerImage(0, NAMES)), x)


@every
def test_the_images_given_are_left_as_they_are(name: str, norm: str) -> None:
    x = pictures()
    kept, memory = x.clone(), x.data_ptr()
    adv = small(name, x, ball_of(norm), PerImage(0, NAMES))
    adv += 1
    assert torch.equal(x, kept)
    assert x.data_ptr() == memory
    assert not x.requires_grad


@every
def test_an_image_is_attacked_alone_as_in_a_batch(name: str, norm: str) -> None:
    x, ball = pictures(), ball_of(norm)
    whole = small(name, x, ball, PerImage(0, NAMES))
    for i in range(3):
        alone = small(name, x[i : i + 1], ball, PerImage(0, NAMES[i : i + 1]))
        torch.testing.assert_close(alone[0], whole[i], rtol=0, atol=2e-5)


@every
def test_the_noise_decides(name: str, norm: str) -> None:
    x, ball = pictures(), ball_of(norm)
    once, again, other = (small(name, x, ball, PerImage(seed, NAMES)) for seed in (0, 0, 1))
    assert torch.equal(once, again)
    if name in ("square", "spsa"):
        assert not torch.equal(once, other)


@each
def test_doubles_stay_doubles(name: str) -> None:
    adv = small(name, pictures().double(), Linf(0.05), PerImage(0, NAMES))
    assert adv.dtype == torch.float64


@pytest.mark.parametrize("name", LARGE)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_optimum_of_a_linear_score_is_reached(name: str, norm: str) -> None:
    settings, share = LARGE[name]
    score, x = LinearScore(*SHAPE), torch.full((2, *SHAPE), 0.5)
    adv = run(name, score, x, ball_of(norm), PerImage(0, NAMES[:2]), **settings)
    assert float((score(adv) - score(x)).min()) >= share * score.gain(norm, EPS[norm])


@pytest.mark.parametrize("name", BY_GRADIENTS)
@pytest.mark.parametrize(
    "blind", [lambda x: bowl(x.detach()), lambda x: bowl(x) + bowl(x - x).sqrt() * torch.nan]
)
def test_an_attack_by_gradients_refuses_to_go_blind(name: str, blind: Callable) -> None:
    with pytest.raises(BlindAttackError):
        small(name, pictures(), Linf(0.05), PerImage(0, NAMES), blind)


@pytest.mark.parametrize(("name", "norm"), [(n, ball) for n in WITHOUT for ball in WITHOUT[n]])
def test_a_ball_in_which_an_attack_means_nothing_is_refused(name: str, norm: str) -> None:
    with pytest.raises(UsageError, match=f"{norm}: expected one of"):
        small(name, pictures(), ball_of(norm), PerImage(0, NAMES))


@pytest.mark.parametrize("name", ["square", "spsa"])
def test_an_attack_by_values_needs_no_gradient(name: str) -> None:
    x = pictures()
    adv = small(name, x, Linf(0.05), PerImage(0, NAMES), lambda z: bowl(z.detach()))
    assert (bowl(adv) > bowl(x)).all()


@each
def test_it_works_where_gradients_are_switched_off(name: str) -> None:
    with torch.no_grad():
        adv = small(name, pictures(), L2(0.4), PerImage(0, NAMES))
    assert torch.equal(adv, small(name, pictures(), L2(0.4), PerImage(0, NAMES)))


@each
def test_what_climbs_need_not_be_what_counts(name: str) -> None:
    """Climbing away from what counts: the clean images are the best, and are kept."""
    if name in ("fgsm", "square", *SMALLEST):
        pytest.skip("takes its one step, or climbs what counts")
    x = pictures()
    adv = small(name, x, Linf(0.05), PerImage(0, NAMES), lambda z: Aim(bowl(z), -bowl(z).detach()))
    assert (bowl(adv) <= bowl(x)).all()


@each
@pytest.mark.parametrize(
    "wrong",
    [
        {"x": pictures() + 0.5},
        {"x": pictures()[0]},
        {"ball": Linf(-0.1)},
        {"ball": Linf(1.1)},
        {"ball": L2(8.1)},
        {"ball": L1(65)},
        {"ball": Patch(9)},
        {"ball": Linf(torch.tensor([0.1, 0.2]))},
        {"objective": lambda x: bowl(x).sum()},
        {"objective": lambda x: bowl(x).sum().item()},
        {"ball": 0.1},
        {"ball": Linf("2/255")},
    ],
    ids=[
        *("bright", "3d", "negative", "linf", "l2", "l1", "patch", "eps", "shape"),
        *("float", "no ball", "words"),
    ],
)
def test_impossible_requests_are_refused(name: str, wrong: dict[str, Any]) -> None:
    given = {"objective": bowl, "x": pictures(), "ball": Linf(0.1)} | wrong
    x = given["x"]
    settings = SMALL[name] | ({"threshold": 1.0} if name in SMALLEST else {})
    with pytest.raises(UsageError):
        run(name, given["objective"], x, given["ball"], PerImage(0, NAMES), **settings)
