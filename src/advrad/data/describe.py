"""A check of a data set as lines of plain text."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from advrad.data.check import Check

SHOWN = 8  # names of a longer list that are printed
LISTED = 20  # notes and problems that are printed


def lines(check: "Check") -> Iterator[str]:
    """The lines of `advrad data check`."""
    yield f"{check.name}: layout {check.layout}, {sum(check.counts().values())} images"
    yield f"  folder      {check.root}"
    came = f"drawn by split seed {check.split_seed}" if check.drawn else "as the data give it"
    yield f"  split       {came}"
    for part, names in check.files.items():
        yield f"  {part}: {len(names)}"
        yield f"    {_short(names)}"
    yield from _division(check)
    yield f"  sizes       {_histogram(check.sizes)}"
    yield f"  modes       {_histogram(check.modes)}"
    yield from _masks(check)
    yield from _duplicates(check)
    yield from _listed("note", check.notes)
    yield from _listed("PROBLEM", check.problems)
    yield f"  {_verdict(check)}"


def _division(check: "Check") -> Iterator[str]:
    if not check.division:
        return
    counts = ", ".join(f"{len(names)} {part}" for part, names in check.division.items())
    count = len(check.division["calibrate"])
    yield f"  training divides its images: {counts}"
    yield f"    calibrate: {_short(check.division['calibrate'])}"
    if check.approximate:
        yield "    the images that calibrate also tune: the false-alarm bound is approximate"
    held = f"{count} image{'s' * (count > 1)}"
    yield f"    lowest false-alarm level that {held} can hold: {100 / (count + 1):.2g} %"


def _masks(check: "Check") -> Iterator[str]:
    if not (check.masks_found or check.masks_missing):
        return
    yield f"  masks       {check.masks_found} found, {len(check.masks_missing)} missing"
    if check.masks_missing:
        yield f"    missing for {_short(check.masks_missing)}"


def _duplicates(check: "Check") -> Iterator[str]:
    if not check.deep:
        yield "  duplicates  not looked for, and images not decoded (shallow check)"
        return
    between = [pair for pair in check.duplicates if pair.between]
    within = [pair for pair in check.duplicates if not pair.between]
    yield f"  duplicates  {len(between)} between train and test, {len(within)} within one part"
    if check.duplicates:
        yield f"    {_short([f'{pair.first} = {pair.second}' for pair in between + within])}"


def _listed(word: str, sentences: Sequence[str]) -> Iterator[str]:
    for sentence in sentences[:LISTED]:
        yield f"  {word:11} {sentence}"
    if len(sentences) > LISTED:
        yield f"  {word:11} ... and {len(sentences) - LISTED} more (all with --json)"


def _verdict(check: "Check") -> str:
    count = len(check.problems)
    return f"{count} problem{'s' if count > 1 else ''}" if count else "no problems"


def _histogram(counts: Mapping[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return _short([f"{name} ({count})" for name, count in ordered]) or "none readable"


def _short(names: Sequence[str]) -> str:
    if len(names) <= SHOWN + 2:
        return ", ".join(names)
    return f"{', '.join(names[:SHOWN])} ... and {len(names) - SHOWN} more (all with --json)"
