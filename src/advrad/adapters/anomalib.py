"""Models of anomalib, as detectors that can be attacked (https://github.com/open-edge-platform/anomalib).

Three things stand between an attacker and these models. The displayed score is normalised and
clamped to [0, 1], where its gradient is zero: the raw one is taken. Most of them run their
backbone under `no_grad`: it is opened. And a patch that equals one of the memory bank is at
distance zero, where the gradient is not a number: it becomes zero, and is counted.

anomalib itself is imported only to read a checkpoint.
"""

import inspect
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..errors import ModelError, UsageError
from .module import ModuleDetector
from .opened import Opened

JOINED = {"Cflow", "CflowModel"}  # they scale a map by the maximum over the batch


def from_anomalib(
    model: nn.Module | str | Path,
    kind: str | None = None,
    *,
    size: int | None = None,
    **settings: Any,
) -> ModuleDetector:
    """The model as a detector with its raw score; `detector.module.found` says what was opened.

    Arguments:
        model: a fitted model of anomalib, its inner torch model, or the path of a checkpoint
            (.ckpt) that its engine has written. An inner model has no pre-processing: it gets
            images in [0, 1] as they are.
        kind: the name of a checkpoint's class, such as "Patchcore"; the file does not hold it.
        size: the side of the images that are attacked; that of the model's own pre-processing by
            default. Where they differ, the model resizes inside, as it does in use.
        settings: constructor arguments that override those of a checkpoint.

    Raises UsageError for anything else, or where the size cannot be known; ModelError for a
    checkpoint that cannot be read.
    """
    if isinstance(model, str | Path):
        model = _read(Path(model), kind, settings)
    if not isinstance(model, nn.Module):
        raise UsageError(
            f"{type(model).__name__}: expected a model of anomalib, its torch model, or the path "
            "of a checkpoint"
        )
    opened = Opened(_Raw(model))
    alone = opened.kind in JOINED
    return ModuleDetector(opened, _picked, size=size or _size(model), alone=alone)


class _Raw(nn.Module):
    """Pre-processing and network, without the post-processor's threshold, scale and clamp."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.kind = type(model).__name__
        before = getattr(model, "pre_processor", None)
        # the engine's transform; calling the pre-processor gives the one made for export
        self.before: Any = getattr(before, "transform", None) or before or nn.Identity()
        self.network: Any = model.model if hasattr(model, "pre_processor") else model

    def forward(self, x: Tensor) -> Any:
        return self.network(self.before(x))


def _picked(output: Any) -> tuple[Any, Any]:
    """Score (B,) and map of an `InferenceBatch`; without a score, the map's maximum is one."""
    if not hasattr(output, "pred_score"):
        raise UsageError(
            f"the model returned a {type(output).__name__}: expected anomalib's InferenceBatch "
            "with pred_score and anomaly_map"
        )
    score, places = output.pred_score, output.anomaly_map
    if score is None and places is not None:
        score = places.flatten(1).amax(1)
    if isinstance(score, Tensor) and score.ndim > 1 and score.numel() == len(score):
        score = score.flatten()
    return score, places


def _size(model: nn.Module) -> int:
    """The side that the model's own pre-processing resizes to."""
    known = getattr(model, "input_size", None)
    sides = set(known) if known is not None else set()
    if len(sides) != 1:
        raise UsageError(
            f"the model's own pre-processing gives no square size ({known}): say size=256, or "
            "whatever the images are to be"
        )
    return int(sides.pop())


def _read(path: Path, kind: str | None, settings: dict[str, Any]) -> nn.Module:
    if path.suffix != ".ckpt":
        raise UsageError(
            f"{path}: expected a checkpoint (.ckpt). An exported model (.pt) is a pickle, which "
            "may run any code: if you trust it, load it yourself and give the object"
        )
    if not path.is_file():
        raise ModelError(f"{path}: there is no such checkpoint")
    made = _class(path, kind)
    if "pre_trained" in inspect.signature(made).parameters:
        settings = {"pre_trained": False} | settings  # the weights are in the checkpoint
    try:
        return made.load_from_checkpoint(path, map_location="cpu", **settings)
    except Exception as error:
        raise ModelError(f"{path} is no checkpoint of {kind}: {error}") from error


def _class(path: Path, kind: str | None) -> Any:
    try:
        from anomalib import models
    except ImportError as error:
        raise UsageError(
            f"{path}: reading it needs anomalib, which cannot be imported here ({error}): "
            "run  pip install anomalib"
        ) from error
    made = getattr(models, kind or "", None)
    if not hasattr(made, "load_from_checkpoint"):
        raise UsageError(
            f"{path}: expected the name of the model's class, such as kind='Patchcore'; "
            f"given: {kind!r}"
        )
    return made
