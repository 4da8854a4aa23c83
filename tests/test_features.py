"""Backbones: ImageNet's photographs recognised, other layouts' keys, gradients that are alive."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from advrad.data.cache import cache_folder
from advrad.errors import DataError, MissingExtraError, UsageError
from advrad.networks import features
from advrad.networks.efficientnet import EfficientNetLite0, Same, renamed
from advrad.networks.features import NETWORKS, Features, packaged, stacked
from advrad.networks.resnet import resnet18, wide_resnet50_2


@pytest.fixture(scope="module")
def lite0() -> Features:
    return Features().load()


@pytest.mark.interop
def test_lite0_knows_17_of_foolbox_s_20_photographs() -> None:
    """What the same weights reach in timm's tf_efficientnet_lite0."""
    foolbox = pytest.importorskip("foolbox")
    network = EfficientNetLite0().eval()
    network.load_state_dict(packaged())
    right = 0
    paths = sorted((Path(foolbox.__file__).parent / "data").glob("imagenet_*"))
    assert len(paths) == 20
    for path in paths:
        x = torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1) / 255
        with torch.no_grad():
            right += int(network(x[None]).argmax()) == int(path.stem.rsplit("_", 1)[1])
    assert right == 17


def test_parameters_are_those_that_are_published() -> None:
    counts = {
        name: sum(p.numel() for p in NETWORKS[name]().parameters())
        for name in ("lite0", "resnet18", "wide_resnet50_2")
    }
    assert counts == {"lite0": 4_652_008, "resnet18": 11_689_512, "wide_resnet50_2": 68_883_240}


def test_names_of_the_resnets_weights_are_torchvision_s() -> None:
    """A few of the keys of its files, and how many there are."""
    small, wide = resnet18().state_dict(), wide_resnet50_2().state_dict()
    assert (len(small), len(wide)) == (122, 320)
    for name, shape in {
        "conv1.weight": (64, 3, 7, 7),
        "layer1.1.bn2.running_var": (64,),
        "layer2.0.downsample.0.weight": (128, 64, 1, 1),
        "layer2.0.downsample.1.num_batches_tracked": (),
        "fc.weight": (1000, 512),
    }.items():
        assert small[name].shape == shape
    for name, shape in {
        "layer1.0.conv2.weight": (128, 128, 3, 3),
        "layer1.0.downsample.0.weight": (256, 64, 1, 1),
        "layer3.5.bn3.bias": (1024,),
        "layer4.0.conv2.weight": (1024, 1024, 3, 3),
    }.items():
        assert wide[name].shape == shape
    assert "layer1.0.downsample.0.weight" not in small


@pytest.mark.parametrize("name", list(NETWORKS))
@pytest.mark.parametrize("channels", [1, 3])
def test_maps_have_their_strides_and_a_gradient(name: str, channels: int) -> None:
    made = Features(name, (4, 8, 16))
    x = torch.rand(2, channels, 64, 64, requires_grad=True)
    maps = made(x)
    assert [tuple(m.shape[-2:]) for m in maps] == [(16, 16), (8, 8), (4, 4)]
    assert [m.shape[1] for m in maps] == made.channels()
    stacked(maps).square().sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    assert (x.grad.flatten(1).norm(dim=1) > 0).all()


def test_an_image_s_features_do_not_depend_on_its_batch(lite0: Features) -> None:
    x = torch.rand(3, 3, 64, 64)
    lite0.train()
    for whole, alone in zip(lite0(x), lite0(x[1:2]), strict=True):
        torch.testing.assert_close(whole[1:2], alone, rtol=1e-4, atol=1e-4)


