"""Centres of clusters: Lloyd's k-means (1982, https://doi.org/10.1109/TIT.1982.1056489)."""

from collections.abc import Callable

import torch
from torch import Tensor

MOST = 20  # rounds; what is gained after them does not show
STEP = 4096  # rows at once


def kmeans(rows: Tensor, count: int, seed: int, report: Callable[[int, int], None]) -> Tensor:
    """`count` centres of rows (n, D): (count, D); the rows themselves where they are as few.

    It starts from k-means++ (Arthur and Vassilvitskii, 2007).
    """
    if count >= len(rows):
        return rows
    return lloyd(rows, _spread(rows, count, seed), MOST, report)


def lloyd(
    rows: Tensor, centres: Tensor, rounds: int, report: Callable[[int, int], None]
) -> Tensor:
    """The centres after as many rounds, or as soon as nothing moves. A centre to which no row is
    the nearest stays where it is."""
    before: Tensor | None = None
    for done in range(rounds):
        report(done, rounds)
        nearest = torch.cat([torch.cdist(part, centres).argmin(1) for part in rows.split(STEP)])
        if before is not None and torch.equal(nearest, before):
            break
        sizes = torch.bincount(nearest, minlength=len(centres))[:, None]
        sums = torch.zeros_like(centres).index_add_(0, nearest, rows)
        centres, before = torch.where(sizes > 0, sums / sizes.clamp_min(1), centres), nearest
    return centres


def _spread(rows: Tensor, count: int, seed: int) -> Tensor:
    """Rows drawn one by one, each with a chance like its squared distance to those before."""
    source = torch.Generator().manual_seed(seed)
    draws = torch.rand(count, generator=source, dtype=torch.float64).tolist()
    chosen = [int(draws[0] * len(rows))]
    apart = torch.full_like(rows[:, 0], torch.inf)
    for draw in draws[1:]:
        apart = torch.minimum(apart, (rows - rows[chosen[-1]]).square().sum(1))
        sums = apart.double().cumsum(0)
        place = torch.searchsorted(sums, sums[-1:] * draw, right=True)
        chosen.append(min(int(place), len(rows) - 1))
    return rows[chosen]
