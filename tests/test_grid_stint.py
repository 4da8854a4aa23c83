"""A grid done in several stints: some detectors now, no task after a time, the table so far."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from advrad.cli import main
from advrad.errors import DataError, UsageError
from advrad.evaluate import grid_run
from advrad.evaluate.grid import Assailed, Data, Grid, Method, Task, tasks
from advrad.evaluate.grid_defence import Defended
from advrad.evaluate.grid_processes import Processes
from advrad.evaluate.grid_queue import Queue, in_order
from advrad.evaluate.grid_report import write_grid
from advrad.evaluate.grid_run import Stint, run_grid, unfinished
from advrad.evaluate.grid_table import figures, markdown, summaries
from advrad.evaluate.grid_task import RECORD, run, set_aside
from advrad.files import held

TINY = {"size": 16, "backbone": "untrained", "strides": [4, 8], "memory": 30, "pool": 200}
BOTH = [Method("patchcore", TINY, "first"), Method("patchcore", TINY, "second", seeds=[0, 1])]
ATTACK = Assailed("l2", 0.1, "paper-pgd", limit=2)


class Inline(Processes):
    """Does its tasks at once, in this process, and remembers them; `clock` moves on by each."""

    def __init__(self, out: Path, clock: list[float]) -> None:
        super().__init__(out, 1)
        self.names: list[str] = []
        self.clock = clock

    def begin(self, task: Task) -> None:
        self.names.append(f"{task.method.title} {task.seed} {task.title}")
        self.clock[0] += 60
        self.found = (task, run(task, self.out))

    def ended(self) -> list[Any]:
        return [self.found]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(grid_run.time, "monotonic", lambda: now[0])
    return now


def made(parts: Path) -> Grid:
    return Grid([Data(str(parts))], BOTH, [ATTACK])


def test_cells_come_column_by_column(parts: Path) -> None:
    _, cells = tasks(made(parts))
    assert [(c.method.title, c.seed, c.title) for c in cells] == [
        ("first", 0, "clean"),
        ("second", 0, "clean"),
        ("second", 1, "clean"),
        ("first", 0, ATTACK.title),
        ("second", 0, ATTACK.title),
        ("second", 1, ATTACK.title),
    ]


def test_further_seeds_come_last(parts: Path) -> None:
    found = [(t.method.title, t.seed, t.title) for t in in_order(made(parts))]
    assert found == [
        ("first", 0, "training"),
        ("second", 0, "training"),
        ("first", 0, "clean"),
        ("second", 0, "clean"),
        ("first", 0, ATTACK.title),
        ("second", 0, ATTACK.title),
        ("second", 1, "training"),
        ("second", 1, "clean"),
        ("second", 1, ATTACK.title),
    ]


def test_cells_of_one_model_are_measured_while_another_is_trained(parts: Path) -> None:
    queue = Queue(in_order(made(parts)))
    first, second = queue.next(2)
    assert (first.cell, second.cell, queue.next(2)) == (None, None, [])
    assert queue.ended(first, None) == []
    [cell] = queue.next(2)
    assert (cell.method.title, cell.title) == ("first", "clean")
    assert queue.ended(cell, "it failed") == []
    assert [task.title for task in queue.next(2)] == [ATTACK.title]
    assert queue.late(over=False) == []
    lost = queue.ended(second, "it failed")
    assert [(t.method.title, t.seed, t.title) for t in lost] == [
        ("second", 0, "clean"),
        ("second", 0, ATTACK.title),
    ]
    assert [(t.seed, t.cell) for t in queue.next(2)] == [(1, None)]
    assert [t.title for t in queue.late(over=True)] == []  # the cells of what is still trained
    trained = queue.running[-1]
    queue.ended(trained, None)
    assert queue.next(0) == []
    assert [t.title for t in queue.late(over=True)] == ["clean", ATTACK.title]


def test_one_detector_now_and_the_rest_later(
    parts: Path, tmp_path: Path, clock: list[float]
) -> None:
    grid, crew = made(parts), Inline(tmp_path, clock)
    done = run_grid(grid, tmp_path, crew=crew, stint=Stint(["first"]))
    assert crew.names == ["first 0 training", "first 0 clean", f"first 0 {ATTACK.title}"]
    assert (len(done), unfinished(done)) == (9, 6)
    rows = [line for line in markdown(grid, done).splitlines() if line.startswith("| second")]
    assert rows[0].count("not run") == 2
    assert "6 not run." in write_grid(grid, done, tmp_path).read_text()
    again = Inline(tmp_path, clock)
    done = run_grid(grid, tmp_path, crew=again)
    assert {name.split()[0] for name in again.names} == {"second"}
    assert unfinished(done) == 0
    assert "| not run" not in markdown(grid, done)
    assert "all of them done." in write_grid(grid, done, tmp_path).read_text()


def test_no_task_is_begun_after_the_time(parts: Path, tmp_path: Path, clock: list[float]) -> None:
    grid, crew = made(parts), Inline(tmp_path, clock)
    done = run_grid(grid, tmp_path, crew=crew, stint=Stint(hours=4.5 / 60))  # a minute a task
    assert crew.names == [
        "first 0 training",
        "second 0 training",
        "first 0 clean",
        "second 0 clean",
        f"first 0 {ATTACK.title}",
    ]
    assert unfinished(done) == 4
    clean = {f["detector"]: f for f in figures(grid, done) if f["column"] == "clean"}
    assert (clean["first"]["waiting"], clean["second"]["waiting"]) == (0, 1)
    assert "1 of its seeds not run" in markdown(grid, done)


def test_without_time_it_tells_what_is_there(
    parts: Path, tmp_path: Path, clock: list[float]
) -> None:
    grid = made(parts)
    assert unfinished(run_grid(grid, tmp_path, stint=Stint(hours=0))) == 9
    run_grid(grid, tmp_path, crew=Inline(tmp_path, clock), stint=Stint(["first"]))
    crew = Inline(tmp_path, clock)
    done = run_grid(grid, tmp_path, crew=crew, stint=Stint(hours=0))
    assert (crew.names, unfinished(done)) == ([], 6)


def bared(model: Path) -> None:
    """Leaves of a model's folder what a record alone brings back."""
    for path in model.iterdir():
        if path.name != RECORD:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def of_second(out: Path, name: str) -> Path:
    [path] = out.glob(f"*/second/0/{name}")
    return path


def test_a_model_that_is_gone_is_trained_again_where_a_cell_needs_it(
    parts: Path, tmp_path: Path, clock: list[float]
) -> None:
    grid = made(parts)
    run_grid(grid, tmp_path, crew=Inline(tmp_path, clock))
    for model in tmp_path.glob("*/*/0/model"):
        bared(model)
    run_grid(grid, tmp_path, crew=(crew := Inline(tmp_path, clock)))
    assert crew.names == []  # nothing needs them
    of_second(tmp_path, f"clean/{RECORD}").unlink()
    done = run_grid(grid, tmp_path, crew=crew, stint=Stint(hours=0))
    assert (crew.names, unfinished(done)) == ([], 1)
    assert all(record["found"] for task, record in done if task.cell is None)
    done = run_grid(grid, tmp_path, crew=crew, stint=Stint(["second"]))
    assert crew.names == ["second 0 training", "second 0 clean"]
    assert unfinished(done) == 0


@pytest.mark.parametrize("how", ["no data", "no place", "interrupted"])
def test_a_training_that_cannot_be_done_again_keeps_what_it_had_found(
    how: str, parts: Path, tmp_path: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = made(parts)
    before = run_grid(grid, tmp_path, crew=Inline(tmp_path, clock))
    bared(of_second(tmp_path, "model"))
    of_second(tmp_path, f"clean/{RECORD}").unlink()
    crew = Inline(tmp_path, clock)
    if how == "no data":
        monkeypatch.setattr(grid_run, "opened", refused)
    elif how == "no place":
        (of_second(tmp_path, "model") / "notes.md").touch()
    else:
        monkeypatch.setattr(crew, "begin", stopped(tmp_path))
        with pytest.raises(KeyboardInterrupt):
            run_grid(grid, tmp_path, crew=crew)
    done = run_grid(grid, tmp_path, crew=crew, stint=Stint(hours=0 if how == "interrupted" else 1))
    found = [[r["found"] for t, r in some if t.cell is None] for some in (before, done)]
    assert found[0] == found[1]
    assert bool([r for _, r in done if r["error"]]) == (how != "interrupted")
    told = {
        f["detector"]: f for f in summaries(grid, run_grid(grid, tmp_path, stint=Stint(hours=0)))
    }
    assert told["second"]["parameters"]


def refused(data: Data) -> None:
    raise DataError(f"{data.name} is not there")


def stopped(out: Path) -> Callable[[Task], None]:
    def begin(task: Task) -> None:
        set_aside(task, out)
        raise KeyboardInterrupt

    return begin


def test_cells_are_left_where_another_model_was_made_meanwhile(
    parts: Path, tmp_path: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    from advrad.evaluate import grid_task

    grid = made(parts)
    run_grid(grid, tmp_path, crew=Inline(tmp_path, clock))
    model = of_second(tmp_path, "model")
    bared(model)
    of_second(tmp_path, f"clean/{RECORD}").unlink()
    other = model.parent.parent / "1" / "model"

    def another(data: object, folder: Path, wanted: object) -> None:
        shutil.copytree(other, folder, dirs_exist_ok=True, ignore=lambda *_: [RECORD])

    monkeypatch.setattr(grid_task, "train", another)
    done = run_grid(grid, tmp_path, crew=(crew := Inline(tmp_path, clock)))
    assert crew.names == ["second 0 training", "second 0 clean"]
    assert unfinished(done) == 1  # the attack was on the model before
    done = run_grid(grid, tmp_path, crew=(crew := Inline(tmp_path, clock)))
    assert (crew.names, unfinished(done)) == ([f"second 0 {ATTACK.title}"], 0)


def test_a_damaged_model_is_trained_again(parts: Path, tmp_path: Path, clock: list[float]) -> None:
    grid = made(parts)
    run_grid(grid, tmp_path, crew=Inline(tmp_path, clock))
    of_second(tmp_path, "model/model.safetensors").unlink()
    of_second(tmp_path, f"clean/{RECORD}").unlink()
    done = run_grid(grid, tmp_path, crew=(crew := Inline(tmp_path, clock)))
    assert crew.names == ["second 0 training", "second 0 clean"]
    assert not [record for _, record in done if record["error"]]


def test_cells_of_a_model_that_was_replaced_are_measured_anew(
    parts: Path, tmp_path: Path, clock: list[float]
) -> None:
    grid = made(parts)
    run_grid(grid, tmp_path, crew=Inline(tmp_path, clock))
    model = of_second(tmp_path, "model")
    for path in (model.parent.parent / "1" / "model").iterdir():
        if path.is_file() and path.name != RECORD:
            shutil.copy(path, model)
    done = run_grid(grid, tmp_path, crew=(crew := Inline(tmp_path, clock)))
    assert crew.names == ["second 0 clean", f"second 0 {ATTACK.title}"]
    assert not [record for _, record in done if record["error"]]
    values = {
        t.seed: r["found"] for t, r in done if (t.method.title, t.cell) == ("second", "clean")
    }
    assert values[0]["image_auroc"] == values[1]["image_auroc"]


@pytest.mark.parametrize("text", ["[]", "null", '"a"', "{", "{}"])
def test_a_damaged_record_is_made_anew(
    text: str, parts: Path, tmp_path: Path, clock: list[float]
) -> None:
    grid = made(parts)
    run_grid(grid, tmp_path, crew=Inline(tmp_path, clock))
    of_second(tmp_path, f"clean/{RECORD}").write_text(text)
    whole = of_second(tmp_path, f"model/{RECORD}")
    whole.write_text(whole.read_text().replace('"found": {', '"found": {}, "lost": {'))
    run_grid(grid, tmp_path, crew=(crew := Inline(tmp_path, clock)))
    assert crew.names == ["second 0 training", "second 0 clean"]


def test_a_training_that_waits_keeps_its_cells_waiting(
    parts: Path, tmp_path: Path, clock: list[float]
) -> None:
    crew = Inline(tmp_path, clock)
    done = run_grid(made(parts), tmp_path, crew=crew, stint=Stint(hours=0.5 / 60))
    assert crew.names == ["first 0 training"]
    assert unfinished(done) == 8
    assert not any(record["error"] for _, record in done)


def test_what_failed_before_is_still_told(
    parts: Path, tmp_path: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    from advrad.evaluate import grid_task

    grid = made(parts)
    monkeypatch.setattr(grid_task, "evaluate", lambda *a: 1 / 0)
    run_grid(grid, tmp_path, crew=Inline(tmp_path, clock), stint=Stint(["first"]))
    monkeypatch.undo()
    done = run_grid(grid, tmp_path, stint=Stint(hours=0))
    [clean] = [r for t, r in done if (t.method.title, t.title) == ("first", "clean")]
    assert "division by zero" in clean["error"]
    assert clean["waiting"]
    assert "| failed" in markdown(grid, done)
    [told] = [f for f in figures(grid, done) if (f["detector"], f["column"]) == ("first", "clean")]
    assert (told["failed"], told["waiting"]) == (1, 0)  # and not both


@pytest.mark.parametrize(
    ("stint", "told"),
    [
        (Stint(["third"]), r"--only 'third': .*there are 'first', 'second'"),
        (Stint(hours=-1), "--hours -1: expected 0 or more"),
        (Stint(hours=float("nan")), "--hours nan"),
    ],
)
def test_an_impossible_stint_is_refused(
    parts: Path, tmp_path: Path, stint: Stint, told: str
) -> None:
    with pytest.raises(UsageError, match=told):
        run_grid(made(parts), tmp_path / "out", stint=stint)
    assert not (tmp_path / "out").exists()


def test_the_command_tells_what_is_left(
    parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "grid.toml"
    path.write_text(
        f'[[data]]\nname = "{parts}"\n[[detector]]\nname = "trivial"\nlabel = "one"\n'
        '[[detector]]\nname = "trivial"\nlabel = "two"\n'
    )
    asked = ["benchmark", str(path), "--out", str(tmp_path / "out"), "--only", "one"]
    assert main(asked) == 0
    out, err = capsys.readouterr()
    assert "2 of 4 tasks not run: the same command goes on" in err
    assert "not run" in out
    assert main([*asked, "--hours", "-1"]) == 2
    assert "0 or more" in capsys.readouterr().err


def test_two_runs_do_not_share_a_folder(parts: Path, tmp_path: Path) -> None:
    grid = made(parts)
    with (
        held(tmp_path / ".lock", "taken"),
        pytest.raises(UsageError, match="another run works in"),
    ):
        run_grid(grid, tmp_path)
    with held(tmp_path / ".lock", "taken"):  # to look does no harm
        assert unfinished(run_grid(grid, tmp_path, stint=Stint(hours=0))) == 9
    assert not list(tmp_path.rglob("task.json"))


def test_what_has_no_data_fails_at_once_and_costs_no_other(
    parts: Path, tmp_path: Path, clock: list[float]
) -> None:
    grid = Grid([Data(str(tmp_path / "nowhere")), Data(str(parts))], BOTH)
    crew = Inline(tmp_path, clock)
    done = run_grid(grid, tmp_path / "out", crew=crew)
    lost = [(task, record) for task, record in done if record["error"]]
    assert len(lost) == len(done) / 2 == 6
    assert all("nowhere" in record["error"] for _, record in lost)
    assert {task.data.name for task, _ in lost} == {str(tmp_path / "nowhere")}
    assert len(crew.names) == 6


def test_a_trial_of_a_defence_opens_its_own_data(tmp_path: Path) -> None:
    """What is no data set of photographs may well be one of classes."""
    data = Data(str(tmp_path / "nowhere"))
    detector = Task(data, Method("patchcore"), 0, None)
    trial = Task(data, Method("none"), 0, Defended("c", data.name))
    [(task, why)] = grid_run._without_data([detector, trial])
    assert task is detector
    assert "nowhere" in why
