"""A generator of clean images on disk: a diffusion model or a WGAN, as a folder under a manifest.

`config.json` says of which kind it is and how it is built, `model.safetensors` holds the weights,
`about.json` its trainings one after the other, `README.md` the same for people.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from .. import __version__, store
from ..checks import at_least, one_of, typed
from ..diffusion import SCHEDULES, EpsDenoiser, Schedule, UNet
from ..errors import ModelError, UsageError
from ..files import as_given
from ..networks.wgan import Generator
from .diffdefense import Ramp

COMMAND = "advrad purify train-diffusion"
NOISES: dict[str, Callable[[int], Schedule]] = {**SCHEDULES, "ramp": Ramp}


@dataclass(frozen=True)
class Diffusion:
    """How a diffusion model is built.

    Arguments:
        shape: channels, height and width of its images.
        widths, blocks, attention, patch: of the U-Net.
        schedule: `linear`, `cosine`, `vp`, or `ramp`, DiffDefense's own.
        levels: of noise; 1000, and 100 with `ramp` in DiffDefense's program.
        centred: whether the network learns images moved to [-1, 1]; DiffDefense's program leaves
            them in [0, 1], and no other purifier can use that.
    """

    shape: tuple[int, int, int]
    widths: tuple[int, ...] = (32, 64, 64)
    blocks: int = 1
    attention: tuple[int, ...] = ()
    patch: int = 1
    schedule: str = "linear"
    levels: int = 1000
    centred: bool = True

    def build(self) -> EpsDenoiser:
        """An untrained one. Raises UsageError where a setting is impossible."""
        for name in ("blocks", "patch", "levels"):
            at_least(name, getattr(self, name), 1)
        one_of("schedule", self.schedule, NOISES)
        if not self.widths or min(self.widths) < 2 or self.widths[0] % 2:
            raise UsageError(f"widths={list(self.widths)}: expected even numbers from 2 on")
        network = UNet(self.shape[0], self.widths, self.blocks, self.attention, self.patch)
        channels, height, width = self.shape
        if channels < 1 or height % network.multiple or width % network.multiple:
            raise UsageError(
                f"images of {channels} x {height} x {width}: with {len(self.widths)} levels and "
                f"patch {self.patch} both sides must be multiples of {network.multiple}; leave "
                "out a width, or choose a smaller patch"
            )
        schedule = NOISES[self.schedule](self.levels)
        return EpsDenoiser(network, schedule, centred=self.centred)


@dataclass(frozen=True)
class WGAN:
    """How a generator of Defense-GAN is built.

    Arguments:
        shape: channels, height and width of its images, which are squares.
        latent: numbers of a latent.
        width: channels of the finest level; each of the two coarser ones has twice as many.
    """

    shape: tuple[int, int, int]
    latent: int = 128
    width: int = 64

    def build(self) -> Generator:
        """An untrained one. Raises UsageError where a setting is impossible."""
        for name in ("latent", "width"):
            at_least(name, getattr(self, name), 1)
        channels, height, width = self.shape
        if height != width:
            raise UsageError(f"images of {height} x {width} px: a WGAN makes squares; pad them")
        return Generator(channels, height, self.latent, self.width)


KINDS: dict[str, type[Diffusion] | type[WGAN]] = {"diffusion": Diffusion, "wgan": WGAN}


@dataclass(frozen=True)
class Generative:
    """A trained generator.

    Arguments:
        network: ready to use, its weights frozen.
        made: how it is built.
        trainings: what it has been through, one after the other, as plain values.
    """

    network: nn.Module
    made: Diffusion | WGAN
    trainings: Sequence[Mapping[str, Any]] = field(default_factory=tuple)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of its images."""
        return self.made.shape

    @property
    def kind(self) -> str:
        """`diffusion` or `wgan`."""
        return next(name for name, kind in KINDS.items() if type(self.made) is kind)

    @property
    def denoiser(self) -> EpsDenoiser:
        """The denoiser of a diffusion model. Raises UsageError for a WGAN."""
        if not isinstance(self.network, EpsDenoiser):
            raise UsageError(
                "this is a WGAN, which Defense-GAN alone can use: give a diffusion model"
            )
        return self.network

    @property
    def generator(self) -> Generator:
        """The generator of a WGAN. Raises UsageError for a diffusion model."""
        if not isinstance(self.network, Generator):
            raise UsageError("this is a diffusion model, and Defense-GAN needs a WGAN: train one")
        return self.network

    def save(self, folder: str | Path) -> None:
        """Writes the folder, whole or not at all."""
        config = {"generator": self.kind, "params": asdict(self.made)}
        files = {
            "config.json": store.dump(config),
            "model.safetensors": store.tensors(self.network.state_dict()),
            "about.json": store.dump({"advrad": __version__, "trainings": list(self.trainings)}),
            "README.md": _card(self).encode(),
        }
        store.replace(Path(folder), files)


def load(folder: str | Path) -> Generative:
    """The generator in a folder, verified, ready to use, its weights frozen.

    Raises ModelError where there is none, where it is damaged, or where it is something else.
    """
    files = store.finished(Path(folder), "generator", COMMAND)
    config = store.read_json(files, "config.json")
    if config.get("generator") not in KINDS:
        known = {"detector": "a detector of defects", "classifier": "a classifier"}
        what = next((words for key, words in known.items() if key in config), "another model")
        raise ModelError(f"{folder} holds {what}, no generator: expected a folder of `{COMMAND}`")
    try:
        kind = KINDS[config["generator"]]
        made = typed(kind, asdict(kind(**config["params"])))
        network = made.build()
    except (KeyError, TypeError, ValueError, UsageError) as error:
        raise ModelError(f"{folder}: config.json builds no generator: {error}") from error
    state = store.read_tensors(files)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise ModelError(
            f"{folder}: the weights do not fit config.json ({str(error)[:200]}); copy the model "
            "again"
        ) from error
    trainings = store.read_json(files, "about.json").get("trainings", [])
    return Generative(network.eval().requires_grad_(False), made, trainings)


def _card(generative: Generative) -> str:
    channels, height, width = generative.shape
    count = sum(p.numel() for p in generative.network.parameters())
    tables = "\n".join(
        f"\n## Training {number}: {training.get('method', '')}\n\n| what | value |\n|---|---|\n"
        + "\n".join(f"| {name} | {as_given(value)} |" for name, value in training.items())
        for number, training in enumerate(generative.trainings, 1)
    )
    return f"""# A generator of clean images

A {generative.kind} model with {count:,} parameters for images of {channels} x {height} x {width}
in [0, 1], made by advrad {__version__}. Purifiers stand on it.
{tables}
"""
