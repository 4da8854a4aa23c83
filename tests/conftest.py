import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from parts import TINY, make_parts

from advrad.cli import main

# One thread: sums are then added in one order, and parallel test runs do not fight for cores.
torch.set_num_threads(1)

settings.register_profile("house", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("house")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of tiny photographs; not to be changed."""
    return make_parts(tmp_path_factory.mktemp("data") / "parts")


@pytest.fixture(scope="session")
def trained(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny model trained on `parts`; not to be changed."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    assert main(["train", str(parts), str(folder), *TINY]) == 0
    return folder


@pytest.fixture
def model(trained: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model, to be changed."""
    return Path(shutil.copytree(trained, tmp_path / "model"))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty place for what is fetched."""
    monkeypatch.setenv("ADVRAD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
