"""What every detector in the table promises, whatever it is."""

import json
import pkgutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from toys import OUTSIDE, RESHAPED, SETTINGS, good, names, same

from advrad import detectors
from advrad.detectors import ALL, Anomaly, Detector, Run
from advrad.errors import DataError, ModelError, UsageError
from advrad.images import LUMA
from advrad.noise import Fixed, PerImage

TRAIN = good(10)
OTHER = 1 - good(7, seed=5)
SIDE = TRAIN.shape[-1]


@pytest.fixture(params=ALL)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def fresh_one(name: str) -> Detector:
    return detectors.build(name, SETTINGS[name])


@pytest.fixture(scope="module")
def fitted_ones() -> dict[str, Detector]:
    return {name: fresh_one(name).fit(TRAIN, Run(seed=4)) for name in ALL}


@pytest.fixture
def fitted(name: str, fitted_ones: dict[str, Detector]) -> Detector:
    """Not to be changed."""
    return fitted_ones[name]


@torch.no_grad()
def scores(detector: Detector, x: Tensor, ids: list[str] | None = None) -> Anomaly:
    return detector(x, PerImage(9, names(len(x)) if ids is None else ids))


# --- the table ---


def test_every_module_of_the_room_is_in_the_table() -> None:
    found = {module.name for module in pkgutil.iter_modules(detectors.__path__)}
    methods = {module for module in found if not module.startswith("_")} - {"base"}
    assert {cls.__module__.rpartition(".")[2] for cls in ALL.values()} == methods
    assert all(name == cls.__name__.lower() for name, cls in ALL.items())


def test_every_detector_has_its_settings_for_these_tests() -> None:
    assert SETTINGS.keys() == ALL.keys(), "give the new detector its line in toys.SETTINGS"


def test_a_detector_is_built_by_its_name_in_any_case(name: str) -> None:
    assert type(detectors.build(name.upper(), SETTINGS[name])) is ALL[name]


def test_an_unknown_name_or_setting_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"unknown detector 'none': there are .*{name}"):
        detectors.build("none", {})
    with pytest.raises(UsageError, match="nonsense"):
        detectors.build(name, {"nonsense": 1})


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("patchcor", {}, "did you mean patchcore"),
        ("patchcore", {"memry": 10}, "PatchCore: unknown setting memry; did you mean memory"),
        ("patchcore", {"memory": 10.5}, "PatchCore: memory=10.5: input should be a valid integer"),
        ("padim", {"dims": 1.5}, "PaDiM: dims=1.5: input should be a valid integer"),
        ("cfa", {"alpha": "x"}, "CFA: alpha=x: input should be a valid number"),
        ("spade", {"neighbours": True}, "SPADE: neighbours=True: input should be a valid integer"),
        ("rae", {"widths": [8.5]}, "RAE: widths="),
        ("adversarial", {"settings": 5}, "Adversarial: settings=5"),
        ("purified", {"settings": {"memry": 1}}, "unknown setting memry"),
    ],
)
def test_a_setting_of_another_type_is_refused_with_the_nearest_name(
    name: str, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError) as caught:
        detectors.build(name, settings)
    assert words in str(caught.value)


# --- the constructor ---


def test_the_arguments_are_stored_as_plain_values_that_build_it_again(name: str) -> None:
    detector = fresh_one(name)
    words = json.loads(json.dumps(detector.params))
    assert words == detector.params
    assert all(detector.params[key] == value for key, value in SETTINGS[name].items())
    again = detectors.build(name, words)
    assert again.params == detector.params
    assert again.state_dict().keys() == detector.state_dict().keys()


def test_tuples_are_taken_as_lists(name: str) -> None:
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in SETTINGS[name].items()}
    detector = detectors.build(name, given)
    assert detector.params == fresh_one(name).params
    assert json.loads(json.dumps(detector.params)) == detector.params


def test_what_it_says_of_itself_is_plain(fitted: Detector) -> None:
    said = {"resolved": fitted.resolved(), "chosen": fitted.chosen(), "cost": fitted.cost()}
    json.dumps(said)
    assert fitted.resolved().keys() >= fitted.params.keys()
    assert None not in (fitted.resolved()["size"], fitted.resolved()["channels"])
    assert fitted.cost()["parameters"] == sum(p.numel() for p in fitted.parameters())
    assert fitted.input_size == SIDE
    assert fitted.draws_taken >= 0


