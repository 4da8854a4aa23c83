"""Models of anomalib with untrained backbones, fitted on a few made images; nothing is fetched."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

import timm
import torch
import torchvision
from anomalib import models
from torch import Tensor, nn
from toys import good

SIZE = 64
SMALL: dict[str, Any] = {"backbone": "resnet18"}


def images() -> Tensor:
    """Good images (8, 3, SIZE, SIZE) to learn from."""
    return good(8, 3, SIZE)


def judged() -> tuple[Tensor, Tensor]:
    """Good images and defective ones that were not learnt from, both (4, 3, SIZE, SIZE)."""
    others = good(8, 3, SIZE, seed=1)
    defective = others[4:].clone()
    colour = torch.tensor([0.9, 0.1, 0.8])[:, None, None]
    place = defective[:, :, 20:34, 26:38]  # a stain keeps its grain, for a flat one has no slope
    place.copy_(colour + 0.2 * (place - place.mean((-2, -1), keepdim=True)))
    return others[:4], defective.clamp(0, 1)


def make(name: str, **settings: Any) -> Any:
    """The model by its class name, for images of SIZE."""
    kind = getattr(models, name)
    with _untrained():
        return kind(**SMALL, **settings, pre_processor=kind.configure_pre_processor((SIZE, SIZE)))


def patchcore() -> Any:
    model = make("Patchcore", pre_trained=False, coreset_sampling_ratio=1.0)
    _remember(model)
    model.model.subsample_embedding(1.0)
    return model.eval()


def padim() -> Any:
    model = make("Padim", pre_trained=False, n_features=20)
    _remember(model)
    model.model.fit()
    return model.eval()


def cfa() -> Any:
    model = make("Cfa")
    x = model.pre_processor.transform(images())
    model.model.initialize_centroid([SimpleNamespace(image=x)])
    return _trained(model, model.model.parameters(), lambda: model.loss(model.model(x)))


def fastflow() -> Any:
    model = make("Fastflow", pre_trained=False, flow_steps=2)
    x = model.pre_processor.transform(images())
    return _trained(model, model.model.parameters(), lambda: model.loss(*model.model(x)))


def stfpm() -> Any:
    model = make("Stfpm")
    x = model.pre_processor.transform(images())
    return _trained(
        model, model.model.student_model.parameters(), lambda: model.loss(*model.model(x))
    )


def reverse_distillation() -> Any:
    model = make("ReverseDistillation", pre_trained=False)
    x = model.pre_processor.transform(images())
    return _trained(model, model.model.parameters(), lambda: model.loss(*model.model(x)))


def cflow() -> Any:
    return make("Cflow", pre_trained=False, coupling_blocks=2).eval()  # its flow is not trained


FITTED = {
    "Patchcore": patchcore,
    "Padim": padim,
    "Cfa": cfa,
    "Fastflow": fastflow,
    "Stfpm": stfpm,
    "ReverseDistillation": reverse_distillation,
    "Cflow": cflow,
}


def _remember(model: Any) -> None:
    model.model.train()
    model.model(model.pre_processor.transform(images()))


def _trained(model: Any, parameters: Any, loss: Any, steps: int = 20) -> Any:
    model.train()
    optimiser = torch.optim.Adam([p for p in parameters if p.requires_grad], lr=1e-3)
    for _ in range(steps):
        optimiser.zero_grad()
        loss().backward(retain_graph=True)  # as CFA wants it: its radius is a graph of its own
        optimiser.step()
    return model.eval()


@contextmanager
def _untrained() -> Iterator[None]:
    """Keeps two models from fetching weights of ImageNet, whatever they are told."""
    create = timm.create_model

    def untrained(name: str, *given: Any, **named: Any) -> nn.Module:
        return create(name, *given, **named | {"pretrained": False})

    none = mock.Mock(return_value=SimpleNamespace(DEFAULT=None))
    with (
        mock.patch.object(timm, "create_model", untrained),
        mock.patch.object(torchvision.models, "get_model_weights", none),
    ):
        yield
