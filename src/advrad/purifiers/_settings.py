"""How a generator is trained, as plain values."""

from dataclasses import dataclass

METHODS = ("addt", "adbm", "clean", "unranked")


@dataclass(frozen=True)
class Learning:
    """How a diffusion model is trained.

    Arguments:
        steps, batch, rate: the rate warms up and falls along half a cosine.
        average: decay of the averaged weights, which are kept.
        views: names of `diffusion.augment.ALL`.
    """

    steps: int = 5000
    batch: int = 64
    rate: float = 1e-3
    average: float = 0.999
    views: tuple[str, ...] = ()


@dataclass(frozen=True)
class Playing:
    """How a WGAN is trained; the defaults but for the number of steps are WGAN-GP's.

    Arguments:
        steps: turns of both players together.
        batch, rate: of each turn; Adam's momenta are 0.5 and 0.9.
        turns: of the critic for one of the generator.
        penalty: weight of the gradient penalty.
        average: decay of the averaged weights, which are kept, at every turn of either player.
        views: names of `diffusion.augment.ALL`.
    """

    steps: int = 12_000
    batch: int = 50
    rate: float = 1e-4
    turns: int = 5
    penalty: float = 10.0
    average: float = 0.999
    views: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finetuning:
    """How a trained diffusion model goes on.

    Arguments:
        method: `addt`, `adbm`, `clean` (the control) or `unranked` (ADDT's ablation).
        passes: of the network, forward and backward, for each place of a batch.
        batch, rate: of a step; the rate warms up and falls along half a cosine.
        rounds: of the search inside; 5 for ADDT and 3 for ADBM where none are given.
        eps: radius of ADBM's attack, in the [0, 1] scale, above 0.
        average: decay of the averaged weights, which are kept.
        views: names of `diffusion.augment.ALL`.
    """

    method: str = "addt"
    passes: int = 6000
    batch: int = 32
    rate: float = 2e-4
    rounds: int | None = None
    eps: float = 8 / 255
    average: float = 0.999
    views: tuple[str, ...] = ()

    @property
    def searched(self) -> int:
        """Rounds of the search in a step."""
        if self.method == "clean":
            return 0
        own = 3 if self.method == "adbm" else 5
        return own if self.rounds is None else self.rounds

    @property
    def steps(self) -> int:
        """Updates that the passes suffice for."""
        return self.passes // (self.searched + 1)


LEARNING, PLAYING, FINETUNING = Learning(), Playing(), Finetuning()
