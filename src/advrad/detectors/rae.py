"""RAE: an autoencoder learns what is left of good images when a sparse part is taken out.

Zhou and Paffenroth, 2017 (https://doi.org/10.1145/3097983.3098052): training images may be
corrupted, so they are split, X = L + S, into what the network rebuilds and what it is not to
learn,

    min |L - D(E(L))|^2 + lambda |S|    with X - L - S = 0,

by turns: the network learns L = X - S for a while, then S is what it leaves of X, shrunk by the
proximal operator of its norm. `l1` takes out single values, `features` (l2,1) values that are
wrong in many images, `images` (l2,1 of the transpose) whole images.

A new image is not split: its score is the error of the network on the image itself. Shrinking it
would leave a score of 0 wherever the error is below lambda, flat, so that an attack found no slope
and looked harmless. Here lambda is in units of the image, as a root mean square where it is of
many values, and the turns are counted; the authors' code scales it by norms of X, and stops when
L + S is near X.
"""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

from .. import store
from ..checks import at_least, one_of, plain
from ..diffusion.batches import Batches
from ..diffusion.learning import learn, short
from ..errors import ModelError
from ..files import write_bytes
from ..networks import ConvolutionalAutoencoder
from . import _patches as patches
from ._rebuilding import Rebuilding, check_rebuilding, l2
from .base import Images, Run

SCORED = ("normalise", "smooth", "top")  # settings on which the weights do not depend


def l1(rest: Tensor, weight: float) -> Tensor:
    """argmin_S |R - S|^2 / 2 + lambda |S|_1: each value nearer to 0 by lambda."""
    return rest.sign() * (rest.abs() - weight).clamp_min(0)


def l21(rest: Tensor, weight: float, among: Sequence[int]) -> Tensor:
    """argmin_S |R - S|^2 / 2 + lambda sqrt(n) |S|_2,1: each group of the n values along the
    dimensions `among` shorter, its root mean square by lambda; 0 where it is less."""
    size = rest.square().mean(tuple(among), keepdim=True).sqrt()
    return rest * (1 - weight / size.clamp_min(torch.finfo(rest.dtype).tiny)).clamp_min(0)


NORMS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "l1": l1,
    "features": lambda rest, weight: l21(rest, weight, (0,)),
    "images": lambda rest, weight: l21(rest, weight, (1, 2, 3)),
}


class RAE(Rebuilding):
    """A deterministic detector: noise and draws change nothing. Training holds the sparse part of
    every good image in memory.

    Arguments:
        size: side of the images the network sees, in pixels.
        channels: 1 for grey, 3 for colour.
        norm: of the sparse part, a name of `NORMS`.
        weight: lambda, by how much the sparse part is shrunk, in the [0, 1] scale of the image.
        rounds: turns of training and shrinking.
        normalise: whether an error is measured as its deviation from what good images show at the
            same place, in units of what they vary by there; else it is taken as it is.
        smooth: side in pixels of the square over which errors are averaged, odd; 1 leaves them as
            they are.
        top: the share of the map whose mean is the score; 0 takes its maximum.
        widths, latent: of the network, see `ConvolutionalAutoencoder`.
        steps, batch, rate: of the whole training; the rate warms up and falls along half a cosine.
        augment: views of the training images, names of `diffusion.augment.ALL`.

    Raises UsageError where a setting is impossible.
    """

    norm: str
    weight: float
    rounds: int
    widths: list[int]
    latent: int
    steps: int
    batch: int
    rate: float
    augment: list[str]

    def __init__(
        self,
        size: int = 128,
        channels: int = 3,
        norm: str = "l1",
        weight: float = 0.05,
        rounds: int = 20,
        normalise: bool = True,
        smooth: int = 1,
        top: float = 0.001,
        widths: Sequence[int] = (16, 32, 64, 128),
        latent: int = 128,
        steps: int = 400,
        batch: int = 16,
        rate: float = 2e-3,
        augment: Sequence[str] = ("flips",),
    ) -> None:
        given = {k: plain(v) for k, v in locals().items() if k not in ("self", "__class__")}
        super().__init__()
        check_rebuilding(given)
        one_of("norm", norm, NORMS)
        at_least("weight", weight, 0)
        for name in ("latent", "rounds"):
            at_least(name, given[name], 1)
        for name, value in given.items():
            setattr(self, name, value)
        self.network = self._network()

    def _network(self) -> ConvolutionalAutoencoder:
        return ConvolutionalAutoencoder(self.channels, self.input_size, self.widths, self.latent)

    def _learn(self, images: Images, run: Run) -> dict[str, float]:
        sparse = Sparse(images, self.channels, self.input_size)
        batches = Batches(sparse, self.batch, self.augment, run.seed, run.device)
        length = -(-self.steps // self.rounds)
        shrink = NORMS[self.norm]

        def loss(number: int) -> Tensor:
            rounds, place = divmod(number - 1, length)
            for ended in range(sparse.rounds + 1, rounds + 1):
                now = ended == rounds and place == 0
                network = self._kept(ended, run) if not now else self._keep(ended, run)
                sparse.take(network, lambda rest: shrink(rest, self.weight), run, ended)
            x, s = batches.draw(number)[0].chunk(2, 1)
            return l2(x - s, self.network(x - s)).mean()

        trained = {k: v for k, v in self.params.items() if k not in SCORED}
        return learn(self.network, loss, short(self.steps, self.rate), run, trained)

    def _keep(self, ended: int, run: Run) -> nn.Module:
        """The network as it is when round number `ended` ends, kept for a training that resumes:
        the sparse part is larger than all of them, and can be made again."""
        if run.folder:
            write_bytes(_path(run.folder, ended), store.tensors(self.network.state_dict()))
        return self.network

    def _kept(self, ended: int, run: Run) -> nn.Module:
        """The network as it was then. Raises ModelError where it cannot be read."""
        assert run.folder is not None
        path = _path(run.folder, ended)
        if not path.is_file():
            raise ModelError(
                f"{path} is missing: without it the training cannot go on; start anew"
            )
        other = copy.deepcopy(self.network)
        other.load_state_dict(store.read_tensors({path.name: path.read_bytes()}, path.name))
        return other


class Sparse:
    """Good images, each with its sparse part below it: (2 C, H, W). No round is over at first, and
    S is 0."""

    def __init__(self, images: Images, channels: int, size: int) -> None:
        self.images, self.rounds = images, 0
        self.parts = torch.zeros(len(images), channels, size, size)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int, /) -> Tensor:
        return torch.cat([self.images[index], self.parts[index]])

    def take(
        self,
        network: Callable[[Tensor], Tensor],
        shrink: Callable[[Tensor], Tensor],
        run: Run,
        rounds: int,
    ) -> None:
        """S <- shrink(X - network(X - S)) of all images, after so many rounds."""

        def rest(both: Tensor) -> Tensor:
            x, s = both.chunk(2, 1)
            return x - network(x - s)

        with _disable_current_modes():  # what counts a step is not to count this with it
            found = torch.cat([each.cpu() for each in patches.walked(self, run, rest)])
        self.parts, self.rounds = shrink(found), rounds


def _path(folder: Path, ended: int) -> Path:
    return folder / f"round-{ended}.safetensors"
