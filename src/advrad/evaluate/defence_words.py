"""A purifier in words: `diffpure depth=100 shots=5 generator=DIR`, as a person asks for it.

The first word names the purifier, `none` for no defence. The others are settings of its maker, or
one of these: `generator=DIR`, the trained model that it stands on; `classifier=DIR`, another
classifier behind it; `guide=DIR`, the classifier that guides it (AGDM), without which it is the
defended one; `label=NAME`, its name in tables;
`coarse.shots=2` and the like, what is different in the coarser purifier of the mode `surrogate`.
"""

import inspect
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from torch import nn

from .. import classifiers
from ..checks import nearest
from ..diffusion import Schedule
from ..diffusion.steps import ALL as STEPS
from ..errors import UsageError
from ..files import sha256
from ..purifiers import ALL, Purifier
from ..purifiers._chain import PUBLISHED, published
from ..purifiers.stored import Generative
from ..purifiers.stored import load as load_generative
from ..store import MANIFEST
from .defence_modes import Defence

NONE = "none"
CARRIED = "denoised"  # for images that carry noise already, which nothing here puts there
NAMES = [NONE, *(name for name in ALL if name != CARRIED)]
FOLDERS, LABEL, COARSE = ("generator", "guide", "classifier"), "label", "coarse."
GIVEN = ("denoiser", "generator", "classifier")  # arguments that are no plain values


@dataclass(frozen=True)
class Wanted:
    """A purifier that was asked for.

    Arguments:
        name: in the table of purifiers, or `none`.
        label: its name in tables.
        settings: of its maker.
        coarse: those that differ in the coarser purifier; none for no such purifier.
        generator, guide, classifier: folders, where they are given.
    """

    name: str
    label: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    coarse: Mapping[str, Any] = field(default_factory=dict)
    generator: Path | None = None
    guide: Path | None = None
    classifier: Path | None = None


def read(words: str, generator: Path | None = None) -> Wanted:
    """What the words ask for, on the generator where they name none.

    Raises UsageError for an unknown purifier or setting, with the nearest name, for a value of the
    wrong type, and for `denoised`, whose images carry noise that nothing here puts there.
    """
    name, *rest = _split(words)
    if name == CARRIED:
        raise UsageError(
            f"the purifier {CARRIED} is for images that carry Gaussian noise already, as a "
            "certificate's do, and nothing puts it there: 'diffpure depth=K shots=1' puts noise "
            "in and takes it out in one step"
        )
    if name not in NAMES:
        raise UsageError(f"unknown purifier {name!r}: {nearest(name, NAMES)}")
    found: dict[str, Any] = {"settings": {}, "coarse": {}, "generator": generator}
    for word in rest:
        key, equals, value = word.partition("=")
        if not equals:
            raise UsageError(f"purifier {words!r}: {word}: expected name=value")
        if key in FOLDERS:
            found[key] = Path(value)
        elif key == LABEL:
            if not value.strip():
                raise UsageError(f"purifier {words!r}: {LABEL}=: expected a name for tables")
            found[key] = value
        else:
            kind, own = ("coarse" if key.startswith(COARSE) else "settings"), key
            found[kind][own.removeprefix(COARSE)] = _fitting(name, own.removeprefix(COARSE), value)
    return Wanted(name, found.pop(LABEL, words), **found)


def made(wanted: Wanted, classifier: nn.Module | None, device: str = "cpu") -> Purifier | None:
    """The purifier, None for `none`. Raises UsageError where something is missing, ModelError for
    a generator or guide that cannot be loaded, and what its maker raises."""
    return _made(wanted, wanted.settings, classifier, device)


def defence(wanted: Wanted, classifier: nn.Module, device: str = "cpu") -> Defence:
    """The classifier behind the purifier, its own where it has one; raises as `made` does, and
    UsageError where purifier and classifier take images of other shapes."""
    if wanted.classifier is not None:
        classifier = classifiers.load(wanted.classifier).to(device)
    _refuse_other_images(wanted, classifier)
    coarse = None
    if wanted.coarse:
        settings = {**wanted.settings, **wanted.coarse}
        coarse = _made(wanted, settings, classifier, device)
    return Defence(classifier, made(wanted, classifier, device), coarse, _record(wanted))


def defences(
    wanted: Sequence[Wanted], classifier: nn.Module, device: str = "cpu"
) -> dict[str, Defence]:
    """The classifier behind each of the purifiers, by its label. Raises UsageError for a label
    that occurs twice, and as `made` does."""
    labels = [each.label for each in wanted]
    if len(set(labels)) < len(labels):
        raise UsageError(f"purifiers {labels}: two have one name, give one a label=NAME")
    return {each.label: defence(each, classifier.to(device), device) for each in wanted}


def purifier_of(wanted: Wanted, device: str = "cpu") -> tuple[Purifier, tuple[int, int, int]]:
    """The purifier, and the shape (C, H, W) of the images that it takes; raises as `made` does."""
    purify = made(wanted, None, device)
    if purify is None:
        raise UsageError("the purifier none leaves images as they are: expected another")
    return purify, generative(wanted).shape


def generative(wanted: Wanted) -> Generative:
    """The trained model that the purifier stands on; raises as `made` does."""
    if wanted.generator is None:
        raise UsageError(
            f"the purifier {wanted.name} stands on a trained model: name its folder with "
            "--generator, or generator=DIR among its settings"
        )
    return _loaded(wanted.generator)


