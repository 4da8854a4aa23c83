"""The state on disk: all of it, the right one, and the old one until the new one is there."""

import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from killing import killed_at
from safetensors.torch import load_file, save_file
from torch import nn
from trainings import equal, tiny, tiny_training, weights

from advrad.diffusion import Average, Recipe, train
from advrad.diffusion.checkpoint import Checkpoint
from advrad.errors import ModelError, ResourceError, UsageError

RECIPE = Recipe(4, rate=1e-2)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A checkpoint after four steps."""
    list(tiny_training(tiny(), Checkpoint(tmp_path / "c.safetensors", "ours"), RECIPE))
    return tmp_path / "c.safetensors"


def parts() -> tuple[nn.Module, Average, torch.optim.Adam]:
    module = tiny()
    return module, Average(module), torch.optim.Adam(module.parameters(), 1e-2)


def test_what_is_restored_is_what_was_saved(path: Path) -> None:
    """Weights, averages and moments, bit by bit and with the layout of the parameter."""
    module, average, optimizer = parts()
    assert Checkpoint(path, "ours").restore(module, average, optimizer) == 4
    assert average.updates == 4
    stored = load_file(path)
    for name, parameter in module.named_parameters():
        state = optimizer.state[parameter]
        assert state["step"].item() == 4
        assert torch.equal(parameter, stored[f"module/{name}"])
        assert torch.equal(average.values[name], stored[f"average/{name}"])
        for moment in ("exp_avg", "exp_avg_sq"):
            assert torch.equal(state[moment], stored[f"{moment}/{name}"])
            assert state[moment].stride() == parameter.stride()
    again = path.with_name("again.safetensors")
    Checkpoint(again, "ours").save(4, module, average, optimizer)
    assert load_file(again).keys() == stored.keys()
    assert all(torch.equal(value, stored[name]) for name, value in load_file(again).items())


class Counting(nn.Module):
    """A weight, a buffer that a training moves, and one that no state holds."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.register_buffer("seen", torch.zeros(2))
        self.register_buffer("fixed", torch.zeros(1), persistent=False)


def test_buffers_are_kept_too_and_a_checkpoint_without_them_leaves_them_as_they_are(
    tmp_path: Path,
) -> None:
    def counting(value: float) -> tuple[Counting, Average, torch.optim.Adam]:
        module = Counting()
        module.seen += value
        module.weight.sum().backward()
        optimizer = torch.optim.Adam(module.parameters())
        optimizer.step()
        return module, Average(module), optimizer

    path = tmp_path / "c.safetensors"
    Checkpoint(path).save(1, *counting(5.0))
    module, *others = counting(7.0)
    assert Checkpoint(path).restore(module, *others) == 1
    assert module.seen.tolist() == [5.0, 5.0]
    stored = load_file(path)
    assert "buffer/fixed" not in stored
    del stored["buffer/seen"]
    save_file(stored, path, {"number": "1", "updates": "0", "of": ""})
    module, *others = counting(7.0)
    Checkpoint(path).restore(module, *others)
    assert module.seen.tolist() == [7.0, 7.0]


