"""The way to a plane inside the box: closed forms, a linear and a quadratic program."""

import numpy as np
import pytest
import torch
from scipy.optimize import linprog, minimize
from torch import Tensor

from advrad.attacks import BALLS, L1, L2, Aim, Linf, Patch
from advrad.attacks._plane import Plane, Slopes, nearest_plane, rank_of, slopes, to_plane
from advrad.errors import BlindAttackError, UsageError

SHAPE = (1, 3, 4)
SIZE = 12
NORMS = ["linf", "l2", "l1"]


def cases(count: int = 24, seed: int = 0) -> tuple[Tensor, Plane]:
    """Images at the box and away from it, planes that cut the box on either side of them."""
    source = torch.Generator().manual_seed(seed)
    x = (1.6 * torch.rand(count, *SHAPE, generator=source, dtype=torch.float64) - 0.3).clamp(0, 1)
    weights = torch.randn(count, *SHAPE, generator=source, dtype=torch.float64)
    weights[::3, :, 0] = 0
    there = torch.rand(count, *SHAPE, generator=source, dtype=torch.float64)
    return x, Plane(weights, (weights * (there - x)).flatten(1).sum(1))


def smallest(norm: str, x: np.ndarray, weights: np.ndarray, gap: float) -> float:
    """The size of the optimum, by a solver that knows nothing of sorting."""
    low, high = -x, 1 - x
    if norm == "l2":
        found = minimize(
            lambda d: d @ d,
            np.zeros(SIZE),
            jac=lambda d: 2 * d,
            bounds=list(zip(low, high, strict=True)),
            constraints={
                "type": "eq",
                "fun": lambda d: weights @ d - gap,
                "jac": lambda d: weights,
            },
            method="SLSQP",
            options={"ftol": 1e-14, "maxiter": 500},
        )
        assert found.success
        return float(np.sqrt(found.fun))
    bounds = 1 if norm == "linf" else SIZE  # one bound on all values, or one on each
    eye = np.eye(SIZE)
    column = np.ones((SIZE, 1)) if norm == "linf" else eye
    found = linprog(
        np.r_[np.zeros(SIZE), np.ones(bounds)],
        A_ub=np.block([[eye, -column], [-eye, -column]]),
        b_ub=np.zeros(2 * SIZE),
        A_eq=np.r_[weights, np.zeros(bounds)][None],
        b_eq=[gap],
        bounds=[*zip(low, high, strict=True), *[(0, None)] * bounds],
    )
    assert found.success
    return float(found.fun)


@pytest.mark.parametrize("norm", NORMS)
def test_no_solver_finds_a_shorter_way(norm: str) -> None:
    x, plane = cases()
    ball = BALLS[norm](1)
    d = to_plane(ball, x, plane)
    torch.testing.assert_close((plane.weights * d).flatten(1).sum(1), plane.gap, rtol=0, atol=1e-9)
    assert (x + d >= -1e-12).all()
    assert (x + d <= 1 + 1e-12).all()
    best = [
        smallest(norm, x[i].numpy().ravel(), plane.weights[i].numpy().ravel(), float(plane.gap[i]))
        for i in range(len(x))
    ]
    torch.testing.assert_close(ball.size(d), torch.tensor(best, dtype=d.dtype), rtol=0, atol=1e-6)


def test_away_from_the_box_it_is_the_formula() -> None:
    """|gap| over the dual norm, along the steepest step."""
    x = torch.full((1, *SHAPE), 0.5, dtype=torch.float64)
    weights = torch.linspace(-1, 2, SIZE, dtype=torch.float64).view(1, *SHAPE)
    plane = Plane(weights, torch.tensor([-0.1], dtype=torch.float64))
    linf = -0.1 * weights.sign() / weights.abs().sum()
    torch.testing.assert_close(to_plane(Linf(1), x, plane), linf)
    torch.testing.assert_close(to_plane(L2(1), x, plane), -0.1 * weights / weights.square().sum())
    l1 = torch.zeros_like(weights)
    l1.view(-1)[-1] = -0.05
    torch.testing.assert_close(to_plane(L1(1), x, plane), l1)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("sign", [-1, 1])
def test_a_plane_that_misses_the_box_leads_to_the_corner_next_to_it(norm: str, sign: int) -> None:
    x, plane = cases()
    found = x + to_plane(BALLS[norm](1), x, plane._replace(gap=torch.full((24,), sign * 100.0)))
    corner = (sign * plane.weights > 0).to(x)
    moves = plane.weights != 0
    torch.testing.assert_close(found[moves], corner[moves])
    torch.testing.assert_close(found[~moves], x[~moves])


