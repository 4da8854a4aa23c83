"""A training of a second, to be interrupted; run as a script, it goes on from its checkpoint.

python trainings.py CHECKPOINT     prints the number and the exact loss of every step
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from advrad.diffusion import EpsDenoiser, Linear, Recipe, Step, UNet, train
from advrad.diffusion.batches import DrawnLoss
from advrad.diffusion.checkpoint import Checkpoint

STEPS = 60
RECIPE = Recipe(STEPS, rate=1e-2, warmup=5, decay=True, average=0.9)


def tiny() -> EpsDenoiser:
    """A denoiser with the memory layout of a real one."""
    torch.manual_seed(7)
    network = UNet(1, (8, 16), attention=(1,)).to(memory_format=torch.channels_last)
    return EpsDenoiser(network, Linear())


def images() -> Tensor:
    return torch.rand(7, 1, 8, 8, generator=torch.Generator().manual_seed(3))


def tiny_training(
    module: EpsDenoiser, checkpoint: Checkpoint | None = None, recipe: Recipe = RECIPE
) -> Iterator[Step]:
    loss = DrawnLoss(module, images(), 2, (1, 300), ("flips",), seed=5)
    return train(module, loss, recipe, checkpoint)


def weights(module: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in module.parameters()]


def equal(one: list[Tensor], other: list[Tensor]) -> bool:
    """Whether all are the same, bit by bit."""
    return len(one) == len(other) and all(map(torch.equal, one, other))


def main(path: str) -> None:
    torch.set_num_threads(1)
    for step in tiny_training(tiny(), Checkpoint(Path(path), "tiny", seconds=0.0)):
        print(step.number, step.loss.hex(), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
