"""What the exact gradient through a long chain of a purifier costs, in memory and time.

    python benchmarks/chain.py [--shots 100]

DiffPure with a U-Net for colour images of 32 px, the sum of the purified images differentiated to
the images that came in; each call of the network is computed again on the way back, so that of it
nothing is kept but its input. Asked for: at most the peak of 3 steps and an image tensor for each
step, and at most 1.5 times the time of a forward and a backward pass of each step. Memory is what
torch's allocator hands out, as its profiler records it; times are taken in turn, and their
ratio is told with its spread, and that of the least of each, which others disturb least.
"""

import argparse
from collections.abc import Callable
from functools import partial
from statistics import median

import torch
from common import keep, load_average, seconds, spread
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from advrad.diffusion import EpsDenoiser, Linear, UNet
from advrad.noise import Fixed
from advrad.purifiers import diffpure

CHANNELS, SIDE, WIDTHS, IMAGES, DEPTH, FEW = 3, 32, (32, 64, 64), 4, 100, 3


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--shots", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=9)
    wanted = parser.parse_args()
    torch.manual_seed(0)
    denoiser = EpsDenoiser(UNet(CHANNELS, WIDTHS).eval().requires_grad_(False), Linear())
    x = torch.rand(IMAGES, CHANNELS, SIDE, SIDE)
    long, short = (partial(_gradient, denoiser, x, shots) for shots in (wanted.shots, FEW))
    room = {shots: _peak(work) for shots, work in ((wanted.shots, long), (FEW, short))}
    allowed = room[FEW] + wanted.shots * x.nbytes
    bare, times = [], []
    for _ in range(wanted.repeats):
        bare.append(seconds(lambda: [_pass(denoiser, x) for _ in range(wanted.shots)]))
        times.append(seconds(long))
    keep(
        "chain",
        {
            "images": IMAGES,
            "shots": wanted.shots,
            "widths": WIDTHS,
            "parameters": sum(p.numel() for p in denoiser.network.parameters()),
            "peak_mib": room[wanted.shots] / 2**20,
            "peak_mib_of_3_steps": room[FEW] / 2**20,
            "peak_to_what_is_allowed": room[wanted.shots] / allowed,
            "image_tensors_beyond_3_steps": (room[wanted.shots] - room[FEW]) / x.nbytes,
            "seconds": median(times),
            "to_forward_and_backward_of_each_step": spread(
                [ours / theirs for ours, theirs in zip(times, bare, strict=True)]
            ),
            "of_the_least_times": min(times) / min(bare),
            "load_average": load_average(),
        },
    )


def _gradient(denoiser: EpsDenoiser, x: Tensor, shots: int) -> None:
    leaf = x.clone().requires_grad_()
    purified = diffpure(denoiser, DEPTH, shots)(leaf, Fixed(0))
    torch.autograd.grad(purified.sum(), leaf)


def _pass(denoiser: EpsDenoiser, x: Tensor) -> None:
    leaf = x.clone().requires_grad_()
    torch.autograd.grad(denoiser(leaf, DEPTH).sum(), leaf)


def _peak(work: Callable[[], None]) -> int:
    """The most bytes that torch held at once beyond what it held before."""
    work()  # what is made once is there
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        work()
    assert found.profiler is not None
    events = [e for e in found.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


if __name__ == "__main__":
    main()
