"""What the documents state is what the benchmarks have written, and each benchmark can be run."""

import importlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from advrad.detectors import ALL
from advrad.evaluate import defence_words
from advrad.evaluate.grid import read, tasks
from advrad.evaluate.grid_run import Stint, run_grid
from advrad.evaluate.grid_table import figures as table_figures
from advrad.evaluate.grid_table import markdown
from advrad.evaluate.grid_task import recorded
from advrad.files import write_json

ROOT = Path(__file__).parent.parent
BENCHMARKS = ROOT / "benchmarks"
SCRIPTS = sorted(
    path.name
    for path in BENCHMARKS.glob("*.py")
    if path.name not in ("common.py", "figures.py", "kept.py", "trials.py", "__init__.py")
)


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("table")


def test_the_tables_of_results_are_those_of_the_records(table: ModuleType) -> None:
    pages = table.pages()
    assert {page.name for page in pages} == {"README.md", "benchmarks.md"}
    for page, text in pages.items():
        between = page.read_text().split(table.START, 1)[1].split(table.END, 1)[0]
        assert between.strip() == text.strip()


def test_each_row_of_the_front_is_there(table: ModuleType) -> None:
    shown = table.front().splitlines()[2:]
    for start in table.FRONT:
        assert any(row.startswith(f"| {start}") for row in shown), start


ATTACKED = "linf 2/255, quick"


def figures(name: str) -> Any:
    return json.loads((BENCHMARKS / f"results/{name}.json").read_text())["figures"]


def prose(page: str) -> str:
    return " ".join((ROOT / page).read_text().split())


def test_what_the_front_says_of_detectors_side_by_side_is_measured() -> None:
    found = {
        (each["detector"], each["column"]): each
        for each in figures("grid-papers")["figures"]
        if each["data"] == "elpv-mono"
    }
    told = {"PatchCore": "patchcore", "PaDiM": "padim", "a plain autoencoder": "autoencoder, l2"}
    for words, name in (told | {"FastFlow": "fastflow", "RAE": "rae", "AdvRAD": "AdvRAD"}).items():
        clean, attacked = found[name, "clean"], found[name, ATTACKED]
        assert re.search(
            rf"{words} {clean['value']:.3f}( clean)? and {attacked['value']:.3f}",
            prose("README.md"),
        ), name
    assert f"({attacked['low']:.2f} to {attacked['high']:.2f})" in prose("README.md")


def test_what_the_front_says_of_a_defence_of_digits_is_measured() -> None:
    trials = figures("defences-grey-box")["trials"]
    bare, defended = (
        next(r for r in trials[name]["rows"] if r["attack"] == "pgd")
        for name in ("bare", "diffdefense")
    )
    right = defended["robust"]["one_shot"]
    assert bare["robust"]["one_shot"]["value"] == 0
    assert trials["diffdefense"]["images"] == 100
    value, low, high = (round(100 * right[name]) for name in ("value", "low", "high"))
    assert (
        f"on 0 % of 100 images. DiffDefense before it is right on {value} % ({low} to {high})"
    ) in prose("README.md")
    assert f"{defended['detection']['auroc']['value']:.3f}" == "1.000"  # each attacked image


def test_what_is_said_of_fine_tuning_is_measured() -> None:
    words = prose("docs/benchmarks.md")
    found = figures("defences-finetuned-fashion-mnist")
    rows = {(r["defence"], r["mode"]): r for r in found["trials"]["fashion-mnist"]["rows"]}
    assert {r["health"]["verdict"] for (_, mode), r in rows.items() if mode != "transfer"} == {
        "sound"
    }
    right = {key: round(100 * r["robust"]["average"]["value"]) for key, r in rows.items()}
    assert f"leaves {right['none', 'full']} % of the bare" in words
    assert f"right on {right['DiffPure', 'full']} % of 128 images" in words
    assert f"and on {right['DiffPure', 'dw_both']} % where all" in words
    assert f"would have said {right['DiffPure', 'transfer']}." in words
    assert (
        f"ADDT has {right['ADDT', 'dw_both']} in DW, ADBM {right['ADBM', 'dw_both']} and the "
        f"control {right['control', 'dw_both']}"
    ) in words
    for name in ("ADDT", "ADBM"):
        by = {k: f"{100 * v:.1f}" for k, v in found["over_control"][f"{name}, dw_both"].items()}
        assert re.search(rf"{by['value']}( points)? \({by['low']} to {by['high']}\)", words), name
    photographs = figures("defences-finetuned-cifar10")["trials"]["cifar10"]["rows"]
    left = {
        (r["defence"], r["mode"]): round(100 * r["robust"]["average"]["value"])
        for r in photographs
    }
    assert (left["DiffPure", "full"], left["DiffPure", "dw_both"], left["ADDT", "dw_both"]) == (
        7,
        0,
        2,
    )