class Pair(nn.Module):
    """Two numbers of which a loss moves one, or the other."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = (nn.Parameter(torch.ones(2)) for _ in range(2))

    def loss(self, number: int) -> torch.Tensor:
        return (self.other if number % 3 == 0 else self.one).square().sum()


@pytest.mark.parametrize("stop", [1, 2, 3, 4, 7])
def test_players_that_take_turns_go_on_bit_by_bit(tmp_path: Path, stop: int) -> None:
    """Adam counts the steps of each; the other is neither moved nor counted."""
    path, recipe = tmp_path / "c.safetensors", Recipe(9, rate=0.1)
    expected = Pair()
    list(train(expected, expected.loss, recipe))
    first = Pair()
    list(train(first, first.loss, replace(recipe, steps=stop), Checkpoint(path)))
    found = Pair()
    list(train(found, found.loss, recipe, Checkpoint(path)))
    assert equal(weights(found), weights(expected))
    optimizer = torch.optim.Adam(found.parameters())
    Checkpoint(path).restore(found, Average(found), optimizer)
    assert [int(optimizer.state[p]["step"]) for p in found.parameters()] == [6, 3]


def test_moments_and_averages_are_not_the_weights(path: Path) -> None:
    """Else the test above could pass with one written for the other."""
    stored = load_file(path)
    name = "network.enter.weight"
    kept = [stored[f"{part}/{name}"] for part in ("module", "average", "exp_avg", "exp_avg_sq")]
    assert not any(torch.equal(a, b) for i, a in enumerate(kept) for b in kept[:i])
    assert (kept[3] >= 0).all()


def test_without_a_file_a_training_starts_at_the_beginning(tmp_path: Path) -> None:
    heard: list[int] = []
    module, average, optimizer = parts()
    before = weights(module)
    checkpoint = Checkpoint(tmp_path / "none" / "c.safetensors", restored=heard.append)
    assert checkpoint.restore(module, average, optimizer) == 0
    assert heard == [0]
    assert equal(weights(module), before)


def test_another_training_is_refused_and_what_changed_is_named(path: Path) -> None:
    long = [f"{i:064d}" for i in range(9)]
    theirs = {"rate": 0.1, "widths": [8, 16], "images": long}
    Checkpoint(path, json.dumps(theirs)).save(4, *trained(path))
    ours = theirs | {"rate": 0.2, "images": long[1:]}
    module, average, optimizer = parts()
    before = weights(module)
    with pytest.raises(UsageError) as caught:
        Checkpoint(path, json.dumps(ours)).restore(module, average, optimizer)
    message = str(caught.value)
    assert caught.value.exit_code == 2
    assert "rate (0.1 there, 0.2 here)" in message
    assert "images" in message
    assert long[0] not in message
    assert "widths" not in message
    assert "--resume" in message
    assert equal(weights(module), before)


def trained(path: Path) -> tuple[nn.Module, Average, torch.optim.Adam]:
    restored = parts()
    Checkpoint(path, "ours").restore(*restored)
    return restored


@pytest.mark.parametrize("signature", ["other", "5", "[1]", '"text"', "null", '{"a": 1}', ""])
def test_any_other_signature_is_refused(path: Path, signature: str) -> None:
    with pytest.raises(UsageError, match="other settings or other images"):
        Checkpoint(path, signature).restore(*parts())


def test_a_foreign_tensor_file_is_refused(path: Path) -> None:
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(UsageError, match="other settings"):
        Checkpoint(path, "ours").restore(*parts())


@pytest.mark.parametrize("size", [0, 7, 100, -1])
def test_a_truncated_checkpoint_is_refused(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ModelError, match=r"cannot be read as a checkpoint.*start anew"):
        Checkpoint(path, "ours").restore(*parts())


def test_a_checkpoint_of_another_network_is_refused(path: Path) -> None:
    module = nn.Linear(2, 2)
    optimizer = torch.optim.Adam(module.parameters())
    with pytest.raises(ModelError, match="does not fit this network"):
        Checkpoint(path, "ours").restore(module, Average(module), optimizer)


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_checkpoint(
    path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    before, state = path.read_bytes(), trained(path)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(os, call, full)
    saved: list[int] = []
    with pytest.raises(ResourceError, match=r"disk is full.*--resume"):
        Checkpoint(path, "ours", saving=saved.append).save(5, *state)
    assert path.read_bytes() == before
    assert saved == [5]
    assert list(path.parent.iterdir()) == [path]


def test_a_save_killed_anywhere_leaves_the_old_state_or_the_new_one(path: Path) -> None:
    before, state = path.read_bytes(), trained(path)
    numbers = []
    for operation in range(100):
        path.write_bytes(before)
        killed = killed_at(operation, lambda: Checkpoint(path, "ours").save(5, *state))
        numbers.append(Checkpoint(path, "ours").restore(*parts()))
        assert list(path.parent.iterdir()) == [path]
        if not killed:
            break
    assert numbers == sorted(numbers)
    assert set(numbers) == {4, 5}


def test_the_clock_counts_from_the_last_save(path: Path) -> None:
    checkpoint = Checkpoint(path, "ours", seconds=1000)
    assert not checkpoint.due()
    checkpoint._last -= 1001
    assert checkpoint.due()
    checkpoint.save(4, *trained(path))
    assert not checkpoint.due()


def test_slow_saves_are_rare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A save that takes 3 s is next due after 60 s, where a quick one is due after 20 s."""
    clock = [0.0]
    monkeypatch.setattr("advrad.diffusion.checkpoint.time.monotonic", lambda: clock[0])
    monkeypatch.setattr(
        "advrad.diffusion.checkpoint.write_bytes",
        lambda path, content: clock.__setitem__(0, clock[0] + 3.0),
    )
    checkpoint = Checkpoint(tmp_path / "c.safetensors", seconds=20.0)
    module = nn.Linear(2, 2)
    optimizer = torch.optim.Adam(module.parameters())
    module(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert not checkpoint.due()
    checkpoint.save(1, module, Average(module), optimizer)
    clock[0] = 3.0 + 59.0
    assert not checkpoint.due()
    clock[0] = 3.0 + 60.0
    assert checkpoint.due()
