"""What a forward pass still holds when it is done, for the way back."""

import weakref
from collections.abc import Callable

import torch
from torch import Tensor


def held(function: Callable[[Tensor], Tensor], x: Tensor) -> int:
    """Bytes, each tensor once; what a search inside has let go again is not counted."""
    seen: list[weakref.ref[Tensor]] = []

    def keep(tensor: Tensor) -> Tensor:
        own = tensor.detach()
        seen.append(weakref.ref(own))
        return own

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        made = function(x.detach().requires_grad_())
    alive = [tensor for ref in seen if (tensor := ref()) is not None]
    assert made.requires_grad
    sizes = {tensor.data_ptr(): tensor.numel() * tensor.element_size() for tensor in alive}
    return sum(sizes.values())
