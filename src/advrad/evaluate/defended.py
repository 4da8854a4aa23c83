"""What each defence of a classifier is worth, against attackers who know more and more.

Defences, modes and attacks make a table whose every figure has its clean one beside it, under the
same draws, and the verdict of its health. A run that is killed goes on where it stopped.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from .attack_rows import Count, Tell
from .defence_cells import Cell, why_not
from .defence_detection import detection
from .defence_health import Doctor
from .defence_metrics import figures, fixed_autoattack, mean_share
from .defence_modes import MODES, Defence, Drawn, drawn, evaluation
from .defence_rows import LOST, Work
from .defence_trial import Examples, Trial, fitting, resumed, settings_of
from .health import SOUND, UNCHECKED, Health, joined
from .rows import Rows

Result = dict[str, Any]
PROBED = 8  # images by which it is seen what a defence draws
TESTED = {"weaker", "black_box", "steps", "floor"}  # without any, no attack stood against another


def defend(
    defences: Mapping[str, Defence],
    examples: Examples,
    trial: Trial,
    out: Path | None = None,
    report: Tell = lambda done, total: None,
) -> Result:
    """The table of defences by modes, attacks and radii; with `out` also rows and resumption.

    Returns `clean`, a record for each defence; `rows`, for each cell the clean and the robust
    figures under the same draws, and its health; `modes`, for each defence, mode and radius the
    figure of Fixed-AutoAttack over all attacks; and `left_out`, with the reason of each. `report`
    is told how many images have passed, of about how many.

    Raises what `fitting` does, and BlindAttackError where a purifier has no gradient that a mode
    could follow.
    """
    known = fitting(defences, examples, trial)
    for defence in defences.values():
        defence.classifier.to(trial.device).eval()
    settings = settings_of(defences, examples, trial)
    if out is not None:
        settings = resumed(settings, out)
    rows = Rows(out, settings)
    return _Run(defences, known, examples, trial, rows, report).result(settings)


class _Run:
    """All cells, and then their checks."""

    def __init__(
        self,
        defences: Mapping[str, Defence],
        classes: Mapping[str, int],
        examples: Examples,
        trial: Trial,
        rows: Rows,
        report: Tell,
    ) -> None:
        found = {name: _drawn(defence, examples, trial) for name, defence in defences.items()}
        self.work = Work(defences, classes, found, examples, trial, rows, Count(report, 0))
        self.doctor = Doctor(self.work)
        self.trial, self.rows = trial, rows
        self.work.count.total = self.work.cost + (self.doctor.cost if trial.health else 0)
        logging.getLogger("advrad").info(
            f"{len(self.work.cells)} cells of {len(examples)} images: about "
            f"{self.work.count.total:,} images pass, forward or with a gradient"
        )

    def result(self, settings: Result) -> Result:
        """Everything, written where there is a folder."""
        began = time.perf_counter()
        self.doctor.sighted()
        self.work.run()
        attacked = [cell for cell in self.work.cells if cell.attack is not None]
        healths = {cell: self._health(cell) for cell in attacked}
        found = {
            "clean": [self._clean(name) for name in self.work.defences],
            "rows": [self._row(cell, healths[cell]) for cell in attacked],
            "modes": self._modes(healths),
            "left_out": self._left_out(),
            "images": len(self.work.examples),
            "seconds": time.perf_counter() - began,
            "settings": settings,
        }
        self.work.count.reach(self.work.count.total)
        self.rows.finish(found)
        return found

    def _clean(self, name: str) -> Result:
        """Of a defence with nobody attacking."""
        cell, drawn = Cell(name, "full"), self.work.drawn[name]
        draws, count = self.work.draws(cell), len(self.work.examples)
        taken = [self.work.row(cell, place)["seconds"] for place in range(count)]
        return {
            "defence": name,
            "stochastic": drawn.forward or drawn.reverse,
            "drawn": {"put_in": drawn.forward, "on_the_way_out": drawn.reverse},
            "purified": _reach(self.work.defences[name], self.work.examples, self.trial),
            "draws": draws,
            "accuracy": self._figures(cell),
            "seconds_per_image": sum(taken) / count / draws,
        }

    def _row(self, cell: Cell, health: Health) -> Result:
        draws, count = self.work.draws(cell), len(self.work.examples)
        rows = [self.work.row(cell, place) for place in range(count)]
        return {
            "defence": cell.defence,
            "mode": cell.mode,
            "attack": cell.attack,
            "norm": self.trial.norm,
            "eps": cell.eps,
            "draws": draws,
            "known_draw": MODES[cell.mode].known,
            "clean": self._figures(self.work.clean(cell), draws),
            "robust": self._figures(cell),
            "detection": detection(
                [self.work.row(self.work.clean(cell), place) for place in range(count)], rows
            ),
            "lost": sum(LOST in row["classes"] for row in rows),
            "seconds_per_image": sum(row["seconds"] for row in rows) / count,
            "health": _told(health),
        } | self._composed(cell, rows)

    def _composed(self, cell: Cell, rows: Sequence[Result]) -> Result:
        """Of a suite, the figure that it ends with by its own draws, the fewest of any image.

        None where it looked at something else than the defence.
        """
        looks = [row["looks"] for row in rows if row["looks"] is not None]
        if not looks:
            return {}
        shares = [row["share"] or 0.0 for row in rows]
        return {"looks": min(looks), "fixed_autoattack": mean_share(shares).as_dict()}

    def _figures(self, cell: Cell, draws: int | None = None) -> dict[str, dict[str, float]]:
        labels = self.work.examples.labels.cpu().numpy()
        return figures(self.work.answers(cell, draws), labels)

    def _modes(self, healths: Mapping[Cell, Health]) -> list[Result]:
        """Of each defence, mode and radius: the worst of all attacks, image by image."""
        groups: dict[tuple[str, str, float], list[Cell]] = {}
        for cell in healths:
            groups.setdefault((cell.defence, cell.mode, cell.eps), []).append(cell)
        found = []
        for (defence, mode, eps), some in groups.items():
            draws = self.work.draws(some[0])
            clean = self.work.right(self.work.clean(some[0]), draws)
            tables = [clean, *(self.work.right(cell) for cell in some)]
            health = joined({str(cell.attack): healths[cell] for cell in some})
            found.append(
                {
                    "defence": defence,
                    "mode": mode,
                    "norm": self.trial.norm,
                    "eps": eps,
                    "draws": draws,
                    "attacks": [cell.attack for cell in some],
                    "fixed_autoattack": fixed_autoattack(tables).as_dict(),
                    "health": _told(health),
                }
            )
        return found

    def _health(self, cell: Cell) -> Health:
        return self.doctor.examined(cell) if self.trial.health else Health()

    def _left_out(self) -> list[Result]:
        """Modes that say nothing of a defence."""
        return [
            {"defence": name, "mode": mode, "why": why}
            for name, defence in self.work.defences.items()
            for mode in self.trial.modes
            if (why := why_not(mode, defence, self.work.drawn[name]))
        ]


def _drawn(defence: Defence, examples: Examples, trial: Trial) -> Drawn:
    """What a defence draws for clean images, and for changed ones."""
    x, ids = examples.x[:PROBED].to(trial.device), examples.ids[:PROBED]
    noises = evaluation(MODES["full"], trial.seed, ids)
    changed = (x + trial.ball(max(trial.eps)).random(x, noises(2))).clamp(0, 1)
    return drawn(defence, [x, changed], noises)


@torch.no_grad()
def _reach(defence: Defence, examples: Examples, trial: Trial) -> dict[str, float] | None:
    """From where to where purified images reach, of a few; None of no purifier."""
    if defence.purify is None:
        return None
    x, ids = examples.x[:PROBED].to(trial.device), examples.ids[:PROBED]
    found = defence.purify(x, evaluation(MODES["full"], trial.seed, ids)(0)).nan_to_num()
    return {"low": round(float(found.min()), 3), "high": round(float(found.max()), 3)}


def _told(health: Health) -> Result:
    """As JSON has it; a figure that stood against no other attack is not called sound."""
    found = health.as_dict()
    if found["verdict"] == SOUND and set(found["not_run"]) >= TESTED:
        found["verdict"] = UNCHECKED
    return found
