"""One look at an objective, and what is refused."""

import pytest
import torch
from torch import Tensor

from advrad.attacks.ball import L2, Linf, Patch
from advrad.attacks.gradient import Best, images, ready, value_and_gradient, value_of
from advrad.attacks.objective import Aim
from advrad.errors import BlindAttackError, UsageError


def pictures(count: int = 3) -> Tensor:
    return torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(1))


def total(x: Tensor) -> Tensor:
    return x.flatten(1).sum(1)


def test_value_and_gradient_of_a_square() -> None:
    x = pictures()
    seen = value_and_gradient(lambda z: total(z.square()), x)
    torch.testing.assert_close(seen.climb, total(x.square()))
    torch.testing.assert_close(seen.gradient, 2 * x)
    assert torch.equal(value_of(lambda z: total(z.square()), x).climb, seen.climb)


def test_nothing_keeps_a_graph_and_x_stays_as_it_is() -> None:
    x = pictures()
    objective = lambda z: Aim(total(z), total(2 * z))
    for part in (*value_and_gradient(objective, x), *value_of(objective, x)):
        assert not part.requires_grad
    assert not x.requires_grad
    with torch.no_grad():
        assert value_and_gradient(objective, x).gradient.any()


def test_parameters_collect_no_gradient() -> None:
    layer = torch.nn.Linear(16, 1)
    value_and_gradient(lambda z: layer(z.flatten(1))[:, 0], pictures())
    assert layer.weight.grad is None


def no_grad_inside(x: Tensor) -> Tensor:
    with torch.no_grad():
        return total(x)


BLIND = {
    "no_grad": no_grad_inside,
    "detached": lambda x: total(x.detach()),
    "of other things": lambda x: total(x.detach()) * torch.ones((), requires_grad=True),
    "nan": lambda x: total((x - x).sqrt() * 0),
}


@pytest.mark.parametrize("name", BLIND)
def test_blindness_is_refused(name: str) -> None:
    with pytest.raises(BlindAttackError):
        value_and_gradient(BLIND[name], pictures())
    value_of(BLIND[name], pictures())


def test_only_the_first_look_is_refused_for_what_is_no_number() -> None:
    seen = value_and_gradient(BLIND["nan"], pictures(), first=False)
    assert torch.equal(seen.gradient, torch.zeros_like(pictures()))
    for name in ("no_grad", "detached", "of other things"):
        with pytest.raises(BlindAttackError):
            value_and_gradient(BLIND[name], pictures(), first=False)


def test_numbers_that_are_not_finite_are_taken_as_zero() -> None:
    x = pictures()
    x[1, 0, 2] = 0
    seen = value_and_gradient(lambda z: total(z.sqrt()), x)
    expected = torch.where(x > 0, 0.5 / x.sqrt(), 0)
    torch.testing.assert_close(seen.gradient, expected)


@pytest.mark.parametrize(
    "wrong", [lambda x: x.sum(), lambda x: total(x)[:, None], lambda x: total(x)[:2]]
)
@pytest.mark.parametrize("look", [value_and_gradient, value_of])
def test_a_wrong_shape_is_refused(look, wrong) -> None:
    with pytest.raises(UsageError, match="expected one number an image"):
        look(wrong, pictures())
    with pytest.raises(UsageError, match="expected one number an image"):
        look(lambda x: Aim(total(x), wrong(x)), pictures())


def test_the_best_is_kept_image_by_image() -> None:
    x = pictures()
    best = Best(x, torch.tensor([1.0, 1.0, 1.0]))
    assert best.see(x + 1, torch.tensor([2.0, 1.0, 0.0])).tolist() == [True, False, False]
    assert best.see(x + 2, torch.tensor([1.5, 3.0, float("nan")])).tolist() == [False, True, False]
    assert best.rank.tolist() == [2, 3, 1]
    assert torch.equal(best.x, x + torch.tensor([1.0, 2.0, 0.0])[:, None, None, None])


def test_no_number_is_worse_than_any() -> None:
    x = pictures(1)
    for best in (Best(x, torch.tensor([float("nan")])), Best(x)):
        assert best.see(x + 1, torch.tensor([float("nan")])).tolist() == [False]
        assert best.see(x + 2, torch.tensor([-1e30])).tolist() == [True]
        assert torch.equal(best.x, x + 2)


def test_the_newest_is_taken_unless_it_is_no_number() -> None:
    x = pictures()
    last = Best(x)
    last.take(x + 1, torch.tensor([2.0, 3.0, float("nan")]))
    last.take(x + 2, torch.tensor([1.0, float("nan"), float("nan")]))
    assert last.rank.tolist() == [1, 3, -torch.inf]
    assert torch.equal(last.x, x + torch.tensor([2.0, 1.0, 0.0])[:, None, None, None])


def test_the_best_does_not_change_with_the_tensor_it_was_given() -> None:
    x = pictures()
    best = Best(x, torch.zeros(3))
    kept = x.clone()
    x += 1
    assert torch.equal(best.x, kept)


@pytest.mark.parametrize(
    "wrong",
    [
        torch.rand(4, 4),
        torch.rand(1, 4, 4),
        torch.zeros(0, 1, 4, 4),
        torch.zeros(1, 1, 4, 4, dtype=torch.uint8),
        torch.full((1, 1, 4, 4), 1.01),
        torch.full((1, 1, 4, 4), -0.01),
        torch.full((1, 1, 4, 4), float("nan")),
    ],
    ids=["2d", "3d", "none", "bytes", "above", "below", "nan"],
)
def test_what_is_no_batch_of_images_is_refused(wrong: Tensor) -> None:
    with pytest.raises(UsageError, match=r"expect"):
        images(wrong)


def test_radii_are_one_or_one_for_each_image() -> None:
    x = pictures().requires_grad_()
    for eps in (0.1, torch.tensor(0.1), torch.tensor([0.1]), torch.tensor([0.1, 0.2, 0.3])):
        assert not ready(x, Linf(eps)).requires_grad
    for eps in (torch.tensor([0.1, 0.2]), torch.full((3, 1, 1, 1), 0.1)):
        with pytest.raises(UsageError, match="for 3 images: expected one number"):
            ready(x, L2(eps))
    with pytest.raises(UsageError, match="for patch"):
        ready(x, Patch(5))