def test_same_padding_is_tensorflow_s() -> None:
    """Stride 2 with kernel 3 over 4 places: windows begin at 0 and 2, and one place is added
    after the last; a symmetric padding would begin at -1."""
    network = EfficientNetLite0()
    conv = nn.Conv2d(3, 32, 3, 2, bias=False)
    x = torch.rand(1, 3, 4, 4)
    conv.weight = network.stem.conv.weight  # type: ignore[assignment,union-attr]
    expected = conv(nn.functional.pad(x, [0, 1, 0, 1]))
    bare = network.stem.eval()
    bare.norm = nn.Identity()  # type: ignore[assignment]
    torch.testing.assert_close(bare(x), expected)


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("sides", [(8, 8), (9, 12)])
@pytest.mark.parametrize("training", [False, True])
def test_a_normalisation_within_the_weights_is_the_same_function(
    kernel: int, stride: int, sides: tuple[int, int], training: bool
) -> None:
    torch.manual_seed(0)
    layer = Same(4, 4, kernel, stride, groups=2).double().train(training)
    norm = layer.norm
    for value in (norm.weight, norm.bias, norm.running_mean):
        assert value is not None
        nn.init.normal_(value)
    assert norm.running_var is not None
    nn.init.uniform_(norm.running_var, 0.1, 2)
    x = torch.randn(3, 4, *sides, dtype=torch.float64, requires_grad=True)
    totals = [max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in sides]
    pads = [part for total in reversed(totals) for part in (total // 2, total - total // 2)]
    composed = nn.BatchNorm2d(4, eps=norm.eps).double().train(training)
    composed.load_state_dict(norm.state_dict())
    expected = composed(layer.conv(nn.functional.pad(x, pads)))
    found = layer(x)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    ahead = torch.randn_like(found)
    for tensor in (x, layer.conv.weight):
        [slope] = torch.autograd.grad((found * ahead).sum(), tensor, retain_graph=True)
        [asked] = torch.autograd.grad((expected * ahead).sum(), tensor, retain_graph=True)
        torch.testing.assert_close(slope, asked, rtol=1e-8, atol=1e-8)
    for name, value in norm.state_dict().items():
        torch.testing.assert_close(value, composed.state_dict()[name])


def test_the_gradient_is_that_of_finite_differences() -> None:
    torch.manual_seed(0)
    made = Features("untrained", (8,)).double()
    x = torch.rand(1, 3, 16, 16, dtype=torch.float64, requires_grad=True)
    direction = torch.randn_like(x)

    def value(at: Tensor) -> Tensor:
        return made(at)[0].square().sum()

    (gradient,) = torch.autograd.grad(value(x), x)
    with torch.no_grad():
        step = 1e-5
        slope = (value(x + step * direction) - value(x - step * direction)) / (2 * step)
    assert float((gradient * direction).sum()) == pytest.approx(float(slope), rel=1e-6)


def test_stacked_maps_are_enlarged_to_the_first() -> None:
    fine, coarse = torch.rand(2, 3, 8, 8), torch.full((2, 5, 4, 4), 0.7)
    found = stacked([fine, coarse])
    assert found.shape == (2, 8, 8, 8)
    assert torch.equal(found[:, :3], fine)
    torch.testing.assert_close(found[:, 3:], torch.full((2, 5, 8, 8), 0.7))


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_file_of_weights_of_one_s_own(suffix: str, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    source = resnet18()
    path = tmp_path / f"weights.{suffix}"
    state = {k: v for k, v in source.state_dict().items()}
    if suffix == "pth":
        torch.save(state, path)
    else:
        save_file({k: v.contiguous() for k, v in state.items()}, path)
    made = Features("resnet18", (8, 16)).load(path)
    assert torch.equal(
        made.network.state_dict()["layer3.0.conv1.weight"], state["layer3.0.conv1.weight"]
    )
    x = torch.rand(1, 3, 64, 64)
    for found, expected in zip(made(x), source.eval().maps(x, (8, 16)), strict=True):
        torch.testing.assert_close(found, expected)
    with pytest.raises(DataError, match="does not hold the weights of wide_resnet50_2"):
        Features("wide_resnet50_2").load(path)


def test_a_name_that_tells_its_sha256_is_held_to_it(tmp_path: Path) -> None:
    path = tmp_path / "plain.pth"
    torch.save(resnet18().state_dict(), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    right = path.rename(tmp_path / f"resnet18-{digest[:8]}.pth")
    Features("resnet18").load(right)
    wrong = right.rename(tmp_path / "resnet18-01234567.pth")
    with pytest.raises(DataError, match="its sha256 does not begin with 01234567"):
        Features("resnet18").load(wrong)


def test_bad_files_of_weights_are_told(tmp_path: Path) -> None:
    for name, content in (("noise.pth", b"noise"), ("noise.safetensors", b"noise")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match="no weights that can be read safely"):
            Features("resnet18").load(tmp_path / name)
    with pytest.raises(DataError, match="no such file"):
        Features("resnet18").load(tmp_path / "none.pth")
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    with pytest.raises(DataError, match="something else than named tensors"):
        Features("resnet18").load(tmp_path / "list.pth")
    torch.save(nn.Linear(1, 1), tmp_path / "code.pth")  # a pickle with a class in it
    with pytest.raises(DataError, match="no weights that can be read safely"):
        Features("resnet18").load(tmp_path / "code.pth")


def test_weights_of_a_larger_network_or_of_no_numbers_are_told(tmp_path: Path) -> None:
    """ResNet-34 has all that ResNet-18 has, in the same shapes, and more."""
    state = resnet18().state_dict()
    more = {
        "layer1.2.conv1.weight": torch.zeros(64, 64, 3, 3),
        "layer3.5.bn2.bias": torch.zeros(256),
    }
    torch.save(state | more, tmp_path / "34.pth")
    with pytest.raises(DataError, match=r"another network than resnet18: it has layer1.2.conv1"):
        Features("resnet18").load(tmp_path / "34.pth")
    torch.save(state | {"fc.bias": torch.full((1000,), torch.nan)}, tmp_path / "nan.pth")
    with pytest.raises(DataError, match=r"fc\.bias is not finite"):
        Features("resnet18").load(tmp_path / "nan.pth")


def test_names_and_strides_that_are_none_are_told() -> None:
    with pytest.raises(UsageError, match="backbone 'vgg'"):
        Features("vgg")
    for strides in ((), (3,), (8, 8)):
        with pytest.raises(UsageError, match="strides"):
            Features("untrained", strides)
    with pytest.raises(UsageError, match="needs weights"):
        Features("resnet18").load()


def test_the_package_is_converted_once_and_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADVRAD_CACHE", str(tmp_path / "cache"))
    first = packaged()
    [kept] = cache_folder().iterdir()
    monkeypatch.setattr(features, "PACKAGE", "no_such_package")
    second = packaged()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[k], second[k]) for k in first)
    kept.write_bytes(b"damaged")
    with pytest.raises(MissingExtraError, match=r"advrad\[data\]"):
        packaged()
    monkeypatch.undo()
    monkeypatch.setenv("ADVRAD_CACHE", str(tmp_path / "other"))
    monkeypatch.setattr(features, "PACKAGED", "0" * 64)
    with pytest.raises(DataError, match="is not the file that advrad knows"):
        packaged()


def test_every_name_of_the_package_is_known() -> None:
    with pytest.raises(KeyError):
        renamed({"_swish.weight": torch.zeros(1)})
