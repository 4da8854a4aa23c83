"""What the attacker of a defended classifier knows, each as a composition and nothing else.

A defence is logits(x, noise) = classifier(purify(x, noise)). A mode says three things: what the
attacker differentiates, which noise he knows, and whether he may hand an image in again. The
attack itself is the same in all of them, and so is the purifier.

| mode | differentiates | knows | the evaluation draws |
|---|---|---|---|
| transfer | the classifier alone | - | fresh |
| bpda | the purifier forward, the identity backward | - | fresh |
| surrogate | a coarser purifier | - | fresh |
| full | the purifier | - | fresh |
| resubmission | the purifier | - | fresh, and the worst of m counts |
| dw_forward | the purifier | the noise put in | the same noise put in, the rest fresh |
| dw_reverse | the purifier | the noise of the steps out | the same on the way out |
| dw_both | the purifier | all of it | the same: the defence is a fixed map |

Deterministic white box (DW): Liu et al., 2024 (https://arxiv.org/abs/2404.14309). BPDA and
expectation over draws: Athalye et al., 2018 (https://arxiv.org/abs/1802.00420). Surrogate process:
Lee and Kim, 2023 (https://arxiv.org/abs/2303.09051).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..attacks import Noises, bpda
from ..attacks.classification import Watched
from ..attacks.recipes import SPAN, START
from ..errors import UsageError
from ..noise import Draws, Noise, PerImage, Split
from ..purifiers import Purifier
from ..purifiers.detect import look
from .robustness import derived

Logits = Callable[[Tensor, Noise], Tensor]  # (B, C, H, W) under a noise -> (B, K)
CLASSIFIER, IDENTITY, COARSE, EXACT = "classifier", "identity", "coarse", "exact"


@dataclass(frozen=True)
class Mode:
    """What an attacker knows.

    Arguments:
        sees: what is differentiated: the classifier alone, the purifier with the identity's
            gradient, a coarser purifier, or the exact one.
        forward: whether the noise put in is known, and used again by the evaluation.
        reverse: the same of the noise of the steps out.
        again: whether an image is handed in until one draw suits.
        weaker: the modes that know less, which must not do more harm.
    """

    sees: str
    forward: bool = False
    reverse: bool = False
    again: bool = False
    weaker: tuple[str, ...] = ()

    @property
    def known(self) -> bool:
        """Whether the attacker knows any noise of the evaluation."""
        return self.forward or self.reverse

    @property
    def answered(self) -> bool:
        """Whether what the attacker looks at are the defence's own answers."""
        return self.sees in (IDENTITY, EXACT)


