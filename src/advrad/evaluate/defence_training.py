"""The folders of trained classifiers and generators: taken or free, interrupted or finished."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from .. import classifiers
from ..checks import typed
from ..classifiers import Training
from ..data.labelled import Labelled, Part, limited
from ..diffusion.run import Progress, Run
from ..errors import UsageError
from ..purifiers.stored import KINDS, WGAN, Diffusion, Generative
from ..purifiers.training import (
    Finetuning,
    Learning,
    Playing,
    finetune,
    train_diffusion,
    train_wgan,
)
from .training_folder import alone, refuse_taken

Report = Callable[[Progress], None]
HOW: dict[str, type[Learning] | type[Playing]] = {"diffusion": Learning, "wgan": Playing}


ATTACKED = ("fgsm", "pgd", "trades")
USED: dict[str, tuple[str, ...]] = {
    "norm": ATTACKED,
    "eps": ATTACKED,
    "growth": ATTACKED,
    "attack": ATTACKED[1:],
    "beta": ATTACKED[2:],
}  # settings of a training, and the losses under which they matter


@dataclass(frozen=True)
class Circumstances:
    """What a training is done under, and no property of its result.

    Arguments:
        folder: of the model.
        seed: of weights, batches and noise.
        device: where it runs.
        resume, overwrite: what may become of what lies there.
        limit: at most so many training images, as many of each class.
        report: told of every step.
    """

    folder: Path
    seed: int = 0
    device: str = "cpu"
    resume: bool = False
    overwrite: bool = False
    limit: int | None = None
    report: Report = field(default=lambda progress: None)

    def checked(self) -> "Circumstances":
        """Itself; raises UsageError where the folder is taken."""
        refuse_taken(self.folder, resume=self.resume, overwrite=self.overwrite)
        return self

    @property
    def run(self) -> Run:
        """As the trainings take it."""
        return Run(
            self.seed,
            folder=self.folder / "training",
            resume=self.resume,
            report=self.report,
            device=self.device,
        )

    def part(self, part: Part) -> Part:
        """The images to train on."""
        return part if self.limit is None else limited(part, self.limit)


def train_classifier(
    data: Labelled, wanted: Training, under: Circumstances, batch: int = 500
) -> dict[str, Any]:
    """Trains a classifier, measures it on the test part, saves it, and says what it is.

    Raises UsageError where the folder is taken or a setting impossible, and what the training
    raises.
    """
    under.checked()
    wanted.check()
    learnt = replace(data, train=under.part(data.train))
    with alone(under.folder):
        trained = classifiers.train(learnt, wanted, under.run)
        found = classifiers.accuracy(trained.classifier, data.test, batch, under.device)
        about = {
            "data": data.name,
            "images": len(learnt.train),
            **asdict(wanted),
            "seed": under.seed,
            "test_accuracy": {"value": found.value, "low": found.low, "high": found.high},
            "test_images": found.total,
            "cost": trained.cost,
        }
        classifiers.save(under.folder, trained.classifier.cpu(), about)
    return {"model": str(under.folder), **about}


def train_generator(
    data: Labelled, kind: str, settings: dict[str, Any], under: Circumstances
) -> dict[str, Any]:
    """Trains a diffusion model or a WGAN of the data's images, and saves it; raises as above."""
    if kind not in KINDS:
        raise UsageError(f"kind {kind!r}: expected one of {', '.join(KINDS)}")
    under.checked()
    built, how = sorted_out(settings, KINDS[kind], HOW[kind])
    made = typed(KINDS[kind], {"shape": data.shape, **built})
    wanted = typed(HOW[kind], how)
    part = under.part(data.train)
    with alone(under.folder):
        if isinstance(made, WGAN):
            assert isinstance(wanted, Playing)
            found = train_wgan(part, made, wanted, under.run)
        else:
            assert isinstance(made, Diffusion)
            assert isinstance(wanted, Learning)
            found = train_diffusion(part, made, wanted, under.run)
        return _saved(found, data.name, under)


def finetune_generator(
    generative: Generative,
    data: Labelled,
    classifier: nn.Module | None,
    wanted: Finetuning,
    under: Circumstances,
) -> dict[str, Any]:
    """Goes on with a diffusion model under another loss, and saves the result elsewhere."""
    under.checked()
    part = under.part(data.train)
    with alone(under.folder):
        found = finetune(generative, part, classifier, wanted, under.run)
        return _saved(found, data.name, under)


def classifier_training(network: str, loss: str, settings: dict[str, Any]) -> Training:
    """The training that settings ask for: what it has no field for belongs to the network.

    Raises UsageError where one is impossible, or of no use under this loss.
    """
    names = Training.__dataclass_fields__
    own = {name: value for name, value in settings.items() if name in names}
    rest = {name: value for name, value in settings.items() if name not in names}
    wanted = typed(Training, {"network": network, "loss": loss, "settings": rest} | own)
    wanted.check()
    for name in own:
        if name in USED and loss not in USED[name]:
            raise UsageError(
                f"loss={loss} makes no use of {name}: leave it out, or train by "
                f"{' or '.join(USED[name])}"
            )
    return wanted


def finetuning(method: str, settings: dict[str, Any]) -> Finetuning:
    """The fine-tuning that settings ask for. Raises UsageError for an unknown one."""
    [own] = sorted_out(settings, Finetuning)
    return typed(Finetuning, {"method": method} | own)


def sorted_out(settings: dict[str, Any], *kinds: type) -> list[dict[str, Any]]:
    """The settings, each with the kind whose field it is. Raises UsageError for an unknown one."""
    fields = [list(kind.__dataclass_fields__) for kind in kinds]  # type: ignore[attr-defined]
    known = [name for names in fields for name in names if name != "shape"]
    for name in settings:
        if name not in known:
            raise UsageError(f"unknown setting {name!r}: there are {', '.join(known)}")
    return [{k: v for k, v in settings.items() if k in names} for names in fields]


def _saved(found: Generative, data: str, under: Circumstances) -> dict[str, Any]:
    *before, last = found.trainings
    named = {**last, "data": data}
    made = replace(found, network=found.network.cpu(), trainings=(*before, named))
    made.save(under.folder)
    return {"model": str(under.folder), "kind": made.kind, "shape": list(made.shape), **named}