@pytest.mark.parametrize("norm", NORMS)
def test_on_the_plane_and_without_a_plane_there_is_no_way(norm: str) -> None:
    x, plane = cases()
    for still in (plane._replace(gap=0 * plane.gap), plane._replace(weights=0 * plane.weights)):
        assert (to_plane(BALLS[norm](1), x, still) == 0).all()


@pytest.mark.interop
@pytest.mark.parametrize("norm", NORMS)
def test_it_is_pyautoattack_s(norm: str) -> None:
    published = pytest.importorskip("pyautoattack.fab_projections")
    x, plane = (cases(40, seed=1)[0].float(), Plane(*(t.float() for t in cases(40, seed=1)[1])))
    plane = plane._replace(weights=plane.weights + 0.01)  # where one is zero theirs divides by it
    plane = plane._replace(gap=0.5 * plane.gap)
    offset = plane.gap + (plane.weights * x).flatten(1).sum(1)
    project = getattr(published, f"projection_{norm}")
    theirs = project(x.flatten(1), plane.weights.flatten(1), offset).view_as(x)
    torch.testing.assert_close(to_plane(BALLS[norm](1), x, plane), theirs, rtol=0, atol=2e-5)


# which plane


@pytest.mark.parametrize(("norm", "nearest"), [("linf", 0), ("l2", 1), ("l1", 2)])
def test_the_nearest_plane_depends_on_the_norm(norm: str, nearest: int) -> None:
    """Distances by hand: gap over the l1, l2 and l-infinity norm of the weights."""
    weights = torch.zeros(1, 4, 1, 1, 4)
    weights[0, 0] = 1.0  # l1 4, l2 2, linf 1
    weights[0, 1, 0, 0, :2] = torch.tensor([2.0, 1.0])  # 3, sqrt(5), 2
    weights[0, 2, 0, 0, 0] = 2.2  # 2.2 each
    climb = torch.tensor([[-4.0, -4.2, -4.4, -0.1]])  # the last one has no slope
    distances = {"linf": [1, 1.4, 2], "l2": [2, 1.878, 2], "l1": [4, 2.1, 2]}[norm]
    assert int(np.argmin(distances)) == nearest
    plane = nearest_plane(BALLS[norm](1), Slopes(climb, climb[:, 0], weights), torch.zeros(1))
    torch.testing.assert_close(plane.weights, weights[:, nearest])
    assert float(plane.gap) == pytest.approx(-float(climb[0, nearest]))


def test_each_column_has_the_gradient_that_autograd_gives_it() -> None:
    x = cases(3)[0]
    bent = lambda z: torch.stack([z.square().flatten(1).sum(1), z.sin().flatten(1).prod(1)], 1)
    seen = slopes(bent, x)
    torch.testing.assert_close(seen.gradients[:, 0], 2 * x)
    z = x.clone().requires_grad_()
    (second,) = torch.autograd.grad(bent(z)[:, 1].sum(), z)
    torch.testing.assert_close(seen.gradients[:, 1], second)
    torch.testing.assert_close(seen.rank, bent(x).amax(1))
    torch.testing.assert_close(rank_of(bent, x), bent(x).amax(1))


def test_what_ranks_may_be_something_else_and_one_column_needs_no_second_axis() -> None:
    x = cases(3)[0]
    score = lambda z: z.flatten(1).sum(1)
    other = lambda z: Aim(torch.stack([score(z), -score(z)], 1), score(z.detach()) + 1)
    torch.testing.assert_close(slopes(other, x).rank, score(x) + 1)
    assert slopes(score, x).climb.shape == (3, 1)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda z: z.flatten(1).sum(),
        lambda z: z,
        lambda z: z.flatten(1).sum(1)[:2],
        lambda z: z.flatten(1)[:, :0],
        lambda z: Aim(z.flatten(1), z.flatten(1)),
    ],
    ids=["number", "image", "short", "empty", "rank"],
)
def test_other_shapes_are_refused(wrong) -> None:
    with pytest.raises(UsageError, match="one number an image"):
        slopes(wrong, cases(3)[0])


def test_one_blind_column_is_refused() -> None:
    half = lambda z: torch.stack([z.flatten(1).sum(1), z.flatten(1).sum(1) * torch.nan], 1)
    with pytest.raises(BlindAttackError):
        slopes(half, cases(3)[0])


def test_a_sticker_has_no_planes() -> None:
    x, plane = cases(1)
    with pytest.raises(UsageError, match="patch"):
        to_plane(Patch(2), x, plane)
