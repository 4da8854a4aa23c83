"""Square: a random search that needs nothing but values.

Andriushchenko et al., 2020 (https://arxiv.org/abs/1912.00049), on a score instead of a margin. A
patch of the image is changed at random, and kept where the objective has risen; patches become
smaller as the queries go. A detector with no gradient at all is attacked as well as any other.
The published start, stripes that raise most scores, is a candidate like any other: a score to be
lowered is often lower without them.

Of a random objective every query is another draw, and the luckiest of many would win. `again`
makes a candidate that seems better pass a second time: the point to be beaten is looked at anew,
its estimate being the mean of all looks at it, and then the candidate, on a draw that had no part
in choosing it. So the estimate stays near the truth however long the search. Every look is a
query.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import UsageError
from ..noise import Noise, fresh
from ._moves import Draw, Point, keep, moves, standing
from .ball import Ball, uniform
from .gradient import ready, value_of
from .objective import Objective

QUERIES = 16  # the first number under which a query's draw is asked for, after the balls' own
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # of the share, of 10,000 queries


class Search(NamedTuple):
    """What was found: images (B, C, H, W), and what they are held to rank, (B,)."""

    x: Tensor
    rank: Tensor


def square(
    objective: Objective,
    x: Tensor,
    ball: Ball,
    *,
    queries: int = 5000,
    share: float = 0.8,
    again: bool = False,
    noise: Noise = fresh,
) -> Tensor:
    """The images (B, C, H, W) that rank highest of all that were tried, the clean ones included.

    Arguments:
        objective: what is to be raised; only its `rank` is used, and no gradient.
        queries: forward evaluations for each image, exactly, of which the clean image is one.
        share: of the image that the first squares cover; the published p.
        again: whether what seems better is tested again; for objectives that draw.

    Raises UsageError for a ball without moves, for no queries, and for a share outside (0, 1].
    """
    return search(objective, x, ball, queries, share, again=again, noise=noise).x


def search(
    objective: Objective,
    x: Tensor,
    ball: Ball,
    queries: int,
    share: float,
    *,
    again: bool,
    noise: Noise = fresh,
) -> Search:
    """As `square`, together with what is known of the value."""
    x = ready(x, ball)
    if queries < 1 or not 0 < share <= 1:
        raise UsageError(
            f"square with {queries} queries and a share of {share:g}: expected one query or more, "
            f"and a share above 0 and up to 1"
        )
    if again:
        return _twice(objective, x, ball, queries, share, noise)
    at, rank = standing(x), _rank(objective, x)
    for query in range(1, queries):
        tried = _next(x, at, ball, query, queries, share, noise)
        value = _rank(objective, tried.x)
        at, rank = keep(value > rank, tried, at), torch.maximum(value, rank)
    return Search(at.x, rank)


def share_at(query: int, queries: int, share: float) -> float:
    """The share of the image that a square covers, halved at the published numbers of queries."""
    reached = int(query / queries * 10_000)
    return share / 2 ** sum(reached > number for number in HALVINGS)


PROPOSE, HELD, RIVAL, SETTLE = range(4)  # what an image's next query is for


def _twice(
    objective: Objective, x: Tensor, ball: Ball, queries: int, share: float, noise: Noise
) -> Search:
    """The search for objectives that draw; each image takes its own turns.

    A proposal that beats the estimate sends its image to HELD, where the point held is looked at
    again, and then, still ahead, to RIVAL, where the proposal is. One that wins there is looked at
    once more, to SETTLE an estimate that its luck had a part in.
    """
    at = rival = standing(x)
    rank = _rank(objective, x)
    looks, claim, turn = torch.ones_like(rank), rank, torch.full_like(rank, PROPOSE).long()
    for query in range(1, queries):
        proposing, held, testing, settling = (turn == each for each in range(4))
        rival = keep(proposing, _next(x, at, ball, query, queries, share, noise), rival)
        value = _rank(objective, keep(held, at, rival).x)
        claim = torch.where(held, claim, value)
        looks = looks + (held | settling)
        mean = torch.where(rank.isinf(), value, rank + (value - rank) / looks)
        rank = torch.where(held | settling, mean, rank)
        ahead = (claim > rank) & ~settling
        turn = torch.where(ahead, turn + 1, PROPOSE)
        won = testing & ahead
        at = keep(won, rival, at)
        rank, looks = torch.where(won, value, rank), torch.where(won, 1, looks)
    return Search(at.x, rank)


def _rank(objective: Objective, x: Tensor) -> Tensor:
    """One query; a value that is no number is the lowest."""
    rank = value_of(objective, x).rank
    return torch.where(rank.isnan(), -torch.inf, rank)


def _next(
    x: Tensor, at: Point, ball: Ball, query: int, queries: int, share: float, noise: Noise
) -> Point:
    """What this query may try."""
    draw = _draw(x, query, noise)
    if query == 1:
        return moves(ball).first(x, ball, draw)
    return moves(ball).then(x, at, ball, share_at(query - 2, queries - 2, share), draw)


def _draw(x: Tensor, query: int, noise: Noise) -> Draw:
    def numbers(count: int) -> Tensor:
        row = x.new_empty(len(x), count)
        return uniform(noise, row, QUERIES + query).clamp_max(1 - 2**-20)

    return numbers
