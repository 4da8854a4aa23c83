"""An exponential average of weights that does not remember how they were initialised.

The decay grows with the number of updates, min(decay, (1 + n) / (10 + n)), so that early weights
fade even in a short training; at the plain rate 0.9999, thirty thousand steps would keep 5 % of
the initial ones.
"""

import torch
from torch import Tensor, nn


class Average:
    """The average of a module's parameters; `update` after every step of training."""

    def __init__(self, module: nn.Module, decay: float = 0.999) -> None:
        self.decay, self.updates = decay, 0
        self.values = {name: p.detach().clone() for name, p in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Takes the module's present parameters in."""
        self.updates += 1
        weight = 1 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        parameters: list[Tensor] = [p.detach() for _, p in module.named_parameters()]
        torch._foreach_lerp_(list(self.values.values()), parameters, weight)

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        """Overwrites the module's parameters by their average."""
        for name, parameter in module.named_parameters():
            parameter.copy_(self.values[name])
