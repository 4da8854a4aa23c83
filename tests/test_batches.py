"""What step n draws depends on the seed and n alone, and is what it should be."""

from collections import Counter

import pytest
import torch
from oracles import Says
from torch import Tensor, nn

from advrad.diffusion import EpsDenoiser, Linear, hybrid
from advrad.diffusion.batches import DrawnLoss


class Heard(nn.Module):
    """A network that keeps what it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[Tensor] = []
        self.levels: list[int] = []

    def forward(self, x_t: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        self.shown.append(x_t)
        self.levels += (index.round().int() + 1).tolist()
        return torch.zeros_like(x_t), torch.zeros_like(x_t)


def drawn(
    count: int = 10,
    batch: int = 4,
    levels: tuple[int, int] = (1, 1000),
    views: tuple[str, ...] = (),
    seed: int = 0,
) -> tuple[DrawnLoss, Heard]:
    network = Heard()
    denoiser = EpsDenoiser(network, Linear())
    images = [torch.full((1, 4, 4), i / count) for i in range(count)]
    return DrawnLoss(denoiser, images, batch, levels, views, seed), network


@pytest.mark.parametrize(("count", "batch"), [(10, 4), (3, 8), (1, 2), (16, 16)])
def test_every_epoch_visits_every_image_once(count: int, batch: int) -> None:
    loss, _ = drawn(count, batch)
    visits = [i for number in range(1, 41) for i in loss.members(number)]
    assert len(visits) == 40 * batch
    for start in range(0, len(visits) - count + 1, count):
        assert sorted(visits[start : start + count]) == list(range(count))


def test_epochs_have_orders_of_their_own() -> None:
    loss, _ = drawn(count=10, batch=10)
    orders = {tuple(loss.members(number)) for number in range(1, 21)}
    assert len(orders) == 20
    assert tuple(range(10)) not in orders
    other, _ = drawn(count=10, batch=10, seed=1)
    assert other.members(1) != loss.members(1)


def test_a_step_draws_the_same_whatever_was_drawn_before() -> None:
    (forward, _), (backward, _) = drawn(views=("flips", "crops")), drawn(views=("flips", "crops"))
    ahead = [forward(number) for number in range(1, 9)]
    torch.manual_seed(99)
    back = [backward(number) for number in reversed(range(1, 9))][::-1]
    assert ahead == back
    assert len({value.item() for value in ahead}) == 8


def test_the_seed_changes_everything() -> None:
    (one, heard), (other, listened) = drawn(seed=1), drawn(seed=2)
    for number in (1, 2, 3):
        assert one(number) != other(number)
    assert heard.levels != listened.levels
    assert one.members(1) != other.members(1)


def test_drawing_leaves_the_global_generator_alone() -> None:
    state = torch.get_rng_state()
    drawn(views=("flips", "rotations", "crops"))[0](1)
    assert torch.equal(torch.get_rng_state(), state)


def test_levels_are_drawn_evenly_with_both_ends() -> None:
    loss, heard = drawn(batch=100, levels=(3, 12))
    for number in range(1, 101):
        loss(number)
    counts = Counter(heard.levels)
    assert set(counts) == set(range(3, 13))
    assert all(abs(count - 1000) < 5 * 30 for count in counts.values())  # sd = 30


def test_images_are_noised_in_the_scale_of_minus_one_to_one() -> None:
    """At level 1 hardly any noise is in: what the network sees is 2 x - 1."""
    loss, heard = drawn(count=10, batch=10, levels=(1, 1))
    loss(1)
    means = heard.shown[0].mean((1, 2, 3))
    expected = torch.tensor([2 * i / 10 - 1 for i in loss.members(1)])
    torch.testing.assert_close(means, expected, rtol=0, atol=0.02)


def test_images_have_levels_and_noise_of_their_own() -> None:
    loss, heard = drawn(count=1, batch=64)
    loss(1)
    assert len(set(heard.levels)) > 50
    noise = heard.shown[0].flatten(1)
    assert len(torch.unique(noise, dim=0)) == 64


def test_noise_is_standard_normal() -> None:
    """With eps = 0 predicted at the last level, x_T is the noise and L_simple its square."""
    loss, heard = drawn(count=1, batch=4096, levels=(1000, 1000))
    loss(1)
    values = heard.shown[0]
    assert values.mean().item() == pytest.approx(0, abs=0.02)
    assert values.std().item() == pytest.approx(1, abs=0.01)


def test_it_is_the_mean_of_hybrid_over_the_batch() -> None:
    """Of one image, so that only level and noise are left to be read off the network."""
    denoiser = EpsDenoiser(Says(eps=0.3, v=0.2), Linear())
    image = torch.rand(3, 4, 4)
    loss, listening = DrawnLoss(denoiser, [image], 2, (5, 9)), Heard()
    DrawnLoss(EpsDenoiser(listening, Linear()), [image], 2, (5, 9))(1)
    t, x = torch.tensor(listening.levels), (2 * image - 1).expand(2, 3, 4, 4)
    a_t = Linear().at(t, x)
    eps = (listening.shown[0] - a_t.sqrt() * x) / (1 - a_t).sqrt()
    torch.testing.assert_close(loss(1), hybrid(denoiser, x, t, eps).mean(), rtol=1e-3, atol=1e-3)


def test_the_loss_reaches_the_network() -> None:
    denoiser = EpsDenoiser(Says(eps=0.3, v=0.2), Linear())
    value = DrawnLoss(denoiser, [torch.rand(3, 4, 4)], 2, (5, 9))(1)
    assert value.shape == ()
    value.backward()
    assert all(p.grad is not None and p.grad != 0 for p in denoiser.parameters())
