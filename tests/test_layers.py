"""Imports point one way: a room may use the rooms before it in this list, never those after."""

import ast
from pathlib import Path

import pytest

ROOMS = [
    "errors",
    "allocator",
    "checks",
    "files",
    "store",
    "noise",
    "quiet",
    "images",
    "metrics",
    "pixels",
    "data",
    "attacks",
    "certify",
    "diffusion",
    "networks",
    "scoring",
    "calibrate",
    "tune",
    "classifiers",
    "purifiers",
    "detectors",
    "model",
    "adapters",
    "evaluate",
    "export",
    "server",
    "commands",
    "cli",
    "__main__",
]
ROOT = Path(__file__).parent.parent / "src" / "advrad"
FILES = sorted(ROOT.rglob("*.py"))


def imported_modules(path: Path, root: Path) -> set[str]:
    """Every module of the package that a file names, dotted, `images.read` for a name in one."""
    here = path.relative_to(root).parts[:-1]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            found |= {n.removeprefix("advrad.") for n in names if n.startswith("advrad.")}
        elif isinstance(node, ast.ImportFrom):
            module = (node.module or "").split(".") if node.module else []
            if node.level:
                base = [*here[: len(here) - node.level + 1], *module]
            elif module and module[0] == "advrad":
                base = module[1:]
            else:
                continue
            found |= {".".join([*base, alias.name]) for alias in node.names}
    return found


def room_of(path: Path, root: Path) -> str:
    return path.relative_to(root).parts[0].removesuffix(".py")


def violations(path: Path, root: Path = ROOT) -> set[str]:
    """The rooms after its own that a file imports."""
    own = ROOMS.index(room_of(path, root))
    rooms = {name.split(".")[0] for name in imported_modules(path, root)}
    return {room for room in rooms & set(ROOMS) if ROOMS.index(room) > own}


def test_every_room_is_in_the_list() -> None:
    rooms = {room_of(path, ROOT) for path in FILES} - {"__init__"}
    assert rooms <= set(ROOMS), f"{rooms - set(ROOMS)}: give the new room its place in ROOMS"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    if room_of(path, ROOT) in ROOMS:
        later = violations(path)
        assert not later, f"{path} imports {later}, which come after it"


@pytest.mark.parametrize(
    "line",
    [
        "from ..detectors.base import Anomaly",
        "from .. import detectors",
        "from advrad.detectors.base import Anomaly",
        "from advrad import detectors",
        "import advrad.detectors.base",
        "def late():\n    from ..detectors import base",
    ],
)
def test_a_planted_violation_is_found(tmp_path: Path, line: str) -> None:
    planted = tmp_path / "attacks" / "pgd.py"
    planted.parent.mkdir()
    planted.write_text(line)
    assert violations(planted, tmp_path) == {"detectors"}


@pytest.mark.parametrize(
    "line",
    [
        "from ..noise import Noise",
        "from .ball import Linf",
        "import torch",
        "from advrad.attacks.ball import Linf",
        "from torch.detectors import x",
    ],
)
def test_what_is_allowed_is_not_found(tmp_path: Path, line: str) -> None:
    planted = tmp_path / "attacks" / "pgd.py"
    planted.parent.mkdir()
    planted.write_text(line)
    assert not violations(planted, tmp_path)


def test_attacks_and_certificates_know_nothing_but_functions_and_tensors() -> None:
    known = {"attacks", "certify", "noise", "errors"}
    for path in FILES:
        if room_of(path, ROOT) in ("attacks", "certify"):
            rooms = {name.split(".")[0] for name in imported_modules(path, ROOT)}
            assert rooms & set(ROOMS) <= known, f"{path} imports {rooms & set(ROOMS) - known}"


def test_only_images_knows_pillow() -> None:
    for path in FILES:
        if room_of(path, ROOT) != "images":
            assert "from PIL" not in path.read_text(), f"{path} imports Pillow"
            assert "import PIL" not in path.read_text(), f"{path} imports Pillow"
