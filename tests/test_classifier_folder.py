"""A classifier on disk, and what is no classifier: both told apart from those that serve."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from advrad import store
from advrad.attacks.classification import looks_like_logits
from advrad.classifiers import (
    about,
    build,
    load,
    refuse_images,
    refuse_unusable,
    save,
)
from advrad.detectors import Trivial
from advrad.errors import ModelError, UsageError
from advrad.networks import Classifier

SMALL = {"shape": [1, 8, 8], "classes": 3, "depth": 10, "width": 1, "mean": [0.2]}
X = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def kept(tmp_path: Path) -> tuple[Path, Classifier]:
    """A folder, and the classifier in it, whose statistics are not those of a new one."""
    classifier = build("wrn", SMALL)
    classifier(X)
    save(tmp_path / "c", classifier, {"data": "toy", "accuracy": 0.5})
    return tmp_path / "c", classifier.eval()


def test_what_is_loaded_is_what_was_saved(kept: tuple[Path, Classifier]) -> None:
    folder, classifier = kept
    found = load(folder)
    assert torch.equal(found(X), classifier(X))
    assert (found.shape, found.classes) == ((1, 8, 8), 3)
    assert not found.training
    assert not any(p.requires_grad for p in found.parameters())
    assert about(folder)["accuracy"] == 0.5
    assert "data | toy" in (folder / "README.md").read_text()


@pytest.mark.parametrize("name", ["a", "b", "wrn-16-2"])
def test_every_kind_comes_back_by_its_name(name: str, tmp_path: Path) -> None:
    given = {} if name == "wrn-16-2" else {"shape": [1, 28, 28], "classes": 5}
    classifier = build(name, given).eval()
    save(tmp_path, classifier)
    found = load(tmp_path)
    assert type(found) is type(classifier)
    assert found.params == classifier.params
    x = torch.rand(1, *found.shape)
    assert torch.equal(found(x), classifier(x))


def test_gradients_reach_the_image_of_one_that_is_loaded(kept: tuple[Path, Classifier]) -> None:
    x = X.clone().requires_grad_()
    (slope,) = torch.autograd.grad(load(kept[0])(x)[:, 0].sum(), x)
    assert slope.abs().sum() > 0


def rewritten(folder: Path, **files: bytes) -> None:
    """The folder with some of its files changed, under a manifest that is right."""
    store.replace(folder, store.read(folder) | {k.replace("_", "."): v for k, v in files.items()})


def test_a_changed_byte_is_found(kept: tuple[Path, Classifier]) -> None:
    path = kept[0] / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelError, match="is damaged: its sha256"):
        load(kept[0])
    path.unlink()
    with pytest.raises(ModelError, match=r"the file model.safetensors is missing"):
        load(kept[0])


def test_folders_that_are_no_classifier(tmp_path: Path, kept: tuple[Path, Classifier]) -> None:
    with pytest.raises(ModelError, match=r"is no classifier: .*purify train-classifier"):
        load(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"holds no finished classifier .*--resume"):
        load(tmp_path / "empty")
    Trivial(size=8).save(tmp_path / "detector")
    with pytest.raises(ModelError, match="holds a detector of defects, no classifier"):
        load(tmp_path / "detector")
    rewritten(kept[0], config_json=b'{"generator": 1}')
    with pytest.raises(ModelError, match="holds a generator, no classifier"):
        load(kept[0])
    rewritten(kept[0], config_json=b'{"other": 1}')
    with pytest.raises(ModelError, match="holds another model, no classifier"):
        load(kept[0])


def test_a_config_that_does_not_fit_is_told(kept: tuple[Path, Classifier]) -> None:
    config = json.loads((kept[0] / "config.json").read_text())
    for change, words in (
        ({"classifier": "vgg"}, "names no classifier of this advrad: unknown classifier"),
        ({"params": {"depth": 7}}, "names no classifier of this advrad: depth=7"),
        ({"params": None}, "names no classifier of this advrad"),
        ({"params": config["params"] | {"width": 2}}, "the weights do not fit config.json"),
    ):
        rewritten(kept[0], config_json=json.dumps(config | change).encode())
        with pytest.raises(ModelError, match=words):
            load(kept[0])


def test_weights_that_are_no_numbers_are_told(kept: tuple[Path, Classifier]) -> None:
    state = kept[1].state_dict() | {"last.bias": torch.full((3,), torch.nan)}
    rewritten(kept[0], model_safetensors=store.tensors(state))
    with pytest.raises(ModelError, match=r"not finite: last\.bias"):
        load(kept[0])


# --- probabilities, sizes, ranges ---


def test_probabilities_are_told_from_logits() -> None:
    logits = torch.randn(20, 10)
    assert looks_like_logits(logits)
    assert looks_like_logits(logits.log_softmax(1))
    assert looks_like_logits(logits.softmax(1) * 2)
    assert looks_like_logits(torch.eye(3)[[0, 1]] * 5)
    for scale in (0.1, 1.0, 100.0):
        assert not looks_like_logits((scale * logits).softmax(1))
        assert not looks_like_logits((scale * logits).softmax(1).half().float())
    assert not looks_like_logits(torch.eye(3)[[0, 1, 2, 2]])
    mixed = logits.softmax(1)
    mixed[7] = logits[7] + 3
    assert looks_like_logits(mixed)


class Returning(nn.Module):
    """A classifier that returns what it is told to."""

    shape, classes = (1, 8, 8), 3

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        return self.value


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (torch.randn(4, 3).softmax(1), "returned probabilities .* remove the softmax"),
        (torch.randn(4), r"returned \(4,\): expected logits \(B, 2 or more classes\)"),
        (torch.randn(4, 1), r"returned \(4, 1\): expected logits"),
        (torch.randn(4, 5), r"returned \(4, 5\) for 4 images and 3 classes"),
        (torch.randn(3, 3), r"returned \(3, 3\) for 4 images"),
        (torch.full((4, 3), torch.nan), "not finite"),
    ],
)
def test_a_classifier_that_does_not_serve_is_refused(value: Tensor, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        refuse_unusable(Returning(value), X)


def test_one_that_serves_is_not(kept: tuple[Path, Classifier]) -> None:
    refuse_unusable(kept[1], X)
    refuse_unusable(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), X)
    outside = nn.Sequential(kept[1], nn.Softmax(1))  # the planted mistake
    with pytest.raises(UsageError, match="probabilities"):
        refuse_unusable(outside, X)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (255 * X, r"images from 0\.\S+ to 2\d\d\S*: expected \[0, 1\]"),
        ((X - 0.5) / 0.5, "without any normalisation"),
        ((255 * X).byte(), "bytes are divided by 255"),
        (X[0], r"one image is x\[None\]"),
        (X[:0], r"of shape \(0, 1, 8, 8\)"),
        (torch.rand(2, 3, 8, 8), "images of 3 x 8 x 8: this classifier expects 1 x 8 x 8"),
        (torch.full_like(X, torch.nan), "images from nan to nan"),
    ],
)
def test_images_that_do_not_fit_are_refused(
    x: Tensor, words: str, kept: tuple[Path, Classifier]
) -> None:
    with pytest.raises(UsageError, match=words):
        refuse_images(kept[1], x)
