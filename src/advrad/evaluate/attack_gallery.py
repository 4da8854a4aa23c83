"""Pictures of attacked images: before, the change magnified, after, and what the detector sees."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..calibrate import NG
from ..data import Dataset, Images
from ..model import Model
from ..noise import PerImage
from .attack_rows import Row, kept_image
from .heatmaps import span
from .lost import in_words, lost, worst
from .pictures import colour_bar, overlay, thumbnail
from .report import Inspection, Picture, Report, Scale

SHOWN = 12


@dataclass(frozen=True)
class AttackGallery:
    """Where the images are, and the noise they were scored under."""

    model: Model
    dataset: Dataset
    out: Path
    settings: dict[str, Any]
    device: str = "cpu"

    def add(self, report: Report, rows: Sequence[Row], radius: str, shown: int = SHOWN) -> None:
        """The images whose verdict turned, then the closest; both heat maps on one scale."""
        items = {str(item.path): item for item in self.dataset.test}
        chosen = worth_seeing([row for row in rows if row["path"] in items], shown)
        images = Images([items[row["path"]] for row in chosen], self.model.preprocess)
        pairs = [(images[i], kept_image(self.out, row["index"])) for i, row in enumerate(chosen)]
        largest = max((float((adv - x).abs().max()) for x, adv in pairs), default=0.0)
        times = 0.5 / largest if largest else 1.0
        report.text(
            f"Attacked with {radius}. The change is shown {times:.2g} times as large, around "
            "grey. Images whose verdict turned come first, then the closest decisions."
        )
        report.gallery(
            [
                self._inspection(row, x, adv, times)
                for row, (x, adv) in zip(chosen, pairs, strict=True)
            ],
            self._scale(),
            limit=len(chosen),
        )
        if len(rows) > len(chosen):
            report.text(f"{len(chosen)} of {len(rows)} images are shown.")

    def _inspection(self, row: Row, x: Tensor, adv: Tensor, times: float) -> Inspection:
        name = Path(row["path"]).name
        if Path(row["path"]).is_relative_to(self.dataset.root):
            name = self.dataset.relative(Path(row["path"]))
        ends = span(self.model.calibration.threshold)
        low, high = ends
        before, after = self._maps(x, adv, row["sha256"]).nan_to_num(high, high, low)
        pictures = [
            Picture(thumbnail(x), f"photograph {name}", "input"),
            Picture(
                thumbnail(0.5 + times * (adv - x)),
                f"the change to {name}",
                f"change x {times:.2g}",
            ),
            Picture(thumbnail(adv), f"attacked {name}", "attacked"),
            Picture(
                thumbnail(overlay(x, before, *ends)),
                f"heat map of {name}, score {row['clean']:.4g}",
                f"heat before: {row['clean']:.4g}, {row['verdict_clean']}",
            ),
            Picture(
                thumbnail(overlay(adv, after, *ends)),
                f"heat map of the attacked {name}, score {in_words(row['attacked'])}",
                f"heat after: {in_words(row['attacked'])}, {row['verdict_attacked']}",
            ),
        ]
        kind = "defect" if row["defect"] else "good"
        truth = f"{kind}; {row['verdict_clean']} before, {row['verdict_attacked']} under attack"
        score = math.nan if lost(row["attacked"]) else row["attacked"]
        return Inspection(name, row["verdict_attacked"], score, pictures, truth, remark(row))

    @torch.no_grad()
    def _maps(self, x: Tensor, adv: Tensor, digest: str) -> Tensor:
        both = torch.stack([x, adv]).to(self.device)
        noise = PerImage(self.settings["seed"], [digest] * 2)
        return self.model.detector.to(self.device).eval()(both, noise).map.cpu()

    def _scale(self) -> Scale:
        low, high = span(self.model.calibration.threshold)
        bar = Picture(
            colour_bar(),
            "colour scale of the heat maps, black to pale yellow",
            "the same scale before and after; its middle is the threshold of NG",
        )
        return Scale(bar, f"{low:.4g}", f"{high:.4g} and above")


def remark(row: Row) -> str:
    """What the attack achieved, if anything."""
    if lost(row["attacked"]):
        return "no finite score under attack"
    right, wrong = (
        (row[f"verdict_{when}"] == NG) == row["defect"] for when in ("clean", "attacked")
    )
    if right and not wrong:
        return "missed under attack" if row["defect"] else "false alarm under attack"
    if not right and not wrong:
        return "missed" if row["defect"] else "false alarm"
    return ""


def worth_seeing(rows: Sequence[Row], shown: int = SHOWN) -> list[Row]:
    """Of each class half as far as they go: turned verdicts first, then the closest."""

    def rank(row: Row) -> tuple[bool, float]:
        [score] = worst([row["attacked"]], [row["defect"]])
        margin = score if row["defect"] else -score
        return not remark(row).endswith("attack"), margin

    classes = [
        sorted((r for r in rows if r["defect"] is kind), key=rank) for kind in (True, False)
    ]
    half = max(shown // 2, shown - min(len(some) for some in classes))
    chosen = [row for some in classes for row in some[:half]]
    return sorted(chosen, key=lambda row: (rank(row)[0], not row["defect"], rank(row)[1]))
