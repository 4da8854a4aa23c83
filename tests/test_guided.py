"""GDMP and AGDM: their published step, what they draw the image to, and what they refuse."""

import math
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from oracles import Drawn, KnownImage
from purifying import classifier, images, network
from torch import Tensor, nn

from advrad.diffusion import Linear
from advrad.diffusion.reconstruct import ladder
from advrad.errors import UsageError
from advrad.noise import STRIDE, Fixed, Noise, redraw
from advrad.purifiers import agdm, diffpure, gdmp
from advrad.purifiers._chain import ROUND
from advrad.purifiers.guided import GUIDE, dissimilarity, latent, misread, squared
from advrad.scoring import ssim

CIFAR = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)).double()


def published(x_t: Tensor, there: Tensor, a_t: float, a_s: float) -> Tensor:
    """What the guide of the published program adds to the mean of a step of one level.

    s = sqrt(1 - a) / (m sqrt(a)), m = (2 ptb / 255) / 3 / 60,000, ptb = 8; times the variance and
    the gradient of minus the mean squared error of one image.
    """
    m = 2 * 8 / 255 / 3 / 60_000
    scale = math.sqrt(1 - a_t) / (m * math.sqrt(a_t))
    gradient = -2 * (x_t - there) / x_t[0].numel()
    return scale * (1 - a_t / a_s) * gradient


def test_a_step_of_gdmp_is_the_published_one_to_first_order_in_beta() -> None:
    """For an image of CIFAR's size the distance to the reference shrinks by 19 % at level 36."""
    schedule, noise = Linear(), Fixed(0)
    a_t, a_s = schedule.alpha_bar(36), schedule.alpha_bar(35)
    denoiser = KnownImage(schedule, torch.zeros_like(CIFAR))
    levels: dict[str, Tensor] = {}

    def one_level(used: Any, x_t: Tensor, t: int, s: int, noise: Noise) -> Tensor:
        """Looks at what the guided estimate does to the posterior's mean, and stays."""
        of_x_0 = math.sqrt(a_s) * (1 - a_t / a_s) / (1 - a_t)
        levels["x_t"], levels["moved"] = x_t, of_x_0 * used(x_t, t)
        return x_t

    gdmp(denoiser, 36, 1, rounds=1, step=one_level)(CIFAR, noise)
    e = redraw(noise, GUIDE)(CIFAR, 36)
    there = math.sqrt(a_t) * (2 * CIFAR - 1) + math.sqrt(1 - a_t) * e
    expected = published(levels["x_t"], there, a_t, a_s)
    torch.testing.assert_close(levels["moved"], expected / math.sqrt(a_t / a_s))
    share = -expected / (levels["x_t"] - there)
    assert share.mean().item() == pytest.approx(0.190, abs=5e-4)


def test_by_similarity_the_published_strength_is_70_000_to_the_mean() -> None:
    schedule, seen = Linear(), dict[str, Tensor]()
    a_t = schedule.alpha_bar(36)

    def one_level(used: Any, x_t: Tensor, t: int, s: int, noise: Noise) -> Tensor:
        """A denoiser that knows 0 answers with what the guide adds to it."""
        seen["x_t"], seen["added"] = x_t, used(x_t, t)
        return x_t

    denoiser = KnownImage(schedule, torch.zeros_like(CIFAR))
    gdmp(denoiser, 36, 1, rounds=1, likeness="ssim", step=one_level)(CIFAR, Fixed(0))
    e = redraw(Fixed(0), GUIDE)(CIFAR, 36)
    there = math.sqrt(a_t) * (2 * CIFAR - 1) + math.sqrt(1 - a_t) * e
    x_t = seen["x_t"].detach().requires_grad_()
    mean = (1 - ssim((x_t + 1) / 2, (there + 1) / 2)).flatten(1).sum(1) / (3 * 32 * 32)
    (slope,) = torch.autograd.grad(mean.sum(), x_t)
    scale = math.sqrt(1 - a_t) / (2 * 8 / 255 / 3 / 70_000 * math.sqrt(a_t))
    expected = -scale * slope * (1 - a_t) / math.sqrt(a_t)
    torch.testing.assert_close(seen["added"], expected)


@pytest.mark.parametrize(("depth", "least"), [(36, 3), (100, 97)])
def test_the_least_shots_that_the_pull_bears_are_as_told(depth: int, least: int) -> None:
    schedule = Linear()

    def share(t: int, s: int) -> float:
        a_t, a_s = schedule.alpha_bar(t), schedule.alpha_bar(s)
        ones, zeros = torch.ones(1, 3, 32, 32), torch.zeros(1, 3, 32, 32)
        return -float(published(ones, zeros, a_t, a_s).mean()) / math.sqrt(a_t / a_s)

    worst = {
        shots: max(share(t, s) for t, s in pairwise(levels))
        for shots in (least - 1, least)
        for levels in [ladder(depth, shots)]
    }
    assert worst[least] < 2 < worst[least - 1]


def test_energies_are_sums_over_an_image_s_own_values() -> None:
    x, y = CIFAR[:1], CIFAR[1:]
    assert squared(CIFAR, CIFAR.flip(0)).shape == (2,)
    assert squared(x, y).item() == pytest.approx(((x - y) ** 2).sum().item())
    a, b = 2 * x - 1, 2 * y - 1
    assert dissimilarity(a, b).item() == pytest.approx((1 - ssim(x, y)).sum().item())
    assert dissimilarity(a, a).item() == pytest.approx(0, abs=1e-9)


