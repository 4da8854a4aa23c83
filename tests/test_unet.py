"""The network's size, plan and start, against the published ones."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from advrad.diffusion import UNet
from advrad.diffusion.unet import _Attention, _Double, _Halve, _norm, _sinusoid, _Stage
from advrad.errors import UsageError

PAPER = {"channels": 3, "widths": (128, 128, 256, 256, 512, 512), "blocks": 2, "attention": (4,)}


def paper() -> UNet:
    with torch.device("meta"):
        return UNet(**PAPER)


def small(**changes: object) -> UNet:
    return UNet(**({"channels": 3, "widths": (8, 16), "attention": (1,)} | changes))


def stirred(network: UNet) -> UNet:
    """The network with every parameter random, those that start as zero too."""
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    return network


def ask(network: UNet, x: Tensor, t: float = 10.0) -> Tensor:
    with torch.no_grad():
        return torch.cat(network(x, torch.full((len(x),), t)), 1)


def test_the_paper_s_network_has_its_number_of_parameters() -> None:
    assert sum(p.numel() for p in paper().parameters()) == 113_676_678


def test_the_paper_s_network_has_18_skips_and_6_attentions() -> None:
    network = paper()
    stages = [layer for layer in network.down if isinstance(layer, _Stage)]
    halves = [layer for layer in network.down if isinstance(layer, _Halve)]
    doubles = [layer for layer in network.up if isinstance(layer, _Double)]
    assert (len(stages), len(halves), len(doubles)) == (12, 5, 5)
    assert 1 + len(stages) + len(halves) == 18
    assert sum(isinstance(layer, _Stage) for layer in network.up) == 18
    assert sum(isinstance(layer, _Attention) for layer in network.modules()) == 6


def test_the_paper_s_network_attends_at_16_px_and_in_the_middle_at_8() -> None:
    network, sides = paper(), []
    for layer in network.modules():
        if isinstance(layer, _Attention):
            layer.register_forward_hook(lambda _, seen, __: sides.append(seen[0].shape[-1]))
    with torch.device("meta"):
        eps, v = network(torch.empty(1, 3, 256, 256), torch.empty(1))
    assert sides == [16, 16, 8, 16, 16, 16]
    assert eps.shape == v.shape == (1, 3, 256, 256)
    assert network.multiple == 32


def test_the_paper_s_normalisation_has_32_groups() -> None:
    groups = {layer.num_groups for layer in paper().modules() if isinstance(layer, nn.GroupNorm)}
    assert groups == {32}


def test_the_network_starts_by_predicting_no_noise() -> None:
    eps, v = small()(torch.randn(2, 3, 8, 8), torch.tensor([1.0, 999.0]))
    assert not eps.any()
    assert not v.any()


def test_every_residual_branch_starts_as_the_identity() -> None:
    h, time = torch.randn(2, 16, 4, 4), torch.randn(2, 32)
    assert torch.equal(_Stage(16, 16, 32, attention=True)(h, time), h)


@pytest.mark.parametrize("patch", [1, 2, 4])
@pytest.mark.parametrize("channels", [1, 3])
def test_outputs_are_shaped_like_the_image_at_any_patch(patch: int, channels: int) -> None:
    network = small(patch=patch, channels=channels)
    assert network.multiple == 2 * patch
    for height, width in ((8, 8), (16, 8)):
        eps, v = network(torch.randn(2, channels, height, width), torch.tensor([0.0, 5.0]))
        assert eps.shape == v.shape == (2, channels, height, width)


@pytest.mark.parametrize("patch", [1, 2])
def test_the_first_half_of_the_last_layer_is_eps_and_the_second_v(patch: int) -> None:
    network = small(patch=patch)
    last = network.leave[-1]
    half = last.out_channels // 2
    with torch.no_grad():
        last.bias[:half] = 1
        last.bias[half:] = 2
    eps, v = network(torch.randn(1, 3, 8, 8), torch.tensor([3.0]))
    assert (eps == 1).all()
    assert (v == 2).all()


def test_patches_are_unfolded_where_they_were_folded() -> None:
    """With all else zero, the last layer's bias of one place in a square fills that place."""
    network = small(channels=1, patch=2)
    with torch.no_grad():
        network.leave[-1].bias[1] = 1  # first channel, upper right
    eps, v = network(torch.randn(1, 1, 8, 8), torch.tensor([3.0]))
    expected = torch.tensor([[0.0, 1.0], [0.0, 0.0]]).repeat(4, 4)
    assert torch.equal(eps[0, 0], expected)
    assert not v.any()