def test_before_fit_it_refuses_to_score(name: str) -> None:
    with pytest.raises(ValueError, match="not fitted"):
        fresh_one(name)(TRAIN[:1], Fixed(0))


# --- scores ---


@pytest.mark.parametrize("count", [1, 3])
def test_a_batch_gives_finite_scores_and_maps_of_its_side(fitted: Detector, count: int) -> None:
    anomaly = scores(fitted, good(count, seed=1))
    assert anomaly.score.shape == (count,)
    assert anomaly.map.shape == (count, SIDE, SIDE)
    assert anomaly.score.dtype == anomaly.map.dtype == torch.float32
    assert all(torch.isfinite(value).all() for value in anomaly)


def test_the_score_lies_within_the_range_of_its_map(fitted: Detector, name: str) -> None:
    """Both are on the same scale."""
    score, where = scores(fitted, good(5, seed=1))
    room = OUTSIDE.get(name, 0.0) * where.amax((1, 2))
    assert (score <= where.amax((1, 2)) * 1.0001 + room).all()
    assert (score >= where.amin((1, 2)) - room).all()


def test_examining_gives_the_same_anomaly(fitted: Detector) -> None:
    x, noise = good(3, seed=1), PerImage(9, names(3))
    with torch.no_grad():
        anomaly, beside = fitted.examine(x, noise)
    assert all(map(torch.equal, anomaly, scores(fitted, x)))
    assert all(value.shape == (3,) for value in beside.values())


def test_an_image_s_score_is_the_same_alone_and_in_any_batch(fitted: Detector) -> None:
    x, ids = torch.cat([good(4, seed=1), OTHER[:2], torch.zeros(1, 1, SIDE, SIDE)]), names(7)
    together = scores(fitted, x, ids)
    order = [5, 0, 6, 2, 1, 4, 3]
    mixed = scores(fitted, x[order], [ids[i] for i in order])
    for i in range(len(x)):
        alone, place = scores(fitted, x[i : i + 1], ids[i : i + 1]), order.index(i)
        for one, other, whole in zip(alone, mixed, together, strict=True):
            torch.testing.assert_close(one[0], whole[i], rtol=1e-5, atol=1e-5 * whole[i].max())
            torch.testing.assert_close(
                other[place], whole[i], rtol=1e-5, atol=1e-5 * whole[i].max()
            )


def test_its_noise_is_that_which_is_passed_in(fitted: Detector) -> None:
    """Under the same noise the same score bit by bit; under another, another where it draws."""
    x = good(2, seed=1)
    with torch.no_grad():
        one, again, other = fitted(x, Fixed(0)), fitted(x, Fixed(0)), fitted(x, Fixed(1))
    assert all(map(torch.equal, one, again))
    assert torch.equal(one.score, other.score) == (fitted.draws_taken == 0)
    before = torch.get_rng_state()
    scores(fitted, x)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_a_constant_image_has_a_finite_score(fitted: Detector, level: float) -> None:
    x = torch.full((2, 1, SIDE, SIDE), level)
    assert all(torch.isfinite(value).all() for value in scores(fitted, x))


# --- gradients ---


def differentiated(detector: Detector, x: Tensor, draws: int | None) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    anomaly = detector(x, PerImage(9, names(len(x))), draws=draws)
    (slope,) = torch.autograd.grad(anomaly.score.sum(), x)
    return anomaly.score.detach(), slope


@pytest.mark.parametrize("draws", [None, 1])
def test_every_image_has_a_live_gradient(fitted: Detector, draws: int | None) -> None:
    x = torch.cat([good(3, seed=1), OTHER[:1], torch.full((1, 1, SIDE, SIDE), 0.5)])
    _, slope = differentiated(fitted, x, draws)
    assert torch.isfinite(slope).all()
    assert (slope.flatten(1).abs().amax(1) > 0).all()


@pytest.mark.parametrize("draws", [None, 1])
def test_the_gradient_is_the_slope_of_the_score(fitted: Detector, draws: int | None) -> None:
    """Along itself, against differences: no path from image to score is cut."""
    x, step = good(4, seed=1), 1e-3
    _, slope = differentiated(fitted, x, draws)
    direction = slope / slope.flatten(1).norm(dim=1)[:, None, None, None]
    up, _ = differentiated(fitted, x + step * direction, draws)
    down, _ = differentiated(fitted, x - step * direction, draws)
    expected = (slope * direction).flatten(1).sum(1)
    torch.testing.assert_close((up - down) / (2 * step), expected, rtol=0.15, atol=0)


