"""What an attack costs beyond the detector itself, as ratios in one run.

    python benchmarks/attack.py [--rounds 9]

- gradient evaluations a second of PGD against those of a bare loop of forward and backward passes
  on the same batch, in turns; asked for: within 10 %;
- the most memory that one call of `eot` holds above its start, for 1, 4 and 16 draws of a batch;
  asked for: it does not grow.
"""

import argparse
import ctypes
import gc
import threading
from typing import Any

import torch
from common import keep, load_average, seconds, spread

from advrad.attacks import Linf, pgd
from advrad.attacks.objective import eot, log_sum_exp
from advrad.detectors import AdvRAD
from advrad.noise import Draws

BATCH, STEPS, SIDE = 16, 4, 128
DRAWS = (1, 4, 16)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    detector, x, ids = _subject()
    bare, attacked = [], []
    for _ in range(rounds + 1):
        bare.append(seconds(lambda: _bare(detector, x)))
        attacked.append(seconds(lambda: _attack(detector, x, ids)))
    ratios = [one / other for one, other in zip(bare[1:], attacked[1:], strict=True)]
    keep(
        "attack",
        {
            "rate_of_pgd_to_bare_loop": spread(ratios),
            "bare_seconds_per_evaluation": spread([s / STEPS / BATCH for s in bare[1:]]),
            "rounds": rounds,
            "mib_above_start": {str(draws): _mib(detector, x, ids, draws) for draws in DRAWS},
            "load_average": load_average(),
        },
    )


def _subject() -> tuple[AdvRAD, torch.Tensor, list[str]]:
    torch.manual_seed(0)
    detector = AdvRAD(depth=100, channels=1, draws=1).eval().requires_grad_(False)
    shape = (1, SIDE, SIDE)
    detector.typical, detector.spread = torch.full(shape, 0.1), torch.full(shape, 0.05)
    detector.papers = torch.full(shape[1:], 0.1)
    return detector, torch.rand(BATCH, *shape), [f"image-{i}" for i in range(BATCH)]


def _bare(detector: AdvRAD, x: torch.Tensor) -> None:
    """As many evaluations as the attack makes, with nothing around them."""
    for step in range(STEPS):
        y = x.clone().requires_grad_()
        noise = Draws(0, [str(step)] * BATCH)(0)
        (gradient,) = torch.autograd.grad(detector(y, noise, draws=1).score.sum(), y)
        assert gradient.shape == x.shape
    with torch.no_grad():
        detector(x, Draws(0, ["last"] * BATCH)(0), draws=1)


def _attack(detector: AdvRAD, x: torch.Tensor, ids: list[str]) -> None:
    drawn = lambda y, noise: log_sum_exp(detector(y, noise, draws=1).map)
    pgd(eot(drawn, 1, Draws(0, ids)), x, Linf(2 / 255), steps=STEPS, keep="last", momentum=0.9)


def _mib(detector: AdvRAD, x: torch.Tensor, ids: list[str], draws: int) -> float:
    """The most that the process holds above its start while the gradient is computed."""
    objective = eot(lambda y, n: detector(y, n, draws=1).score, draws, Draws(0, ids))
    y = x.clone().requires_grad_()
    _give_back()  # or what earlier calls left would hide what this one takes
    watch = _Watch()
    with watch:
        objective(y)
    return round(watch.most - watch.start, 1)


class _Watch:
    """The largest resident memory while the block runs, in MiB, looked at every 2 ms."""

    def __enter__(self) -> "_Watch":
        self.start = self.most = _resident()
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._look)
        self.thread.start()
        return self

    def __exit__(self, *raised: Any) -> None:
        self.over.set()
        self.thread.join()

    def _look(self) -> None:
        while not self.over.wait(0.002):
            self.most = max(self.most, _resident())


def _give_back() -> None:
    """Freed memory goes back to the system, where the C library can (glibc)."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _resident() -> float:
    with open("/proc/self/statm") as file:  # noqa: PTH123 - hot loop
        return int(file.read().split()[1]) * 4096 / 2**20


if __name__ == "__main__":
    main()
