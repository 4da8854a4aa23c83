"""What the documents state is what the benchmarks have written, and each benchmark can be run."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
BENCHMARKS = ROOT / "benchmarks"
SCRIPTS = sorted(
    path.name
    for path in BENCHMARKS.glob("*.py")
    if path.name not in ("common.py", "figures.py", "__init__.py")
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


@pytest.mark.parametrize("path", sorted(BENCHMARKS.glob("results/*.json")), ids=lambda p: p.stem)
def test_a_record_names_its_command_its_machine_and_its_figures(path: Path) -> None:
    record = json.loads(path.read_text())
    assert record.keys() >= {"command", "date", "machine", "figures"}
    script = record["command"].split()[1]
    assert (ROOT / script).is_file()
    assert record["machine"]["cores"] >= 1
    assert record["figures"]


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
