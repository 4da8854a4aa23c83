"""Grids: what a file asks for, cells that are shared, resumed, failed, killed; the table."""

import csv
import io
import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from advrad.cli import main
from advrad.errors import AdvradError, DataError, UsageError
from advrad.evaluate import grid_processes
from advrad.evaluate.grid import Assailed, Certified, Data, Grid, Method, Task, read, slug, tasks
from advrad.evaluate.grid_run import run_grid
from advrad.evaluate.grid_table import as_csv, figures, line, markdown, ranks, words
from advrad.evaluate.grid_task import RECORD, run

TINY = {"size": 16, "backbone": "untrained", "strides": [4, 8], "memory": 30, "pool": 200}
ONE = "[[data]]\nname='x'\n[[detector]]\nname='patchcore'\n"
SMALL = """
name = "small"
seeds = [0]

[[data]]
name = "{parts}"

[[detector]]
name = "patchcore"
settings = {{ size = 16, backbone = "untrained", strides = [4, 8], memory = 30, pool = 200 }}

[[attack]]
norm = "l2"
eps = 0.1
suite = "paper-pgd"
limit = 2

[[certificate]]
sigma = 0.2
radii = [0.05]
samples = 20
limit = 2
alpha = 0.4
"""


def small(parts: Path, tmp_path: Path, more: str = "") -> Path:
    path = tmp_path / "grid.toml"
    path.write_text(SMALL.format(parts=parts) + more)
    return path


def made(parts: Path, *methods: Method, **settings: Any) -> Grid:
    return Grid([Data(str(parts))], methods or [Method("patchcore", TINY)], **settings)


def test_what_a_file_asks_for(parts: Path, tmp_path: Path) -> None:
    grid = read(small(parts, tmp_path))
    trainings, cells = tasks(grid)
    assert [task.title for task in trainings] == ["training"]
    assert [task.title for task in cells] == [
        "clean",
        "l2 0.1, paper-pgd",
        "certified, sigma 0.2",
    ]
    assert len({task.folder for task in (*trainings, *cells)}) == 4
    assert all(task.model == trainings[0].folder for task in cells)


