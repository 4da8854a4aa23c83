"""A setting is chosen on defects that were made: one that sees them, the first of equals."""

import hashlib

import pytest
import torch
from torch import Tensor
from toys import good

from advrad.data import defects
from advrad.metrics import auroc
from advrad.noise import Fixed
from advrad.tune import Choice, Score, choose

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


@pytest.mark.parametrize("place", range(4))
def test_the_setting_that_sees_the_defects_is_chosen(place: int) -> None:
    scores = [blind, wrong, blind]
    scores.insert(place, told)
    candidates = dict(zip((25, 50, 100, 200), scores, strict=True))
    choice = choose("depth", candidates, IMAGES)
    assert choice.chosen == (25, 50, 100, 200)[place]
    assert choice.name == "depth"


def test_the_table_has_a_row_a_candidate_and_a_column_a_kind() -> None:
    choice = choose("top", {0.0: blind, 0.1: told, 0.2: wrong}, IMAGES)
    assert [row["top"] for row in choice.table] == [0.0, 0.1, 0.2]
    assert len(defects.ALL) >= 6
    for row, value in zip(choice.table, (0.5, 1.0, 0.0), strict=True):
        assert row.keys() == {"top", "mean", *defects.ALL}
        assert all(row[kind] == value for kind in defects.ALL)
        assert row["mean"] == pytest.approx(value)


def test_every_kind_counts_the_same() -> None:
    kinds = list(defects.ALL)
    choice = choose("n", {n: seeing(*kinds[:n]) for n in range(len(kinds) + 1)}, IMAGES)
    for n, row in enumerate(choice.table):
        assert [row[kind] for kind in kinds] == [1.0] * n + [0.5] * (len(kinds) - n)
        assert row["mean"] == pytest.approx(0.5 + 0.5 * n / len(kinds))
    assert choice.chosen == len(kinds)


def test_only_the_kinds_that_are_asked_for_count() -> None:
    candidates = {1: seeing("spot"), 2: seeing("hole", "stain", "perlin")}
    assert choose("n", candidates, IMAGES).chosen == 2
    choice = choose("n", candidates, IMAGES, kinds=["spot"])
    assert choice.chosen == 1
    assert choice.table[0].keys() == {"n", "spot", "mean"}


def test_of_equals_the_first_is_chosen() -> None:
    assert choose("n", {3: blind, 1: blind, 2: blind}, IMAGES).chosen == 3
    assert choose("n", {3: blind, 1: told, 2: told}, IMAGES).chosen == 1


@pytest.mark.parametrize(("tolerance", "chosen"), [(0.005, 2), (0.25, 1), (0.6, 0)])
def test_equal_is_what_lies_within_the_tolerance_of_the_best(
    tolerance: float, chosen: int
) -> None:
    """The means are 0.5, 0.75 and 1."""
    kinds = ["spot", "hole"]
    candidates = {0: blind, 1: seeing("spot"), 2: told}
    assert choose("n", candidates, IMAGES, kinds, tolerance).chosen == chosen


def test_the_figures_are_those_of_the_images_one_by_one() -> None:
    """Twenty images, more than are scored at once; each defect is that of its image's number."""
    images = good(20, seed=8)

    def score(x: Tensor, ids: list[str]) -> Tensor:
        luck = [int(hashlib.sha256(name.encode()).hexdigest()[:4], 16) / 65536 for name in ids]
        return x.flatten(1).std(1) + 0.02 * torch.tensor(luck)

    row = choose("n", {0: score}, images, kinds=["spot", "stain"]).table[0]
    whole = [float(score(images[i : i + 1], [f"tune-{i}"])) for i in range(20)]
    for kind in ("spot", "stain"):
        broken = [
            float(score(defects.ALL[kind](images[i], Fixed(i))[0][None], [f"tune-{i}-{kind}"]))
            for i in range(20)
        ]
        expected = auroc(torch.tensor(whole + broken), torch.arange(40) >= 20)
        assert row[kind] == pytest.approx(expected, abs=1e-9)
        assert 0.5 < row[kind] < 1


def test_all_candidates_see_the_same_images_under_ids_of_their_own() -> None:
    seen: dict[int, dict[str, Tensor]] = {0: {}, 1: {}}

    def watching(n: int) -> Score:
        def score(x: Tensor, ids: list[str]) -> Tensor:
            assert not seen[n].keys() & set(ids)
            seen[n] |= dict(zip(ids, x, strict=True))
            return x.mean((1, 2, 3))

        return score

    choose("n", {0: watching(0), 1: watching(1)}, IMAGES)
    assert seen[0].keys() == seen[1].keys()
    assert len(seen[0]) == 5 * (1 + len(defects.ALL))
    assert all(torch.equal(x, seen[1][name]) for name, x in seen[0].items())


def test_it_is_the_same_whatever_was_drawn_before() -> None:
    def score(x: Tensor, ids: list[str]) -> Tensor:
        return x.flatten(1).std(1)

    first = choose("n", {0: score}, IMAGES)
    torch.rand(7)
    assert choose("n", {0: score}, IMAGES) == first
    assert isinstance(first, Choice)
