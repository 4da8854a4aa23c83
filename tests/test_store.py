"""A model's folder: whole or refused, whatever happens to it."""

import errno
import json
import os
import pickle
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from killing import killed_at

from advrad import store
from advrad.errors import ModelError, ResourceError
from advrad.store import MANIFEST, STAGING

OLD = {"model.safetensors": bytes(100), "config.json": b'{"old": 1}', "old.json": b"{}"}
NEW = {"model.safetensors": bytes(300), "config.json": b'{"new": 1}', "new.json": b"{}"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    store.replace(tmp_path / "model", OLD)
    return tmp_path / "model"


def rewrite(folder: Path, **changes: object) -> None:
    manifest = json.loads((folder / MANIFEST).read_bytes())
    (folder / MANIFEST).write_text(json.dumps(manifest | changes))


def outcome(folder: Path) -> object:
    """What a reader gets, or is told."""
    try:
        return store.read(folder)
    except ModelError as error:
        return str(error)


def test_what_was_written_is_read(folder: Path) -> None:
    assert store.read(folder) == OLD
    store.replace(folder, NEW)
    assert store.read(folder) == NEW
    assert not (folder / STAGING).exists()


def test_what_the_model_does_not_own_stays(folder: Path) -> None:
    (folder / "training").mkdir()
    (folder / "training" / "report.html").write_text("kept")
    store.replace(folder, NEW)
    assert (folder / "training" / "report.html").read_text() == "kept"
    assert store.read(folder) == NEW


def test_a_replacement_killed_anywhere_leaves_the_old_model_or_the_new_one(
    tmp_path: Path, folder: Path
) -> None:
    states = []
    for operation in range(1000):
        copy = tmp_path / str(operation)
        shutil.copytree(folder, copy)
        killed = killed_at(operation, lambda copy=copy: store.replace(copy, NEW))
        states.append(store.read(copy))
        store.replace(copy, OLD)  # and nothing is in the way of the next one
        assert store.read(copy) == OLD
        if not killed:
            break
    assert states[0] == OLD
    assert states[-1] == NEW
    assert len(states) > 20
    changes = [one != other for one, other in pairwise(states)]
    assert sum(changes) == 1


def test_a_first_model_killed_anywhere_is_whole_or_said_to_be_unfinished(tmp_path: Path) -> None:
    for operation in range(1000):
        folder = tmp_path / str(operation)
        killed = killed_at(operation, lambda folder=folder: store.replace(folder, NEW))
        if not killed:
            break
        found = outcome(folder)
        assert found == NEW or "is no model" in found or "holds no finished model" in found
    assert outcome(folder) == NEW
    assert operation > 10


def test_a_recovery_killed_anywhere_is_finished_by_the_next_reader(
    tmp_path: Path, folder: Path
) -> None:
    """The committed staging is made by killing a replacement at its last operations."""
    committed = tmp_path / "committed"
    for operation in range(1000):
        shutil.rmtree(committed, ignore_errors=True)
        shutil.copytree(folder, committed)
        killed_at(operation, lambda: store.replace(committed, NEW))
        if (committed / STAGING / MANIFEST).exists():
            break
    for operation in range(1000):
        copy = tmp_path / f"copy-{operation}"
        shutil.copytree(committed, copy)
        killed = killed_at(operation, lambda copy=copy: store.recover(copy))
        assert store.read(copy) == NEW
        if not killed:
            break
    assert operation >= len(NEW) + 1


def test_two_readers_may_finish_the_same_replacement(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, content in NEW.items():
        (folder / STAGING).mkdir(exist_ok=True)
        (folder / STAGING / name).write_bytes(content)
    store.replace(folder.parent / "other", NEW)
    shutil.copy(folder.parent / "other" / MANIFEST, folder / STAGING / MANIFEST)
    moving, others = os.replace, iter([True])

    def raced(source: Path, target: Path) -> None:
        if next(others, False):
            moving(source, target)  # the other reader was faster
        moving(source, target)

    monkeypatch.setattr(os, "replace", raced)
    assert store.read(folder) == NEW


def test_a_full_disk_leaves_the_old_model_and_takes_no_room(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = iter(range(100))

    def full(_: int) -> None:
        if next(synced) == 1:
            raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResourceError, match="disk is full"):
        store.replace(folder, NEW)
    assert store.read(folder) == OLD
    assert not (folder / STAGING).exists()


@pytest.mark.parametrize("name", OLD)
@pytest.mark.parametrize("place", [0, -1])
def test_one_flipped_bit_is_found_and_named(folder: Path, name: str, place: int) -> None:
    content = bytearray((folder / name).read_bytes())
    content[place] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(ModelError, match=f"{name} is damaged: its sha256") as caught:
        store.read(folder)
    assert caught.value.exit_code == 4


def test_a_truncated_file_is_found_and_named(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(bytes(99))
    with pytest.raises(ModelError, match=r"model\.safetensors is damaged"):
        store.read(folder)


@pytest.mark.parametrize("name", OLD)
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ModelError, match=f"the file {name} is missing"):
        store.read(folder)


def test_a_folder_without_its_mark_is_no_finished_model(folder: Path) -> None:
    (folder / MANIFEST).unlink()
    with pytest.raises(ModelError, match=r"no finished model.*--resume"):
        store.read(folder)


def test_no_folder_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is no model: expected a folder"):
        store.read(tmp_path / "none")
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="is no model"):
        store.read(tmp_path / "file")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "7", "{}", '{"format": 1}', '{"format": 1, "files": []}', "ÿ"]
)
def test_a_damaged_manifest_is_said_to_be_one(folder: Path, text: str) -> None:
    (folder / MANIFEST).write_bytes(text.encode("latin-1"))
    with pytest.raises(ModelError, match=r"manifest\.json is damaged"):
        store.read(folder)


