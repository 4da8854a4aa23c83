"""A setting is chosen on defects that were made: one that sees them, the first of equals."""

import hashlib
import itertools
import math
import statistics
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor
from toys import good

from advrad.data import defects
from advrad.metrics import auroc
from advrad.noise import Fixed
from advrad.tune import MOST, Choice, Score, choose, evenly, standard_error

IMAGES = good(5, seed=3)


def blind(x: Tensor, ids: list[str]) -> Tensor:
    return torch.zeros(len(x))


def told(x: Tensor, ids: list[str]) -> Tensor:
    """Sees any change whatever: an oracle that compares with the good image."""
    originals = torch.stack([IMAGES[int(name.split("-")[1])] for name in ids])
    return (x - originals).flatten(1).abs().amax(1)


def wrong(x: Tensor, ids: list[str]) -> Tensor:
    return -told(x, ids)


def seeing(*kinds: str) -> Score:
    """Sees some kinds of defects and no others."""

    def score(x: Tensor, ids: list[str]) -> Tensor:
        known = torch.tensor([name.split("-")[-1] in kinds for name in ids])
        return torch.where(known, told(x, ids), 0)

    return score


def columns(*scores: Score) -> Score:
    """Several scores of one batch side by side."""
    return lambda x, ids: torch.stack([score(x, ids) for score in scores], 1)


@pytest.mark.parametrize("place", range(4))
def test_the_setting_that_sees_the_defects_is_chosen(place: int) -> None:
    scores = [blind, wrong, blind]
    scores.insert(place, told)
    choice = choose("depth", (25, 50, 100, 200), columns(*scores), IMAGES)
    assert choice.chosen == (25, 50, 100, 200)[place]
    assert choice.name == "depth"


def test_the_table_has_a_row_a_candidate_and_a_column_a_kind() -> None:
    choice = choose("top", [0.0, 0.1, 0.2], columns(blind, told, wrong), IMAGES)
    assert [row["top"] for row in choice.table] == [0.0, 0.1, 0.2]
    assert len(defects.ALL) >= 6
    for row, value in zip(choice.table, (0.5, 1.0, 0.0), strict=True):
        assert row.keys() == {"top", "mean", "standard_error", *defects.ALL}
        assert all(row[kind] == value for kind in defects.ALL)
        assert row["mean"] == pytest.approx(value)
        assert row["standard_error"] == 0


def test_every_kind_counts_the_same() -> None:
    kinds = list(defects.ALL)
    steps = range(len(kinds) + 1)
    choice = choose("n", steps, columns(*(seeing(*kinds[:n]) for n in steps)), IMAGES)
    for n, row in enumerate(choice.table):
        assert [row[kind] for kind in kinds] == [1.0] * n + [0.5] * (len(kinds) - n)
        assert row["mean"] == pytest.approx(0.5 + 0.5 * n / len(kinds))
    assert choice.chosen == len(kinds)


def test_only_the_kinds_that_are_asked_for_count() -> None:
    score = columns(seeing("spot"), seeing("hole", "stain", "perlin"))
    assert choose("n", [1, 2], score, IMAGES).chosen == 2
    choice = choose("n", [1, 2], score, IMAGES, kinds=["spot"])
    assert choice.chosen == 1
    assert choice.table[0].keys() == {"n", "spot", "mean", "standard_error"}


def test_of_equals_the_first_is_chosen() -> None:
    assert choose("n", [3, 1, 2], columns(blind, blind, blind), IMAGES).chosen == 3
    assert choose("n", [3, 1, 2], columns(blind, told, told), IMAGES).chosen == 1


@pytest.mark.parametrize(("tolerance", "chosen"), [(0.01, 2), (0.25, 1), (0.6, 0)])
def test_equal_is_what_lies_within_the_tolerance_of_the_best(
    tolerance: float, chosen: int
) -> None:
    """The means are 0.5, 0.75 and 1, and the best one's standard error is 0."""
    score = columns(blind, seeing("spot"), told)
    assert choose("n", [0, 1, 2], score, IMAGES, ["spot", "hole"], tolerance).chosen == chosen


def lucky(x: Tensor, ids: list[str]) -> Tensor:
    """Sees little, by what each image's name brings along."""
    luck = [int(hashlib.sha256(name.encode()).hexdigest()[:4], 16) / 65536 for name in ids]
    return x.flatten(1).std(1) + 0.02 * torch.tensor(luck)


def test_equal_is_what_lies_within_the_best_one_s_standard_error() -> None:
    """The second is the first but for one image; a tolerance of 0 leaves the error to decide."""
    images = good(30, seed=8)

    def lowered(*below: str) -> Score:
        return lambda x, ids: lucky(x, ids) - torch.tensor([float(name in below) for name in ids])

    nearly, far = lowered("tune-7-spot"), lowered(*(f"tune-{i}-spot" for i in range(20)))
    choice = choose("n", [0, 1], columns(nearly, lucky), images, ["spot"], tolerance=0.0)
    worse, best = choice.table
    assert 0 < best["mean"] - worse["mean"] < best["standard_error"]
    assert choice.chosen == 0
    choice = choose("n", [0, 1], columns(far, lucky), images, ["spot"], tolerance=0.0)
    worse, best = choice.table
    assert best["mean"] - worse["mean"] > best["standard_error"] > 0
    assert choice.chosen == 1


@pytest.mark.parametrize("n", [3, 7, 40])
def test_the_standard_error_is_that_of_the_images_summed_placements(n: int) -> None:
    """DeLong's two variances over n, and twice their covariance, since the images are the same."""
    source = torch.Generator().manual_seed(n)
    wins = torch.rand(1, 2, n, generator=source, dtype=torch.float64)
    one, other = wins[0].numpy()
    paired = one.var(ddof=1) + other.var(ddof=1) + 2 * _covariance(one, other)
    assert standard_error(wins) == pytest.approx(math.sqrt(paired / n))
    assert standard_error(wins) == pytest.approx(stats.sem(one + other))


