"""Balls against closed forms, brute force, and what their words promise."""

import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from advrad.attacks.ball import BALLS, L1, L2, Ball, Linf, Patch
from advrad.errors import UsageError
from advrad.noise import PerImage

SHAPE = (3, 6, 5)
EACH = [Linf(0.07), L2(0.4), L1(0.9), Patch(3)]
VARIED = [
    Linf(torch.tensor([0.0, 0.05, 1.0, 0.2])),
    L2(torch.tensor([0.0, 0.3, 9.0, 1.0])),
    L1(torch.tensor([0.0, 0.5, 60.0, 2.0])),
    Patch(torch.tensor([0, 2, 6, 3])),
]
both = pytest.mark.parametrize("ball", EACH + VARIED, ids=lambda b: f"{b.name}-{b.eps}")


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def pictures(count: int = 4, seed: int = 0) -> Tensor:
    """Images of which many values lie on the border of the box."""
    return normal(count, *SHAPE, seed=seed).add(0.5).clamp(0, 1)


def eps_of(ball: Ball, count: int = 4) -> Tensor:
    return torch.as_tensor(ball.eps, dtype=torch.float32).expand(count)


def test_the_table_names_every_ball() -> None:
    assert {name: kind(1).name for name, kind in BALLS.items()} == {n: n for n in BALLS}
    assert set(BALLS) == {"linf", "l2", "l1", "patch"}


# what is inside


@both
def test_what_is_random_or_projected_is_in_the_ball_and_the_box(ball: Ball) -> None:
    x = pictures()
    for adv in (x + ball.random(x), x + 3 * normal(*x.shape), x + 1e-3 * normal(*x.shape)):
        inside = ball.project(adv, x)
        assert (ball.size(inside - x) <= eps_of(ball) + 1e-5).all()
        assert inside.min() >= 0
        assert inside.max() <= 1
    assert (ball.size(ball.random(x)) <= eps_of(ball) * (1 + 1e-5)).all()


@both
def test_eps_zero_leaves_the_image_to_the_bit(ball: Ball) -> None:
    x = pictures()
    none = ball.at(0)
    for adv in (x + none.random(x), x + 3 * normal(*x.shape)):
        assert torch.equal(none.project(adv, x), x)


@both
def test_projecting_what_is_inside_changes_nothing(ball: Ball) -> None:
    x = pictures()
    once = ball.project(x + normal(*x.shape), x)
    torch.testing.assert_close(ball.project(once, x), once, rtol=0, atol=1e-6)