def test_a_quarter_of_the_places_are_computed_at_patch_2() -> None:
    sides = []
    network = small(patch=2)
    network.enter.register_forward_hook(lambda _, seen, out: sides.append(out.shape[-1]))
    network(torch.randn(1, 3, 16, 16), torch.tensor([0.0]))
    assert sides == [8]


@pytest.mark.parametrize("side", [(30, 32), (32, 30), (2, 2)])
def test_sides_that_do_not_fit_are_refused_with_the_multiple(side: tuple[int, int]) -> None:
    network = UNet(1, (8, 8, 8), patch=2)
    with pytest.raises(UsageError, match=f"{side[0]}x{side[1]} px.*multiples of 8"):
        network(torch.zeros(1, 1, *side), torch.zeros(1))


def test_each_image_is_seen_alone_with_its_own_level() -> None:
    network = stirred(small())
    x, t = torch.randn(3, 3, 8, 8), torch.tensor([1.0, 300.0, 900.0])
    with torch.no_grad():
        together = torch.cat(network(x, t), 1)
        for i in range(3):
            alone = torch.cat(network(x[i : i + 1], t[i : i + 1]), 1)
            torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(together, torch.cat(network(x, t.flip(0)), 1), atol=1e-3)


@pytest.mark.parametrize("width", [2, 4, 8, 32, 64, 96, 128])
def test_normalisation_does_not_undo_the_level(width: int) -> None:
    """Groups of one channel would: what is added to a whole channel is its mean."""
    stage, h = _Stage(width, width, 16, attention=False), torch.randn(1, width, 4, 4)
    nn.init.normal_(stage.second[-1].weight)
    quiet, loud = stage(h, torch.zeros(1, 16)), stage(h, 5 * torch.randn(1, 16))
    assert (quiet - loud).abs().max() > 0.01


def test_every_parameter_learns() -> None:
    network = stirred(small(blocks=2))
    eps, v = network(torch.randn(2, 3, 8, 8), torch.tensor([1.0, 300.0]))
    (eps.square().sum() + v.square().sum()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_attention_is_softmax_of_scaled_products_over_places() -> None:
    attention = _Attention(16)
    nn.init.normal_(attention.project.weight)
    h = torch.randn(2, 16, 3, 4)
    flat = attention.norm(h).flatten(2)
    query, key, value = attention.qkv(flat).chunk(3, 1)  # (B, width, HW)
    scale = 16**-0.25  # on each of the two, as published
    weight = torch.einsum("bct,bcs->bts", query * scale, key * scale).softmax(-1)
    expected = h + attention.project(torch.einsum("bts,bcs->bct", weight, value)).view_as(h)
    torch.testing.assert_close(attention(h), expected)


def test_levels_are_told_by_cosines_and_sines_of_ever_longer_waves() -> None:
    got = _sinusoid(torch.tensor([0.0, 7.0]), 8)
    assert got[0].tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    waves = [7 * 10_000 ** (-i / 4) for i in range(4)]
    expected = torch.tensor([*map(math.cos, waves), *map(math.sin, waves)])
    torch.testing.assert_close(got[1], expected)


def test_no_draw_and_no_state_is_in_a_forward() -> None:
    network, x = stirred(small()), torch.randn(1, 3, 8, 8)
    assert torch.equal(ask(network, x), ask(network, x))
    assert not list(network.buffers())


@pytest.mark.parametrize("side", [8, 40])
def test_normalisation_is_the_same_in_either_layout(side: int) -> None:
    """Small maps take a way of their own in channels_last; values and layout stay."""
    x = 3 * torch.randn(2, 24, side, side, generator=torch.Generator().manual_seed(0)) + 1
    norm = _norm(24)
    laid = x.contiguous(memory_format=torch.channels_last)
    expected = F.group_norm(x.double(), norm.num_groups, eps=norm.eps)
    torch.testing.assert_close(norm(laid), expected.float())
    torch.testing.assert_close(norm(x), expected.float())
    assert norm(laid).is_contiguous(memory_format=torch.channels_last)
