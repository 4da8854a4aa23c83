"""What a trial tries: cells of a defence, a mode, an attack and a radius.

The first cells of a defence have no attack and hold the clean images, once for each way of
judging.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from .defence_modes import EXACT, MODES, Defence, Drawn
from .defence_trial import Trial

FRESH = "full"  # the mode by whose noise all are judged that know none of it


@dataclass(frozen=True)
class Cell:
    """What is done to every image; without an attack, nothing is."""

    defence: str
    mode: str
    attack: str | None = None
    eps: float = 0.0

    @property
    def words(self) -> str:
        """As a person would name it."""
        how = self.mode.replace("_", " ")
        if self.attack is None:
            return f"{self.defence}, clean" + (f", {how}" if MODES[self.mode].known else "")
        return f"{self.defence}, {how}, {self.attack}, eps {self.eps:.4g}"


def cells(defences: Mapping[str, Defence], drawn: Mapping[str, Drawn], trial: Trial) -> list[Cell]:
    """All cells, defence by defence, each one's clean ones first."""
    found: list[Cell] = []
    for name, defence in defences.items():
        modes = [mode for mode in trial.modes if not why_not(mode, defence, drawn[name])]
        found += [Cell(name, mode) for mode in dict.fromkeys([FRESH, *map(judged_as, modes)])]
        found += [
            Cell(name, mode, attack, eps)
            for mode in modes
            for attack in trial.attacks
            for eps in trial.eps
        ]
    return found


def why_not(mode: str, defence: Defence, drawn: Drawn) -> str:
    """Why a mode says nothing of a defence; empty where it does."""
    asked = MODES[mode]
    if defence.purify is None and asked.sees != EXACT:
        return "there is no purifier that the attacker could leave out or replace"
    if not (drawn.forward or drawn.reverse) and (asked.known or asked.again):
        return "the defence draws nothing that could be known or drawn again"
    if asked.known and not drawn.known(asked):
        where = "to be put in" if asked.forward else "on the way out"
        return f"the defence draws nothing {where} that could be known"
    return ""


def judged_as(mode: str) -> str:
    """The mode by whose noise this one's images are judged."""
    return mode if MODES[mode].known else FRESH
