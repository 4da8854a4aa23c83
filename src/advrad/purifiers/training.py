"""How the generators behind the purifiers are trained and fine-tuned, all by the one loop.

A diffusion model learns the noise by its plain squared error. Fine-tuning goes on with a trained
one under the loss of ADDT or ADBM, or under the same plain loss: the control, without which one
does not see what the attack in the training is worth. What a fine-tuning may cost is given in
passes, forward and backward, of the network for each image of a batch: a step of ADDT takes one
and one for each round of its search, a step of the control takes one, and so has as many more.

The two players of a WGAN take turns: the critic `turns` times, then the generator once, all of
them steps of one training.
"""

import copy
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Generator as Source
from torch import Tensor, nn

from .. import store
from ..checks import at_least, one_of, share
from ..classifiers import refuse_unusable
from ..data.labelled import Part
from ..diffusion import EpsDenoiser, Recipe
from ..diffusion.augment import ALL as VIEWS
from ..diffusion.batches import Batches, DrawnLoss, Images
from ..diffusion.learning import drawn, learn, noise_of
from ..diffusion.loss import noise_error
from ..diffusion.run import PLAIN, Run
from ..errors import DataError, UsageError
from ..networks.wgan import Critic, Players
from ._range import refuse_uncentred
from ._settings import FINETUNING, LEARNING, METHODS, PLAYING, Finetuning, Learning, Playing
from .adbm import ADBM
from .addt import ADDT, Unranked
from .stored import WGAN, Diffusion, Generative

__all__ = ["Finetuning", "Learning", "Playing", "finetune", "train_diffusion", "train_wgan"]

Lesson = Callable[[Tensor, Tensor, Source], Tensor]  # images in [-1, 1], labels, .. -> (B,)
TOPS = (100, 200)  # of 1000 levels: from where the bridges of ADBM start


def train_diffusion(
    images: Images, made: Diffusion | None = None, wanted: Learning = LEARNING, run: Run = PLAIN
) -> Generative:
    """A diffusion model of the images; goes on where the run resumes.

    Arguments:
        images: (C, H, W) in [0, 1] each.
        made: how it is built; by default as `Diffusion` is for images of this shape.

    Raises DataError for images that cannot be used, UsageError for impossible settings,
    OtherTrainingError where the run's folder holds a checkpoint of another one, DivergedError.
    """
    shape, run = _examined(images, run)
    made = made or Diffusion(shape)
    _check(wanted, made, shape)
    denoiser = drawn(run.seed, made.build).to(run.device)
    loss = DrawnLoss(
        denoiser, images, wanted.batch, (1, made.levels), wanted.views, run.seed, run.device,
        loss=noise_error,
    )  # fmt: skip
    return _taught(Generative(denoiser, made), denoiser, loss, _recipe(wanted), run, wanted)


def train_wgan(
    images: Images, made: WGAN | None = None, wanted: Playing = PLAYING, run: Run = PLAIN
) -> Generative:
    """A generator of such images, trained against a critic; arguments and errors as above."""
    shape, run = _examined(images, run)
    made = made or WGAN(shape)
    _check(wanted, made, shape)
    at_least("turns", wanted.turns, 1)
    at_least("penalty", wanted.penalty, 0)

    def players() -> Players:
        return Players(made.build(), Critic(shape[0], shape[1], made.width))

    both = drawn(run.seed, players).to(run.device)
    loss = Turns(both, Batches(images, wanted.batch, wanted.views, run.seed, run.device), wanted)
    recipe = replace(_recipe(wanted), warmup=0, decay=False, clip=0.0, momenta=(0.5, 0.9))
    return _taught(Generative(both.generator, made), both, loss, recipe, run, wanted)


def finetune(
    generative: Generative,
    part: Part,
    classifier: nn.Module | None = None,
    wanted: Finetuning = FINETUNING,
    run: Run = PLAIN,
) -> Generative:
    """The diffusion model after a further training; the given one stays as it is.

    Arguments:
        generative: a diffusion model.
        part: images and labels to train on.
        classifier: images in [0, 1] to logits, frozen; the control needs none.

    Raises UsageError for a WGAN, a model of images in [0, 1], a missing classifier, one that
    returns no logits, and impossible settings, and else as `train_diffusion`.
    """
    one_of("method", wanted.method, METHODS)
    at_least("rounds", wanted.searched, 0)
    at_least("passes", wanted.passes, wanted.searched + 1)
    if not 0 < wanted.eps <= 1:
        raise UsageError(f"eps={wanted.eps}: expected above 0 and at most 1, as 8/255 is")
    shape, run = _examined(part, run)
    _check(wanted, generative.made, shape)
    refuse_uncentred(generative.denoiser, "a fine-tuning")
    denoiser = copy.deepcopy(generative.denoiser).to(run.device).requires_grad_()
    told = {"weights": _learnt(denoiser), "labels": _digest(part.labels.numpy().tobytes())}
    if wanted.method != "clean":
        if classifier is None:
            raise UsageError(f"method={wanted.method} is guided by a classifier: give one")
        classifier = copy.deepcopy(classifier).to(run.device).eval().requires_grad_(False)
        _refuse_guide(classifier, part, run)
        told["guide"] = _learnt(classifier)
    lesson = _lesson(denoiser, classifier, wanted)
    batches = Batches(part, wanted.batch, wanted.views, run.seed, run.device)

    def loss(number: int) -> Tensor:
        x, source = batches.draw(number)
        labels = part.labels[batches.members(number)].to(run.device)
        return lesson(2 * x.clamp(0, 1) - 1, labels, source).mean()

    signature = replace(wanted, rounds=wanted.searched)
    tuned = replace(generative, network=denoiser)
    return _taught(tuned, denoiser, loss, _recipe(wanted), run, signature, told)


