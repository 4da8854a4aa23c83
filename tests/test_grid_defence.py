"""Defences as cells of a grid: what a file asks for, done side by side, in the same table."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from test_fetched import idx
from test_grid import SMALL

from advrad.classifiers import build, save
from advrad.cli import main
from advrad.data.idx import IDX
from advrad.errors import UsageError
from advrad.evaluate.grid import Grid, read, tasks
from advrad.evaluate.grid_defence import Defended, tried
from advrad.evaluate.grid_table import markdown
from advrad.evaluate.grid_task import recorded, run
from advrad.purifiers.stored import Diffusion, Generative

ENTRY = """
[[defence]]
classifier = "{home}/c"
data = "{home}/toys"
purifiers = ["none", "{second}"]
modes = ["full", "bpda"]
attacks = ["fgsm"]
eps = ["8/255", 0.1]
draws = 2
limit = 6
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "toys").mkdir()
    source = np.random.default_rng(0)
    for part in ("train", "test"):
        pixels = source.integers(0, 256, (9, 8, 8), dtype=np.uint8)
        for kind, array in (("images", pixels), ("labels", np.arange(9, dtype=np.uint8) % 3)):
            (tmp_path / "toys" / IDX[f"{part}-{kind}"]).write_bytes(idx(array))
    settings = {"shape": [1, 8, 8], "classes": 3, "depth": 10, "width": 1}
    save(tmp_path / "c", build("wrn", settings).eval())
    return tmp_path


def asked(home: Path, second: str = "none label=again") -> Path:
    path = home / "grid.toml"
    path.write_text('name = "defended"\n' + ENTRY.format(home=home, second=second))
    return path


def test_every_purifier_is_a_cell_without_a_training(home: Path) -> None:
    trainings, cells = tasks(read(asked(home)))
    assert trainings == []
    assert [cell.method.name for cell in cells] == ["none", "again"]
    assert len({cell.folder for cell in cells}) == 2
    assert cells[0].words.endswith("full, bpda: fgsm, linf 8/255, 0.1")
    assert all(isinstance(cell.cell, Defended) and len(cell.cell.purifiers) == 1 for cell in cells)


def test_the_table_has_them_and_the_same_command_goes_on(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["benchmark", str(asked(home)), "--out", str(home / "table"), "--json"]
    assert main(words) == 0
    record = json.loads(capsys.readouterr().out)
    [found] = record["defences"].values()
    assert [row["defence"] for row in found["rows"]] == ["none", "none", "again", "again"]
    assert {row["mode"] for row in found["left_out"]} == {"bpda"}
    assert json.loads((home / "table" / "result.json").read_text())["defences"]
    assert "## Defences" in (home / "table" / "table.md").read_text()
    assert "Fixed-AutoAttack" in (home / "table" / "report.html").read_text()
    assert main(words) == 0
    again = capsys.readouterr()
    assert json.loads(again.out) == record
    assert "done before" in again.err


def test_a_cell_is_the_trial_of_its_entry(home: Path) -> None:
    _, [cell, _] = tasks(read(asked(home)))
    record = run(cell, home / "out")
    assert record["error"] is None
    assert isinstance(cell.cell, Defended)
    alone = tried(cell.cell, home / "alone", "cpu")
    for name in ("robust", "clean", "health"):
        assert record["found"]["rows"][0][name] == alone["rows"][0][name]


def test_one_that_fails_says_why(home: Path) -> None:
    _, [_, cell] = tasks(read(asked(home, "diffpure depth=5 label=broken")))
    record = run(cell, home / "out")
    assert "--generator" in str(record["error"])
    told = markdown(read(home / "grid.toml"), [(cell, record)])
    assert "broken" in told
    assert "failed: " in told
    waits = record | {"waiting": True}  # left alone by a later run
    assert "not run" not in markdown(read(home / "grid.toml"), [(cell, waits)])


def test_another_model_in_the_same_folder_is_tried_again(home: Path) -> None:
    _, [cell, _] = tasks(read(asked(home)))
    before = run(cell, home / "out")
    assert recorded(cell, home / "out") == before
    settings = {"shape": [1, 8, 8], "classes": 3, "depth": 10, "width": 2}
    torch.manual_seed(5)
    save(home / "c", build("wrn", settings).eval())
    assert recorded(cell, home / "out") is None
    after = run(cell, home / "out")
    assert after["error"] is None
    assert after["models"] != before["models"]
    assert recorded(cell, home / "out") == after
    shutil.rmtree(home / "c")
    assert recorded(cell, home / "out") == after, "nothing says that it was another"


def test_a_generator_of_images_of_another_size_is_refused(home: Path) -> None:
    Generative(Diffusion((1, 16, 16), (8, 16)).build(), Diffusion((1, 16, 16), (8, 16))).save(
        home / "d"
    )
    _, [_, cell] = tasks(read(asked(home, f"diffpure depth=5 generator={home}/d label=large")))
    error = str(run(cell, home / "out")["error"])
    assert "images of 1 x 16 x 16, and the classifier's are 1 x 8 x 8" in error


def test_entries_of_other_radii_or_norms_need_no_label() -> None:
    some = [Defended("c", "mnist", eps=["8/255"]), Defended("c", "mnist", eps=[0.1])]
    some += [Defended("c", "mnist", norm="l2", eps=[0.1]), Defended("c", "mnist", seed=1)]
    _, cells = tasks(Grid(defence=some).checked())
    assert len({cell.folder for cell in cells}) == len(some)


def test_entries_that_would_share_a_folder_are_told_apart_in_words() -> None:
    some = [Defended("c", "mnist"), Defended("other", "mnist", draws=3)]
    words = "differ in classifier \\(c and other\\), draws \\(10 and 3\\) alone.*label=NAME"
    with pytest.raises(UsageError, match=words):
        Grid(defence=some).checked()


def test_it_stands_beside_detectors(parts: Path, home: Path) -> None:
    text = SMALL.format(parts=parts) + ENTRY.format(home=home, second="none label=again")
    (home / "both.toml").write_text(text)
    trainings, cells = tasks(read(home / "both.toml"))
    assert (len(trainings), len(cells)) == (1, 5)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"modes": ["white"]}, "mode 'white'"),
        ({"eps": ["8/0"]}, "expected a number from 0 on"),
        ({"purifiers": ["none", "none"]}, "two purifiers 'none' are the same"),
        ({"purifiers": ["nothing"]}, "unknown purifier"),
        ({"purifiers": ["denoised sigma=0.1"]}, "diffpure depth=K shots=1"),
    ],
)
def test_what_no_cell_could_do(change: dict[str, list[str]], told: str) -> None:
    entry = Defended("c", "mnist", **change)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=told):
        Grid(defence=[entry]).checked()


def test_a_grid_of_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="or a \\[\\[defence\\]\\]"):
        Grid().checked()
