"""The grids that come along: each can be read, builds its detectors, and finds its data."""

import json
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from test_folder import btad, image, mvtec
from test_grid import TINY

from advrad.data import CATALOGUE, Dataset, load
from advrad.data.fetched import FETCHED
from advrad.errors import UsageError
from advrad.evaluate.grid import Assailed, Certified, Data, Grid, Method, read, tasks
from advrad.evaluate.grid_table import markdown
from advrad.evaluate.grid_task import run
from advrad.model import load as load_model

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
FILES = [
    path
    for path in sorted(BENCHMARKS.glob("*.toml"))
    if "detector" in tomllib.loads(path.read_text())
]
OWN = {"mvtec": 15, "visa": 12, "btad": 3}  # data of the user's own, with their categories


def visa(root: Path, categories: list[str]) -> Path:
    """VisA's layout with these categories, two good images and one defect each."""
    rows = ["object,split,label,image,mask"]
    for name in categories:
        for part, label, file in (
            ("train", "normal", "Normal/0.JPG"),
            ("test", "normal", "Normal/1.JPG"),
            ("test", "anomaly", "Anomaly/0.JPG"),
        ):
            path = f"{name}/Data/Images/{file}"
            image(root / path)
            mask = f"{name}/Data/Masks/Anomaly/0.png" if label == "anomaly" else ""
            rows.append(f"{name},{part},{label},{path},{mask}")
        image(root / f"{name}/Data/Masks/Anomaly/0.png")
    (root / "split_csv").mkdir()
    (root / "split_csv" / "1cls.csv").write_text("\n".join(rows) + "\n")
    return root


def made(name: str, categories: list[str]) -> None:
    """A data set of the user's own where the grid looks for it."""
    root = Path("datasets") / name
    if name == "visa":
        visa(root, categories)
        return
    write: Callable[[Path], Path] = mvtec if name == "mvtec" else btad
    for category in categories:
        write(root / category)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_grid_is_read_and_its_detectors_are_built(path: Path) -> None:
    grid = read(path)
    trainings, cells = tasks(grid)
    assert len({task.folder for task in (*trainings, *cells)}) == len(trainings) + len(cells)
    text = path.read_text()
    assert f"advrad benchmark benchmarks/{path.name} --out" in text


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_data_set_of_a_grid_is_one_that_the_loaders_know(path: Path) -> None:
    for data in read(path).data:
        if data.name in FETCHED:
            assert data.category in FETCHED[data.name].classes
        elif data.name not in CATALOGUE:
            assert path.stem in OWN
            assert data.name == f"datasets/{path.stem}"
        else:
            assert data.category is data.layout is None


@pytest.mark.parametrize("name", OWN)
def test_all_categories_are_found_once_the_data_are_there(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    grid = read(BENCHMARKS / f"{name}.toml")
    categories = [str(data.category) for data in grid.data]
    assert len(set(categories)) == len(categories) == OWN[name]
    made(name, categories)
    for data in grid.data:
        found: Dataset = load(data.name, layout=data.layout, category=data.category)
        assert found.name == data.category
        assert found.layout == name
        assert found.train
        assert {item.defect for item in found.test} == {True, False}
        assert any(item.mask for item in found.test)


def test_the_table_of_the_papers_has_what_it_stands_for() -> None:
    grid = read(BENCHMARKS / "papers.toml")
    threats = {(attack.norm, attack.eps, attack.suite) for attack in grid.attack}
    assert threats >= {("linf", "2/255", "quick"), ("l2", 0.2, "quick"), ("l2", 2.0, "quick")}
    names = {method.name for method in grid.detector}
    assert names >= {"advrad", "patchcore", "spade", "cflow", "fastflow", "cfa", "purified"}
    _, cells = tasks(grid)
    chains = [method.title for method in grid.detector if "full chain" in method.title]
    assert chains
    assert {task.title for task in cells if task.method.title in chains} == {"clean"}
    attacked = {task.method.title for task in cells if isinstance(task.cell, Assailed)}
    assert attacked == {method.title for method in grid.detector} - set(chains)


def test_a_method_s_own_limit_and_whether_it_is_attacked() -> None:
    slow = Method("trivial", label="slow", limit=4, attacked=False)
    grid = Grid(
        [Data("hazelnut_toy")],
        [Method("trivial"), slow],
        [Assailed(), Assailed(suite="standard", detectors=["slow"])],
    ).checked()
    found = [(task.method.title, task.title) for task in tasks(grid)[1]]
    assert found == [
        ("trivial", "clean"),
        ("slow", "clean"),
        ("trivial", "linf 2/255, quick"),
        ("slow", "linf 2/255, standard"),
    ]


def test_one_size_for_a_whole_table_and_no_certificate_of_it() -> None:
    data, detector = [Data("hazelnut_toy")], [Method("trivial")]
    trainings, cells = tasks(Grid(data, detector, size=40).checked())
    assert {task.size for task in (*trainings, *cells)} == {40}
    for wrong in (
        Grid(data, detector, size=40, certificate=[Certified(0.1)]),
        Grid(data, detector, size=0),
    ):
        with pytest.raises(UsageError, match="size = "):
            wrong.checked()


def test_a_grid_of_one_size_hands_it_to_every_detector(parts: Path, tmp_path: Path) -> None:
    """Each brings the images to its own size; the table says what an image is, and the cost."""
    method = Method("patchcore", TINY)
    grid = Grid([Data(str(parts))], [method], [Assailed("l2", 0.1, "paper-pgd", 2)], size=24)
    trainings, cells = tasks(grid.checked())
    done = [(task, run(task, tmp_path)) for task in (*trainings, *cells)]
    assert [record["error"] for _, record in done] == [None] * 3
    model = load_model(tmp_path / trainings[0].model)
    assert model.preprocess.size == 24
    assert model.detector.input_size == 16
    rows = json.loads((tmp_path / cells[1].folder / "result.json").read_text())
    assert rows["settings"]["height"] == 24
    table = markdown(grid, done)
    assert "| image | train s | train TFLOP | parameters | peak MiB |" in table
    assert "| 1 x 24 x 24 |" in table
    assert done[0][1]["found"]["cost"]["training_flop"] > 0