def test_no_gradient_crosses_from_one_image_to_another(fitted: Detector) -> None:
    x = good(3, seed=1).requires_grad_()
    score = fitted(x, PerImage(9, names(3))).score
    (slope,) = torch.autograd.grad(score[1], x)
    assert slope[1].abs().sum() > 0
    assert not slope[[0, 2]].any()


def test_the_map_has_gradients_too(fitted: Detector) -> None:
    x = good(2, seed=1).requires_grad_()
    (slope,) = torch.autograd.grad(fitted(x, PerImage(9, names(2))).map.mean(), x)
    assert (slope.flatten(1).abs().amax(1) > 0).all()


# --- other shapes ---


@pytest.mark.parametrize("side", [SIDE // 2, SIDE + 3, 3 * SIDE])
def test_an_image_of_another_size_is_scored_differentiably(fitted: Detector, side: int) -> None:
    x = good(2, size=side, seed=1).requires_grad_()
    anomaly = fitted(x, PerImage(9, names(2)))
    assert anomaly.map.shape == (2, side, side)
    (slope,) = torch.autograd.grad(anomaly.score.sum(), x)
    assert torch.isfinite(slope).all()
    assert (slope.flatten(1).abs().amax(1) > 0).all()


def test_an_image_enlarged_scores_like_itself(fitted: Detector) -> None:
    """A smooth one: on the way back the finest grain is averaged."""
    x = good(40, seed=1).unflatten(0, (2, 20)).mean(1)
    large = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    close = {"rtol": 0.2, "atol": 0.0}
    torch.testing.assert_close(scores(fitted, large).score, scores(fitted, x).score, **close)


def test_colour_is_taken_as_luma_by_a_detector_for_grey(fitted: Detector) -> None:
    x = good(2, channels=3, seed=1)
    grey = sum(w * x[:, i : i + 1] for i, w in enumerate(LUMA))
    for one, other in zip(scores(fitted, x), scores(fitted, grey), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_grey_is_copied_by_a_detector_for_colour(name: str) -> None:
    settings = SETTINGS[name] | {"channels": 3}
    detector = detectors.build(name, settings).fit(good(6, channels=3))
    x = good(2, seed=1)
    assert all(map(torch.equal, scores(detector, x), scores(detector, x.repeat(1, 3, 1, 1))))
    _, slope = differentiated(detector, x, None)
    assert slope.shape == x.shape
    assert slope.any()


# --- fitting ---


def test_fitting_is_the_same_twice_and_moves_no_other_randomness(
    name: str, fitted: Detector
) -> None:
    detector = fresh_one(name)
    torch.rand(3)
    before = torch.get_rng_state()
    assert same(detector.fit(TRAIN, Run(seed=4)), fitted)
    assert torch.equal(torch.get_rng_state(), before)


def test_fitting_again_forgets(name: str, fitted: Detector) -> None:
    detector = fresh_one(name).fit(OTHER, Run(seed=2))
    assert not same(detector, fitted)
    assert same(detector.fit(TRAIN, Run(seed=4)), fitted)


def test_a_loaded_detector_can_be_fitted_again(
    name: str, fitted: Detector, tmp_path: Path
) -> None:
    fresh_one(name).fit(OTHER).save(tmp_path / "m")
    assert same(detectors.load(tmp_path / "m").fit(TRAIN, Run(seed=4)), fitted)


def test_one_image_is_enough(name: str) -> None:
    detector = fresh_one(name).fit(TRAIN[:1])
    assert all(torch.isfinite(value).all() for value in scores(detector, good(2, seed=1)))
    assert all(torch.isfinite(value).all() for value in scores(detector, TRAIN[:1]))


def test_images_that_are_all_the_same_are_enough(name: str) -> None:
    detector = fresh_one(name).fit(torch.full((4, 1, SIDE, SIDE), 0.5))
    assert all(torch.isfinite(value).all() for value in scores(detector, good(2, seed=1)))


def test_fitting_reads_images_one_by_one_and_changes_none(name: str, fitted: Detector) -> None:
    class Shelf:
        def __len__(self) -> int:
            return len(TRAIN)

        def __getitem__(self, index: int, /) -> Tensor:
            assert isinstance(index, int)
            return kept[index]

    kept = TRAIN.clone()
    assert same(fresh_one(name).fit(Shelf(), Run(seed=4)), fitted)
    assert torch.equal(kept, TRAIN)


# --- on disk ---


def test_a_loaded_detector_is_the_saved_one_bit_by_bit(fitted: Detector, tmp_path: Path) -> None:
    fitted.save(tmp_path / "model")
    loaded = detectors.load(tmp_path / "model")
    assert type(loaded) is type(fitted)
    assert loaded.params == fitted.params
    assert loaded.resolved() == fitted.resolved()
    assert same(loaded, fitted)
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    _, slope = differentiated(loaded, good(2, seed=1), 1)
    assert (slope.flatten(1).abs().amax(1) > 0).all()


def test_tensors_of_another_shape_are_refused(fitted: Detector, name: str) -> None:
    files = fitted.files()
    config = json.loads(files["config.json"])
    config["params"] |= RESHAPED.get(name, {"channels": 3})
    with pytest.raises(ModelError, match="do not fit"):
        detectors.restore(files | {"config.json": json.dumps(config).encode()})


@pytest.mark.gpu
def test_it_moves_to_an_accelerator_and_back(name: str, fitted: Detector) -> None:
    detector = detectors.restore(fitted.files()).to("cuda")
    x = good(3, seed=1)
    there = scores(detector, x.to("cuda"))
    assert all(value.device.type == "cuda" for value in there)
    torch.testing.assert_close(there.score.cpu(), scores(fitted, x).score, rtol=1e-3, atol=1e-5)
    assert same(detector.to("cpu"), fitted)


@pytest.mark.gpu
def test_it_is_fitted_on_an_accelerator(name: str, fitted: Detector) -> None:
    detector = fresh_one(name).fit(TRAIN, Run(seed=4, device="cuda")).eval()
    assert all(value.device.type == "cuda" for value in detector.state_dict().values())
    x = good(3, seed=1)
    there = scores(detector, x.to("cuda")).score.cpu()
    torch.testing.assert_close(there, scores(fitted, x).score, rtol=0.05, atol=0)


# --- good images that somebody has in hand ---


def test_good_images_of_another_size_are_brought_to_the_detectors_own(name: str) -> None:
    detector = fresh_one(name)
    detector.fit(torch.rand(6, 3, 2 * SIDE, SIDE + 3, generator=torch.Generator().manual_seed(1)))
    found = scores(detector, torch.rand(2, 3, 2 * SIDE, SIDE + 3))
    assert found.map.shape == (2, 2 * SIDE, SIDE + 3)
    assert torch.isfinite(found.score).all()


@pytest.mark.parametrize(
    "wrong",
    [TRAIN[:0], (255 * TRAIN).byte(), TRAIN.numpy(), TRAIN[0], 255 * TRAIN, TRAIN - 1],
)
def test_what_is_no_good_image_is_refused_before_the_training(name: str, wrong: Any) -> None:
    with pytest.raises(DataError, match="good image"):
        fresh_one(name).fit(wrong)


def test_a_folder_may_be_named_by_a_word(fitted: Detector, tmp_path: Path) -> None:
    fitted.save(str(tmp_path / "model"))
    assert same(detectors.load(str(tmp_path / "model")), fitted)


def test_no_draws_are_refused(fitted: Detector) -> None:
    if fitted.draws_taken:
        with pytest.raises(ValueError, match="draws=0"):
            fitted(TRAIN[:1], Fixed(0), draws=0)


@pytest.mark.parametrize("wrong", [TRAIN[0], (255 * TRAIN).byte(), TRAIN[None], TRAIN[0, 0]])
def test_what_is_no_batch_of_floats_is_refused(fitted: Detector, wrong: torch.Tensor) -> None:
    with pytest.raises(UsageError, match=r"expected a batch.*x\[None\]"):
        fitted(wrong, Fixed(0))


@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.bfloat16])
def test_other_floats_are_taken_as_float32(name: str, fitted: Detector, kind: torch.dtype) -> None:
    x = OTHER.to(kind)
    assert torch.equal(fitted(x, Fixed(0)).score, fitted(x.float(), Fixed(0)).score)
    assert same(fresh_one(name).fit(TRAIN.to(kind)), fresh_one(name).fit(TRAIN.to(kind).float()))


def test_an_empty_batch_is_refused(fitted: Detector) -> None:
    with pytest.raises(UsageError, match="expected a batch"):
        fitted(TRAIN[:0], Fixed(0))
