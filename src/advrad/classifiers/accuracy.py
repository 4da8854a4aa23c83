"""How often a classifier is right."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..data.labelled import Part
from ..metrics import Rate, rate


@torch.no_grad()
def right(
    classify: Callable[[Tensor], Tensor], part: Part, batch: int = 500, device: str = "cpu"
) -> Tensor:
    """Whether the largest logit is the label's, image by image, (N,) bool.

    A logit that is no number is never right.
    """
    found = []
    for x, y in part.batches(batch):
        logits = classify(x.to(device)).cpu()
        found.append((logits.argmax(1) == y) & ~logits.isnan().any(1))
    return torch.cat(found)


def accuracy(
    classify: Callable[[Tensor], Tensor], part: Part, batch: int = 500, device: str = "cpu"
) -> Rate:
    """How many of the images are right, with the exact 95 % interval."""
    hits = right(classify, part, batch, device)
    found = rate(int(hits.sum()), len(hits))
    assert found is not None  # a part has images
    return found
