"""In which order the tasks of a grid are done, and which of them can be begun.

A cell comes after its training, and is lost with it. Nothing else waits: while one model is still
trained, cells of others are measured.
"""

from pathlib import Path

from .grid import Grid, Task, tasks


def in_order(grid: Grid) -> list[Task]:
    """What is done first: trainings, then cells column by column, of the first seed of each
    detector; then those of its further seeds, which tell how far the first can be trusted."""
    trainings, cells = tasks(grid)
    first: dict[Path, int] = {}
    for task in (*trainings, *cells):
        first.setdefault(_place(task), task.seed)
    return sorted([*trainings, *cells], key=lambda task: task.seed != first[_place(task)])


def _place(task: Task) -> Path:
    """Of the detector on its data, whatever the seed."""
    return task.model.parent.parent


class Queue:
    """What is left, in order, and what runs."""

    def __init__(self, left: list[Task]) -> None:
        self.left = left
        self.running: list[Task] = []
        self.unmade = {task.folder for task in left if task.cell is None}

    def next(self, size: int) -> list[Task]:
        """What can be begun where `size` run at once; it runs from now on."""
        able = [task for task in self.left if task.cell is None or task.model not in self.unmade]
        begun = able[: max(0, size - len(self.running))]
        self.running += begun
        return self._without(begun)

    def late(self, over: bool) -> list[Task]:
        """What can no longer be begun: when time is over, all but the cells of models in the
        making, which may yet be lost; before, all that is left where nothing runs."""
        if self.running and not over:
            return []
        made = {task.folder for task in self.running}
        return self._without(
            [task for task in self.left if task.cell is None or task.model not in made]
        )

    def ended(self, task: Task, error: str | None) -> list[Task]:
        """Takes away a task that has ended; the cells that are lost with it."""
        self.running.remove(task)
        if task.cell is not None:
            return []
        if not error:
            self.unmade.discard(task.folder)
            return []
        return self._without([cell for cell in self.left if cell.model == task.folder])

    def _without(self, gone: list[Task]) -> list[Task]:
        self.left = [task for task in self.left if task not in gone]
        return gone
