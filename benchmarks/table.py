"""The tables of results, from what the other benchmarks have written.

python benchmarks/table.py            prints all of them
python benchmarks/table.py --write    puts them into docs/benchmarks.md, and the rows that tell
                                      most into README.md
"""

import argparse
from pathlib import Path

from figures import PARTS, defences, grids

HERE = Path(__file__).parent
START, END = "<!-- results -->", "<!-- end of results -->"
HEAD = ["| measured | result | asked for | command |", "|---|---|---|---|"]
FRONT = (  # how the rows of the README begin
    "hazelnut image AUROC",
    "hazelnut pixel AUROC",
    "hazelnut under attack",
    "elpv-mono image AUROC",
    "autoencoder-elpv-mono image AUROC",
    "elpv-poly image AUROC",
    "brick image AUROC",
    "elpv-mono under attack, as it comes",
    "elpv-mono certified, 128 px, sigma 0.25",
    "elpv-mono certified, 64 px, sigma 0.25",
    "elpv-mono certified, trivial, 64 px, sigma 0.25",
    "elpv-mono, 64 px, 12 certificates attacked",
    "hazelnut demo, whole, seconds",
    "ms an image as it comes",
    "seconds for 1,000 draws",
    "GiB for 100,000 images",
)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--write", action="store_true")
    print(whole())
    if parser.parse_args().write:
        for page, text in pages().items():
            write(page, text)


def pages() -> dict[Path, str]:
    """Each page that shows results, and what stands there between the two marks."""
    root = HERE.parent
    return {root / "README.md": front(), root / "docs" / "benchmarks.md": whole()}


def whole() -> str:
    """A table for each part that has figures, those of the grids, and of defences."""
    parts = {title: [row for part in found for row in part()] for title, found in PARTS.items()}
    told = [f"## {title}\n\n{_table(rows)}" for title, rows in parts.items() if rows]
    return "\n\n".join([*told, *grids(), *defences()])


def front() -> str:
    """One table of the rows that tell most."""
    rows = [row for found in PARTS.values() for part in found for row in part()]
    return _table([row for row in rows if row[0].startswith(FRONT)])


def write(page: Path, text: str) -> None:
    """Replaces what stands between the two marks."""
    before, rest = page.read_text().split(START, 1)
    _, after = rest.split(END, 1)
    page.write_text(f"{before}{START}\n{text}\n{END}{after}")


def _table(rows: list[list[str]]) -> str:
    return "\n".join([*HEAD, *(f"| {' | '.join(row)} |" for row in rows)])


if __name__ == "__main__":
    main()