BLIND = ("transfer", "bpda", "surrogate")
MODES: dict[str, Mode] = {
    "transfer": Mode(CLASSIFIER),
    "bpda": Mode(IDENTITY, weaker=BLIND[:1]),
    "surrogate": Mode(COARSE, weaker=BLIND[:1]),
    "full": Mode(EXACT, weaker=BLIND),
    "resubmission": Mode(EXACT, again=True, weaker=BLIND),
    "dw_forward": Mode(EXACT, forward=True, weaker=(*BLIND, "full")),
    "dw_reverse": Mode(EXACT, reverse=True, weaker=(*BLIND, "full")),
    "dw_both": Mode(
        EXACT, True, True, weaker=(*BLIND, "full", "dw_forward", "dw_reverse")
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Defence:
    """A classifier, and what stands before it.

    Arguments:
        classifier: (B, C, H, W) in [0, 1] -> logits (B, K); it draws nothing.
        purify: the purifier, None for no defence.
        coarse: a cheaper purifier, for `surrogate`.
        settings: what it is made of, as plain JSON values, for the record.
    """

    classifier: nn.Module
    purify: Purifier | None = None
    coarse: Purifier | None = None
    settings: tuple[tuple[str, object], ...] = ()

    def logits(self, x: Tensor, noise: Noise) -> Tensor:
        """(B, K), of one draw, differentiable as the purifier is."""
        purified = x if self.purify is None else self.purify(x, noise)
        found: Tensor = self.classifier(purified)
        return found

    def watched(self, x: Tensor, noise: Noise) -> tuple[Tensor, Tensor | None]:
        """The same logits, and how much each image looks attacked, (B,); None of no purifier."""
        if self.purify is None:
            return self.logits(x, noise), None
        purified, score = look(self.purify, x, noise)
        return self.classifier(purified), score


class Drawn(NamedTuple):
    """What a defence draws: noise put in, noise of the steps out, any at all in its surrogate."""

    forward: bool = False
    reverse: bool = False
    coarse: bool = False

    def varies(self, mode: Mode) -> bool:
        """Whether its answers differ from draw to draw of the mode's evaluation."""
        return (self.forward and not mode.forward) or (self.reverse and not mode.reverse)

    def seen(self, mode: Mode) -> bool:
        """Whether what the mode's attacker looks at differs from draw to draw."""
        if mode.sees == COARSE:
            return self.coarse
        return mode.sees != CLASSIFIER and self.varies(mode)

    def known(self, mode: Mode) -> bool:
        """Whether the mode knows any of it."""
        return (self.forward and mode.forward) or (self.reverse and mode.reverse)


def drawn(defence: Defence, batches: Sequence[Tensor], noises: Noises) -> Drawn:
    """What the defence draws for these batches: what it asks its noise for.

    Answers alone do not say it, as two draws may agree on a few images. One whose answers differ
    though it asks for nothing draws by itself, and counts as drawing everything.
    """
    forward, reverse = _asked(defence.logits, batches, noises)
    if defence.purify is None or defence.coarse is None:
        return Drawn(forward, reverse)
    coarse = Defence(defence.classifier, defence.coarse)
    return Drawn(forward, reverse, any(_asked(coarse.logits, batches, noises)))


@torch.no_grad()
def _asked(logits: Logits, batches: Sequence[Tensor], noises: Noises) -> tuple[bool, bool]:
    """Whether noise put in, and noise of the steps out, is asked for."""
    asked: set[bool] = set()

    def watched(noise: Noise) -> Noise:
        def told(like: Tensor, step: int) -> Tensor:
            asked.add(step >= 0)
            return noise(like, step)

        return told

    apart = False
    for x in batches:
        one, other = (logits(x, watched(noises(k))).nan_to_num() for k in range(2))
        apart = apart or not torch.equal(one, other)
    alone = apart and not asked
    return alone or True in asked, alone or False in asked


def attacked(mode: Mode, defence: Defence) -> Logits:
    """The logits that the attacker looks at and differentiates.

    Raises UsageError for `surrogate` where the defence has no coarser purifier.
    """
    purify, classifier = defence.purify, defence.classifier
    if mode.sees == CLASSIFIER:
        return lambda x, noise: classifier(x)
    if purify is None or mode.sees == EXACT:
        return defence.logits
    if mode.sees == COARSE:
        if defence.coarse is None:
            raise UsageError(
                "the mode surrogate attacks a coarser purifier, and the defence has none: give "
                "one, with fewer and larger steps, or leave the mode out"
            )
        return Defence(classifier, defence.coarse).logits
    return lambda x, noise: classifier(bpda(lambda y: purify(y, noise), lambda y: y)(x))


def watched(mode: Mode, defence: Defence) -> Watched | None:
    """What the attacker looks at who wants to stay unseen: the logits, and the detector's score.

    None where the mode does not see the purifier, or there is none. With the identity's gradient
    the purified image is a constant to the score as well.
    """
    purify, classifier = defence.purify, defence.classifier
    if purify is None or mode.sees == CLASSIFIER:
        return None
    if mode.sees == IDENTITY:
        return lambda x, noise: _straight(classifier, purify, x, noise)
    seen = defence.coarse if mode.sees == COARSE else purify
    if seen is None:
        return None

    def told(x: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        purified, score = look(seen, x, noise)
        return classifier(purified), score

    return told


def _straight(
    classifier: nn.Module, purify: Purifier, x: Tensor, noise: Noise
) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        purified, score = look(purify, x, noise)
    apart = (purified - x).square().flatten(1).mean(1)
    logits = classifier(bpda(lambda y: purified, lambda y: y)(x))
    return logits, score + apart - apart.detach()


def evaluation(mode: Mode, seed: int, ids: Sequence[str]) -> Noises:
    """The noise of draw 0, 1, 2, ... under which an attacked image is judged."""
    return _shared(mode, "judge", seed, ids)


def attacker(mode: Mode, seed: int, ids: Sequence[str], purpose: str) -> Noises:
    """The noise of draw 0, 1, 2, ... that the attacker has; `purpose` tells attacks apart.

    None of it is the evaluation's but what the mode says is known. What an attack draws for
    itself (random starts, proposals) is never the defence's.
    """
    drawn, own = _shared(mode, f"attack/{purpose}", seed, ids), _own(purpose, seed, ids)
    return lambda k: own(k) if k % SPAN == START else drawn(k)


def _own(purpose: str, seed: int, ids: Sequence[str]) -> Noises:
    return Draws(derived(seed, f"purify/{purpose}"), ids)


def _shared(mode: Mode, purpose: str, seed: int, ids: Sequence[str]) -> Noises:
    own = _own(purpose, seed, ids)
    known = PerImage(derived(seed, "purify/known"), ids)

    def noise(k: int) -> Noise:
        drawn = own(k)
        return Split(known if mode.forward else drawn, known if mode.reverse else drawn)

    return noise
