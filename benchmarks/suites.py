"""What each suite of attacks does to the same images, from the rows that robustness.py has kept.

    python benchmarks/suites.py elpv-mono quick-ours-200 standard-ours-100 strong-ours-6

Names are folders under runs/robustness/, without the data's name, from the cheapest suite to the
dearest. Harm is by how much an attack has moved the score where it wants it: up for good images,
down for defects. It attacks nothing, and is refused where the clean scores differ.
"""

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

from common import keep

from advrad.metrics import auroc

RUNS = Path("runs/robustness")
ALIKE = 0.02  # of the largest clean score, by which those of two machines may differ


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("runs", nargs="+")
    wanted = parser.parse_args()
    tables = {name: _rows(RUNS / f"{wanted.data}-{name}") for name in wanted.runs}
    shared = sorted(set.intersection(*(set(table) for table in tables.values())))
    if not shared:
        raise SystemExit(f"{', '.join(wanted.runs)}: no image is in all of them")
    _refuse_others(tables, shared)
    keep(
        f"suites-{wanted.data}-{wanted.runs[-1]}",
        {
            "data": wanted.data,
            "good": sum(not tables[wanted.runs[0]][key]["defect"] for key in shared),
            "defect": sum(bool(tables[wanted.runs[0]][key]["defect"]) for key in shared),
            "suites": {name: _of(table, shared) for name, table in tables.items()},
            "beyond": {
                f"{one} over {other}": _beyond(tables[one], tables[other], shared)
                for number, other in enumerate(wanted.runs)
                for one in wanted.runs[number + 1 :]
            },
        },
    )


def _rows(folder: Path) -> dict[str, dict[str, Any]]:
    lines = (folder / "images.jsonl").read_text().splitlines()
    return {row["sha256"]: row for row in map(json.loads, lines)}


def _refuse_others(tables: dict[str, dict[str, dict[str, Any]]], shared: list[str]) -> None:
    """Other clean scores are another detector's."""
    first, *rest = tables.values()
    most = max(abs(first[key]["clean"]) for key in shared)
    for table in rest:
        apart = max(abs(table[key]["clean"] - first[key]["clean"]) for key in shared)
        if apart > ALIKE * most:
            raise SystemExit(f"clean scores differ by up to {apart:g}: not the same detector")


def _of(table: dict[str, dict[str, Any]], shared: list[str]) -> dict[str, Any]:
    labels = [table[key]["defect"] for key in shared]
    harm = [_harm(table[key]) for key in shared]
    return {
        "clean_auroc": auroc([table[key]["clean"] for key in shared], labels),
        "robust_auroc": auroc([table[key]["attacked"] for key in shared], labels),
        "mean_harm": sum(harm) / len(harm),
        "by": dict(Counter(table[key]["by"] for key in shared)),
    }


def _harm(row: dict[str, Any]) -> float:
    return float(row["attacked"] - row["clean"]) * (-1 if row["defect"] else 1)


def _beyond(
    one: dict[str, dict[str, Any]], other: dict[str, dict[str, Any]], shared: list[str]
) -> dict[str, float | None]:
    """How much more harm one does than the other: in how many images, and as a ratio of means."""
    ours, theirs = ([_harm(table[key]) for key in shared] for table in (one, other))
    more = sum(a > b for a, b in zip(ours, theirs, strict=True))
    return {
        "images": len(shared),
        "more": more,
        "ratio": sum(ours) / sum(theirs) if sum(theirs) > 0 else None,
    }


if __name__ == "__main__":
    main()
