"""A gradient that touches no other, and that can be differentiated again."""

from collections.abc import Callable

import torch
from torch import Tensor


def slope(error: Callable[[Tensor], Tensor], z: Tensor, *others: Tensor) -> Tensor:
    """The gradient of the sum of error(z) with respect to z, shaped like z.

    It can itself be differentiated where z or one of the others, on which the error depends too,
    is. No other gradient is touched.
    """
    wanted = any(tensor.requires_grad for tensor in (z, *others))
    differentiable = wanted and torch.is_grad_enabled()
    with torch.enable_grad():
        z = z if differentiable and z.requires_grad else z.detach().requires_grad_()
        (found,) = torch.autograd.grad(error(z).sum(), z, create_graph=differentiable)
    return found
