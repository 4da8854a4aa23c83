"""The error of a reconstruction tells attacks from clean images, until it is attacked itself."""

import math

import pytest
import torch
from purifying import classifier, images, network, ready
from torch import Tensor
from torch.nn import functional as F
from toys import names

from advrad.attacks import Linf, eot, pgd
from advrad.errors import DataError, UsageError
from advrad.noise import Fixed, Noise, PerImage, fresh
from advrad.purifiers import diffpure
from advrad.purifiers.detect import error, look, separation, unseen


def halves(x: Tensor, noise: Noise = fresh) -> Tensor:
    """A purifier that pulls every pixel half of the way to 0.5."""
    return (x + 0.5) / 2


def test_the_error_of_any_purifier_is_the_squared_difference() -> None:
    x = images()
    expected = ((x - 0.5) / 2).square().mean((1, 2, 3))
    torch.testing.assert_close(error(halves)(x, Fixed(0)), expected)
    purified, score = look(halves, x)
    assert torch.equal(purified, halves(x))
    torch.testing.assert_close(score, expected)


@pytest.mark.parametrize("name", ["diffdefense", "defensegan", "diffpure"])
def test_the_detector_has_a_gradient_and_the_purifier_s_image(name: str) -> None:
    purify, x, noise = ready(name), images().requires_grad_(), PerImage(1, names(3))
    purified, score = look(purify, x, noise)
    torch.testing.assert_close(purified, purify(x, noise))
    assert score.shape == (3,)
    (slope,) = torch.autograd.grad(score.sum(), x)
    assert (slope.flatten(1).abs().amax(1) > 0).all()


def test_separation_is_the_share_of_pairs_in_order() -> None:
    clean, attacked = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.25, 0.4])
    found = separation(clean, attacked)
    assert found.auroc == pytest.approx(5 / 6)
    assert found.low <= found.auroc <= found.high
    assert separation(attacked, clean).auroc == pytest.approx(1 / 6)
    assert separation(clean, clean).auroc == pytest.approx(0.5)


def test_scores_that_cannot_be_ranked_are_refused() -> None:
    with pytest.raises(UsageError, match="0 clean and 1 attacked"):
        separation(torch.zeros(0), torch.zeros(1))
    with pytest.raises(DataError):
        separation(torch.zeros(2), torch.tensor([math.nan]))


def test_what_is_climbed_is_the_loss_minus_the_weighted_score() -> None:
    x, labels, phi = images(), torch.tensor([0, 1, 2]), classifier()
    found = unseen(phi, halves, labels, 7.0)(x, Fixed(0))
    loss = F.cross_entropy(phi(halves(x)), labels, reduction="none")
    torch.testing.assert_close(found.climb, loss - 7 * error(halves)(x, Fixed(0)))


def test_a_misleading_image_ranks_above_others_and_there_the_quieter_one() -> None:
    def told(x: Tensor) -> Tensor:
        """Class 1 above 0.4 of mean brightness after the purifier, class 0 below."""
        level = x.mean((1, 2, 3)) - 0.45
        return torch.stack([-level, level], 1)

    levels = torch.tensor([0.1, 0.3, 0.5, 0.9])[:, None, None, None]
    x, labels = levels.expand(4, 1, 4, 4), torch.zeros(4, dtype=torch.long)
    rank = unseen(told, halves, labels, 1.0)(x, Fixed(0)).rank
    assert rank.argsort().tolist() == [0, 1, 3, 2]
    assert (rank > 0).tolist() == [False, False, True, True]


def test_who_weighs_the_score_is_seen_less() -> None:
    """And the same attack without weight is told from clean images by its error."""
    denoiser, phi, x = network(), classifier(), 0.3 + 0.4 * images(8)
    purify, labels = diffpure(denoiser, 60, 1), torch.arange(8) % 4
    known = lambda k: PerImage(1, names(8))
    scores = []
    for weight in (0.0, 1e4):
        objective = eot(unseen(phi, purify, labels, weight), 1, known)
        found = pgd(objective, x, Linf(0.1), steps=8, keep="last", noise=Fixed(0))
        scores.append(float(error(purify)(found, known(0)).mean()))
    assert scores[1] < scores[0]


def test_labels_follow_the_draws_of_an_expectation() -> None:
    x, labels, phi = images(), torch.tensor([0, 1, 2]), classifier()
    drawn = unseen(phi, halves, labels, 1.0)
    one = eot(drawn, 1)(x)
    four = eot(drawn, 4)(x)
    torch.testing.assert_close(one.climb, four.climb)
