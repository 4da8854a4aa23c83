"""The classifiers by name."""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from ..errors import UsageError
from ..networks import Classifier, ClassifierA, ClassifierB, WideResNet

KINDS: dict[str, type[Classifier]] = {"a": ClassifierA, "b": ClassifierB, "wrn": WideResNet}

ALL: dict[str, Callable[..., Classifier]] = {
    **KINDS,
    "wrn-16-2": partial(WideResNet, depth=16, width=2),
    "wrn-28-10": partial(WideResNet, depth=28, width=10),
    "wrn-70-16": partial(WideResNet, depth=70, width=16),
}


def build(name: str, settings: Mapping[str, Any]) -> Classifier:
    """An untrained classifier by its name. Raises UsageError for an unknown name or setting."""
    maker = ALL.get(name.lower())
    if maker is None:
        raise UsageError(f"unknown classifier {name!r}: expected one of {', '.join(ALL)}")
    known = inspect.signature(maker).parameters
    if unknown := [setting for setting in settings if setting not in known]:
        raise UsageError(
            f"classifier {name}: unknown setting {unknown[0]!r}; there are {', '.join(known)}"
        )
    try:
        return maker(**settings)
    except TypeError as error:
        raise UsageError(f"classifier {name}: {error}") from error


def takes(name: str, setting: str) -> bool:
    """Whether the classifier of that name knows the setting."""
    return name.lower() in ALL and setting in inspect.signature(ALL[name.lower()]).parameters


def kind_of(classifier: Classifier) -> str:
    """The name under which its constructor is found again."""
    return next(name for name, kind in KINDS.items() if type(classifier) is kind)
