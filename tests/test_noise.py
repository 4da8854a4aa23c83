"""Draws belong to what they are asked for, and are standard normal and independent."""

import hashlib
from collections.abc import Callable

import pytest
import torch
from scipy import stats
from torch import Tensor

from advrad.noise import STRIDE, Draws, Fixed, Noise, PerImage, Split, fresh, out, redraw

IDS = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(6)]
SHAPE = (3, 8, 8)


def ask(noise: Noise, step: int = 100, images: int = 6) -> Tensor:
    return noise(torch.empty(images, *SHAPE), step)


@pytest.mark.parametrize("step", [0, 1, 100, out(0), out(50)])
def test_an_image_has_its_draw_alone_in_a_batch_and_in_any_order(step: int) -> None:
    together = ask(PerImage(3, IDS), step)
    for i, name in enumerate(IDS):
        alone = PerImage(3, [name])(torch.empty(1, *SHAPE), step)
        assert torch.equal(alone[0], together[i])
    order = [4, 0, 5, 2, 1, 3]
    assert torch.equal(ask(PerImage(3, [IDS[i] for i in order]), step), together[order])


def test_first_values_are_the_same_in_every_version() -> None:
    """Scores kept on disk, and the seeds stored with models, rest on these."""
    drawn = PerImage(0, ["a", "b"])
    expected = {
        100: [[0.16224968, -0.50274527, 0.68484861], [-0.02803506, -0.97705847, 0.51250857]],
        0: [[-1.43239415, -1.45633948, 0.39221251], [-0.14046052, -0.63582182, -0.04963512]],
        out(3): [[0.22041667, -0.46959779, -0.40820253], [-0.99483049, 0.85545301, 0.57324946]],
    }
    for step, values in expected.items():
        got = drawn(torch.empty(2, 1, 1, 3), step).flatten(1)
        torch.testing.assert_close(got, torch.tensor(values), rtol=0, atol=1e-7)
    got = Fixed(7)(torch.empty(1, 1, 1, 3), 5).flatten()
    expected_fixed = torch.tensor([-1.24643469, -1.4080951, 0.62838274])
    torch.testing.assert_close(got, expected_fixed, rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    "noise",
    [fresh, PerImage(1, [str(i) for i in range(40)]), Split(Fixed(1), Fixed(2)), redraw(fresh, 3)],
    ids=["fresh", "PerImage", "Split", "redraw"],
)
def test_draws_are_standard_normal(noise: Noise) -> None:
    drawn = noise(torch.empty(40, 3, 16, 16), 10)
    values = drawn[0] if isinstance(noise, Split) else drawn
    assert stats.kstest(values.flatten().numpy(), "norm").pvalue > 1e-3


def test_draws_of_other_images_seeds_and_steps_are_independent() -> None:
    """Correlations of 3072 values each: 5 standard errors are 0.09."""
    like = torch.empty(1, 3, 32, 32)
    askings: list[Tensor] = [
        PerImage(seed, [name])(like, step).flatten()
        for seed in (0, 1, 10)
        for name in ("a", "b", "0/a")
        for step in (0, 1, 10, out(0), out(1), STRIDE, -1 - STRIDE)
    ]
    correlation = torch.corrcoef(torch.stack(askings))
    assert (correlation - torch.eye(len(askings))).abs().max() < 0.09


def test_fixed_shares_its_draw_within_a_batch_and_only_for_a_step() -> None:
    drawn = ask(Fixed(1))
    assert (drawn == drawn[:1]).all()
    assert torch.equal(drawn, ask(Fixed(1)))
    assert torch.equal(drawn[:1], ask(Fixed(1), images=1))
    for other in (ask(Fixed(2)), ask(Fixed(1), 101), ask(Fixed(1), out(100))):
        assert not torch.equal(drawn, other)


def test_fresh_never_repeats() -> None:
    assert not torch.equal(ask(fresh), ask(fresh))


def test_split_takes_the_way_in_and_the_way_out_from_two_sources() -> None:
    split = Split(forward=Fixed(1), reverse=Fixed(2))
    for step in (0, 1, 1000):
        assert torch.equal(ask(split, step), ask(Fixed(1), step))
        assert torch.equal(ask(split, out(step)), ask(Fixed(2), out(step)))


def test_the_ways_in_and_out_never_ask_for_the_same_step() -> None:
    assert {out(s) for s in range(1001)}.isdisjoint(range(1001))
    assert len({out(s) for s in range(1001)}) == 1001


@pytest.mark.parametrize("step", [0, 7, 1000, out(0), out(7), out(999)])
def test_redraw_gives_other_draws_of_the_same_direction(step: int) -> None:
    asked: list[int] = []

    def listening(like: Tensor, step: int) -> Tensor:
        asked.append(step)
        return like

    for draw in range(5):
        redraw(listening, draw)(torch.empty(1), step)
    assert asked[0] == step
    assert len(set(asked)) == 5
    assert all((other >= 0) == (step >= 0) for other in asked)


def test_no_two_draws_of_any_step_share_an_asking() -> None:
    asked: list[int] = []

    def listening(like: Tensor, step: int) -> Tensor:
        asked.append(step)
        return like

    for draw in range(3):
        for step in [*range(1001), *map(out, range(1001))]:
            redraw(listening, draw)(torch.empty(1), step)
    assert len(set(asked)) == len(asked)


def test_redraw_number_0_is_the_noise_itself() -> None:
    noise = PerImage(0, IDS)
    assert torch.equal(ask(redraw(noise, 0)), ask(noise))
    assert not torch.equal(ask(redraw(noise, 1)), ask(noise))


@pytest.mark.parametrize("noise", [Fixed(0), PerImage(0, ["a"])])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_draw_has_the_type_that_is_asked_for(noise: Noise, dtype: torch.dtype) -> None:
    like = torch.empty(1, *SHAPE, dtype=dtype, requires_grad=True)
    drawn = noise(like, 3)
    assert drawn.dtype == dtype
    assert not drawn.requires_grad
    assert torch.equal(drawn, noise(like.detach().float(), 3).to(dtype))


def test_draws_are_as_many_as_wanted_and_belong_to_an_image() -> None:
    draws = Draws(5, IDS)
    assert torch.equal(ask(draws(3)), ask(Draws(5, IDS)(3)))
    order = [4, 0, 5, 2, 1, 3]
    assert torch.equal(ask(Draws(5, [IDS[i] for i in order])(3)), ask(draws(3))[order])
    like = torch.empty(1, 3, 32, 32)
    several = [Draws(seed, ["a"])(k)(like, 7) for seed in (5, 6) for k in (0, 1, 2, 1 << 40)]
    askings = torch.stack([*several, PerImage(5, ["a"])(like, 7)]).flatten(1)
    assert (torch.corrcoef(askings) - torch.eye(len(askings))).abs().max() < 0.09


def test_ids_must_be_as_many_as_images() -> None:
    with pytest.raises(ValueError, match="2 images in the batch, but 6 ids"):
        PerImage(0, IDS)(torch.empty(2, *SHAPE), 1)


@pytest.mark.gpu
@pytest.mark.parametrize("make", [lambda: PerImage(3, IDS), lambda: Fixed(3)])
def test_draws_are_bit_equal_on_any_device(make: Callable[[], Noise]) -> None:
    there = make()(torch.empty(6, *SHAPE, device="cuda"), 100)
    assert there.is_cuda
    assert torch.equal(there.cpu(), ask(make()))
