"""What a fit costs in floating-point operations.

Counted are products of matrices and convolutions, forward and backward, by the formulas of
`torch.utils.flop_counter`: two operations for a multiplication with its addition. Of many equal
steps or batches the first one is counted, times their number; so counting costs next to no time.
"""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from .run import Run

Done = TypeVar("Done")


def told(run: Run, work: Callable[[], Done], times: float = 1.0) -> Done:
    """What the work returns; the run is told its operations, so many times.

    Where it returns None there was nothing to count, and the run is told that by NaN.
    """
    if run.count is None:
        return work()
    with Counter() as counter:
        done = work()
    run.count(times * counter.flop if done is not None else math.nan)
    return done


class Counter(TorchDispatchMode):
    """Adds up the operations of what is computed inside, `flop`."""

    def __init__(self) -> None:
        super().__init__()
        from torch.utils.flop_counter import flop_registry  # takes a second

        vector = {torch.ops.aten.mv: lambda a, b, **rest: 2 * a.numel()}
        self.flop, self.known = 0, flop_registry | vector

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if func._overloadpacket in self.known:
            self.flop += self.known[func._overloadpacket](*args, **(kwargs or {}), out_val=found)
        return found