def test_seeds_and_detectors_of_a_cell(parts: Path) -> None:
    grid = made(
        parts,
        Method("patchcore", TINY),
        Method("patchcore", TINY, label="other", seeds=[5]),
        seeds=[0, 1],
        attack=[Assailed(seeds=[0]), Assailed("l2", 0.2, detectors=["other"])],
    )
    _, cells = tasks(grid.checked())
    found = [(c.method.title, c.seed, c.title) for c in cells if c.title != "clean"]
    assert found == [("patchcore", 0, "linf 2/255, quick"), ("other", 5, "l2 0.2, quick")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "name = 3\n[[data]]\nname = 'x'\n[[detector]]\nname = 'patchcore'",
            "name: input should be a valid string",
        ),
        ("[[detector]]\nname = 'patchcore'", "at least one [[data]]"),
        ("[[data]]\nname = 'x'\n[[detector]]\nname = 'patchcor'", "unknown detector 'patchcor'"),
        ("[[data]]\nname = 'x'\n[[detector]]\nname = 'patchcore'\nsize = 3", "size"),
        (
            "[[data]]\nname = 'x'\n[[detector]]\nname = 'patchcore'\nsettings = {memory = 0}",
            "memory",
        ),
        ("[[data]]\nname = 'x'\n" + 2 * "[[detector]]\nname = 'patchcore'\n", "same name"),
        ("[[data]]\nname='x'\n[[detector]]\nname='patchcore'\n[[attack]]\nnorm='l3'", "norm 'l3'"),
        ("[[data]]\nname='x'\n[[detector]]\nname='patchcore'\n[[attack]]\neps='a'", "eps 'a'"),
        (
            "[[data]]\nname='x'\n[[detector]]\nname='patchcore'\n[[attack]]\ndetectors=['y']",
            "no entry has this name",
        ),
        (
            "[[data]]\nname='x'\n[[detector]]\nname='patchcore'\n[[certificate]]\nsigma=0",
            "sigma 0",
        ),
        (ONE + "[[attack]]\neps='2/255/3'", "eps '2/255/3'"),
        (ONE + "[[attack]]\neps=-1", "eps '-1.0'"),
        (ONE + "[[attack]]\neps=0", "eps 0"),
        (ONE + "[[attack]]\neps=nan", "eps 'nan'"),
        (ONE + "[[attack]]\nlimit=0", "limit 0: expected 2 or more"),
        (ONE + "[[attack]]\nseeds=[3]", "is for no detector"),
        (ONE + "[[attack]]\n[[attack]]\nlimit=4", "two entries are both"),
        (ONE + "seeds=[0, 0]", "seeds of patchcore [0, 0]"),
        (ONE + "seeds=[]", "seeds of patchcore []"),
        (ONE + "limit=-3", "limit -3"),
        (ONE + "[[certificate]]\nsigma=0.1\nalpha=2", "alpha 2"),
        (ONE + "label='..'", "no folder can be named so"),
        (ONE + "label='λ'", "no folder can be named so"),
        ("[[data]]\nname='..'\n[[detector]]\nname='patchcore'", "no folder can be named so"),
        ("[[data]]\nname='x'\nlayout='mvtek'\n[[detector]]\nname='patchcore'", "layout 'mvtek'"),
        ("device='cudaa'\n[[data]]\nname='x'\n[[detector]]\nname='patchcore'", "device 'cudaa'"),
        (2 * "[[data]]\nname='x'\n" + "[[detector]]\nname='patchcore'", "a grid of its own"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_file_is_told(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "grid.toml").write_text(text)
    with pytest.raises(UsageError) as caught:
        read(tmp_path / "grid.toml")
    assert words in str(caught.value)


def test_what_is_no_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read(tmp_path / "none.toml")
    (tmp_path / "grid.toml").write_text("[[data")
    with pytest.raises(DataError, match="no TOML"):
        read(tmp_path / "grid.toml")


class Inline:
    """A process that is none: it works at once, in this one."""

    def __init__(self, target: Any, args: Any) -> None:
        self.work, self.args = target, args
        self.sentinel, self.exitcode = None, 0

    def start(self) -> None:
        self.work(*self.args)

    def is_alive(self) -> bool:
        return False

    def join(self, timeout: float | None = None) -> None:
        pass


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    def begun(task: Task, out: Path, workers: int) -> Inline:
        process = Inline(run, (task, out))
        process.start()
        return process

    monkeypatch.setattr(grid_processes, "_begun", begun)
    monkeypatch.setattr(grid_processes, "wait", lambda sentinels: None)


@pytest.mark.usefixtures("inline")
def test_the_whole_way_and_again(
    parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = small(parts, tmp_path), tmp_path / "out"
    assert main(["benchmark", str(path), "--out", str(out), "--json"]) == 0
    record, err = capsys.readouterr()
    found = {f["column"]: f for f in json.loads(record)["figures"]}
    assert set(found) == {"clean", "l2 0.1, paper-pgd", "certified, sigma 0.2, radius 0.05"}
    assert all(0 <= f["value"] <= 1 for f in found.values())
    assert "patchcore" in (out / "table.md").read_text()
    assert "What failed" not in (out / "report.html").read_text()
    assert err.count("seed 0") == 4
    before = {p: p.stat().st_mtime_ns for p in out.rglob(RECORD)}
    assert len(before) == 4
    assert main(["benchmark", str(path), "--out", str(out), "--json"]) == 0
    again, err = capsys.readouterr()
    assert again == record
    assert err.count("done before") == 4
    assert {p: p.stat().st_mtime_ns for p in out.rglob(RECORD)} == before


def errors(done: Sequence[tuple[Task, Any]]) -> dict[str, str | None]:
    return {f"{task.method.title}: {task.title}": record["error"] for task, record in done}


@pytest.mark.usefixtures("inline")
def test_a_cell_that_fails_costs_no_other_and_is_tried_again(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from advrad.evaluate import grid_task

    grid = made(parts, attack=[Assailed("l2", 0.1, "paper-pgd", limit=2)])
    attack = grid_task.attack
    monkeypatch.setattr(grid_task, "attack", lambda *a: 1 / 0)
    found = errors(run_grid(grid, tmp_path))
    assert found["patchcore: clean"] is None
    assert found["patchcore: l2 0.1, paper-pgd"] == "ZeroDivisionError: division by zero"
    monkeypatch.setattr(grid_task, "attack", attack)
    assert not any(errors(run_grid(grid, tmp_path)).values())


@pytest.mark.usefixtures("inline")
def test_a_training_that_fails_fails_its_cells_alone(parts: Path, tmp_path: Path) -> None:
    bad = Method("patchcore", TINY | {"neighbours": 5000}, label="greedy")
    found = errors(run_grid(made(parts, Method("patchcore", TINY), bad), tmp_path))
    assert found["patchcore: clean"] is None
    assert "neighbours=5000 needs as many" in str(found["greedy: training"])
    assert str(found["greedy: clean"]).startswith("its training failed: ")


@pytest.mark.usefixtures("inline")
def test_other_settings_under_the_same_name_are_refused(parts: Path, tmp_path: Path) -> None:
    run_grid(made(parts), tmp_path)
    other = made(parts, Method("patchcore", TINY | {"memory": 31}))
    with pytest.raises(UsageError, match=r"other settings for .*model and 1 more"):
        run_grid(other, tmp_path)
    more = made(parts, Method("patchcore", TINY), Method("patchcore", TINY, label="second"))
    assert len(run_grid(more, tmp_path)) == 4
    with pytest.raises(UsageError, match="0 workers"):
        run_grid(more, tmp_path, 0)


def killed(task: Task, out: Path, threads: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_dies_fails_its_task(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grid_processes, "_work", killed)
    found = errors(run_grid(made(parts), tmp_path))
    assert "ended by SIGKILL; out of memory?" in str(found["patchcore: training"])


@pytest.mark.usefixtures("inline")
def test_the_exit_code_tells_of_failures(
    parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = """
[[detector]]
name = "patchcore"
label = "greedy"
settings = { size = 16, backbone = "untrained", strides = [4, 8], neighbours = 5000 }
"""
    path = small(parts, tmp_path, more)
    assert main(["benchmark", str(path), "--out", str(tmp_path / "out")]) == 1
    assert "failed" in capsys.readouterr().out
    assert "What failed" in (tmp_path / "out" / "report.html").read_text()


def cell(
    kind: Any, value: float | None, *, seed: int = 0, name: str = "a", health: str = "sound"
) -> tuple[Task, dict[str, Any]]:
    task = Task(Data("d"), Method("patchcore", label=name), seed, kind)
    key = "robust_auroc" if isinstance(kind, Assailed) else "image_auroc"
    found: dict[str, Any] = {key: value, f"{key}_ci": [0.1, 0.9]}
    if isinstance(kind, Assailed):
        found["health"] = {"verdict": health, "not_run": [], "reasons": []}
    return task, {"error": None, "found": found, "seconds": 1.0, "peak_mib": 1.0}


def test_figures_over_seeds_and_of_one() -> None:
    attack = Assailed()
    grid = Grid([Data("d")], [Method("patchcore", label="a")], [attack])
    done = [
        cell("clean", 0.8),
        cell("clean", 0.9, seed=1),
        cell(attack, 0.3),
        cell(attack, 0.5, seed=1, health="suspect"),
    ]
    clean, attacked = figures(grid, done)
    assert clean["value"] == pytest.approx(0.85)
    assert clean["deviation"] == pytest.approx(0.0707, abs=1e-4)
    assert words(clean) == "0.850 ± 0.071"
    assert words(attacked) == "0.400 ± 0.141 suspect"
    [single, _] = figures(grid, done[:1])
    assert words(single) == "0.800 (0.10 to 0.90)"
    assert words(figures(grid, [])[0]) == "n/a"


def test_one_column_may_have_other_settings_for_other_detectors(parts: Path) -> None:
    few, many = Assailed(limit=4, detectors=["a"]), Assailed(limit=6, detectors=["b"])
    methods = [Method("patchcore", TINY, label="a"), Method("patchcore", TINY, label="b")]
    grid = Grid([Data(str(parts))], methods, [few, many]).checked()
    assert [f["column"] for f in figures(grid, [])] == 2 * ["clean", few.title]


def test_a_detector_with_a_seed_that_failed_has_no_rank_and_takes_none() -> None:
    grid = Grid([Data("d")], [Method("patchcore", label=name) for name in ("a", "b")])
    lost = cell("clean", 0.0, seed=1)
    lost[1].update(error="boom", found=None)
    done = [cell("clean", 0.9), lost, cell("clean", 0.8, name="b")]
    first, _ = figures(grid, done)
    assert words(first) == "0.900 (0.10 to 0.90), 1 of its seeds failed"
    assert ranks(figures(grid, done)) == {"b": 1.0}
    assert ranks(figures(grid, done[::2])) == {"a": 1.0, "b": 2.0}


def test_a_radius_that_too_few_draws_reach_says_how_many_it_takes() -> None:
    own = Certified(0.1, radii=(0.1, 0.5, 0.9))
    grid = Grid([Data("d")], [Method("patchcore", label="a")], certificate=[own])
    done = [cell(own, None)]
    done[0][1]["found"] = {
        "certified_auroc": {"0.1": 0.8, "0.5": None, "0.9": None},
        "certified_auroc_ci": {"0.1": [0.7, 0.9], "0.5": None, "0.9": None},
        "needed": {"0.5": 24693, "0.9": None},
    }
    told = [words(figure) for figure in figures(grid, done)]
    assert told == [
        "n/a",
        "0.800 (0.70 to 0.90)",
        "n/a (needs 24,693 samples)",
        "n/a (needs more than a billion samples)",
    ]


def test_an_auroc_that_is_not_defined_is_no_figure() -> None:
    grid = Grid([Data("d")], [Method("patchcore", label="a")])
    [clean] = figures(grid, [cell("clean", None)])
    assert words(clean) == "n/a"


def test_the_csv_tells_ranks_costs_and_what_waits() -> None:
    grid = Grid([Data("d")], [Method("patchcore", label="a"), Method("patchcore", label="b")])
    waits = cell("clean", 0.0, name="b")
    waits[1].update(waiting=True, found=None)
    made = cell(None, 0.0)
    cost = {"training_flop": 2e12, "parameters": 7}
    found = {"training": {"seconds": 3.5}, "cost": cost, "shape": [1, 8, 8]}
    made[1].update(found=found, peak_mib=12.5)
    later = cell(None, 0.0, seed=1)
    later[1].update(waiting=True, found=None, peak_mib=None)
    done = [later, made, cell("clean", 0.8), waits]
    one, two = csv.DictReader(io.StringIO(as_csv(grid, done)))
    told = ["image", "train_seconds", "train_flop", "parameters", "peak_mib", "waiting", "rank"]
    assert [one[name] for name in told] == [
        "1 x 8 x 8", "3.5", "2000000000000.0", "7", "12.5", "0", ""
    ]  # fmt: skip
    assert (two["waiting"], two["value"], two["parameters"]) == ("1", "", "")


def test_a_bar_in_a_name_does_not_end_a_cell() -> None:
    assert line(["ae|x", "0.5"]) == "| ae\\|x | 0.5 |"


def test_ranks_share_ties_and_leave_columns_with_gaps_out() -> None:
    def figure(detector: str, column: str, value: float | None) -> dict[str, Any]:
        return {"detector": detector, "column": column, "value": value}

    own = [
        *(figure(n, "x", v) for n, v in (("a", 0.9), ("b", 0.8), ("c", 0.8))),
        *(figure(n, "y", v) for n, v in (("a", 0.1), ("b", 0.2), ("c", 0.3))),
        *(figure(n, "z", v) for n, v in (("a", 0.5), ("b", None), ("c", 0.9))),
    ]
    assert ranks(own) == {"a": 2.0, "b": (2.5 + 2) / 2, "c": (2.5 + 1) / 2}


def test_the_csv_has_every_figure() -> None:
    grid = Grid([Data("d")], [Method("patchcore", label="a"), Method("patchcore", label="b")])
    done = [cell("clean", 0.8), cell("clean", 0.7, name="b")]
    lines = list(csv.DictReader(io.StringIO(as_csv(grid, done))))
    assert [(line["detector"], line["value"]) for line in lines] == [("a", "0.8"), ("b", "0.7")]
    assert "| a | 0.800 (0.10 to 0.90) |" in markdown(grid, done)


def test_names_of_folders() -> None:
    assert slug("linf 2/255, quick") == "linf-2_255-quick"
    assert slug("cifar10/cat") == "cifar10_cat"
    assert Certified(0.12, scoring="matched").title == "certified, sigma 0.12, matched"
    assert Assailed(eps="2/255").radius == pytest.approx(2 / 255)


def test_an_error_of_the_library_is_recorded_in_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from advrad.evaluate import grid_task

    def refused(*given: Any, **named: Any) -> None:
        raise AdvradError("as it is said")

    monkeypatch.setattr(grid_task, "load", refused)
    record = run(Task(Data("d"), Method("patchcore"), 0, None), tmp_path)
    assert record["error"] == "as it is said"
    assert json.loads((tmp_path / "d/patchcore/0/model" / RECORD).read_text()) == record
