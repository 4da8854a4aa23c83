"""Draws around an image: whatever the batch the same, and as noisy as they say."""

import math

import pytest
import torch
from torch import Tensor

from advrad.certify import Smoothing, ordered
from advrad.errors import UsageError
from advrad.noise import Noise

X = torch.full((1, 6, 6), 0.5)


def brightness(x: Tensor, noise: Noise) -> Tensor:
    return x.mean((1, 2, 3))


def own(x: Tensor, noise: Noise) -> Tensor:
    """A score that is nothing but noise of its own."""
    return noise(x[:, 0, 0, 0], 3)


def test_draws_do_not_depend_on_the_batch_and_longer_runs_begin_with_shorter_ones() -> None:
    whole = Smoothing(0.2, 50, seed=4, batch=50).draws(brightness, X, "a")
    for batch in (1, 7, 64):
        assert torch.equal(Smoothing(0.2, 50, 4, batch).draws(brightness, X, "a"), whole)
    assert torch.equal(Smoothing(0.2, 30, 4, 8).draws(brightness, X, "a"), whole[:30])
    assert not torch.equal(Smoothing(0.2, 50, 5).draws(brightness, X, "a"), whole)
    assert not torch.equal(Smoothing(0.2, 50, 4).draws(brightness, X, "b"), whole)


def test_the_noise_is_gaussian_with_sigma_and_is_not_cut_to_the_box() -> None:
    """The mean of 36 pixels has the standard deviation sigma / 6."""
    found = Smoothing(2.0, 4000).draws(brightness, X, "a")
    assert float(found.mean()) == pytest.approx(0.5, abs=4 * 2 / 6 / math.sqrt(4000))
    assert float(found.std()) == pytest.approx(2 / 6, rel=0.05)


def test_the_score_s_own_noise_is_fresh_in_every_draw_and_independent_of_the_image_s() -> None:
    inner = Smoothing(0.2, 4000).draws(own, X, "a")
    assert len(inner.unique()) == 4000
    outer = Smoothing(0.2, 4000).draws(lambda x, noise: x[:, 0, 0, 0], X, "a")
    assert abs(float(torch.corrcoef(torch.stack([inner, outer]))[0, 1])) < 0.06


def test_maps_are_drawn_as_scores_are() -> None:
    found = Smoothing(0.1, 20, batch=8).draws(lambda x, noise: x[:, 0], X, "a")
    assert found.shape == (20, 6, 6)
    assert ordered(found).bounds(0.0, 0.01).lower.shape == (6, 6)


def test_noise_in_another_scale_would_be_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted bug: half of sigma, as if images were in [-1, 1]. The bounds of a linear score
    are then so narrow that the true change within the radius leaves them."""

    def holds() -> bool:
        x = torch.full((1, 6, 6), 0.5)
        bounds = ordered(Smoothing(0.4, 4000).draws(weighed, x, "a")).bounds(0.3 / 0.4, 1e-3)
        return bool(bounds.lower <= 3.0 - 0.3) and bool(bounds.upper >= 3.0 + 0.3)

    def weighed(x: Tensor, noise: Noise) -> Tensor:
        return x.sum((1, 2, 3)) / 6  # the weights have the norm 1: the median moves by the radius

    assert holds()
    noisy = Smoothing.noisy

    def half(self: Smoothing, x: Tensor, *rest: object) -> tuple[Tensor, Noise]:
        batch, noise = noisy(self, x, *rest)  # type: ignore[arg-type]
        return x + (batch - x) / 2, noise

    monkeypatch.setattr(Smoothing, "noisy", half)
    assert not holds()


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.inf, math.nan])
def test_a_sigma_that_is_none_is_told(sigma: float) -> None:
    with pytest.raises(UsageError, match="sigma"):
        Smoothing(sigma)


def test_no_samples_are_told() -> None:
    with pytest.raises(UsageError, match="0 samples"):
        Smoothing(0.1, 0)
