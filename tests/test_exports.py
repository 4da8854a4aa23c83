"""What can be imported, and that `__all__` says so."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import advrad

ROOT = Path(advrad.__file__).parent
ROOMS = sorted(path.parent.name for path in ROOT.glob("*/__init__.py"))


def public(name: str) -> bool:
    return not name.startswith("_")


def offered(room: str) -> set[str]:
    """Public names that a room's `__init__.py` defines, or takes from its own modules."""
    found: set[str] = set()
    for node in ast.parse((ROOT / room / "__init__.py").read_text()).body:
        if isinstance(node, ast.ImportFrom):
            own = f"advrad.{room}."
            if node.level == 1 or (node.module or "").startswith(own):
                found |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return {name for name in found if public(name)}


def test_the_package_s_names_are_sorted_and_there() -> None:
    assert sorted(advrad.__all__) == advrad.__all__
    assert len(set(advrad.__all__)) == len(advrad.__all__)
    for name in advrad.__all__:
        assert getattr(advrad, name) is not None


def test_the_package_s_names_are_those_that_it_knows_a_home_for() -> None:
    assert {*advrad._HOMES, "__version__"} == set(advrad.__all__)
    for name, home in advrad._HOMES.items():
        module = importlib.import_module(f"advrad.{home}")
        assert getattr(advrad, name) is (module if name == home else getattr(module, name))


def test_all_of_them_come_with_a_star() -> None:
    found: dict[str, object] = {}
    exec("from advrad import *", found)
    assert set(advrad.__all__) <= set(found)


def test_another_name_is_refused_as_by_any_module() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        advrad.nothing  # noqa: B018
    assert not hasattr(advrad, "numpy")


def test_importing_the_package_costs_nothing() -> None:
    heavy = "{'torch', 'numpy', 'scipy', 'PIL'} & {name.split('.')[0] for name in sys.modules}"
    code = f"import sys, advrad; print({heavy})"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "set()"


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_s_all_is_complete_and_there(room: str) -> None:
    module = importlib.import_module(f"advrad.{room}")
    listed = getattr(module, "__all__", [])
    assert len(set(listed)) == len(listed)
    assert set(listed) == offered(room)
    for name in listed:
        assert getattr(module, name) is not None