def test_without_strength_they_are_diffpure() -> None:
    denoiser, x, chain = network(), images(), (60, 4)
    expected = diffpure(denoiser, *chain, rounds=2)(x, Fixed(0))
    assert torch.equal(gdmp(denoiser, *chain, rounds=2, strength=0.0)(x, Fixed(0)), expected)
    found = agdm(denoiser, classifier(), *chain, rounds=2, scale=0.0)
    assert torch.equal(found(x, Fixed(0)), expected)


@pytest.mark.parametrize(("likeness", "energy"), [("mse", squared), ("ssim", dissimilarity)])
def test_gdmp_draws_the_result_to_the_pixels_that_came_in(likeness: str, energy: Any) -> None:
    denoiser, x = network(), images()
    apart = lambda y: energy(2 * y - 1, 2 * x - 1)
    free = diffpure(denoiser, 36, 12, rounds=4)(x, Fixed(0))
    held = gdmp(denoiser, 36, 12, rounds=4, likeness=likeness)(x, Fixed(0))
    assert (apart(held) < 0.9 * apart(free)).all()


def test_every_round_is_held_to_the_image_that_came_in_first() -> None:
    """The reference is the input's, in all rounds; its noise is another in each."""
    x, asked = images(1), Asked()
    gdmp(network(), 20, 2, rounds=3)(x, asked)
    steps = [step for step, _ in asked.found]
    assert len(set(steps)) == len(steps) == 3 * (1 + 1 + 2)
    guide = [like for step, like in asked.found if step // STRIDE % ROUND == GUIDE]
    assert len(guide) == 6
    assert all(torch.equal(like, 2 * x - 1) for like in guide)


class Asked:
    """A noise that remembers what it was asked for, and like what."""

    def __init__(self) -> None:
        self.found: list[tuple[int, Tensor]] = []

    def __call__(self, like: Tensor, step: int) -> Tensor:
        self.found.append((step, like))
        return Drawn(step)(like, step)


def test_the_energy_of_agdm_is_both_of_its_terms() -> None:
    """mean (c - c')^2 - log softmax(logits)[y], of images moved from [-1, 1] to [0, 1]."""
    phi, x, y = classifier(), images(), images().flip(0)
    found = misread(latent(phi), torch.tensor([3, 0, 1]), 2 * x - 1, 2 * y - 1)
    for i, label in enumerate((3, 0, 1)):
        apart = (phi[:-1](x)[i] - phi[:-1](y)[i]).square().mean()
        chance = phi(x)[i].softmax(0)[label]
        torch.testing.assert_close(found[i], apart - chance.log())


def test_agdm_draws_the_result_to_what_its_classifier_sees_in_the_input() -> None:
    denoiser, phi, x = network(), classifier(), images(6)
    seen = latent(phi)
    energy = partial(misread, seen, seen(x).logits.argmax(1))
    left = [
        energy(2 * agdm(denoiser, phi, 100, 20, scale=scale)(x, Fixed(0)) - 1, 2 * x - 1)
        for scale in (0.0, 100.0, 300.0)
    ]
    assert (left[0] > left[1]).all()
    assert (left[1] > left[2]).all()


def test_features_are_what_the_last_linear_layer_is_given() -> None:
    phi, x = classifier(), images()
    found = latent(phi)(x)
    assert torch.equal(found.logits, phi(x))
    assert torch.equal(found.features, phi[:-1](x))
    assert not phi[-1]._forward_pre_hooks
    with pytest.raises(RuntimeError):
        latent(phi)(x[:, :, :4])
    assert not phi[-1]._forward_pre_hooks


def test_no_parameter_of_the_guide_gets_a_gradient() -> None:
    phi, x = classifier().requires_grad_(True), images(1).requires_grad_()
    agdm(network(), phi, 60, 3)(x, Fixed(0))
    (found,) = torch.autograd.grad(agdm(network(), phi, 60, 3)(x, Fixed(0)).sum(), x)
    assert found.abs().max() > 0
    assert all(parameter.grad is None for parameter in phi.parameters())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"likeness": "psnr"}, "likeness='psnr': expected one of mse, ssim"),
        ({"strength": -1.0}, "strength -1 and eps"),
        ({"eps": 0.0}, "eps 0: expected"),
        ({"strength": math.inf}, "no infinity"),
        ({"depth": 0}, r"depth 0 \(t\* = 0\) puts in noise of 0"),
        ({"depth": 10, "shots": 11}, "expected 1 to 10 shots"),
    ],
)
def test_impossible_settings_of_gdmp_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        gdmp(network(), **settings)


def test_impossible_guides_are_refused() -> None:
    with pytest.raises(UsageError, match="Flatten has no linear layer: a guide needs"):
        agdm(network(), nn.Flatten())
    with pytest.raises(UsageError, match="in training mode: call its eval"):
        agdm(network(), classifier().train())
    with pytest.raises(UsageError, match="scale -1: expected 0 or more"):
        agdm(network(), classifier(), scale=-1.0)
    for scale in (math.nan, math.inf):
        with pytest.raises(UsageError, match="expected 0 or more, and not infinity"):
            agdm(network(), classifier(), scale=scale)


@pytest.mark.parametrize(
    ("levels", "pixels", "features"), [(1000, 36, 70), (100, 4, 7), (10, 1, 1)]
)
def test_without_a_depth_it_is_the_published_share_of_the_schedule(
    levels: int, pixels: int, features: int
) -> None:
    """Level by level, and nothing else is asked of the network."""
    asked: list[int] = []

    class Asks:
        schedule = Linear(levels)

        def __call__(self, x_t: Tensor, t: int) -> Tensor:
            asked.append(t)
            return 0 * x_t

    with torch.no_grad():
        gdmp(Asks(), rounds=1)(images(1), Fixed(0))
        assert asked == list(range(pixels, 0, -1))
        asked.clear()
        agdm(Asks(), classifier())(images(1), Fixed(0))
    assert asked == list(range(features, 0, -1))
