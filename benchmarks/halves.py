"""Image AUROC apart for the two halves of a test set by file name.

    advrad evaluate runs/accuracy/elpv-mono/1 elpv-mono --out runs/halves
    python benchmarks/halves.py elpv-mono runs/halves

Solar cells are numbered module by module; where the halves differ, a figure from the first images
of a folder says little about the rest.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from common import keep

from advrad.metrics import auroc, interval


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("folder", type=Path)
    wanted = parser.parse_args()
    lines = (wanted.folder / "images.jsonl").read_text().splitlines()
    rows = sorted((json.loads(line) for line in lines), key=lambda row: Path(row["path"]).name)
    middle = len(rows) // 2
    figures: dict[str, Any] = {}
    for half, part in (("first", rows[:middle]), ("second", rows[middle:])):
        scores, labels = [row["score"] for row in part], [row["defect"] for row in part]
        figures[half] = {
            "image_auroc": auroc(scores, labels),
            "image_auroc_ci": interval(auroc, scores, labels),
            "good": labels.count(False),
            "defect": labels.count(True),
        }
    settings = json.loads((wanted.folder / "settings.json").read_text())
    figures["settings"] = {
        name: settings[name] for name in ("model", "data", "split_seed", "seed")
    }
    keep(f"halves-{wanted.name}", figures)


if __name__ == "__main__":
    main()
