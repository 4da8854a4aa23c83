"""Purifiers: images without what an attacker has put into them, `(x, noise) -> x`.

To add one: write a module beside these with a function that returns a `Purifier`, and name it
here.
"""

from collections.abc import Callable
from typing import Any

from ._surrogate import surrogate
from .adbm import adbm
from .base import Purifier
from .defensegan import defensegan
from .denoised import denoised
from .diffdefense import diffdefense
from .diffpure import diffpure
from .guided import agdm, gdmp
from .sde import ode, sde

__all__ = [
    "ALL",
    "Purifier",
    "adbm",
    "agdm",
    "defensegan",
    "denoised",
    "diffdefense",
    "diffpure",
    "gdmp",
    "ode",
    "sde",
    "surrogate",
]

ALL: dict[str, Callable[..., Any]] = {
    "adbm": adbm,
    "agdm": agdm,
    "defensegan": defensegan,
    "denoised": denoised,
    "diffdefense": diffdefense,
    "diffpure": diffpure,
    "gdmp": gdmp,
    "ode": ode,
    "sde": sde,
}
