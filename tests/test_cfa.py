"""CFA against its formulas by hand, its clusters against sklearn's, and its training."""

import math
from pathlib import Path

import pytest
import torch
from toys import SETTINGS as TOYS
from toys import good, same

from advrad.detectors import CFA, Progress, Run
from advrad.detectors import _patches as patches
from advrad.detectors._clusters import kmeans, lloyd
from advrad.detectors.cfa import Descriptor, boundary, certain
from advrad.errors import DataError, OtherTrainingError, UsageError
from advrad.noise import AROUND, PerImage

quiet = lambda done, total: None


def made(**settings: object) -> CFA:
    return CFA(**TOYS["cfa"] | {"blur": 0.0} | settings)


# --- formulas ---


def test_the_loss_is_that_of_the_formula() -> None:
    """r^2 = 4; squared distances 3, 5, 6 | 3.95, 3, 1 from K = 3 and J = 3, alpha = 0.1."""
    squares = torch.tensor([[3.0, 5.0, 6.0, 3.95, 3.0, 1.0]])
    attracted = (0 + (5 - 4) + (6 - 4)) / 3
    repelled = (0 + (4 - 3 - 0.1) + (4 - 1 - 0.1)) / 3
    found = boundary(squares, torch.tensor(2.0), 3, 0.1)
    assert float(found) == pytest.approx(1000 * (attracted + repelled), rel=1e-5)
    assert float(boundary(squares[:, :3], torch.tensor(2.0), 3, 0.1)) == pytest.approx(1000)


def test_the_loss_draws_in_what_is_outside_and_repels_what_is_inside() -> None:
    squares = torch.tensor([[9.0, 1.0]], requires_grad=True)
    boundary(squares, torch.tensor(2.0), 1, 0.1).backward()
    assert squares.grad is not None
    assert squares.grad.tolist()[0] == pytest.approx([1000, -1000])


def test_the_radius_grows_while_patches_are_outside_and_shrinks_for_those_inside() -> None:
    for squares, sign in (([[9.0, 20.0]], -1), ([[0.5, 1.0]], 1)):
        radius = torch.tensor(2.0, requires_grad=True)
        boundary(torch.tensor(squares), radius, 1, 0.1).backward()
        assert radius.grad is not None
        assert float(radius.grad) == pytest.approx(sign * 4000)


def test_a_score_is_the_least_distance_times_its_softmin() -> None:
    found = certain(torch.tensor([[1.0, 4.0, 9.0], [4.0, 4.0, 4.0]]))
    weight = math.exp(-1) / sum(math.exp(-d) for d in (1, 2, 3))
    torch.testing.assert_close(found, torch.tensor([weight, 2 / 3]))


def test_the_descriptor_sees_features_and_place_of_each_patch_alone() -> None:
    descriptor = Descriptor(2, 0.5)
    weight = torch.tensor([[1.0, 0, 0, 0], [0, 0, 10, 100]])[..., None, None]
    descriptor.layer.weight.data, descriptor.layer.bias.data = weight, torch.zeros(2)  # type: ignore[union-attr]
    maps = torch.rand(2, 2, 3, 5)
    found = descriptor(maps)
    torch.testing.assert_close(found[:, 0], maps[:, 0])
    row, column = torch.tensor([-1.0, 0, 1]), torch.tensor([-1.0, -0.5, 0, 0.5, 1])
    expected = 10 * row[:, None] + 100 * column
    torch.testing.assert_close(found[:, 1], expected.expand(2, -1, -1))
    assert descriptor(maps[..., :1, :1]).isfinite().all()


