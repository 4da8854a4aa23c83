"""Defense-GAN: its rates, the published descent, and the gradient through all of it."""

import math
from importlib import import_module

import pytest
import torch
from holding import held
from purifying import SIDE, images
from slopes import EXACT, disagreement
from torch import Tensor, nn
from toys import names

from advrad.errors import UsageError
from advrad.networks.wgan import Generator
from advrad.noise import Fixed, PerImage
from advrad.purifiers import defensegan
from advrad.purifiers._slope import slope
from advrad.purifiers.defensegan import rate_at


def generator(width: int = 4) -> Generator:
    torch.manual_seed(3)
    return Generator(1, SIDE, latent=6, width=width).requires_grad_(False)


class Line(nn.Module):
    """Images along one direction; the search for the nearest has a closed form."""

    latent = 1

    def __init__(self, along: Tensor) -> None:
        super().__init__()
        self.along, self.shape = along, along.shape[1:]

    def forward(self, z: Tensor) -> Tensor:
        return 0.5 + z[:, :, None, None] * self.along


def test_the_rate_falls_to_a_tenth_over_four_fifths_of_the_steps() -> None:
    for k in range(200):
        assert rate_at(k, 200) == pytest.approx(10 * 0.1 ** (k / 160))
    assert rate_at(160, 200) == pytest.approx(1.0)
    assert rate_at(3, 4) == pytest.approx(10 * 0.1 ** (3 / math.ceil(3.2)))


def test_it_is_descent_with_momentum_on_the_error_in_both_signs() -> None:
    """By torch's own SGD, on the mean squared error of 2 x - 1."""
    make, x = generator().double(), images(2).double()
    starts = [Fixed(1)(x.new_empty(2, 6), restart) for restart in range(3)]
    z = (torch.cat(starts) / math.sqrt(6)).requires_grad_()
    optimizer = torch.optim.SGD([z], lr=1.0, momentum=0.7)
    for k in range(5):
        optimizer.zero_grad()
        gap = (2 * make(z) - 1) - (2 * x.repeat(3, 1, 1, 1) - 1)
        gap.square().mean((1, 2, 3)).sum().backward()
        optimizer.param_groups[0]["lr"] = rate_at(k, 5)
        optimizer.step()
    end = defensegan(make, 5, 3).search(x, Fixed(1))
    expected = make(z).detach().unflatten(0, (3, 2))
    torch.testing.assert_close(end.images, expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(end.errors, (expected - x).square().mean((2, 3, 4)))


def test_it_finds_the_nearest_image_that_can_be_made() -> None:
    along = torch.zeros(1, 1, 4, 4)
    along[..., :2] = 0.1
    x = 0.5 + 0.7 * along + 0.05 * torch.tensor([0.0, 0.0, 1.0, -1.0])
    purify = defensegan(Line(along), 200, 2)
    torch.testing.assert_close(purify(x, Fixed(0)), 0.5 + 0.7 * along, rtol=0, atol=1e-4)
    _, score = purify.look(x, Fixed(0))
    assert score.item() == pytest.approx(0.05**2 / 2, rel=1e-3)


def test_its_score_is_the_best_restart_s() -> None:
    x, purify = images(), defensegan(generator(), 3, 4)
    image, score = purify.look(x, PerImage(1, names(3)))
    end = purify.search(x, PerImage(1, names(3)))
    assert torch.equal(score, end.errors.amin(0))
    torch.testing.assert_close((image - x).square().mean((1, 2, 3)), score)


def test_more_steps_come_nearer() -> None:
    errors = [
        float(defensegan(generator(), n, 2).search(images(), Fixed(0)).errors.mean())
        for n in (1, 10, 100)
    ]
    assert errors[0] > errors[1] > errors[2]


def test_it_is_differentiated_to_second_order() -> None:
    purify, x = defensegan(generator().double(), 6, 2, rate=3.0), 0.2 + 0.6 * images(2)
    assert disagreement(lambda x: purify(x, Fixed(0)), x) < EXACT
    assert disagreement(lambda x: purify.look(x, Fixed(0))[1], x) < EXACT


def test_a_search_that_is_cut_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: the direction of the descent as a constant."""
    cut = lambda error, z, *others: slope(error, z, *others).detach()
    monkeypatch.setattr(import_module("advrad.purifiers.defensegan"), "slope", cut)
    purify, x = defensegan(generator().double(), 6, 2, rate=3.0), 0.2 + 0.6 * images(2)
    assert disagreement(lambda x: purify.look(x, Fixed(0))[1], x) > 1e-3


def test_its_memory_grows_with_the_latents_alone() -> None:
    short, long = (
        held(lambda x, n=n: defensegan(generator(), n, 2)(x, Fixed(0)), images(1)) for n in (3, 23)
    )
    each = (long - short) / 20
    assert 0 < each <= 2 * 2 * 6 * 4  # latents and velocities of two restarts


def test_the_search_touches_no_parameter() -> None:
    make = generator().requires_grad_(True)
    x = images(1).requires_grad_()
    torch.autograd.grad(defensegan(make, 4, 2)(x, Fixed(0)).sum(), x)
    assert all(parameter.grad is None for parameter in make.parameters())


def test_what_is_impossible_is_refused() -> None:
    for settings in ({"iterations": 0}, {"restarts": 0}):
        with pytest.raises(UsageError, match="1 or more each"):
            defensegan(generator(), **settings)
    for rate in (-1.0, 0.0, math.nan, math.inf):
        with pytest.raises(UsageError, match="expected a number above 0"):
            defensegan(generator(), rate=rate)


@pytest.mark.parametrize("shape", [(2, 3, SIDE, SIDE), (2, 1, SIDE - 1, SIDE), (2, 1, 8, 8)])
def test_images_that_the_generator_cannot_make_are_refused(shape: tuple[int, ...]) -> None:
    """Three channels would be compared with one, by broadcasting."""
    with pytest.raises(UsageError, match=f"images of {shape[1]} x .* makes 1 x 16 x 16"):
        defensegan(generator(), 2, 2)(torch.rand(shape), Fixed(0))
