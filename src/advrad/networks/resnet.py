"""ResNet-18 and WideResNet-50-2, with the names of weights that torchvision gives them.

He et al. (2016, https://arxiv.org/abs/1512.03385) and Zagoruyko and Komodakis (2016,
https://arxiv.org/abs/1605.07146), the backbones of most published detectors. No weights come with
this library: a file of a user's own, in torchvision's layout, is loaded.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, channel by channel
LAYERS = {4: 1, 8: 2, 16: 3, 32: 4}  # the layer whose maps have this stride


class ResNet(nn.Module):
    """Images (B, 3, H, W) in [0, 1] -> maps at several strides, or ImageNet's 1000 logits.

    Arguments:
        repeats: blocks of each of the four layers.
        deep: whether a block has three convolutions (bottleneck) and not two.
        width: of a bottleneck's inner convolution, against ResNet-50's.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, repeats: Sequence[int], deep: bool, width: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        before, grown = 64, 4 if deep else 1
        for number, count in enumerate(repeats):
            planes, stride = 64 * 2**number, 1 if number == 0 else 2
            blocks = []
            for place in range(count):
                step = stride if place == 0 else 1
                inner = planes * width if deep else planes
                blocks.append(_Block(before, inner, planes * grown, step, deep))
                before = planes * grown
            setattr(self, f"layer{number + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(before, 1000)
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(DEVIATION)[:, None, None], persistent=False)

    def maps(self, x: Tensor, strides: tuple[int, ...]) -> list[Tensor]:
        """The features after the layer of each stride (4, 8, 16, 32), in that order."""
        last = max(LAYERS[stride] for stride in strides)
        found, x = {}, F.relu(self.bn1(self.conv1((x - self.mean) / self.std)))
        x = F.max_pool2d(x, 3, 2, 1)
        for number in range(1, last + 1):
            x = getattr(self, f"layer{number}")(x)
            found[number] = x
        return [found[LAYERS[stride]] for stride in strides]

    def forward(self, x: Tensor) -> Tensor:
        """Logits, (B, 1000)."""
        [x] = self.maps(x, (32,))
        return self.fc(x.mean((2, 3)))


class _Block(nn.Module):
    """A residual of two 3 x 3 convolutions, or of 1 x 1, 3 x 3 and 1 x 1."""

    def __init__(self, before: int, inner: int, after: int, stride: int, deep: bool) -> None:
        super().__init__()
        sizes = [1, 3, 1] if deep else [3, 3]
        widths = [before, inner, inner, after] if deep else [before, inner, after]
        strided = 1 if deep else 0  # the 3 x 3 convolution that strides
        self.depth = len(sizes)
        for i, kernel in enumerate(sizes):
            step = stride if i == strided else 1
            conv = nn.Conv2d(widths[i], widths[i + 1], kernel, step, kernel // 2, bias=False)
            setattr(self, f"conv{i + 1}", conv)
            setattr(self, f"bn{i + 1}", nn.BatchNorm2d(widths[i + 1]))
        self.downsample: nn.Module | None = None
        if stride > 1 or before != after:
            self.downsample = nn.Sequential(
                nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)
            )

    def forward(self, x: Tensor) -> Tensor:
        found = x
        for i in range(1, self.depth + 1):
            found = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(found))
            found = F.relu(found) if i < self.depth else found
        return F.relu(found + (x if self.downsample is None else self.downsample(x)))


def resnet18() -> ResNet:
    """11,689,512 parameters."""
    return ResNet((2, 2, 2, 2), deep=False)


def wide_resnet50_2() -> ResNet:
    """68,883,240 parameters."""
    return ResNet((3, 4, 6, 3), deep=True, width=2)
