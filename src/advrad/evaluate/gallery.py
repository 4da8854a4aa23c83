"""Pictures of single images in a report: input, reconstruction, heat map, masks.

All heat maps of a report share one fixed scale whose middle is the threshold, so that what looks
alike is alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..calibrate import NG, OK, UNSURE
from ..data import Dataset, Images, Item
from ..model import Model
from ..noise import PerImage
from .heatmaps import span
from .pictures import colour_bar, outline, overlay, thumbnail
from .report import Inspection, Picture, Report, Scale
from .scores import Scored, scored

BATCH = 8
LEGEND = (
    "In the mask, white is where the heat map reaches the threshold of NG; a cyan line is drawn "
    "around the true defect, where it is known. Rebuilt is what the model makes of the "
    "input, one draw where it draws noise."
)


@dataclass(frozen=True)
class Gallery:
    """How pictures are made: the model, its data, the seed of the noise, the device."""

    model: Model
    dataset: Dataset
    seed: int = 0
    device: str = "cpu"

    def add(self, report: Report, items: Sequence[Item]) -> None:
        """Scores the items again, under the same noise, and shows them in this order."""
        images = Images(items, self.model.preprocess)
        rows = [self._inspection(images, found) for found in self._scored(images)]
        report.text(LEGEND)
        report.gallery(rows, self._scale(), limit=len(rows))

    def _scored(self, images: Images) -> list[Scored]:
        return list(scored(self.model.detector, images, self.seed, BATCH, self.device))

    def _inspection(self, images: Images, found: Scored) -> Inspection:
        item, x = images.items[found.index], images[found.index]
        verdict = self.model.calibration.verdict(found.score)
        name = self._name(item)
        return Inspection(
            name=name,
            verdict=verdict,
            score=found.score,
            pictures=self._pictures(name, x, found, images.mask(found.index)),
            truth=f"defect: {item.kind}" if item.defect else "good",
            remark=remark(verdict, item.defect),
        )

    def _pictures(self, name: str, x: Tensor, found: Scored, mask: Tensor | None) -> list[Picture]:
        heat = thumbnail(overlay(x, found.map, *span(self.model.calibration.threshold)))
        pictures = [Picture(thumbnail(x), f"photograph {name}", "input")]
        rebuilt = self._reconstruction(x, found.id)
        if rebuilt is not None:
            pictures.append(Picture(thumbnail(rebuilt), f"reconstruction of {name}", "rebuilt"))
        predicted = found.map >= self.model.calibration.threshold
        shown = predicted.float()[None]
        if mask is not None:
            shown = outline(shown, mask)
        return [
            *pictures,
            Picture(heat, f"heat map of {name}, score {found.score:.4g}", "heat map"),
            Picture(
                thumbnail(shown),
                f"{predicted.float().mean():.1%} of {name} is at or above the threshold",
                "mask",
            ),
        ]

    @torch.no_grad()
    def _reconstruction(self, x: Tensor, digest: str) -> Tensor | None:
        """What the detector compares with, where it has such a thing."""
        rebuild = getattr(self.model.detector, "reconstruction", None)
        if rebuild is None:
            return None
        rebuilt: Tensor = rebuild(x[None].to(self.device), PerImage(self.seed, [digest]))[0]
        return rebuilt.clamp(0, 1).cpu()

    def _name(self, item: Item) -> str:
        inside = item.path.is_relative_to(self.dataset.root)
        return self.dataset.relative(item.path) if inside else item.path.name

    def _scale(self) -> Scale:
        low, high = span(self.model.calibration.threshold)
        bar = Picture(
            colour_bar(),
            "colour scale of the heat maps, black to pale yellow",
            "the same scale in every picture; its middle is the threshold of NG",
        )
        return Scale(bar, f"{low:.4g}", f"{high:.4g} and above")


def remark(verdict: str, defect: bool) -> str:
    """What went wrong, if anything did."""
    if defect:
        return {OK: "missed", UNSURE: "left for a second look"}.get(verdict, "")
    return {NG: "false alarm", UNSURE: "left for a second look"}.get(verdict, "")
