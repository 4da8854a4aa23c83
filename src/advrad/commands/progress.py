"""How far a run is, on standard error: a bar on a terminal, a line every ten seconds elsewhere."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Protocol

INTERVAL = 10.0  # seconds between lines


class Progress(Protocol):
    """Called after each piece of work: how many are done, of how many, and a word about it."""

    def __call__(self, done: int, total: int, note: str = "") -> None: ...


@contextlib.contextmanager
def progress(label: str, shown: bool = True) -> Iterator[Progress]:
    """Shows what it is called with until the block ends; not `shown`, it keeps quiet."""
    if not (shown and sys.stderr.isatty()):
        yield Lines(label) if shown else _silent
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    parts = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*parts, TextColumn("{task.fields[note]}"), console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=None, note="")

        def show(done: int, total: int, note: str = "") -> None:
            bar.update(task, completed=done, total=total, note=note)

        yield show


def _silent(done: int, total: int, note: str = "") -> None:
    """Where rows on standard output show how far the run is."""


class Stage(Protocol):
    """Where a run of several stages is, as `detectors.Progress`."""

    @property
    def stage(self) -> str: ...
    @property
    def done(self) -> int: ...
    @property
    def total(self) -> int: ...
    @property
    def loss(self) -> float | None: ...


@contextlib.contextmanager
def stages(check: Callable[[], None] = lambda: None) -> Iterator[Callable[[Stage], None]]:
    """Shows one stage of a run after the other; `check` is called with each piece of work."""
    stage, tell = "", None
    with contextlib.ExitStack() as shown:

        def show(at: Stage) -> None:
            nonlocal stage, tell
            if tell is None or at.stage != stage:
                shown.close()
                stage, tell = at.stage, shown.enter_context(progress(at.stage))
            tell(at.done, at.total, "" if at.loss is None else f"loss {at.loss:.4f}")
            check()

        yield show


class Lines:
    """One line every `interval` seconds, with the time that is left at the pace so far."""

    def __init__(
        self,
        label: str,
        clock: Callable[[], float] = time.monotonic,
        interval: float = INTERVAL,
    ) -> None:
        self.label, self.clock, self.interval = label, clock, interval
        self.start = self.told = clock()
        self.first: int | None = None

    def __call__(self, done: int, total: int, note: str = "") -> None:
        now = self.clock()
        if self.first is None:  # a resumed run starts somewhere in the middle
            self.first, self.start = done, now
        if now - self.told < self.interval:
            return
        self.told = now
        share = f"{done} of {total} ({100 * done // max(total, 1)} %)"
        tail = [self._left(done, total, now), note]
        print(f"{self.label}: " + ", ".join(filter(None, [share, *tail])), file=sys.stderr)

    def _left(self, done: int, total: int, now: float) -> str:
        if self.first is None or done <= self.first:
            return ""
        seconds = (total - done) * (now - self.start) / (done - self.first)
        return f"{seconds / 60:.0f} min left" if seconds >= 90 else f"{seconds:.0f} s left"