def meant(wanted: Wanted) -> float | None:
    """The noise that the purifier puts in, for images in [0, 1]; None where it puts in none, and
    for a depth that is impossible, which `made` refuses."""
    if wanted.name == NONE:
        return None
    parameters = inspect.signature(ALL[wanted.name]).parameters
    if not {"denoiser"} & set(parameters):
        return None
    schedule: Schedule = generative(wanted).denoiser.schedule
    values = {name: each.default for name, each in parameters.items()} | dict(wanted.settings)
    depth = schedule.of_time(values["time"]) if "time" in values else values.get("depth")
    if depth is None and wanted.name in PUBLISHED:
        depth = published(wanted.name, schedule)
    if not isinstance(depth, int) or not 0 <= depth <= schedule.steps:
        return None
    return schedule.sigma(depth) / 2


def folders(wanted: Wanted) -> dict[str, Path]:
    """The folders that the defence is made of, by what each is."""
    named = {name: getattr(wanted, name) for name in FOLDERS}
    return {
        name: folder
        for name, folder in named.items()
        if folder is not None and (wanted.name != NONE or name == "classifier")
    }


def in_words(wanted: Wanted) -> str:
    """`diffpure depth=100: noise of 0.17 for images in [0, 1]`."""
    noise = meant(wanted)
    told = "" if noise is None else f": noise of {noise:.3g} for images in [0, 1]"
    return f"{wanted.label}{told}"


def _made(
    wanted: Wanted, settings: Mapping[str, Any], classifier: nn.Module | None, device: str
) -> Purifier | None:
    if wanted.name == NONE:
        return None
    maker = ALL[wanted.name]
    parameters = inspect.signature(maker).parameters
    values: dict[str, Any] = dict(settings)
    for name, each in parameters.items():
        if name in GIVEN:
            values[name] = _given(name, wanted, classifier, device)
        elif each.default is each.empty and name not in values:
            raise UsageError(f"the purifier {wanted.name} needs {name}=: give it a value")
    if "step" in values:
        values["step"] = STEPS[values["step"]]
    purifier: Purifier = maker(**values)
    return purifier


def _refuse_other_images(wanted: Wanted, classifier: nn.Module) -> None:
    """Raises UsageError where what the purifier stands on is for images of another shape."""
    expected = getattr(classifier, "shape", None)
    if wanted.name == NONE or expected is None:
        return
    shapes = {"model": generative(wanted).shape}
    if wanted.guide is not None:
        shapes["guide"] = classifiers.load(wanted.guide).shape
    for what, shape in shapes.items():
        if tuple(shape) != tuple(expected):
            raise UsageError(
                f"{wanted.label}: the purifier's {what} is for images of {_sides(shape)}, and the "
                f"classifier's are {_sides(expected)} (channels x height x width): name one that "
                "was trained for these"
            )


def _sides(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _given(name: str, wanted: Wanted, classifier: nn.Module | None, device: str) -> nn.Module:
    if name == "denoiser":
        return generative(wanted).denoiser.to(device)
    if name == "generator":
        return generative(wanted).generator.to(device)
    if wanted.guide is not None:
        return classifiers.load(wanted.guide).to(device)
    if classifier is None:
        raise UsageError(f"the purifier {wanted.name} is guided by a classifier: give guide=DIR")
    return classifier


@cache
def _loaded(folder: Path) -> Generative:
    return load_generative(folder)


def _record(wanted: Wanted) -> tuple[tuple[str, object], ...]:
    """What the defence is made of; of folders what is in them, not where they lie."""
    record: dict[str, object] = {"purifier": wanted.name, **wanted.settings}
    record |= {f"{COARSE}{name}": value for name, value in wanted.coarse.items()}
    record |= {name: sha256(folder / MANIFEST) for name, folder in folders(wanted).items()}
    return tuple(record.items())


def _split(words: str) -> list[str]:
    try:
        found = shlex.split(words)
    except ValueError as error:
        raise UsageError(f"purifier {words!r}: expected a name and settings ({error})") from error
    if not found:
        known = nearest("", NAMES)
        raise UsageError(f"purifier {words!r}: expected a name and settings; {known}")
    return found


def _fitting(name: str, setting: str, text: str) -> Any:
    """The value of a setting, of the type that the purifier's maker expects."""
    known: dict[str, Any] = {}
    if name != NONE:
        parameters = inspect.signature(ALL[name], eval_str=True).parameters
        known = {key: each.annotation for key, each in parameters.items() if key not in GIVEN}
    if setting not in known:
        others = [*known, *FOLDERS, LABEL]
        raise UsageError(f"purifier {name}: unknown setting {setting}; {nearest(setting, others)}")
    if setting == "step":
        if text not in STEPS:
            raise UsageError(f"purifier {name}: step={text}: expected one of {', '.join(STEPS)}")
        return text
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    try:
        return TypeAdapter(known[setting]).validate_python(value, strict=True)
    except ValidationError as error:
        why = error.errors()[0]["msg"]
        raise UsageError(
            f"purifier {name}: {setting}={text}: {why[0].lower()}{why[1:]}"
        ) from error
