"""Mean and standard deviation of many maps, which are never held at once."""

import torch
from torch import Tensor


class Moments:
    """Sums in float64, so that the order and the size of the batches do not show."""

    def __init__(self) -> None:
        self.count = 0
        self.total = self.squares = torch.zeros((), dtype=torch.float64)

    def add(self, batch: Tensor) -> None:
        """Takes (B, ...) in."""
        values = batch.double().cpu()
        self.count += len(values)
        self.total = self.total + values.sum(0)
        self.squares = self.squares + values.square().sum(0)

    def mean(self) -> Tensor:
        """(...) in float32."""
        return (self.total / self.count).float()

    def spread(self) -> Tensor:
        """The standard deviation, (...) in float32; 0 of a single map."""
        mean = self.total / self.count
        return (self.squares / self.count - mean.square()).clamp_min(0).sqrt().float()
