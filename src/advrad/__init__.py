"""advrad: visual inspection that holds under attack.

From photographs of good parts alone it learns to find defects; and it says what an adversary
could do to its verdicts. The names below are loaded when they are first used, so that importing
the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "AdvRAD": "detectors",
    "Model": "model",
    "data": "data",
    "evaluate": "evaluate",
    "load": "model",
    "predict": "evaluate",
    "train": "evaluate",
}

__all__ = ["AdvRAD", "Model", "__version__", "data", "evaluate", "load", "predict", "train"]


if TYPE_CHECKING:
    from . import data, evaluate
    from .detectors import AdvRAD
    from .evaluate import predict, train
    from .model import Model, load
else:

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module 'advrad' has no attribute {name!r}")
        home = import_module(f".{_HOMES[name]}", __name__)
        return home if name == _HOMES[name] else getattr(home, name)
