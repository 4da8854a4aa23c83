"""A classifier as the attacks see it: its losses as objectives, its classes as targets.

A defence is `(x, noise) -> logits`, whatever stands in front of the network. What is climbed may
be any loss; what counts is the margin, above zero where the class is wrong. `examined` asks what
AutoAttack asks before it starts (Croce and Hein, 2020, https://arxiv.org/abs/2003.01690, and its
code): are these logits, and are they the same twice?
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from ..errors import UsageError
from ..noise import Noise, PerImage, Split, fresh
from .gradient import images
from .objective import (
    Aim,
    Drawn,
    Noises,
    Objective,
    cross_entropy,
    dlr,
    eot,
    margin,
)

Classifier = Callable[[Tensor, Noise], Tensor]  # (B, C, H, W) in [0, 1] -> logits (B, K)
Loss = Callable[[Tensor, Tensor], Tensor]  # logits, labels -> (B,)
# (x, noise) -> logits (B, K), and how much each image looks attacked (B,): a defence that detects
Watched = Callable[[Tensor, Noise], tuple[Tensor, Tensor]]
TargetedLoss = Callable[[Tensor, Tensor, Tensor], Tensor]  # logits, labels, targets -> (B,)

RUNS = 5  # looks at the same images; logits of length 1 that differ by more than DRIFT are random
DRIFT = 1e-4
SUMS_TO_ONE = 1e-3  # as nearly as half precision can


def undefended(network: Callable[[Tensor], Tensor]) -> Classifier:
    """The network alone, which needs no noise."""
    return lambda x, noise: network(x)


def targeted_dlr(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """The target's logit minus the right one, in units that do not know the logits' scale, (B,).

    Croce and Hein, 2020 (https://arxiv.org/abs/2003.01690), Eq. 7: the unit is the first logit
    minus the mean of the third and the fourth. Raises ValueError below four classes.
    """
    if logits.shape[1] < 4:
        raise ValueError(f"{logits.shape[1]} logits: the targeted ratio needs four or more")
    ordered = logits.sort(1, descending=True).values
    unit = ordered[:, 0] - ordered[:, 2:4].mean(1)
    return targeted_margin(logits, labels, targets) / (unit + 1e-12)


def targeted_margin(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """The target's logit minus the right one, (B,)."""
    return (logits.gather(1, targets[:, None]) - logits.gather(1, labels[:, None]))[:, 0]


LOSSES: dict[str, Loss] = {"cross-entropy": cross_entropy, "dlr": dlr, "margin": margin}
TARGETED: dict[str, TargetedLoss] = {"dlr": targeted_dlr, "margin": targeted_margin}


def untargeted(classify: Classifier, labels: Tensor, loss: Loss = cross_entropy) -> Drawn:
    """The loss is climbed, the margin ranks."""

    def drawn(x: Tensor, noise: Noise) -> Aim:
        logits = classify(x, noise)
        right = _copies(labels, x)
        return Aim(loss(logits, right), margin(logits, right).detach())

    return drawn


def unseen(watched: Watched, labels: Tensor, weight: float, loss: Loss = cross_entropy) -> Drawn:
    """To mislead the classifier and not to be detected: the loss minus the weighted score.

    Iterates are ranked by what counts: one that misleads is above all that do not, and there the
    smaller score is better. `weight` is in units of the loss; 0 attacks the classifier alone.
    """

    def drawn(x: Tensor, noise: Noise) -> Aim:
        logits, score = watched(x, noise)
        right = _copies(labels, x)
        wrong, hidden = margin(logits, right).detach(), 1 / (1 + score.detach())
        climb = loss(logits, right) - weight * score
        return Aim(climb, torch.where(wrong > 0, hidden, wrong.clamp(max=0)))

    return drawn


def targeted(
    classify: Classifier, labels: Tensor, targets: Tensor, loss: TargetedLoss = targeted_dlr
) -> Drawn:
    """The loss towards each image's target (B,) is climbed; any wrong class counts."""

    def drawn(x: Tensor, noise: Noise) -> Aim:
        logits = classify(x, noise)
        right = _copies(labels, x)
        climb = loss(logits, right, _copies(targets, x))
        return Aim(climb, margin(logits, right).detach())

    return drawn


def rivals(classify: Classifier, labels: Tensor, targets: Tensor) -> Drawn:
    """Of several targets (B, T) each one's logit minus the right one, (B, T), in one pass.

    For attacks that choose the nearest boundary: `fab` and `deepfool`.
    """

    def drawn(x: Tensor, noise: Noise) -> Aim:
        logits = classify(x, noise)
        right = _copies(labels, x)
        climb = logits.gather(1, _copies(targets, x)) - logits.gather(1, right[:, None])
        return Aim(climb, margin(logits, right).detach())

    return drawn


def likeliest(logits: Tensor, labels: Tensor, count: int) -> Tensor:
    """The wrong classes with the largest logits, in their order, (B, count)."""
    return logits.scatter(1, labels[:, None], -torch.inf).topk(count, dim=1).indices


@dataclass(frozen=True)
class Victim:
    """A batch of images' classifier under attack.

    Arguments:
        classify: logits of one draw.
        labels: the right classes, (B,).
        noises: draw number 0, 1, 2, ... of the batch, the attacker's and the judge's. The same
            noise for every number is a defence whose draws are known.
        random: whether two draws differ.
        classes: how many logits there are.
        watched: the same logits with the score of a detector of attacks, where there is one.
    """

    classify: Classifier
    labels: Tensor
    noises: Noises
    random: bool
    classes: int
    watched: Watched | None = None

    def mean(self, drawn: Drawn, first: int, draws: int = 1) -> Objective:
        """The objective, over `draws` draws a call from number `first` on where draws differ."""
        return eot(drawn, draws if self.random else 1, lambda k: self.noises(first + k))

    @torch.no_grad()
    def logits(self, x: Tensor, first: int, draws: int = 1) -> Tensor:
        """The mean logits over the draws from number `first` on, (B, K)."""
        numbers = range(first, first + (draws if self.random else 1))
        return torch.stack([self.classify(x, self.noises(k)) for k in numbers]).mean(0)

    @torch.no_grad()
    def correct(self, x: Tensor, first: int, draws: int) -> Tensor:
        """The share of the draws from number `first` on under which the class is right, (B,)."""
        looks = [self.classify(x, self.noises(first + k)).argmax(1) for k in range(draws)]
        return torch.stack([look == self.labels for look in looks]).to(x).mean(0)

    def at(self, rows: Tensor) -> Self:
        """The same for some images of the batch (R,): each keeps its own noise."""
        noises = self.noises
        return replace(
            self, labels=self.labels[rows], noises=lambda k: some(noises(k), rows, len(self))
        )

    def __len__(self) -> int:
        return len(self.labels)


def examined(
    classify: Classifier,
    x: Tensor,
    labels: Tensor,
    noises: Noises = lambda k: fresh,
    random: bool | None = None,
) -> Victim:
    """The classifier, found to be one, and whether it is random, after RUNS forward passes.

    Unless it is said, it is random where the share of right classes changes between looks under
    different draws, or an image's logits, scaled to length 1, do. Raises UsageError for images out
    of range, labels that are not classes, and what is not logits: another shape, numbers that are
    not finite, probabilities.
    """
    x = images(x)
    with torch.no_grad():
        looks = [classify(x, noises(run)) for run in range(RUNS)]
    _refuse(looks[0], x, labels)
    right = {int((look.argmax(1) == labels).sum()) for look in looks}
    scaled = torch.stack([look / (look.norm(dim=1, keepdim=True) + 1e-10) for look in looks])
    spread = (scaled[:, None] - scaled[None]).norm(dim=3).max()
    if random is None:
        random = len(right) > 1 or float(spread) > DRIFT
    return Victim(classify, labels, noises, random, looks[0].shape[1])


def looks_like_logits(values: Tensor) -> bool:
    """Whether what a classifier returns, (B, K), is anything but probabilities.

    Those are rows in [0, 1] that sum to one, all of them. Logarithms of probabilities are logits.
    """
    within = (values >= -SUMS_TO_ONE) & (values <= 1 + SUMS_TO_ONE)
    sums = (values.sum(1) - 1).abs() <= SUMS_TO_ONE
    return not bool(within.all() and sums.all())


def _refuse(logits: Tensor, x: Tensor, labels: Tensor) -> None:
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(x):
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise UsageError(
            f"the classifier returned {shape} for {len(x)} images: expected logits "
            f"({len(x)}, classes)"
        )
    if not bool(logits.isfinite().all()):
        raise UsageError("the classifier returned logits that are not finite, without any attack")
    if not looks_like_logits(logits):
        raise UsageError(
            "the classifier returned probabilities: expected logits. A softmax makes gradients "
            "vanish, and attacks look weak: remove it from the end of the network, or take the "
            "logarithm of what it returns"
        )
    whole = labels.shape == (len(x),) and not labels.is_floating_point()
    if not whole or not bool(((labels >= 0) & (labels < logits.shape[1])).all()):
        raise UsageError(
            f"labels {labels.dtype} of shape {tuple(labels.shape)}: expected one whole number for "
            f"each of {len(x)} images, from 0 to {logits.shape[1] - 1}"
        )


def some(noise: Noise, rows: Tensor, count: int) -> Noise:
    """For some images of a batch of `count`, the noise that they have in the whole batch."""
    if noise is fresh:
        return noise
    if isinstance(noise, PerImage):
        return PerImage(noise.seed, [noise.ids[row] for row in rows.tolist()])
    if isinstance(noise, Split):
        return Split(some(noise.forward, rows, count), some(noise.reverse, rows, count))

    def drawn(like: Tensor, step: int) -> Tensor:
        return noise(like.new_zeros(count, *like.shape[1:]), step)[rows]

    return drawn


def _copies(numbers: Tensor, x: Tensor) -> Tensor:
    """Repeated for a batch that holds the same images once for each of several draws."""
    return numbers.repeat(len(x) // len(numbers), *(1 for _ in numbers.shape[1:]))