@pytest.mark.parametrize("files", [{}, None, ["another", "form"]])
def test_another_format_is_named_whatever_it_looks_like(folder: Path, files: object) -> None:
    rewrite(folder, format=2, files=files)
    with pytest.raises(ModelError, match="format 2, this advrad reads 1: install"):
        store.read(folder)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../secret", "..", ".", ""])
def test_a_manifest_cannot_reach_out_of_its_folder(folder: Path, name: str) -> None:
    secret = folder.parent / "secret"
    secret.write_text("x")
    target = folder / name
    digest = store.sha256(target) if target.is_file() else "0" * 64
    rewrite(folder, files={name: digest})
    with pytest.raises(ModelError, match="is missing"):
        store.read(folder)


STATE = {"a": torch.randn(3, 4), "typical": torch.zeros(2, 2), "taken": torch.tensor(100)}


def test_tensors_come_back_bit_by_bit() -> None:
    state = STATE | {
        "turned": torch.randn(4, 6).t(),
        "last": torch.randn(2, 8, 3, 3).to(memory_format=torch.channels_last).requires_grad_(),
        "half": torch.randn(5).bfloat16(),
    }
    got = store.read_tensors({"model.safetensors": store.tensors(state)})
    assert got.keys() == state.keys()
    assert all(torch.equal(got[name], state[name]) for name in state)
    assert all(got[name].dtype == state[name].dtype for name in state)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_tensors_that_are_not_finite_are_refused_by_name(bad: float) -> None:
    content = store.tensors(STATE | {"spoilt": torch.tensor([1.0, bad])})
    with pytest.raises(ModelError, match="not finite: spoilt"):
        store.read_tensors({"model.safetensors": content})


def test_tensors_truncated_anywhere_are_refused() -> None:
    content = store.tensors(STATE)
    for size in range(0, len(content), 7):
        with pytest.raises(ModelError, match="is damaged"):
            store.read_tensors({"model.safetensors": content[:size]})


def test_a_pickle_is_no_tensor_file() -> None:
    with pytest.raises(ModelError, match="is damaged"):
        store.read_tensors({"model.safetensors": pickle.dumps({"a": 1})})


def test_json_must_be_there_and_an_object() -> None:
    assert store.read_json({"a.json": store.dump({"x": (1, 2)})}, "a.json") == {"x": [1, 2]}
    for content, words in ((b"[1]", "no object"), (b"{", "no JSON"), (b"\xff", "no JSON")):
        with pytest.raises(ModelError, match=words):
            store.read_json({"a.json": content}, "a.json")
    with pytest.raises(ModelError, match=r"no a\.json"):
        store.read_json({}, "a.json")
    with pytest.raises(ModelError, match=r"no model\.safetensors"):
        store.read_tensors({})