def test_how_much_more_the_dearer_suites_find_is_measured() -> None:
    words = prose("docs/attacks.md")
    for name, over in (
        ("standard-ours-100", "quick-ours-200"),
        ("strong-ours-8", "standard-ours-100"),
    ):
        beyond = figures(f"suites-elpv-mono-{name}")["beyond"][f"{name} over {over}"]
        assert f"by {beyond['ratio']:.2f} times as much as `{over.split('-')[0]}`" in words


def test_what_a_purifier_before_a_detector_costs_is_measured() -> None:
    found = figures("purification-hazelnut_toy")
    best = max(found["depth"].values(), key=lambda row: row["robust_auroc"])
    words = prose("docs/purifiers.md")
    assert f"it reaches {best['robust_auroc']:.2f} at best" in words
    assert f"leaves it {best['clean_auroc']:.2f} without an attack" in words
    both = {f"{found['advrad'][key]:.2f}" for key in ("clean_auroc", "robust_auroc")}
    assert both == {"1.00"}
    assert all(found["depth"][depth]["robust_auroc"] == 0 for depth in ("0", "10", "25"))


def test_the_drawing_of_purification_is_that_of_its_record(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    drawn = importlib.import_module("purification").figure(figures("purification-hazelnut_toy"))
    kept = (BENCHMARKS / "results/purification-hazelnut_toy.svg").read_bytes()
    assert paths(drawn) == paths(kept)


def paths(drawing: bytes) -> list[str]:
    """The lines of an SVG, whatever the names that they are given."""
    return re.findall(r'\bd="([^"]+)"', drawing.decode())


def test_what_the_comments_say_of_the_grids_is_measured() -> None:
    words, rows = prose("docs/benchmarks.md"), figures("grid-papers")["figures"]
    cells = {(r["detector"], r["column"]): r for r in rows if r["data"] == "elpv-mono"}
    under = {name: r["value"] for (name, column), r in cells.items() if column == ATTACKED}
    fallen = ("padim", "patchcore", "cfa", "cflow", "fastflow")
    assert {under[name] for name in fallen} == {0.0}
    worst = max(under["autoencoder, l2"], under["autoencoder, ssim"])
    assert f"plain autoencoders to {worst:.2f} and below" in words
    assert f"AdvRAD keeps {under['AdvRAD']:.2f} of" in words
    assert f"keeps {under['rae']:.2f} of" in words
    assert f"so that {under['mean image']:.2f} is what robustness alone is worth" in words
    tiny = {
        r["detector"]: r["value"]
        for r in rows
        if (r["data"], r["column"]) == ("hazelnut_toy", "l2 0.2, quick")
    }
    [spade] = [
        r["value"]
        for r in rows
        if (r["data"], r["detector"], r["column"]) == ("hazelnut_toy", "spade", "l2 2.0, quick")
    ]
    assert spade == 0.0
    assert (tiny["padim"], tiny["patchcore"]) == (0.0, 0.0)
    assert f"SPADE keeps {tiny['spade']:.2f}" in words
    [poly] = [
        r["value"]
        for r in figures("grid-papers-more")["figures"]
        if (r["data"], r["detector"], r["column"]) == ("elpv-poly", "patchcore", "clean")
    ]
    assert f"PatchCore so far: {poly:.3f} on elpv-poly" in words


def test_as_many_detectors_as_the_front_says() -> None:
    count = {17: "Seventeen", 18: "Eighteen", 19: "Nineteen"}[len(ALL)]
    assert f"{count} detectors" in prose("README.md")


@pytest.mark.parametrize("path", sorted(BENCHMARKS.glob("results/*.json")), ids=lambda p: p.stem)
def test_a_record_names_its_command_its_machine_and_its_figures(path: Path) -> None:
    record = json.loads(path.read_text())
    assert record.keys() >= {"command", "date", "machine", "figures"}
    script = record["command"].split()[1]
    assert (ROOT / script).is_file()
    assert record["machine"]["cores"] >= 1
    assert record["figures"]


def test_a_grid_goes_on_from_its_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    kept = importlib.import_module("kept")
    grid = read(BENCHMARKS / "quick.toml")
    training, cell, other = (part[0] for part in (*tasks(grid), tasks(grid)[1][1:]))
    health = {"verdict": "sound", "reasons": [], "not_run": ["eps"], "checks": {"floor": "long"}}
    found = {"robust_auroc": 0.5, "robust_auroc_ci": [0.4, 0.6], "health": health, "parts": {}}
    told = {"seconds": 3.0, "peak_mib": 5.0, "models": {}, "task": {}, "error": None}
    waits = {"found": None, "seconds": None, "waiting": True}
    done = [(training, waits), (cell, told | {"found": found}), (other, told | {"found": found})]
    held = kept.kept(done)
    assert set(held) == {str(cell.folder), str(other.folder)}
    assert "checks" not in held[str(cell.folder)]["found"]["health"]
    held[str(other.folder)]["asked"] = "of another question"
    kept.restore(held, [training, cell, other], tmp_path)
    assert recorded(training, tmp_path) is None
    assert recorded(other, tmp_path) is None
    again = recorded(cell, tmp_path)
    assert again is not None
    assert kept.kept([(cell, again)]) == {str(cell.folder): held[str(cell.folder)]}
    write_json(tmp_path / cell.folder / "task.json", again | {"seconds": 4.0})
    kept.restore(held, [cell], tmp_path)  # what is there stays
    assert kept.kept([(cell, recorded(cell, tmp_path))])[str(cell.folder)]["seconds"] == 4.0


@pytest.mark.parametrize("name", ["quick", "papers", "papers-more"])
def test_the_record_of_a_grid_holds_all_that_its_figures_are_made_of(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    kept = importlib.import_module("kept")
    grid, held = read(BENCHMARKS / f"{name}.toml"), figures(f"grid-{name}")
    kept.restore(held["tasks"], [task for part in tasks(grid) for task in part], tmp_path)
    done = run_grid(grid, tmp_path, stint=Stint(hours=0))
    assert kept.lost(held["figures"], table_figures(grid, done)) == []
    assert markdown(grid, done) == held["tables"]


def test_a_record_is_written_anew_from_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    grid, common = (importlib.import_module(name) for name in ("grid", "common"))
    monkeypatch.setattr(grid, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    held = json.loads((BENCHMARKS / "results/grid-quick.json").read_text())
    write_json(tmp_path / "grid-quick.json", held)
    monkeypatch.setattr(sys, "argv", [str(BENCHMARKS / "grid.py"), "quick", "--hours", "0"])
    grid.main()
    made = json.loads((tmp_path / "grid-quick.json").read_text())["figures"]
    same = ("tables", "figures", "tasks", "seconds", "seconds_of_tasks", "not_run")
    assert {name: made[name] for name in same} == {name: held["figures"][name] for name in same}
    held["figures"]["tasks"].popitem()
    write_json(tmp_path / "grid-quick.json", held)
    shutil.rmtree(tmp_path / "runs")
    with pytest.raises(SystemExit, match="1 figures that are not here"):
        grid.main()


def test_figures_that_would_be_lost_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    lost = importlib.import_module("kept").lost
    one = {"data": "d", "detector": "a", "column": "clean", "value": 0.5, "seeds": 2}
    other = one | {"detector": "b"}
    assert lost([one, other], [one, other | {"value": None, "seeds": 0}]) == ["d, b: clean"]
    assert lost([one, other], [one, other | {"seeds": 1}]) == ["d, b: clean"]
    assert lost([one, other], [one]) == []  # no longer asked for
    none = one | {"value": None, "seeds": 0}
    assert lost([none], [none]) == []


def test_fine_tunings_are_held_against_their_control_image_by_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    finetuned = importlib.import_module("finetuned")
    shares = {
        "control": [(1, 0), (0, 0), (1, 1), (0, 0)],
        "ADDT": [(1, 1), (1, 1), (1, 1), (0, 1)],
    }
    rows = [
        {
            "defence": name,
            "mode": "full",
            "attack": attack,
            "id": str(i),
            "label": 1,
            "classes": each,
        }
        for name, some in (shares | {"ADBM": shares["control"]}).items()
        for i, each in enumerate(some)
        for attack in ("pgd", None)
    ]
    (tmp_path / "images.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = finetuned._paired(tmp_path, seed=0)
    assert set(found) == {"ADDT, full", "ADBM, full"}
    assert found["ADBM, full"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert found["ADDT, full"]["value"] == 0.5  # 1/2, 1, 0, 1/2
    assert found["ADDT, full"]["low"] == 0.125  # of 4^4 samples 1 has the mean 0 and 8 have 1/8
    assert found["ADDT, full"]["high"] == 0.875


@pytest.mark.parametrize("data", ["mnist", "fashion-mnist", "cifar10"])
def test_the_words_of_the_fine_tuned_defences_are_understood(
    data: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    finetuned = importlib.import_module("finetuned")
    made = finetuned.models(data)
    assert list(made)[-4:] == ["diffusion", "control", "addt", "adbm"]
    passes = {
        words[words.index("--set") + 1]
        for name, words in made.items()
        if name in ("control", "addt", "adbm")
    }
    assert len(passes) == 1  # of equal cost
    wanted = [defence_words.read(words) for words in finetuned.purifiers(data)]
    assert [each.label for each in wanted if each.generator] == [
        "DiffPure",
        "control",
        "ADDT",
        "ADBM",
    ]
    stands_on = {
        folder.name for each in wanted for folder in (each.generator, each.classifier) if folder
    }
    assert stands_on <= set(made)


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_benchmark_tells_how_it_is_called(script: str) -> None:
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / script), "--help"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout
