"""A model keeps what a verdict needs, tells what it has seen, and keeps its secret."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toys import TINY, good, names

from advrad import detectors, store
from advrad.calibrate import Calibration, calibrate
from advrad.detectors import AdvRAD, Run
from advrad.errors import LeakError, ModelError
from advrad.evaluate import predict
from advrad.images import Preprocess, write_png
from advrad.model import Model, card, load
from advrad.noise import PerImage

SEEN = {"train": ("a1", "a2"), "tune": ("b1",), "calibrate": ("c1", "c2", "c3")}
ABOUT = {"name": "tiny-nuts", "data": "nuts", "settings": {"size": 16, "depth": [50]}}


@pytest.fixture(scope="module")
def detector() -> AdvRAD:
    return AdvRAD(**TINY).fit(good(6), Run(seed=1))


@pytest.fixture
def model(detector: AdvRAD) -> Model:
    calibration = calibrate([0.5, 0.1, 0.3, 0.2], 0.25, 0.5)
    return Model(detector, Preprocess(16, 1), calibration, SEEN, ABOUT)


@pytest.fixture
def folder(model: Model, tmp_path: Path) -> Path:
    model.save(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def photographs(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for path, x in zip(paths, good(3, seed=2), strict=True):
        write_png(path, x)
    return paths


# --- on disk ---


def test_a_loaded_model_is_the_saved_one(model: Model, folder: Path) -> None:
    loaded = load(folder)
    assert replace(loaded, detector=model.detector) == model
    assert loaded.secret == model.secret
    assert loaded.name == "tiny-nuts"
    x, noise = good(2, seed=2), PerImage(0, names(2))
    with torch.no_grad():
        assert all(map(torch.equal, loaded.detector(x, noise), model.detector(x, noise)))


def test_saving_a_loaded_model_writes_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    load(folder).save(tmp_path / "again")
    assert store.read(tmp_path / "again") == store.read(folder)


def test_a_folder_holds_plain_files_and_no_pickle(folder: Path) -> None:
    found = {path.name for path in folder.iterdir()}
    files = {"about", "calibration", "config", "manifest", "preprocess", "secret", "seen"}
    assert found == {f"{name}.json" for name in files} | {"model.safetensors", "README.md"}
    for path in folder.glob("*.json"):
        assert isinstance(json.loads(path.read_text()), dict)
    assert b"pickle" not in (folder / "model.safetensors").read_bytes()


def test_it_can_be_named_by_a_string_and_nothing_is_said_to_be_nothing(folder: Path) -> None:
    assert load(str(folder)).name == "tiny-nuts"
    with pytest.raises(ModelError, match="is no model"):
        load(folder.parent / "none")


def test_a_model_without_a_name_is_called_after_its_detector(model: Model) -> None:
    assert replace(model, about={}).name == "AdvRAD"


PIECES = [
    "about.json",
    "calibration.json",
    "config.json",
    "model.safetensors",
    "preprocess.json",
    "secret.json",
    "seen.json",
]


def changed(folder: Path, name: str, content: bytes | None) -> Path:
    """The folder with one file changed (or gone) and a manifest that knows of it."""
    files = store.read(folder)
    del files[name]
    other = folder.with_name("changed")
    store.replace(other, files if content is None else files | {name: content})
    return other


@pytest.mark.parametrize("name", [name for name in PIECES if name != "secret.json"])
def test_a_piece_that_was_never_written_is_named(folder: Path, name: str) -> None:
    with pytest.raises(ModelError, match=name) as caught:
        load(changed(folder, name, None))
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("written", [True, False])
def test_a_model_published_without_its_secret_draws_another(
    folder: Path, written: bool, caplog: pytest.LogCaptureFixture
) -> None:
    secret = load(folder).secret
    assert not caplog.messages
    if written:
        (folder / "secret.json").unlink()
    else:
        folder = changed(folder, "secret.json", None)
    first, second = load(folder), load(folder)
    assert len({secret, first.secret, second.secret}) == 3
    assert caplog.messages[0] == caplog.messages[1]
    assert "only with --seed" in caplog.messages[0]
    assert detectors.load(folder).params == first.detector.params
    first.save(folder)
    assert load(folder).secret == first.secret


@pytest.mark.parametrize("name", PIECES)
@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b"\xff\x00"])
def test_a_piece_that_is_no_such_thing_is_named(folder: Path, name: str, content: bytes) -> None:
    with pytest.raises(ModelError, match=name):
        load(changed(folder, name, content))


@pytest.mark.parametrize(
    "name", ["calibration.json", "config.json", "preprocess.json", "secret.json"]
)
def test_a_piece_that_lacks_what_it_should_hold_is_refused(folder: Path, name: str) -> None:
    with pytest.raises(ModelError):
        load(changed(folder, name, b"{}"))


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("config.json", {"detector": "none", "params": {}}),
        ("config.json", {"detector": 5, "params": {}}),
        ("config.json", {"detector": "AdvRAD", "params": None}),
        ("config.json", {"detector": "AdvRAD", "params": {"nonsense": 1}}),
        ("config.json", {"detector": "AdvRAD", "params": {"size": 15}}),
        ("config.json", {"detector": "AdvRAD", "params": {}}),
        ("preprocess.json", {"size": 0, "channels": 1, "resize": "any"}),
        ("secret.json", {"seed": None}),
        ("secret.json", {"seed": "word"}),
        ("seen.json", {"train": 5}),
    ],
)
def test_values_that_do_not_fit_are_refused(folder: Path, name: str, values: dict) -> None:
    with pytest.raises(ModelError) as caught:
        load(changed(folder, name, json.dumps(values).encode()))
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("spoil", ["nan", "shape", "foreign", "missing"])
def test_tensors_that_do_not_fit_are_refused(folder: Path, spoil: str) -> None:
    state = store.read_tensors(store.read(folder))
    key = next(key for key in state if key.startswith("denoiser"))
    if spoil == "nan":
        state["typical"] = state["typical"] * float("nan")
    elif spoil == "shape":
        state[key] = state[key][:1]
    elif spoil == "foreign":
        state["foreign"] = state[key].clone()
    else:
        del state[key]
    with pytest.raises(ModelError):
        load(changed(folder, "model.safetensors", store.tensors(state)))


# --- what it has seen ---


@pytest.mark.parametrize(("digest", "part"), [*zip(("a2", "b1", "c3"), SEEN, strict=True)])
def test_a_test_image_that_it_has_seen_is_named_with_the_part(
    folder: Path, digest: str, part: str
) -> None:
    named = {"test/good/1.png": "d1", "test/good/2.png": digest, "test/good/3.png": "d2"}
    with pytest.raises(LeakError, match=rf"1 of 3 test images.*test/good/2\.png \({part}\)") as it:
        load(folder).refuse_seen(named)
    assert it.value.exit_code == 3
    assert "good/1" not in str(it.value)


def test_many_are_counted_and_three_are_named(model: Model) -> None:
    named = {f"{digest}.png": digest for part in SEEN.values() for digest in part}
    with pytest.raises(LeakError, match="6 of 6 test images") as caught:
        model.refuse_seen(named)
    assert str(caught.value).count(".png (") == 3


def test_images_that_it_has_not_seen_are_welcome(model: Model) -> None:
    model.refuse_seen({"a1": "x", "test.png": "A1"})
    model.refuse_seen({})


def test_a_new_calibration_replaces_the_old_one_and_its_images(model: Model) -> None:
    new = calibrate([7.0, 8.0, 9.0], 0.25)
    other = model.with_calibration(new, ("e1", "e2"))
    assert other.calibration is new
    assert other.seen == SEEN | {"calibrate": ("e1", "e2")}
    assert (other.detector, other.secret, other.about) == (
        model.detector,
        model.secret,
        model.about,
    )
    other.refuse_seen({"old": "c1"})
    with pytest.raises(LeakError, match=r"new \(calibrate\)"):
        other.refuse_seen({"new": "e2"})
    assert model.seen == SEEN


# --- its card ---


def test_the_card_says_what_it_is_and_promises(model: Model, folder: Path) -> None:
    said = card(model)
    assert (folder / "README.md").read_text() == said
    for words in ("# tiny-nuts", "AdvRAD", "nuts", "1 x 16 x 16", "| depth | [50] |"):
        assert words in said
    assert "2 to train, 1 to tune, 3 to calibrate" in said
    assert "At most 25.0% of good images are called NG, by 4 held-out good images" in said
    assert f"Threshold {model.calibration.threshold:.6g}" in said
    assert f"Between {model.calibration.unsure:.6g} and the threshold" in said


def test_the_card_calls_an_approximate_bound_one(model: Model) -> None:
    loose = Calibration(**(model.calibration.as_dict() | {"approximate": True}))
    assert "approximate" in card(replace(model, calibration=loose))


# --- its secret ---


def test_every_model_has_a_secret_of_its_own(detector: AdvRAD) -> None:
    calibration = calibrate([1.0])
    secrets = {Model(detector, Preprocess(16, 1), calibration, {}).secret for _ in range(20)}
    assert len(secrets) == 20
    assert all(0 <= secret < 2**62 for secret in secrets)
    assert max(secrets) > 2**55


def test_the_secret_is_in_its_own_file_alone(model: Model, folder: Path) -> None:
    word = str(model.secret)
    assert word not in repr(model)
    assert word not in card(model)
    holding = [path.name for path in folder.iterdir() if word.encode() in path.read_bytes()]
    assert holding == ["secret.json"]


def test_predictions_draw_from_the_secret_and_do_not_tell_it(
    model: Model, folder: Path, photographs: list[Path]
) -> None:
    rows = [row for row, _ in predict(model, photographs)]
    again = [row for row, _ in predict(load(folder), photographs, batch=1)]
    known = [row for row, _ in predict(model, photographs, seed=model.secret)]
    other = [row for row, _ in predict(model, photographs, seed=7)]
    assert all(row.seed is None for row in rows)
    assert all(str(model.secret) not in json.dumps(row.as_dict()) for row in rows)
    assert [row.seed for row in known + other] == [model.secret] * 3 + [7] * 3
    for row, same, told, else_ in zip(rows, again, known, other, strict=True):
        assert same.score == pytest.approx(row.score, rel=1e-5)
        assert told.score == row.score
        assert else_.score != row.score


def test_a_detector_by_itself_is_called_one(detector: AdvRAD, tmp_path: Path) -> None:
    detector.save(tmp_path / "bare")
    with pytest.raises(ModelError, match=r"advrad\.detectors\.load"):
        load(tmp_path / "bare")