@both
def test_images_do_not_know_of_each_other(ball: Ball) -> None:
    x, delta = pictures(), normal(4, *SHAPE, seed=3)
    names = ["a", "b", "c", "d"]
    whole = [
        ball.random(x, PerImage(0, names)),
        ball.steepest(delta),
        ball.clip(delta),
        ball.project(x + delta, x),
        ball.size(delta)[:, None, None, None],
    ]
    for i in range(4):
        eps = ball.eps[i : i + 1] if isinstance(ball.eps, Tensor) else ball.eps
        one, row = ball.at(eps), slice(i, i + 1)
        alone = [
            one.random(x[row], PerImage(0, names[row])),
            one.steepest(delta[row]),
            one.clip(delta[row]),
            one.project(x[row] + delta[row], x[row]),
            one.size(delta[row])[:, None, None, None],
        ]
        for part, full in zip(alone, whole, strict=True):
            torch.testing.assert_close(part, full[row], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("ball", EACH, ids=lambda b: b.name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_type_stays(ball: Ball, dtype: torch.dtype) -> None:
    x = pictures().to(dtype)
    adv = x + 0.3 * ball.steepest(x - 0.5) + ball.random(x)
    assert ball.project(adv, x).dtype == ball.clip(adv - x).dtype == dtype
    assert ball.size(x).dtype == dtype


def test_the_radius_of_doubles_is_not_rounded_to_floats() -> None:
    eps = torch.tensor([0.1, 0.2], dtype=torch.float64)
    assert torch.equal(L2(eps).radius.flatten(), eps)


@pytest.mark.gpu
@pytest.mark.parametrize("ball", EACH + VARIED, ids=lambda b: f"{b.name}-{b.eps}")
def test_a_device_makes_no_difference(ball: Ball) -> None:
    x, delta, noise = pictures(), normal(4, *SHAPE), PerImage(0, ["a", "b", "c", "d"])
    for here, there in (
        (ball.random(x, noise), ball.random(x.cuda(), noise)),
        (ball.steepest(delta), ball.steepest(delta.cuda())),
        (ball.project(x + delta, x), ball.project((x + delta).cuda(), x.cuda())),
    ):
        torch.testing.assert_close(here, there.cpu(), rtol=1e-5, atol=1e-6)


# the nearest point


def nearest(delta: Tensor, x: Tensor, ball: Ball) -> Tensor:
    """By a general solver, for one image; l1 through positive and negative parts."""
    flat, clean = delta.flatten().double().numpy(), x.flatten().double().numpy()
    eps = float(ball.eps)
    low, high = -clean, 1 - clean
    if ball.name == "l2":
        found = minimize(
            lambda d: ((d - flat) ** 2).sum(),
            0 * flat,
            jac=lambda d: 2 * (d - flat),
            bounds=list(zip(low, high, strict=True)),
            constraints={
                "type": "ineq",
                "fun": lambda d: eps**2 - (d**2).sum(),
                "jac": lambda d: -2 * d,
            },
            options={"maxiter": 500, "ftol": 1e-12},
        )
        return torch.from_numpy(found.x).view_as(delta)
    # l1: a level found by bisection, every value shrunk by it and cut to its room
    room = torch.where(delta > 0, 1 - x, x).double()
    size = delta.abs().double()
    bottom, top = 0.0, float(size.max())
    for _ in range(100):
        level = (bottom + top) / 2
        total = float(torch.minimum((size - level).clamp_min(0), room).sum())
        bottom, top = (level, top) if total > eps else (bottom, level)
    return delta.sign() * torch.minimum((size - top).clamp_min(0), room)


@pytest.mark.parametrize("ball", [L2(0.4), L2(1.1), L1(0.9), L1(6.0)], ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_projections_find_the_nearest_point_of_ball_and_box(ball: Ball, seed: int) -> None:
    x, delta = pictures(1, seed=seed), 0.5 * normal(1, *SHAPE, seed=seed + 10)
    found = ball.project(x + delta, x) - x
    expected = nearest(delta, x, ball)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=2e-4)
    assert float(ball.size(found)) == pytest.approx(float(ball.eps), rel=1e-5)


@pytest.mark.parametrize("eps", [0.3, 2.0, 30.0, 1000.0])
@pytest.mark.parametrize("seed", range(3))
def test_the_l1_ball_without_a_box_by_its_optimality_conditions(eps: float, seed: int) -> None:
    """Soft thresholding by one level, which is zero where delta is inside already."""
    delta = normal(2, *SHAPE, seed=seed)
    found = L1(eps).clip(delta)
    for before, after in zip(delta, found, strict=True):
        moved = (before - after).abs()
        level = moved.max()
        assert (after[after != 0].sign() == before[after != 0].sign()).all()
        torch.testing.assert_close(moved[after != 0], level.expand_as(moved[after != 0]))
        if before.abs().sum() <= eps:
            assert torch.equal(after, before)
        else:
            assert float(after.abs().sum()) == pytest.approx(eps, rel=1e-5)


def test_the_l1_ball_keeps_its_radius_for_many_values() -> None:
    """Sums of a hundred thousand floats, one after another, would miss it."""
    x = torch.rand(1, 3, 192, 192, generator=torch.Generator().manual_seed(0))
    found = L1(300.0).project(x + normal(*x.shape), x) - x
    assert float(found.double().abs().sum()) == pytest.approx(300, rel=1e-5)


def test_linf_and_l2_by_hand() -> None:
    delta = torch.tensor([3.0, -4.0, 0.0, 0.0]).view(1, 1, 2, 2)
    assert Linf(1.0).clip(delta).flatten().tolist() == [1, -1, 0, 0]
    assert L2(2.5).clip(delta).flatten().tolist() == [1.5, -2.0, 0, 0]
    assert L2(6.0).clip(delta).flatten().tolist() == [3, -4, 0, 0]


def test_what_the_box_takes_the_l2_ball_gives_to_other_values() -> None:
    """(3, 4) cut to (0.3, .): the second value may have what is left, sqrt(0.25 - 0.09)."""
    x = torch.tensor([0.7, 0.5]).view(1, 1, 1, 2)
    adv = x + torch.tensor([3.0, 4.0]).view_as(x)
    moved = (L2(0.5).project(adv, x) - x).flatten()
    torch.testing.assert_close(moved, torch.tensor([0.3, 0.4]))


def test_no_room_at_all() -> None:
    x = torch.ones(1, *SHAPE)
    for ball in EACH:
        assert torch.equal(ball.project(x + 1, x), x)


# refusals


@pytest.mark.parametrize(
    ("ball", "most"), [(Linf, 1), (L2, 90**0.5), (L1, 90), (Patch, 6)], ids=lambda v: str(v)
)
def test_impossible_radii_are_refused(ball: type[Ball], most: float) -> None:
    for eps in (0, most, torch.tensor([0, most], dtype=torch.float64)):
        assert torch.equal(torch.as_tensor(ball(eps).check(SHAPE).eps), torch.as_tensor(eps))
    for eps in (-1, most + 1, float("nan"), float("inf"), torch.tensor([0.0, -1.0])):
        with pytest.raises(UsageError, match=f"for {ball(0).name}: expected a number from 0 to"):
            ball(eps).check(SHAPE)


@pytest.mark.parametrize("eps", [1.5, torch.tensor([1.0, 2.5])])
def test_a_sticker_has_whole_pixels(eps: float | Tensor) -> None:
    with pytest.raises(UsageError, match="whole pixels"):
        Patch(eps).check(SHAPE)
