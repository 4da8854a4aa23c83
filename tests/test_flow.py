"""Coupling flows against autograd, closed forms, numerical integration and zuko."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from advrad.networks import Coupling, Flow
from advrad.networks.flow import (
    convolutions,
    log_density,
    perceptron,
    permutation,
    rotation,
)

DOUBLE = torch.float64


def shaken(module: nn.Module, by: float = 1.0) -> nn.Module:
    """In double precision, with weights that are not what they start from."""
    module = module.to(DOUBLE)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(by * torch.randn_like(parameter))
    return module


def vectors(channels: int = 5, context: int = 3, blocks: int = 3) -> nn.Module:
    net = perceptron(2.0)
    return shaken(
        Flow([Coupling(net, rotation(channels), context=context) for _ in range(blocks)]), 0.3
    )


def planes(channels: int = 3, blocks: int = 4) -> nn.Module:
    nets = [convolutions(1 if i % 2 else 3, 2.0) for i in range(blocks)]
    return shaken(Flow([Coupling(net, permutation(channels)) for net in nets]), 0.3)


def log_det(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """log |det| of the whole Jacobian, by autograd."""
    jacobian = torch.autograd.functional.jacobian(function, x)
    return jacobian.reshape(x.numel(), x.numel()).slogdet()[1]


def test_vectors_come_back() -> None:
    flow, x, context = vectors(), torch.randn(4, 5, dtype=DOUBLE), torch.randn(4, 3, dtype=DOUBLE)
    z, _ = flow(x, context)
    assert float((z - x).detach().abs().max()) > 0.1
    torch.testing.assert_close(flow.inverse(z, context), x, rtol=0, atol=1e-5)  # Q in float32
    assert float((flow.inverse(z, context + 1) - x).detach().abs().max()) > 1e-3


def test_maps_come_back() -> None:
    flow, x = planes(), torch.randn(2, 3, 4, 5, dtype=DOUBLE)
    torch.testing.assert_close(flow.inverse(flow(x)[0]), x)


def test_the_determinant_of_vectors_is_autograd_s() -> None:
    flow, context = vectors(), torch.randn(1, 3, dtype=DOUBLE)
    for x in torch.randn(4, 1, 5, dtype=DOUBLE):
        expected = log_det(lambda x: flow(x, context)[0], x)
        torch.testing.assert_close(flow(x, context)[1][0], expected)


def test_the_determinant_of_a_map_is_autograd_s_summed_over_its_places() -> None:
    flow = planes()
    for x in torch.randn(3, 1, 3, 3, 4, dtype=DOUBLE):
        found = flow(x)[1]
        assert found.shape == (1, 3, 4)
        torch.testing.assert_close(found.sum(), log_det(lambda x: flow(x)[0], x))


def test_a_map_of_one_place_is_a_vector() -> None:
    """Convolutions of one tap are linear layers."""
    plane = shaken(Coupling(convolutions(1, 2.0), rotation(5)), 0.3)
    vector = Coupling(perceptron(2.0), torch.eye(5)).to(DOUBLE)
    own = plane.state_dict()
    vector.load_state_dict({k: own[k].view_as(v) for k, v in vector.state_dict().items()})
    x = torch.randn(6, 5, dtype=DOUBLE)
    for one, other in zip(vector(x), plane(x[..., None, None]), strict=True):
        torch.testing.assert_close(one, other.view_as(one))


def test_density_integrates_to_one() -> None:
    """In two dimensions, on a grid; the density itself is no Gaussian."""
    flow = vectors(2, 1)
    grid = torch.linspace(-16, 16, 801, dtype=DOUBLE)
    x = torch.cartesian_prod(grid, grid)
    with torch.no_grad():
        density = (2 * log_density(*flow(x, torch.ones(len(x), 1, dtype=DOUBLE)))).exp()
    cell = float(grid[1] - grid[0]) ** 2
    assert float(density.sum()) * cell == pytest.approx(1, abs=1e-3)
    second = (density[:, None, None] * x[:, :, None] * x[:, None]).sum(0) * cell
    assert float((second - torch.eye(2, dtype=DOUBLE)).abs().max()) > 0.05


def still(channels: int) -> Coupling:
    """A block whose coupling does nothing."""
    block = Coupling(perceptron(1.0), rotation(channels)).to(DOUBLE)
    nn.init.zeros_(block.subnet[2].weight)  # type: ignore[index, arg-type]
    nn.init.zeros_(block.subnet[2].bias)  # type: ignore[index, arg-type]
    return block


def test_without_a_coupling_it_is_a_gaussian() -> None:
    """z = Q (x s + b): x is normal with mean -b / s and standard deviation 1 / s."""
    block = still(4)
    scale, offset = torch.tensor([0.5, 1, 2, 3], dtype=DOUBLE), torch.arange(4, dtype=DOUBLE)
    block.log_scale.data, block.offset.data = scale.log(), offset
    x = torch.randn(5, 4, dtype=DOUBLE)
    expected = torch.distributions.Normal(-offset / scale, 1 / scale).log_prob(x).mean(1)
    torch.testing.assert_close(log_density(*block(x)), expected)


def test_maximum_likelihood_finds_the_entropy_of_a_gaussian() -> None:
    """No flow can do better than the density itself, and a trained one comes close."""
    source = torch.Generator().manual_seed(0)
    root = torch.tensor([[1.0, 0.0], [1.8, 0.6]])
    x = torch.randn(2000, 2, generator=source) @ root.T + torch.tensor([1.0, -2.0])
    flow = Flow([Coupling(perceptron(8.0), rotation(2)) for _ in range(4)])
    optimizer = torch.optim.Adam(flow.parameters(), 1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        loss = -log_density(*flow(x)).mean()
        loss.backward()
        optimizer.step()
    entropy = 0.5 * (1 + math.log(2 * math.pi)) + 0.5 * float(root.det().log())
    assert loss.item() == pytest.approx(entropy, abs=0.03)


def test_the_scale_of_a_coupling_is_clamped() -> None:
    block = Coupling(perceptron(1.0), torch.eye(4), clamp=1.5).to(DOUBLE)
    block.subnet[2].bias.data = torch.full((4,), 1e6, dtype=DOUBLE)  # type: ignore[index, union-attr]
    assert block(torch.zeros(1, 4, dtype=DOUBLE))[1].item() == pytest.approx(2 * 1.5)


@pytest.mark.parametrize("make", [permutation, rotation])
def test_a_mixing_is_orthogonal(make: Callable[[int], Tensor]) -> None:
    mixing = make(7)
    torch.testing.assert_close(mixing @ mixing.T, torch.eye(7), atol=1e-5, rtol=0)
    assert not torch.equal(mixing, make(7))
    assert mixing.square().sum() == pytest.approx(7, rel=1e-5)


def test_mixings_are_kept_and_not_learnt() -> None:
    block = Coupling(perceptron(1.0), rotation(4))
    assert "mixing" in block.state_dict()
    assert "mixing" not in dict(block.named_parameters())


@pytest.mark.interop
@pytest.mark.parametrize("context", [0, 3])
def test_values_and_determinants_are_those_of_zuko(context: int) -> None:
    """Coupling, scale and mixing as zuko's own transforms, told the same numbers."""
    from zuko import transforms

    channels = 5
    flow = vectors(channels, context)
    x = torch.randn(4, channels, dtype=DOUBLE)
    given = torch.randn(4, context, dtype=DOUBLE) if context else None

    def parts(block: Coupling) -> list[torch.distributions.Transform]:
        def decided(one: Tensor) -> torch.distributions.Transform:
            s, t = block._decided(one, given)
            affine = torch.distributions.AffineTransform(t, s.exp())
            return transforms.DependentTransform(affine, 1)

        mask = torch.arange(channels) < 3
        scale = torch.distributions.AffineTransform(block.offset, block.log_scale.exp())
        return [
            transforms.CouplingTransform(decided, mask),
            transforms.DependentTransform(scale, 1),
        ]

    expected, total = x, torch.zeros(4, dtype=DOUBLE)
    for block in flow.blocks:
        for part in parts(block):
            expected, ladj = part.call_and_ladj(expected)
            total = total + ladj
        expected = expected @ block.mixing.T
    z, found = flow(x, given)
    torch.testing.assert_close(z, expected)
    torch.testing.assert_close(found, total)
