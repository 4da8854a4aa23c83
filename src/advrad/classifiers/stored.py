"""A classifier on disk: a folder of plain files under one manifest, as every model is.

`config.json` names the network and its settings, `model.safetensors` holds the weights,
`about.json` says what it was trained on and how, `README.md` the same for people.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import __version__, store
from ..errors import ModelError, UsageError
from ..files import as_given
from ..networks import Classifier
from .named import build, kind_of

COMMAND = "advrad purify train-classifier"


def save(folder: str | Path, classifier: Classifier, about: Mapping[str, Any] = {}) -> None:
    """Writes the folder, whole or not at all; `about` are plain values for people."""
    config = {"classifier": kind_of(classifier), "params": classifier.params}
    files = {
        "config.json": store.dump(config),
        "model.safetensors": store.tensors(classifier.state_dict()),
        "about.json": store.dump({"advrad": __version__, **about}),
        "README.md": _card(classifier, about).encode(),
    }
    store.replace(Path(folder), files)


def load(folder: str | Path) -> Classifier:
    """The classifier in a folder, verified, ready to use, its weights frozen.

    Raises ModelError where there is none, where it is damaged, or where it is something else.
    """
    files = store.finished(Path(folder), "classifier", COMMAND)
    config = store.read_json(files, "config.json")
    if "classifier" not in config:
        known = {"detector": "a detector of defects", "generator": "a generator"}
        what = next((words for key, words in known.items() if key in config), "another model")
        raise ModelError(f"{folder} holds {what}, no classifier: expected a folder of `{COMMAND}`")
    try:
        classifier = build(config["classifier"], config["params"])
    except (AttributeError, KeyError, TypeError, UsageError, ValueError) as error:
        raise ModelError(
            f"{folder}: config.json names no classifier of this advrad: {error}"
        ) from error
    state = store.read_tensors(files)
    try:
        classifier.load_state_dict(state)
    except RuntimeError as error:
        raise ModelError(
            f"{folder}: the weights do not fit config.json ({error}); copy the model again"
        ) from error
    return classifier.eval().requires_grad_(False)


def about(folder: str | Path) -> dict[str, Any]:
    """What is known of the classifier in a folder. Raises ModelError as `load` does."""
    return store.read_json(store.finished(Path(folder), "classifier", COMMAND), "about.json")


def _card(classifier: Classifier, about: Mapping[str, Any]) -> str:
    channels, height, width = classifier.shape
    rows = "\n".join(f"| {name} | {as_given(value)} |" for name, value in about.items())
    return f"""# A classifier

`{type(classifier).__name__}` with {sum(p.numel() for p in classifier.parameters()):,} parameters,
made by advrad {__version__}. Images of {channels} x {height} x {width} in [0, 1], without
normalisation, give {classifier.classes} logits.

| what | value |
|---|---|
{rows}
"""
