"""The rows of a trial: each image in each cell, written when its batch is done.

Image number i of cell number n has the index n * N + i. A row holds the class of each draw of the
evaluation, -1 where the logits were no numbers, and how much the image looks attacked by the first
of them; beside the rows lie the attacked images, `attacked/INDEX.npy`. Batches are cut at the same
places whatever was there before, so that a run that was killed ends as one that was not.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..attacks.classification import Victim
from ..files import write_bytes
from ..noise import Noise
from .attack_rows import Count, array, image_path, kept_image
from .defence_attacks import Attack, Found
from .defence_cells import FRESH, Cell, cells, judged_as
from .defence_detection import LOST_SCORE, unnoticed
from .defence_metrics import Answers, Table
from .defence_modes import (
    MODES,
    Defence,
    Drawn,
    attacked,
    attacker,
    evaluation,
    watched,
)
from .defence_trial import Examples, Trial
from .rows import Rows

Row = dict[str, Any]
Look = TypeVar("Look")  # what a look at images tells
LOST = -1  # in the place of a class, where the logits are not finite


@dataclass
class Work:
    """The rows of all cells, made one batch after the other.

    Arguments:
        classes: how many a defence tells apart, by its name.
        drawn: which noise a defence asks for.
        held: attacked images in memory, where there is no folder to keep them in.
    """

    defences: Mapping[str, Defence]
    classes: Mapping[str, int]
    drawn: Mapping[str, Drawn]
    examples: Examples
    trial: Trial
    rows: Rows
    count: Count
    held: dict[int, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.cells = cells(self.defences, self.drawn, self.trial)
        self.numbers = {cell: number for number, cell in enumerate(self.cells)}

    @property
    def cost(self) -> int:
        """Images that pass in all, about."""
        return sum(map(self._looks, self.cells)) * len(self.examples)

    def run(self) -> None:
        """Makes every row that is not there."""
        size = self.trial.batch
        batches = [
            range(start, min(start + size, len(self.examples)))
            for start in range(0, len(self.examples), size)
        ]
        for cell in self.cells:
            for places in batches:
                reached = self.count.done + self._looks(cell) * len(places)
                if not all(self._there(cell, place) for place in places):
                    self._do(cell, places)
                self.count.reach(reached)

    def draws(self, cell: Cell) -> int:
        """Of the evaluation, for each image of a cell."""
        mode = MODES[cell.mode]
        if not self.drawn[cell.defence].varies(mode):
            return 1
        again = any(MODES[each].again for each in self.trial.modes)
        most = max(self.trial.draws, self.trial.resubmit if again else 0)
        if cell.attack is None:
            return most if cell.mode == FRESH else self.trial.draws
        return self.trial.resubmit if mode.again else self.trial.draws

    def right(self, cell: Cell, draws: int | None = None) -> Table:
        """Which draws of which images are right, (draws, N)."""
        return np.equal(self.answers(cell, draws), self.examples.labels.cpu().numpy())

    def answers(self, cell: Cell, draws: int | None = None) -> Answers:
        """The class of each draw of each image, (draws, N)."""
        rows = [self.row(cell, place) for place in range(len(self.examples))]
        return np.array([row["classes"][:draws] for row in rows]).T

    def clean(self, cell: Cell) -> Cell:
        """The cell of the clean images that are judged as this one's are."""
        return Cell(cell.defence, judged_as(cell.mode))

    def watches(self, cell: Cell) -> bool:
        """Whether the attacker of a cell sees a detector of attacks."""
        return watched(MODES[cell.mode], self.defences[cell.defence]) is not None

    def noticed(self, cell: Cell) -> Table | None:
        """Of which images the attack is noticed, or does not mislead, (1, N); None where nothing
        detects."""
        places = range(len(self.examples))
        clean, own = ([self.row(c, i) for i in places] for c in (self.clean(cell), cell))
        found = unnoticed(clean, own)
        return None if found is None else ~np.array([found])

    def row(self, cell: Cell, place: int) -> Row:
        """Of one image."""
        return self.rows.rows[self._index(cell, place)]

    def image(self, cell: Cell, place: int) -> Tensor:
        """As it was attacked, (C, H, W)."""
        index = self._index(cell, place)
        if self.rows.folder is None:
            return self.held[index]
        return kept_image(self.rows.folder, index)

    def victim(self, cell: Cell, places: Sequence[int], purpose: str) -> Victim:
        """What an attack of some images meets; its draws are of a purpose of their own."""
        mode, defence = MODES[cell.mode], self.defences[cell.defence]
        seen = watched(mode, defence)
        return Victim(
            self._counted(attacked(mode, defence)),
            self.labels(places),
            attacker(mode, self.trial.seed, self.ids(places), purpose),
            self.random(cell),
            self.classes[cell.defence],
            None if seen is None else self._counted(seen),
        )

    def _counted(self, looked: Callable[[Tensor, Noise], Look]) -> Callable[[Tensor, Noise], Look]:
        def told(x: Tensor, noise: Noise) -> Look:
            found = looked(x, noise)
            self.count.add(len(x))
            return found

        return told

    def random(self, cell: Cell) -> bool:
        """Whether what the attacker looks at differs from draw to draw."""
        return self.drawn[cell.defence].seen(MODES[cell.mode])

    @torch.no_grad()
    def judged(self, cell: Cell, x: Tensor, places: Sequence[int], draws: int) -> list[Row]:
        """The classes of images under the noise of the evaluation, and how much they look
        attacked by its first draw (None of no purifier), image by image."""
        defence = self.defences[cell.defence]
        noises = evaluation(MODES[cell.mode], self.trial.seed, self.ids(places))
        classes: list[Tensor] = []
        errors: list[float | str | None] = [None] * len(x)
        for k in range(draws):
            logits, score = defence.watched(x, noises(k))
            if k == 0 and score is not None:
                errors = [e if math.isfinite(e) else LOST_SCORE for e in score.tolist()]
            lost = ~logits.isfinite().all(1)
            classes.append(logits.argmax(1).masked_fill(lost, LOST).cpu())
            self.count.add(len(x))
        named = zip(torch.stack(classes, 1).tolist(), errors, strict=True)
        return [{"classes": own, "error": error} for own, error in named]

    def x(self, places: Sequence[int]) -> Tensor:
        """Clean images, (B, C, H, W), where the defences are."""
        return self.examples.x[list(places)].to(self.trial.device)

    def labels(self, places: Sequence[int]) -> Tensor:
        """True classes, (B,), where the defences are."""
        return self.examples.labels[list(places)].long().to(self.trial.device)

    def ids(self, places: Sequence[int]) -> list[str]:
        """To which noise belongs."""
        return [self.examples.ids[place] for place in places]

    def _do(self, cell: Cell, places: Sequence[int]) -> None:
        began = time.perf_counter()
        x, draws = self.x(places), self.draws(cell)
        if cell.attack is None:
            self._keep(cell, places, self.judged(cell, x, places, draws), began)
            return
        clean = [self.row(self.clean(cell), place) for place in places]
        alone = {"error": None, "share": None, "looks": None}
        rows: list[Row] = [{"classes": row["classes"][:draws], **alone} for row in clean]
        standing = [i for i, row in enumerate(clean) if row["label"] in row["classes"]]
        adv = x.clone()
        if standing:
            some = [places[i] for i in standing]
            found = self._attacked(cell, x[standing], some)
            adv[standing] = found.x
            judged = self.judged(cell, found.x, some, draws)
            shares = [None] * len(some) if found.share is None else found.share.tolist()
            for i, own, share in zip(standing, judged, shares, strict=True):
                rows[i] = {**own, "share": share, "looks": found.looks}
        sizes = self.trial.ball(cell.eps).size(adv - x).tolist()
        rows = [row | {"size": size} for row, size in zip(rows, sizes, strict=True)]
        self._keep(cell, places, rows, began, adv)

    def _attacked(self, cell: Cell, x: Tensor, places: Sequence[int]) -> Found:
        """The images that are handed in again are those of the mode that hands them in once."""
        source = Cell(cell.defence, FRESH, cell.attack, cell.eps)
        if MODES[cell.mode].again and all(self._there(source, place) for place in places):
            kept = torch.stack([self.image(source, place) for place in places]).to(x)
            shares = [self.row(source, place)["share"] for place in places]
            looks = self.row(source, places[0])["looks"]
            return Found(kept, None if None in shares else x.new_tensor(shares), looks)
        mode = FRESH if MODES[cell.mode].again else cell.mode
        victim = self.victim(cell, places, f"{mode}/{cell.attack}")
        found = self.attack(cell)(victim, x, self.trial.ball(cell.eps))
        return found if MODES[cell.mode].answered else Found(found.x)

    def attack(self, cell: Cell) -> Attack:
        """That of a cell."""
        assert cell.attack is not None
        return self.trial.attack(cell.attack)

    def _keep(
        self,
        cell: Cell,
        places: Sequence[int],
        found: Sequence[Row],
        began: float,
        adv: Tensor | None = None,
    ) -> None:
        common = {
            "defence": cell.defence,
            "mode": cell.mode,
            "attack": cell.attack,
            "eps": cell.eps,
            "seconds": (time.perf_counter() - began) / len(places),
        }
        for i, place in enumerate(places):
            index = self._index(cell, place)
            if adv is not None and self.rows.folder is None:
                self.held[index] = adv[i].cpu()
            elif adv is not None and self.rows.folder is not None:
                write_bytes(image_path(self.rows.folder, index), array(adv[i]))
            named = {"id": self.examples.ids[place], "label": int(self.examples.labels[place])}
            self.rows.add({"index": index} | common | named | found[i])

    def _there(self, cell: Cell, place: int) -> bool:
        """Whether an earlier batch, or an earlier run, has made the row and its image."""
        if cell not in self.numbers or (index := self._index(cell, place)) not in self.rows.rows:
            return False
        if cell.attack is None or self.rows.folder is None:
            return True
        return _readable(image_path(self.rows.folder, index), self.examples.x.shape[1:])

    def _index(self, cell: Cell, place: int) -> int:
        return self.numbers[cell] * len(self.examples) + place

    def _looks(self, cell: Cell) -> int:
        """Images that pass for one image of a cell."""
        if cell.attack is None:
            return self.draws(cell)
        looks = self.attack(cell).looks(self.classes[cell.defence], self.random(cell))
        return looks + self.draws(cell)


def _readable(path: Path, shape: Sequence[int]) -> bool:
    """Whether the file holds an image of this shape, whole; its pixels are not read."""
    try:
        return bool(np.load(path, mmap_mode="r", allow_pickle=False).shape == tuple(shape))
    except (OSError, EOFError, ValueError, SyntaxError):
        return False