@dataclass(frozen=True)
class Turns:
    """The loss of step number 1, 2, ... of a WGAN: of the player whose turn it is, ()."""

    players: Players
    batches: Batches
    wanted: Playing

    def __call__(self, number: int) -> Tensor:
        x, source = self.batches.draw(number)
        z = torch.randn(len(x), self.players.generator.latent, generator=source).to(x)
        if number % (self.wanted.turns + 1) == 0:
            return self.players.generator_loss(z)
        share = torch.rand(len(x), generator=source).to(x)
        return self.players.critic_loss(x, z, share, self.wanted.penalty)


def _refuse_guide(classifier: nn.Module, part: Part, run: Run) -> None:
    """Raises UsageError unless the classifier returns logits for the images and their classes."""
    x = part[0][None].to(run.device)
    refuse_unusable(classifier, x)
    classes, most = classifier(x).shape[1], int(part.labels.max())
    if most >= classes:
        raise UsageError(
            f"a label of {most}, and the classifier knows {classes} classes (0 to {classes - 1}): "
            "give the one that was trained on this data"
        )


def _lesson(denoiser: EpsDenoiser, classifier: nn.Module | None, wanted: Finetuning) -> Lesson:
    """What a fine-tuning minimises of each image."""
    levels = denoiser.schedule.steps
    anywhere = lambda x, source: torch.randint(1, levels + 1, (len(x),), generator=source)
    if classifier is None or wanted.method == "clean":
        return lambda x, labels, source: noise_error(
            denoiser, x, anywhere(x, source), noise_of(source)(x, 0)
        )
    if wanted.method == "adbm":
        low, high = (max(1, round(top * levels / 1000)) for top in TOPS)
        bridge = ADBM(denoiser, classifier, wanted.eps, wanted.searched)

        def bridged(x: Tensor, labels: Tensor, source: Source) -> Tensor:
            top = torch.randint(low, high + 1, (1,), generator=source).expand(len(x))
            t = 1 + (torch.rand(len(x), generator=source) * top).long().clamp(max=top - 1)
            return bridge.error(x, labels, t, top, noise_of(source))

        return bridged
    make = ADDT if wanted.method == "addt" else Unranked
    error = make(denoiser, classifier, wanted.searched).error
    return lambda x, labels, source: error(x, labels, anywhere(x, source), noise_of(source))


def _taught(
    generative: Generative,
    module: nn.Module,
    loss: Callable[[int], Tensor],
    recipe: Recipe,
    run: Run,
    wanted: Learning | Playing | Finetuning,
    told: Mapping[str, str] | None = None,
) -> Generative:
    """Trains the module, of which the generator's network is a part; returns it frozen.

    Arguments:
        told: what else the weights depend on, by its sha256; a checkpoint of another is refused.
    """
    method = {"method": generative.kind} | asdict(wanted)
    trained: dict[str, Any] = {**method, "made": asdict(generative.made), **(told or {})}
    spent = learn(module, loss, recipe, run, {**trained, "before": list(generative.trainings)})
    history = {**method, "steps": recipe.steps, "seed": run.seed, "images": run.images, **spent}
    network = generative.network.eval().requires_grad_(False)
    return replace(generative, network=network, trainings=(*generative.trainings, history))


def _recipe(wanted: Learning | Playing | Finetuning) -> Recipe:
    warmup = min(100, wanted.steps // 10)
    return Recipe(wanted.steps, wanted.rate, warmup, decay=True, average=wanted.average)


def _check(
    wanted: Learning | Playing | Finetuning, made: Diffusion | WGAN, shape: tuple[int, int, int]
) -> None:
    """Raises UsageError where settings are impossible, or made for other images."""
    for name in ("steps", "batch"):
        at_least(name, getattr(wanted, name), 1)
    at_least("rate", wanted.rate, 0)
    share("average", wanted.average)
    for view in wanted.views:
        one_of("views", view, VIEWS)
    if tuple(made.shape) != shape:
        given, own = (" x ".join(map(str, sides)) for sides in (shape, made.shape))
        raise UsageError(
            f"images of {given}, for a generator of {own}: give it those, or build another"
        )


def _learnt(module: nn.Module) -> str:
    """The sha256 of all that a module has learnt."""
    tied_apart = {name: value.clone() for name, value in module.state_dict().items()}
    return _digest(store.tensors(tied_apart))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _examined(images: Images, run: Run) -> tuple[tuple[int, int, int], Run]:
    """The images' shape, and the run with their sha256 where it names no images.

    Raises DataError unless all are floats (C, H, W) in [0, 1] of one shape.
    """
    if not len(images):
        raise DataError("no images to learn from: expected one or more")
    digest, shape = hashlib.sha256(), tuple(images[0].shape)
    for i in range(len(images)):
        x = images[i]
        fits = x.is_floating_point() and x.ndim == 3 and tuple(x.shape) == shape
        if not (fits and float(x.min()) >= 0 and float(x.max()) <= 1):
            raise DataError(
                f"image {i} is {x.dtype} {tuple(x.shape)} from {float(x.min()):g} to "
                f"{float(x.max()):g}: expected floats (C, H, W) in [0, 1], as many as the others"
            )
        digest.update(x.contiguous().numpy().tobytes())
    channels, height, width = shape
    named = run if run.images else replace(run, images=digest.hexdigest())
    return (channels, height, width), named
