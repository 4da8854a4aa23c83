"""The networks: their published sizes, and that normalisation is inside."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from advrad.classifiers import ALL, build
from advrad.errors import UsageError
from advrad.networks import Classifier, ClassifierA, ClassifierB, WideResNet


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("wrn-16-2", 691_674),
        ("wrn-28-10", 36_479_194),
        ("wrn-70-16", 266_796_506),
    ],
)
def test_wide_residual_networks_have_their_published_size(name: str, published: int) -> None:
    with torch.device("meta"):
        assert parameters(build(name, {})) == published


@pytest.mark.parametrize(("depth", "width"), [(10, 1), (22, 3), (40, 4)])
def test_their_size_is_the_sum_over_layers(depth: int, width: int) -> None:
    """By hand: each convolution, two numbers a channel for each normalisation, the last layer."""
    expected, before = 3 * 16 * 9, 16
    for group in range(3):
        after = 16 * width * 2**group
        for block in range((depth - 4) // 6):
            inside = before if block == 0 else after
            expected += 9 * inside * after + 9 * after * after + 2 * inside + 2 * after
            expected += inside * after if block == 0 and (inside != after or group > 0) else 0
        before = after
    expected += 2 * before + 10 * before + 10
    with torch.device("meta"):
        assert parameters(WideResNet(depth=depth, width=width)) == expected


def test_a_and_b_have_the_layers_of_the_paper() -> None:
    """A: 6400 - 128 - 10 after its convolutions; B: 128 - 10."""
    a, b = ClassifierA(), ClassifierB()
    linear = {m: [x for x in m.modules() if isinstance(x, nn.Linear)] for m in (a, b)}
    assert [(x.in_features, x.out_features) for x in linear[a]] == [(6400, 128), (128, 10)]
    assert [(x.in_features, x.out_features) for x in linear[b]] == [(128, 10)]
    assert parameters(a) == (25 + 1) * 64 + (64 * 25 + 1) * 64 + 6401 * 128 + 129 * 10
    assert parameters(b) == 65 * 64 + (64 * 36 + 1) * 128 + (128 * 25 + 1) * 128 + 129 * 10
    for module, shares in ((a, [0.25, 0.5]), (b, [0.2, 0.5])):
        assert [m.p for m in module.modules() if isinstance(m, nn.Dropout)] == shares


SMALL: dict[str, dict[str, object]] = {
    "a": {"shape": [1, 12, 11]},
    "b": {"shape": [2, 26, 28], "classes": 3},
    "wrn": {"shape": [1, 9, 8], "classes": 4, "depth": 10, "width": 1},
}


@pytest.mark.parametrize("name", SMALL)
def test_images_become_one_row_of_logits_each_whatever_the_batch(name: str) -> None:
    classifier = build(name, SMALL[name]).eval()
    x = torch.rand(3, *classifier.shape)
    logits = classifier(x)
    assert logits.shape == (3, classifier.classes)
    rows = torch.cat([classifier(image[None]) for image in x])
    assert torch.allclose(logits, rows, atol=1e-5)
    assert type(classifier)(**classifier.params).params == classifier.params


@pytest.mark.parametrize("name", SMALL)
def test_images_of_another_shape_are_refused(name: str) -> None:
    classifier = build(name, SMALL[name])
    channels, height, width = classifier.shape
    expected = f"expects a batch of {channels} x {height} x {width}"
    for shape in ((channels + 1, height, width), (channels, height + 1, width)):
        with pytest.raises(UsageError, match=expected):
            classifier(torch.rand(2, *shape))
    with pytest.raises(UsageError, match="expects a batch"):
        classifier(torch.rand(*classifier.shape))


def test_normalisation_is_inside() -> None:
    """[0, 1] into the network is what normalised images are into one that does nothing to them."""
    mean, deviation = [0.1, 0.4, 0.7], [0.2, 0.3, 0.5]
    given = {"shape": [3, 8, 8], "depth": 10, "width": 1}
    inside = WideResNet(**given, mean=mean, deviation=deviation).eval()
    outside = WideResNet(**given, mean=[0.0] * 3, deviation=[1.0] * 3).eval()
    outside.load_state_dict(inside.state_dict())
    x = torch.rand(2, 3, 8, 8)
    middle, scale = (torch.tensor(v)[:, None, None] for v in (mean, deviation))
    assert torch.allclose(inside(x), outside((x - middle) / scale), atol=1e-5)
    assert not torch.allclose(inside(x), outside(x), atol=1e-3)


def test_a_block_adds_to_what_it_is_given() -> None:
    """With its last convolution at zero it is the identity, or the 1 x 1 convolution beside."""
    network = WideResNet(shape=[3, 8, 8], depth=16, width=1).eval()
    x = torch.randn(2, 16, 8, 8)
    blocks = list(network.blocks)
    for block in blocks:
        nn.init.zeros_(block.conv2.weight)
    assert torch.equal(blocks[1](x), x)
    active = F.relu(x / math.sqrt(1 + blocks[2].norm1.eps))
    assert torch.allclose(blocks[2](x), blocks[2].beside(active), atol=1e-6)
    assert blocks[2](x).shape == (2, 32, 4, 4)


def test_weights_are_those_of_he() -> None:
    network = WideResNet(shape=[3, 8, 8], depth=10, width=4)
    weight = network.blocks[1].conv2.weight
    assert weight.std().item() == pytest.approx(math.sqrt(2 / (9 * weight.shape[0])), rel=0.02)


def test_names_in_any_case_and_settings_over_the_name_s_own() -> None:
    found = build("WRN-16-2", {"width": 1, "shape": [3, 8, 8]})
    assert found.params["depth"] == 16
    assert found.params["width"] == 1
    assert set(ALL) == {"a", "b", "wrn", "wrn-16-2", "wrn-28-10", "wrn-70-16"}
    assert isinstance(build("a", {}), Classifier)


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("vgg", {}, "unknown classifier 'vgg': expected one of a, b, wrn"),
        ("a", {"depth": 3}, "classifier a: .*depth"),
        ("a", {"shape": [1, 8, 8]}, "images of 8 x 8 pixels are too small"),
        ("b", {"shape": [1, 28, 10]}, "images of 28 x 10 pixels are too small"),
        ("a", {"shape": [28, 28]}, "expected channels, height, width"),
        ("a", {"classes": 1}, "expected 2 or more"),
        ("wrn", {"depth": 12}, r"expected 10, 16, 22, 28"),
        ("wrn", {"width": 0}, "expected 1 or more"),
        ("wrn", {"mean": [0.5]}, "expected 3, one for each channel"),
        ("wrn", {"deviation": [1, 0, 1]}, "expected numbers above 0"),
    ],
)
def test_what_is_no_classifier_is_told(name: str, settings: dict, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        build(name, settings)


@pytest.mark.parametrize("name", SMALL)
def test_gradients_reach_the_image(name: str) -> None:
    classifier = build(name, SMALL[name]).double().eval()
    x = torch.rand(1, *classifier.shape, dtype=torch.float64, requires_grad=True)

    def value(z: Tensor) -> Tensor:
        return classifier(z)[0, 1]

    (slope,) = torch.autograd.grad(value(x), x)
    direction = torch.randn_like(x)
    step = 1e-6
    ahead, behind = (value(x.detach() + sign * step * direction) for sign in (1, -1))
    expected = ((ahead - behind) / (2 * step)).item()
    assert (slope * direction).sum().item() == pytest.approx(expected, rel=1e-4)
