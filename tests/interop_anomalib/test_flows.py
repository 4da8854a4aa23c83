"""Our flows beside FrEIA's, as anomalib keeps them: those of CFlow and FastFlow."""

import torch
from anomalib.models.components.flow import AllInOneBlock
from anomalib.models.image.fastflow.anomaly_map import AnomalyMapGenerator
from anomalib.models.image.fastflow.torch_model import create_fast_flow_block
from torch import Tensor, nn

from advrad.detectors import _flows, fastflow
from advrad.networks import Coupling, Flow
from advrad.networks.flow import convolutions, perceptron, permutation, rotation


def copied(theirs: AllInOneBlock, ours: Coupling) -> None:
    """Our weights in their block, whose scale is 0.1 softplus_0.5(p) and whose nets are padded."""
    rank = theirs.global_scale.ndim - 2
    shape = [1, -1, *[1] * rank]
    with torch.no_grad():
        scale = 10 * ours.log_scale.exp()
        theirs.global_scale.copy_((2 * torch.expm1(scale / 2).log()).view(shape))
        theirs.global_offset.copy_(ours.offset.view(shape))
        theirs.w_perm.copy_(ours.mixing.view(*ours.mixing.shape, *[1] * rank))
    layers = [layer for layer in theirs.subnet if list(layer.parameters())]
    for layer, other in zip(layers, [ours.subnet[0], ours.subnet[2]], strict=True):
        layer.load_state_dict(other.state_dict())


def shaken(flow: Flow) -> Flow:
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return flow


def test_a_conditional_block_of_vectors_is_that_of_cflow() -> None:
    net = lambda a, b: nn.Sequential(nn.Linear(a, 2 * a), nn.ReLU(), nn.Linear(2 * a, b))
    theirs = AllInOneBlock(
        [(7,)], [(4,)], subnet_constructor=net, affine_clamping=1.9, permute_soft=True
    )
    ours = Coupling(perceptron(2.0), rotation(7), context=4, clamp=1.9)
    shaken(ours)
    copied(theirs, ours)
    x, context = torch.randn(5, 7), torch.randn(5, 4)
    (expected,), total = theirs([x], [context])
    z, found = ours(x, context)
    torch.testing.assert_close(z, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found, total, rtol=1e-4, atol=1e-5)


def made() -> tuple[nn.Module, Flow]:
    theirs = create_fast_flow_block([6, 5, 5], conv3x3_only=False, hidden_ratio=1.0, flow_steps=4)
    nets = [convolutions(fastflow.KERNELS[i % 2], 1.0) for i in range(4)]
    ours = shaken(Flow([Coupling(net, permutation(6)) for net in nets]))
    for one, other in zip(theirs, ours.blocks, strict=True):
        copied(one, other)
    return theirs, ours


def test_a_flow_of_maps_is_that_of_fastflow() -> None:
    theirs, ours = made()
    x = torch.randn(3, 6, 5, 5)
    expected, total = theirs(x)
    z, found = ours(x)
    torch.testing.assert_close(z, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.sum((1, 2)), total, rtol=1e-4, atol=1e-4)


def test_the_published_map_is_made_of_our_score() -> None:
    """-exp(-score), averaged over strides."""
    maps = [torch.randn(2, 6, 8, 8), 2 * torch.randn(2, 9, 4, 4)]
    expected = AnomalyMapGenerator((16, 16))(maps)
    scores: list[Tensor] = [fastflow.latent(z, z.new_zeros(())) for z in maps]
    found = _flows.averaged([-(-score).exp() for score in scores], 16)
    torch.testing.assert_close(found, expected[:, 0])