def _covariance(one: Any, other: Any) -> float:
    return float(((one - one.mean()) * (other - other.mean())).sum() / (len(one) - 1))


def test_kinds_that_agree_tell_no_more_than_one_and_independent_ones_do() -> None:
    source = torch.Generator().manual_seed(0)
    one = torch.rand(1, 2, 5000, generator=source, dtype=torch.float64)
    assert standard_error(one.expand(4, 2, 5000)) == pytest.approx(standard_error(one))
    four = torch.rand(4, 2, 5000, generator=source, dtype=torch.float64)
    assert standard_error(four) == pytest.approx(standard_error(one) / 2, rel=0.05)


@pytest.mark.parametrize("n", [1, 2])
def test_of_too_few_images_nothing_is_known_and_the_first_value_is_taken(n: int) -> None:
    assert standard_error(torch.rand(3, 2, n)) is None
    choice = choose("n", [3, 1], columns(blind, told), IMAGES[:n])
    assert [row["standard_error"] for row in choice.table] == [None, None]
    assert choice.chosen == 3


@pytest.mark.parametrize("n", [4, 8, 40])
def test_mean_and_standard_error_are_those_of_many_data_sets(n: int) -> None:
    """Scores N(0, 1) of good images, and of the same ones + N(1, 0.7^2) with a defect.

    A defect of one image against another is N(1, 2 + 0.7^2): the AUROC's true value.
    """
    source = torch.Generator().manual_seed(1)
    means, errors = [], []
    for _ in range(400):
        base = torch.randn(n, 1, generator=source)
        given = {f"{i}": base[i, 0] for i in range(n)}

        def score(x: Tensor, ids: list[str], given: Any = given) -> Tensor:
            parts = [name.split("-") for name in ids]
            noise = torch.randn(len(ids), generator=source)
            return torch.stack(
                [
                    given[p[1]] + (0.7 * e + 1 if len(p) > 2 else 0)
                    for p, e in zip(parts, noise, strict=True)
                ]
            )[:, None]

        row = choose("n", [0], score, _Plain(n), kinds=["spot"]).table[0]
        means.append(row["mean"])
        errors.append(row["standard_error"])
    spread = statistics.stdev(means)
    true = stats.norm.cdf(1 / math.sqrt(2 + 0.7**2))
    assert abs(statistics.mean(means) - true) < 4 * spread / math.sqrt(400)
    rms = math.sqrt(statistics.mean(error**2 for error in errors))
    assert rms == pytest.approx(spread, rel=0.15)


class _Plain(Sequence[Tensor]):
    """Small images, all alike: only their numbers matter."""

    def __init__(self, count: int) -> None:
        self.count, self.image = count, good(1)[0]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: Any) -> Any:
        return self.image


def test_the_figures_are_those_of_the_images_one_by_one() -> None:
    """Twenty images, more than are scored at once; each defect is that of its image's number,
    and meets the nineteen others."""
    images = good(20, seed=8)
    row = choose("n", [0], columns(lucky), images, kinds=["spot", "stain"]).table[0]
    whole = [float(lucky(images[i : i + 1], [f"tune-{i}"])) for i in range(20)]
    for kind in ("spot", "stain"):
        broken = [
            float(lucky(defects.ALL[kind](images[i], Fixed(i))[0][None], [f"tune-{i}-{kind}"]))
            for i in range(20)
        ]
        met = [
            auroc(torch.tensor([*whole[:i], *whole[i + 1 :], broken[i]]), torch.arange(20) > 18)
            for i in range(20)
        ]
        assert row[kind] == pytest.approx(statistics.mean(met), abs=1e-9)
        assert 0.5 < row[kind] < 1


def test_every_image_is_seen_once_under_an_id_of_its_own_and_told() -> None:
    seen: dict[str, Tensor] = {}
    told_of: list[tuple[int, int]] = []

    def watching(x: Tensor, ids: list[str]) -> Tensor:
        assert not seen.keys() & set(ids)
        seen.update(zip(ids, x, strict=True))
        return x.mean((2, 3))

    choose("n", [0], watching, IMAGES, report=lambda *counts: told_of.append(counts))
    whole = 5 * (1 + len(defects.ALL))
    assert len(seen) == whole
    assert told_of == [(done, whole) for done in range(0, whole, 5)]


def test_of_many_images_some_are_taken_from_all_along_the_row() -> None:
    seen: list[str] = []

    def watching(x: Tensor, ids: list[str]) -> Tensor:
        seen.extend(ids)
        return torch.zeros(len(x), 1)

    choose("n", [0], watching, _Plain(3 * MOST), kinds=["spot"])
    assert len(seen) == 2 * MOST
    assert seen[:MOST] == [f"tune-{i}" for i in range(0, 3 * MOST, 3)]


@pytest.mark.parametrize(("total", "count"), [(5, 5), (7, 3), (1, 1), (1000, 64)])
def test_places_are_spread_evenly(total: int, count: int) -> None:
    places = evenly(total, count)
    assert len(set(places)) == count
    assert 0 == places[0] <= places[-1] < total
    gaps = {b - a for a, b in itertools.pairwise([*places, total])}
    assert gaps <= {total // count, total // count + 1}


def test_it_is_the_same_whatever_was_drawn_before() -> None:
    def score(x: Tensor, ids: list[str]) -> Tensor:
        return x.flatten(1).std(1)[:, None]

    first = choose("n", [0], score, IMAGES)
    torch.rand(7)
    assert choose("n", [0], score, IMAGES) == first
    assert isinstance(first, Choice)