def test_the_map_is_the_score_of_each_patch_against_the_memory() -> None:
    train, test = good(6), good(3, seed=1)
    fitted = made().fit(train)
    assert fitted.centres is not None
    maps = fitted.descriptor(patches.embedded(fitted.features, test))
    apart = torch.cdist(patches.rows(maps).double(), fitted.centres.double())
    near = apart.sort(2).values[..., :3]
    expected = (near[..., 0] * (-near).softmax(2)[..., 0]).float()
    score, where = fitted(test)
    torch.testing.assert_close(score, expected.amax(1), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(where[:, -1, 0], expected[:, 12], rtol=1e-3, atol=1e-5)


# --- nearest and clusters ---


def test_the_nearest_are_those_of_a_full_sort_with_exact_distances() -> None:
    """Near the memory too, where a difference of large squares would leave nothing."""
    memory = 100 + torch.randn(50, 4)
    rows = torch.stack([memory[:5] + 1e-3, memory[5:10] - 1e-3])
    found = patches.nearest(rows, memory, 3)
    exact = (rows.double()[:, :, None] - memory.double()).square().sum(3)
    torch.testing.assert_close(found.double(), exact.sort(2).values[..., :3], rtol=1e-2, atol=0)


def test_clusters_far_apart_have_a_centre_each() -> None:
    source = torch.Generator().manual_seed(0)
    means = 50 * torch.randn(8, 5, generator=source)
    grain = 0.1 * torch.randn(8, 40, 5, generator=source)
    found = kmeans((means[:, None] + grain).flatten(0, 1), 8, 3, quiet)
    expected = means + grain.mean(1)
    place = torch.cdist(found, expected).argmin(1)
    assert sorted(place.tolist()) == list(range(8))
    torch.testing.assert_close(found, expected[place], rtol=1e-4, atol=1e-4)


def test_few_rows_are_their_own_centres_and_doubles_do_no_harm() -> None:
    rows = torch.randn(5, 3)
    assert kmeans(rows, 5, 0, quiet) is rows
    alike = torch.ones(30, 3)
    torch.testing.assert_close(kmeans(alike, 4, 0, quiet), alike[:4])


@pytest.mark.parametrize("rounds", [1, 3, 100])
def test_rounds_are_scipy_s(rounds: int) -> None:
    from scipy.cluster.vq import kmeans2

    rows = torch.randn(300, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected, _ = kmeans2(rows.numpy(), rows[:6].numpy(), iter=rounds, minit="matrix")
    found = lloyd(rows, rows[:6], rounds, quiet)
    torch.testing.assert_close(found, torch.from_numpy(expected))


# --- training ---


def test_the_training_brings_good_patches_nearer_to_the_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of features as large as those of a network that has learnt: a step of Adam's is large
    against the others."""
    small = patches.embedded
    monkeypatch.setattr(patches, "embedded", lambda features, x: 100 * small(features, x))
    train = good(12)
    short, long = made(steps=1, rate=1e-9).fit(train), made(steps=60).fit(train)
    assert short.centres is not None
    assert long.centres is not None
    assert torch.equal(short.centres, long.centres)  # as the descriptor saw them at first
    with torch.no_grad():
        before, after = (one(good(8, seed=1)).score.mean() for one in (short, long))
    assert after < 0.75 * before


def test_the_radius_is_learnt() -> None:
    for settings, expected in (({"steps": 1}, 1e-5 + 1e-3), ({"rate": 0.0}, 1e-5)):
        radius = made(**settings).fit(good(6)).descriptor.radius.detach()
        assert float(radius) == pytest.approx(expected, rel=1e-3)  # Adam's first step is the rate


def test_an_interrupted_training_goes_on_bit_by_bit(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stopping(progress: Progress) -> None:
        if progress.stage == "training" and progress.done == 5:
            raise Stop

    train, whole = good(8), made().fit(good(8), Run(seed=4))
    with pytest.raises(Stop):
        made().fit(train, Run(seed=4, folder=tmp_path, report=stopping))
    assert same(made().fit(train, Run(seed=4, folder=tmp_path, resume=True)), whole)
    with pytest.raises(OtherTrainingError):
        made(alpha=-0.1).fit(train, Run(seed=4, folder=tmp_path, resume=True))
    made(blur=2.0).fit(train, Run(seed=4, folder=tmp_path, resume=True))
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 8


def test_under_noise_the_memory_is_of_noisy_images_as_the_trained_descriptor_sees_them() -> None:
    train = good(3)
    fitted = made(memory=1000, pool=1000).fit(train)
    under = fitted.under_noise(train, Run(seed=5), sigma=0.5)
    around = PerImage(5, [f"good-{i}" for i in range(3)])
    noisy = train + 0.5 * around(train, AROUND)
    maps = fitted.descriptor(patches.embedded(fitted.features, noisy))
    assert under.centres is not None
    expected = patches.rows(maps).flatten(0, 1)
    torch.testing.assert_close(under.centres, expected, rtol=1e-4, atol=1e-5)
    state, others = under.descriptor.state_dict(), fitted.descriptor.state_dict()
    assert all(torch.equal(state[k], others[k]) for k in state)
    assert fitted.centres is not None
    assert not torch.equal(fitted.centres, under.centres)


# --- what is refused ---


def test_too_few_patches_are_told() -> None:
    with pytest.raises(DataError, match=r"1 good images leave 16 patches .* need 17"):
        made(neighbours=9, negatives=8).fit(good(1))
    with pytest.raises(DataError, match=r"leave 5 patches in the memory.* need 6"):
        made(memory=5).fit(good(4))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"backbone": "vgg"}, "backbone=vgg: expected one of lite0"),
        ({"strides": []}, "strides"),
        ({"memory": 0}, "memory=0"),
        ({"pool": 0}, "pool=0"),
        ({"neighbours": 0}, "neighbours=0"),
        ({"negatives": -1}, "negatives=-1"),
        ({"radius": -1.0}, "radius=-1.0"),
        ({"steps": 0}, "steps=0"),
        ({"rate": -1.0}, "rate=-1.0"),
        ({"blur": -1}, "blur=-1"),
    ],
)
def test_impossible_settings_are_told(settings: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        made(**settings)
