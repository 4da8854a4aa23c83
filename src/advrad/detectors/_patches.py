"""Patch features, and memories of them: what detectors without training rest on.

A patch is one place of the stacked feature maps. Memories are bounded: where good images have
more patches than are asked for, a sample is drawn as they come (Vitter, 1985, Algorithm R), so
that a hundred thousand images need no more room than a few.
"""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from ..diffusion.flop import told
from ..networks import Features
from ..networks.features import stacked
from ..noise import AROUND, PerImage
from ..scoring import enlarge
from .base import Images, Run

STEP = 8  # images at once while good ones are looked at


def embedded(features: Features, x: Tensor, pool: int = 3) -> Tensor:
    """Locally averaged features of images, (B, C, H, W) -> (B, D, h, w).

    Each map is averaged over pool x pool places around each, then all are stacked at the size of
    the first (Roth et al., 2022, Section 3.1, as anomalib has it: average pooling).
    """
    maps = [F.avg_pool2d(m, pool, 1, pool // 2) if pool > 1 else m for m in features(x)]
    return stacked(maps)


def rows(maps: Tensor) -> Tensor:
    """A patch a row: (B, D, h, w) -> (B, h * w, D)."""
    return maps.flatten(2).transpose(1, 2)


def walked(
    images: Images, run: Run, look: Callable[[Tensor], Tensor], sigma: float = 0.0
) -> Iterator[Tensor]:
    """What `look` sees in good images, batch by batch, without gradients; in each of them under
    one draw of Gaussian noise with standard deviation sigma."""
    report = run.stage("looking at good images")
    for start in range(0, len(images), STEP):
        report(start, len(images))
        stop = min(start + STEP, len(images))
        x = torch.stack([images[i] for i in range(start, stop)]).to(run.device)
        noise = PerImage(run.seed, [f"good-{i}" for i in range(start, stop)])
        x = x + sigma * noise(x, AROUND) if sigma else x
        with torch.no_grad():  # not across the yield, where it would hold in the caller too
            seen = look(x) if start else told(run, partial(look, x), len(images) / len(x))
        yield seen


def reservoir(batches: Iterator[Tensor], most: int, seed: int) -> Tensor:
    """At most `most` of all rows (n, D), each as likely as any other; all of them in order where
    they are fewer."""
    source = torch.Generator().manual_seed(seed)
    kept: Tensor | None = None
    met = 0
    for batch in batches:
        kept = batch.new_empty(0, batch.shape[1]) if kept is None else kept
        room = most - len(kept)
        kept, rest = torch.cat([kept, batch[:room]]), batch[room:]
        met += min(room, len(batch))
        if len(rest):
            places = (torch.rand(len(rest), generator=source, dtype=torch.float64) * (
                torch.arange(met + 1, met + len(rest) + 1)
            )).long()  # fmt: skip
            for row in (places < most).nonzero()[:, 0].tolist():
                kept[places[row]] = rest[row]
            met += len(rest)
    assert kept is not None
    return kept


def coreset(patches: Tensor, count: int, seed: int, report: Callable[[int, int], None]) -> Tensor:
    """The places of `count` of the rows (n, D) that cover them all: greedily the one that is
    farthest from those chosen so far (k-centre; Sener and Savarese, 2018; Roth et al., 2022,
    Algorithm 1).

    Distances are taken after a random projection to 128 numbers (Johnson and Lindenstrauss), as
    the authors do. The first row is drawn.
    """
    source = torch.Generator().manual_seed(seed)
    if count >= len(patches):
        return torch.arange(len(patches))
    if patches.shape[1] > WIDE:
        projection = torch.randn(patches.shape[1], WIDE, generator=source) / WIDE**0.5
        patches = patches @ projection.to(patches)
    squares = patches.square().sum(1)
    chosen = [int(torch.randint(len(patches), (), generator=source))]
    nearest = torch.full_like(squares, torch.inf)
    for done in range(1, count + 1):
        centre = patches[chosen[-1]]
        distance = squares - 2 * (patches @ centre) + squares[chosen[-1]]
        nearest = torch.minimum(nearest, distance)
        nearest[chosen[-1]] = -torch.inf
        if done < count:
            chosen.append(int(nearest.argmax()))
        if done % 100 == 0:
            report(done, count)
    return torch.tensor(chosen)


WIDE = 128


def distances(patches: Tensor, memory: Tensor) -> Tensor:
    """Euclidean distances of patches (..., n, D) to a memory (..., m, D): (..., n, m).

    Where a patch is in the memory the slope is taken as 0.
    """
    squares = patches.square().sum(-1, keepdim=True) + memory.square().sum(-1)[..., None, :]
    return root(squares - 2 * patches @ memory.mT)


def nearest(rows: Tensor, memory: Tensor, count: int) -> Tensor:
    """Squared distances of rows (..., n, D) to the `count` rows next to each in a memory (m, D),
    from near to far: (..., n, count).

    The differences are taken one by one, so that nothing is lost where a row lies close to the
    memory.
    """
    place = closest(rows, memory, count)
    return (rows[..., None, :] - memory[place]).square().sum(-1)


def closest(rows: Tensor, memory: Tensor, count: int) -> Tensor:
    """The places of the `count` rows of a memory (m, D) next to each of the rows (..., n, D), from
    near to far: (..., n, count).

    Which ones they are has no slope.
    """
    with torch.no_grad():
        return behind(rows, memory).topk(count, largest=False).indices


def behind(rows: Tensor, memory: Tensor) -> Tensor:
    """Squared distances of rows (..., n, D) to a memory (..., m, D), less each row's own square:
    (..., n, m), in the same order along m."""
    return memory.square().sum(-1)[..., None, :] - 2 * rows @ memory.mT


def root(squares: Tensor) -> Tensor:
    """The square root, with a slope of 0 at 0 where it would be infinite."""
    return torch.where(squares > TINY, squares.clamp_min(TINY).sqrt(), 0.0)


TINY = 1e-12


def mapped(found: Tensor, size: int, sigma: float) -> Tensor:
    """What was found at each patch, (B, h, w), as a smooth map (B, size, size)."""
    return blurred(enlarge(found[:, None], [size] * 2)[:, 0], sigma)


def blurred(maps: Tensor, sigma: float = 4.0) -> Tensor:
    """Under a Gaussian with this standard deviation in pixels, out to four of them: (B, H, W)."""
    if sigma <= 0:
        return maps
    reach = int(4 * sigma + 0.5)
    place = torch.arange(-reach, reach + 1, dtype=maps.dtype, device=maps.device)
    weight = torch.exp(-(place**2) / (2 * sigma**2))
    weight = weight / weight.sum()
    found = maps[:, None]
    sides = maps.shape[-2:]
    for along, kernel in ((0, weight[:, None]), (1, weight[None])):
        padding = [0, 0, 0, 0]
        edge = min(reach, sides[along] - 1)  # a reflection is no longer than the map
        padding[2 - 2 * along] = padding[3 - 2 * along] = edge
        found = F.pad(found, padding, mode="reflect")
        rest = [0, 0, 0, 0]
        rest[2 - 2 * along] = rest[3 - 2 * along] = reach - edge
        found = F.conv2d(F.pad(found, rest, mode="replicate"), kernel[None, None])
    return found[:, 0]
