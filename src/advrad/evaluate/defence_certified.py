"""How many classes of test images no change within a radius can alter: certified accuracy.

Every image gets a certificate of its own (`certify.certified_class`), of the classifier under
Gaussian noise, with a diffusion model before it that takes the noise away (denoised smoothing) or
without one. An image counts at a radius where its class is right and the certificate reaches as
far. Rows are written image by image, so that a run that was killed goes on.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import special
from torch import Tensor, nn

from .. import classifiers
from ..certify import Smoothing, certified_class
from ..certify.vote import ABSTAIN
from ..diffusion import EpsDenoiser
from ..errors import UsageError
from ..files import write_text
from ..noise import Noise
from ..purifiers.denoised import denoised
from ..purifiers.stored import load
from .attack_rows import Tell
from .defence_metrics import counted, in_percent
from .defence_trial import Examples, classes, fingerprint, weights
from .rows import Rows

Result = dict[str, Any]
Classify = Callable[[Tensor, Noise], Tensor]


@dataclass(frozen=True)
class ClassCertificate:
    """What is asked.

    Arguments:
        sigmas: standard deviations of the noise, for images in [0, 1].
        radii: l2 norms of the changes that are covered; those of the table alone.
        samples: draws that measure an image's majority.
        selecting: draws before them that choose it.
        alpha: probability that the certificate of an image is wrong; of each image, not of all.
        seed, batch, device: of the run.

    Raises UsageError for what is impossible.
    """

    sigmas: Sequence[float] = (0.25,)
    radii: Sequence[float] = (0.1, 0.25, 0.5)
    samples: int = 1000
    selecting: int = 100
    alpha: float = 0.001
    seed: int = 0
    batch: int = 64
    device: str = "cpu"

    def __post_init__(self) -> None:
        if not self.sigmas or len(set(self.sigmas)) < len(self.sigmas):
            raise UsageError(f"sigma {list(self.sigmas)}: expected one or more, each once")
        for radius in self.radii:
            if not (math.isfinite(radius) and radius >= 0):
                raise UsageError(f"radius {radius:g}: expected an l2 norm from 0 on")
        if not 0 < self.alpha < 0.5:
            raise UsageError(f"alpha {self.alpha:g}: expected a probability above 0, below 0.5")
        if self.selecting < 1:
            raise UsageError(f"{self.selecting} draws to choose by: expected 1 or more")
        for sigma in self.sigmas:
            self.smoothing(sigma)
        fewest = math.floor(math.log(self.alpha) / math.log(0.5)) + 1
        if self.samples < fewest:
            raise UsageError(
                f"{self.samples} draws certify nothing with alpha {self.alpha:g}, even where all "
                f"of them agree: expected {fewest} or more"
            )

    def smoothing(self, sigma: float) -> Smoothing:
        return Smoothing(sigma, self.samples, self.seed, self.batch)

    def largest(self, sigma: float) -> float:
        """The radius of an image whose draws all agree."""
        return float(sigma * special.ndtri(self.alpha ** (1 / self.samples)))


def certify_classes(
    classifier: nn.Module,
    denoiser: EpsDenoiser | None,
    examples: Examples,
    wanted: ClassCertificate,
    out: Path | None = None,
    report: Tell = lambda done, total: None,
) -> Result:
    """Certified accuracy on the examples, a record for each sigma; with `out` also rows.

    Raises UsageError for a classifier that returns no logits and for noise that the denoiser was
    not trained for, DataError for labels that the classifier does not know.
    """
    classifier = classifier.to(wanted.device).eval()
    classes(classifier, examples)
    smoothed = [_under(classifier, denoiser, sigma, wanted.device) for sigma in wanted.sigmas]
    settings = _settings(classifier, denoiser, examples, wanted)
    rows, total = Rows(out, settings), len(examples) * len(wanted.sigmas)
    for number, (sigma, classify) in enumerate(zip(wanted.sigmas, smoothed, strict=True)):
        for place in range(len(examples)):
            index = number * len(examples) + place
            if index not in rows.rows:
                rows.add(_row(index, sigma, classify, examples, place, wanted))
            report(index + 1, total)
    found = [_record(sigma, rows, examples, wanted) for sigma in wanted.sigmas]
    result = {
        "rows": found,
        "images": len(examples),
        "denoised": denoiser is not None,
        "settings": settings,
    }
    rows.finish(result)
    if out is not None:
        write_text(out / "table.md", markdown(result))
    return result


def opened(folder: Path, generator: Path | None) -> tuple[nn.Module, EpsDenoiser | None]:
    """The classifier of a folder, and the denoiser of another.

    Raises UsageError where they are for images of other shapes, or what generates is no diffusion
    model; ModelError where a folder holds something else.
    """
    classifier = classifiers.load(folder)
    if generator is None:
        return classifier, None
    model = load(generator)
    if model.shape != classifier.shape:
        sides = [" x ".join(map(str, shape)) for shape in (model.shape, classifier.shape)]
        raise UsageError(
            f"{generator} makes images of {sides[0]} and {folder} takes {sides[1]} (channels x "
            "height x width): name one that was trained for these"
        )
    return classifier, model.denoiser


def table(result: Result) -> list[list[str]]:
    """Rows of text, the header first."""
    first = result["rows"][0]
    radii = [f"l2 {float(radius):g}" for radius in first["certified"]]
    header = ["sigma", "images", "right", "abstains", *radii, "largest radius", "s an image"]
    lines = [header]
    for row in result["rows"]:
        shares = [in_percent(row[name]) for name in ("right", "abstains")]
        shares += [
            in_percent(share) if float(radius) <= row["largest"] else "more draws needed"
            for radius, share in row["certified"].items()
        ]
        told = [f"{row['largest']:.3g}", f"{row['seconds_per_image']:.3g}"]
        lines.append([f"{row['sigma']:g}", str(result["images"]), *shares, *told])
    return lines


def markdown(result: Result) -> str:
    """The same as Markdown."""
    header, *lines = table(result)
    ruled = [header, ["---"] * len(header), *lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in ruled)


def _under(
    classifier: nn.Module, denoiser: EpsDenoiser | None, sigma: float, device: str
) -> Classify:
    """The classifier of images that carry the noise."""
    if denoiser is None:
        return lambda noisy, noise: classifier(noisy)
    clean = denoised(denoiser.to(device), sigma)
    return lambda noisy, noise: classifier(clean(noisy, noise))


def _row(
    index: int,
    sigma: float,
    classify: Classify,
    examples: Examples,
    place: int,
    wanted: ClassCertificate,
) -> dict[str, Any]:
    began, name = time.perf_counter(), examples.ids[place]
    vote = certified_class(
        classify,
        examples.x[place].to(wanted.device),
        f"{name}/{sigma!r}",
        wanted.smoothing(sigma),
        alpha=wanted.alpha,
        selecting=wanted.selecting,
    )
    return {
        "index": index,
        "id": name,
        "sigma": sigma,
        "label": int(examples.labels[place]),
        "class": vote.label,
        "radius": vote.radius,
        "seconds": time.perf_counter() - began,
    }


def _record(
    sigma: float, rows: Rows, examples: Examples, wanted: ClassCertificate
) -> dict[str, Any]:
    """The figures of one sigma."""
    own = [row for row in rows.rows.values() if row["sigma"] == sigma]
    right = np.array([row["class"] == row["label"] for row in own])
    radius = np.array([row["radius"] for row in own])
    abstains = np.array([row["class"] == ABSTAIN for row in own])
    return {
        "sigma": sigma,
        "right": counted(right).as_dict(),
        "abstains": counted(abstains).as_dict(),
        "certified": {
            repr(float(each)): counted(right & (radius >= each)).as_dict() for each in wanted.radii
        },
        "mean_radius": float(np.where(right, radius, 0.0).mean()),
        "largest": wanted.largest(sigma),
        "seconds_per_image": sum(row["seconds"] for row in own) / len(own),
    }


def _settings(
    classifier: nn.Module,
    denoiser: EpsDenoiser | None,
    examples: Examples,
    wanted: ClassCertificate,
) -> dict[str, Any]:
    """What the rows depend on; radii are of the table alone."""
    asked = asdict(wanted)
    del asked["radii"]
    return {
        "data": examples.name,
        "images": len(examples),
        "content": fingerprint(examples),
        "weights": weights(classifier),
        "denoiser": None if denoiser is None else weights(denoiser),
        **asked,
    }
