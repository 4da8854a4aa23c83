"""Attacks: (objective, x, ball, ...) -> x. They know functions and tensors, nothing else.

`transfer` also needs another objective. `minimal`, `fab`, `deepfool` and `elasticnet` take a
threshold and return the radii as well.
"""

from collections.abc import Callable
from typing import Any

from .apgd import apgd
from .ball import BALLS, L1, L2, Ball, Linf, Patch
from .deepfool import deepfool
from .elasticnet import elasticnet
from .fab import fab
from .fgsm import fgsm
from .minimal import Smallest, minimal
from .objective import Aim, Drawn, Noises, Objective, bpda, eot
from .pgd import pgd
from .spsa import spsa
from .square import square
from .transfer import transfer

__all__ = [
    "ALL",
    "BALLS",
    "L1",
    "L2",
    "Aim",
    "Ball",
    "Drawn",
    "Linf",
    "Noises",
    "Objective",
    "Patch",
    "Smallest",
    "apgd",
    "bpda",
    "deepfool",
    "elasticnet",
    "eot",
    "fab",
    "fgsm",
    "minimal",
    "pgd",
    "spsa",
    "square",
    "transfer",
]

ALL: dict[str, Callable[..., Any]] = {
    "fgsm": fgsm,
    "pgd": pgd,
    "apgd": apgd,
    "square": square,
    "spsa": spsa,
    "transfer": transfer,
    "minimal": minimal,
    "fab": fab,
    "deepfool": deepfool,
    "elasticnet": elasticnet,
}
