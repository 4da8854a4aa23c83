"""WGAN-GP: sizes, losses in closed form, and players that leave each other alone."""

import pytest
import torch
from torch import Tensor, nn

from advrad.networks.wgan import Critic, Generator, Players, penalty


@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 32), (1, 16), (1, 9)])
def test_images_have_the_size_that_is_asked_for(channels: int, size: int) -> None:
    make, judge = Generator(channels, size, latent=5, width=2), Critic(channels, size, width=2)
    x = make(torch.randn(3, 5))
    assert x.shape == (3, channels, size, size)
    assert (x > 0).all()
    assert (x < 1).all()
    assert judge(x).shape == (3,)


def test_the_published_networks_have_their_sizes() -> None:
    """128 numbers to 4 x 4 x 256, three layers of 5 x 5 up to 28 x 28, and down again."""
    make, judge = Generator(), Critic()
    assert make.sides == [4, 7, 14, 28]
    assert make.first == (256, 4, 4)
    layers = [layer.weight.shape for layer in make.up]
    assert layers == [(256, 128, 5, 5), (128, 64, 5, 5), (64, 1, 5, 5)]
    convolutions = [layer for layer in judge.layers if isinstance(layer, nn.Conv2d)]
    assert [layer.weight.shape[0] for layer in convolutions] == [64, 128, 256]
    assert judge.value.in_features == 4 * 4 * 256


class Linear(nn.Module):
    """A critic whose slope is the same everywhere."""

    def __init__(self, norm: float) -> None:
        super().__init__()
        self.norm = nn.Parameter(torch.tensor(norm))

    def forward(self, x: Tensor) -> Tensor:
        return self.norm * x.flatten(1).sum(1) / x[0].numel() ** 0.5


@pytest.mark.parametrize("norm", [0.25, 1.0, 3.0])
def test_a_linear_critic_pays_by_its_slope(norm: float) -> None:
    x, made, share = torch.rand(4, 1, 3, 3), torch.rand(4, 1, 3, 3), torch.rand(4)
    critic = Linear(norm)
    found = penalty(critic, x, made, share)
    assert found.item() == pytest.approx((norm - 1) ** 2, abs=1e-6)
    (slope,) = torch.autograd.grad(found, critic.norm)
    assert slope.item() == pytest.approx(2 * (norm - 1), abs=1e-5)


class Square(nn.Module):
    """|x|^2 / 2, whose slope at x is x itself."""

    def forward(self, x: Tensor) -> Tensor:
        return x.square().flatten(1).sum(1) / 2


def test_the_slope_is_taken_on_the_line_between_the_two() -> None:
    x, made = torch.full((3, 1, 2, 2), 2.0), torch.zeros(3, 1, 2, 2)
    share = torch.tensor([0.0, 0.25, 1.0])
    norms = 2 * 2.0 * share  # of 4 values each
    found = penalty(Square(), x, made, share)
    assert found.item() == pytest.approx(float((norms - 1).square().mean()), rel=1e-5)


def players() -> Players:
    torch.manual_seed(0)
    return Players(Generator(1, 8, latent=4, width=2), Critic(1, 8, width=2))


def test_the_critic_s_loss_is_the_gap_and_the_penalty() -> None:
    both, x, z, share = players(), torch.rand(5, 1, 8, 8), torch.randn(5, 4), torch.rand(5)
    made = both.generator(z)
    expected = both.critic(made).mean() - both.critic(x).mean()
    expected = expected + 10 * penalty(both.critic, x, made, share)
    torch.testing.assert_close(both.critic_loss(x, z, share), expected)
    torch.testing.assert_close(both.generator_loss(z), -both.critic(made).mean())


def test_each_player_learns_from_its_own_loss_alone() -> None:
    both, x, z = players(), torch.rand(5, 1, 8, 8), torch.randn(5, 4)
    both.critic_loss(x, z, torch.rand(5)).backward()
    assert all(p.grad is None for p in both.generator.parameters())
    moved = [p.grad is not None and bool(p.grad.any()) for p in both.critic.parameters()]
    assert all(moved[:-1])  # the last bias cancels
    both.zero_grad()
    both.generator_loss(z).backward()
    assert all(p.grad is None for p in both.critic.parameters())
    assert all(p.grad is not None and bool(p.grad.any()) for p in both.generator.parameters())


@torch.no_grad()
def test_new_networks_keep_the_size_of_a_signal() -> None:
    torch.manual_seed(0)
    x = Generator(width=16)(torch.randn(20, 128))
    assert 0.02 < float(x.std()) < 0.45
    assert 0.01 < float(Critic(width=16)(x).std()) < 5
