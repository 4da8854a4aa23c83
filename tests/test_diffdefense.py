"""DiffDefense: its rates, its sampler, a search that comes nearer, and the gradient through it."""

import math
from dataclasses import replace
from importlib import import_module
from itertools import pairwise

import pytest
import torch
from holding import held
from purifying import READY, SIDE, classifier, images, in_double, network, uncentred
from slopes import EXACT, disagreement
from torch import Tensor, nn
from toys import names

from advrad.diffusion import EpsDenoiser, Linear
from advrad.diffusion.reconstruct import jump
from advrad.errors import UsageError
from advrad.noise import Fixed, PerImage, Split, fresh
from advrad.purifiers import ALL, diffdefense
from advrad.purifiers._search import Found, remade, squared_error
from advrad.purifiers._slope import slope
from advrad.purifiers.diffdefense import DiffDefense, Misplaced, Ramp, rate_at

KINDS = [(s, g) for s in ("paper", "respaced") for g in ("detached", "exact")]


class Says(nn.Module):
    """A network that predicts a share of what it sees as noise: gentle, smooth and not linear."""

    def __init__(self, part: float = 0.3) -> None:
        super().__init__()
        self.part = nn.Parameter(torch.tensor(part, dtype=torch.float64))

    def forward(self, x: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        eps = (self.part.to(x) + index.to(x)[:, None, None, None] / 4000) * torch.tanh(x)
        return eps, 0 * x


# --- rates and schedules ---


@pytest.mark.parametrize(
    ("iterations", "rates"),
    [(4, [0.02, 14.06, 7.91, 4.45]), (5, [0.02, 14.06, 7.91, 4.45, 2.50])],
)
def test_the_rates_are_the_published_ones(iterations: int, rates: list[float]) -> None:
    found = [rate_at(i, iterations) for i in range(iterations)]
    assert found == pytest.approx(rates, abs=0.006)


def test_the_published_schedules_end_where_they_do() -> None:
    """Training at 0.365; in use at 0.859, a level of noise that training had not at that place."""
    assert Ramp(100).alpha_bar(100) == pytest.approx(0.365, abs=6e-4)
    assert Ramp(15, first=1e-4).alpha_bar(15) == pytest.approx(0.859, abs=6e-4)


def test_the_paper_s_schedule_asks_the_first_levels_of_the_network() -> None:
    asked: list[int] = []
    denoiser = EpsDenoiser(Says(), Ramp(100), centred=False)
    run = denoiser.run
    denoiser.run = lambda x_t, t: (asked.append(int(t[0])), run(x_t, t))[1]
    diffdefense(denoiser, 1, 1)(images(1), Fixed(0))
    assert asked == list(range(15, 0, -1))
    asked.clear()
    denoiser.centred = True
    diffdefense(denoiser, 1, 1, steps=4, schedule="respaced")(images(1), Fixed(0))
    assert asked == [100, 75, 50, 25]


def test_a_misplaced_network_is_read_with_the_other_schedule_s_noise() -> None:
    denoiser, x_t = network(), 2 * images() - 1
    a_t = Ramp(15, first=1e-4).alpha_bar(7)
    eps, _ = denoiser.run(x_t, torch.full((3,), 7))
    expected = (x_t - math.sqrt(1 - a_t) * eps) / math.sqrt(a_t)
    torch.testing.assert_close(Misplaced(denoiser, Ramp(15, first=1e-4))(x_t, 7), expected)


# --- the search ---


def by_hand(x: Tensor, restarts: int, iterations: int, gradient: str) -> tuple[Tensor, Tensor]:
    """The published loop with torch's own Adam: images and errors of the last pass."""
    misplaced = Misplaced(EpsDenoiser(Says(), Linear()), Ramp(4, first=1e-4))

    class Held:
        schedule = misplaced.schedule

        def __call__(self, x_t: Tensor, t: int) -> Tensor:
            """The estimate with the network's output as a constant."""
            a_t = self.schedule.alpha_bar(t)
            with torch.no_grad():
                eps, _ = misplaced.denoiser.run(x_t, torch.full((len(x_t),), t))
            return (x_t - math.sqrt(1 - a_t) * eps) / math.sqrt(a_t)

    denoiser = Held() if gradient == "detached" else misplaced
    z = torch.cat([Fixed(3)(x, restart) for restart in range(restarts)]).requires_grad_()
    optimizer = torch.optim.Adam([z], betas=(0.5, 0.999))
    target = x.repeat(restarts, 1, 1, 1)
    for i in range(iterations):
        h, draw = z, 0
        for t, s in pairwise(range(4, -1, -1)):
            first = [(r * iterations + i) * 3 + draw for r in range(restarts)]
            own = lambda like, step, f=first: torch.cat([Fixed(3)(x, -1 - n) for n in f])
            h, draw = jump(denoiser, h, t, s, own), draw + 1
        error = (torch.sigmoid(h) - target).square().mean((1, 2, 3))
        optimizer.zero_grad()
        (error.sum() / restarts).backward()
        optimizer.param_groups[0]["lr"] = rate_at(i, iterations)
        optimizer.step()
    found = torch.sigmoid(h).detach().unflatten(0, (restarts, -1))
    return found, error.detach().unflatten(0, (restarts, -1))


@pytest.mark.parametrize("gradient", ["detached", "exact"])
def test_it_is_the_published_loop(gradient: str) -> None:
    x = images(2).double()
    denoiser = EpsDenoiser(Says(), Linear(), centred=False)
    purify = diffdefense(denoiser, 4, 3, steps=4, gradient=gradient)
    end = purify.search(x, Fixed(3))
    made, errors = by_hand(x, 3, 4, gradient)
    torch.testing.assert_close(end.images, made, rtol=0, atol=1e-9)
    torch.testing.assert_close(end.errors, errors, rtol=1e-7, atol=0)


def test_the_search_comes_nearer() -> None:
    """Where pixels are black or white: the published rates soon saturate the sigmoid."""
    x = images().round()
    denoiser = uncentred(network())
    errors = [
        float(diffdefense(denoiser, n, 2).search(x, Fixed(0)).errors.mean()) for n in (1, 5, 12)
    ]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.2 * errors[0]


def test_at_the_published_rates_pixels_come_out_black_or_white() -> None:
    """Whatever grey they were: the second update moves every number of the latent by 14."""
    x = 0.3 + 0.4 * images()
    saturated = lambda y: float(((y < 0.01) | (y > 0.99)).float().mean())
    assert saturated(diffdefense(uncentred(network()), 5, 2)(x, Fixed(0))) > 0.95
    assert saturated(diffdefense(uncentred(network()), 5, 2, rate=0.5)(x, Fixed(0))) < 0.05


def test_the_best_restart_is_chosen_image_by_image() -> None:
    made = torch.arange(6.0).reshape(3, 2, 1, 1, 1) / 10
    end = Found(made, torch.tensor([[3.0, 1.0], [2.0, 5.0], [4.0, 0.5]]))
    assert end.best().flatten().tolist() == pytest.approx([0.2, 0.5])


def test_its_errors_are_those_of_its_images_and_its_score_is_their_mean() -> None:
    x, purify = images(), diffdefense(uncentred(network()), 3, 4, steps=5)
    end = purify.search(x, PerImage(1, names(3)))
    for restart in range(4):
        expected = (end.images[restart] - x).square().mean((1, 2, 3))
        torch.testing.assert_close(end.errors[restart], expected)
    image, score = purify.look(x, PerImage(1, names(3)))
    torch.testing.assert_close(score, end.errors.mean(0))
    assert torch.equal(image, end.images[end.errors.argmin(0), torch.arange(3)])


def test_every_pass_and_every_restart_draws_its_own_noise() -> None:
    asked: list[int] = []

    def counting(like: Tensor, step: int) -> Tensor:
        asked.append(step)
        return fresh(like, step)

    diffdefense(uncentred(network()), 3, 2, steps=4)(images(), counting)
    assert sorted(step for step in asked if step >= 0) == [0, 1]
    assert sorted(-1 - step for step in asked if step < 0) == list(range(3 * 2 * 3))


# --- the range of the images ---


class Black(nn.Module):
    """A network that knows black images, and nothing of what is far from them.

    Arguments:
        ground: black, in the range of its images.
    """

    def __init__(self, ground: float) -> None:
        super().__init__()
        self.ground = ground

    def forward(self, x_t: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        a_t = Ramp(15, first=1e-4).alpha_bar(round(float(index[0]) / 10) + 1)
        eps = (x_t - math.sqrt(a_t) * self.ground) / math.sqrt(1 - a_t)
        return eps.clamp(-12, 12), 0 * x_t


def test_a_ground_that_an_attack_has_made_grey_becomes_black_again() -> None:
    """On [0, 1] the first pass makes 0 of it, the threshold is 0.5, and grey of 0.3 is below;
    a network of images in [-1, 1] would have its threshold at 0.27, and make it white."""
    x = torch.full((1, 1, SIDE, SIDE), 0.3)
    x[..., :4] = 0.6
    purify = diffdefense(EpsDenoiser(Black(0.0), Ramp(100), centred=False), 5, 2)
    found = purify(x, Fixed(0))
    assert (found[..., 4:] < 0.01).all()
    assert (found[..., :4] > 0.99).all()
    centred = EpsDenoiser(Black(-1.0), Ramp(100))
    planted = replace(purify, denoiser=Misplaced(centred, Ramp(15, first=1e-4)))
    white = (planted(x, Fixed(0))[..., 4:] > 0.99).float().mean()
    assert white > 0.8
    with pytest.raises(UsageError, match=r"on images in \[0, 1\].*--set centred=false"):
        diffdefense(centred)


def test_respaced_levels_lead_from_minus_one_and_one_to_zero_and_one() -> None:
    made = diffdefense(network(), 1, 1, steps=4, schedule="respaced")
    assert made.output(torch.tensor([-1.0, 0.0, 1.0])).tolist() == [0.0, 0.5, 1.0]
    assert made.rate == 1.0
    assert diffdefense(uncentred(network()), 1, 1).rate == 25.0


def test_no_other_purifier_takes_a_model_of_images_in_zero_to_one() -> None:
    denoiser, phi = uncentred(network()), classifier()
    for name in sorted(set(ALL) - {"defensegan", "diffdefense"}):
        with pytest.raises(UsageError, match=r"images in \[-1, 1\], .* centred=false"):
            READY[name](ALL[name], denoiser, phi)
    with pytest.raises(UsageError, match="schedule=respaced needs a model of images in"):
        diffdefense(denoiser, schedule="respaced")


# --- the gradient through it ---


@pytest.mark.parametrize(("schedule", "gradient"), KINDS)
def test_it_is_differentiated_through_every_path(schedule: str, gradient: str) -> None:
    purify, x = wavering(schedule, gradient), 0.2 + 0.6 * images(2)
    assert disagreement(lambda x: purify(x, Fixed(0)), x) < EXACT
    assert disagreement(lambda x: purify.look(x, PerImage(4, names(2)))[1], x) < EXACT


def test_a_network_of_convolutions_is_differentiated_twice() -> None:
    purify = diffdefense(
        uncentred(in_double(network())), 3, 2, steps=2, gradient="exact", rate=0.5
    )
    assert disagreement(lambda x: purify(x, Fixed(0)), 0.3 + 0.4 * images(1)) < EXACT


def wavering(schedule: str = "respaced", gradient: str = "exact") -> DiffDefense:
    denoiser = EpsDenoiser(Says(), Linear(), centred=schedule == "respaced")
    return diffdefense(denoiser, 4, 2, steps=3, schedule=schedule, gradient=gradient, rate=0.5)


@pytest.mark.parametrize(("schedule", "gradient"), KINDS)
def test_a_search_that_is_cut_is_caught(
    schedule: str, gradient: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: the direction of the search as a constant, as a program without create_graph."""
    cut = lambda error, z, *others: slope(error, z, *others).detach()
    monkeypatch.setattr(import_module("advrad.purifiers.diffdefense"), "slope", cut)
    purify = wavering(schedule, gradient)
    assert disagreement(lambda x: purify.look(x, Fixed(0))[1], 0.2 + 0.6 * images(2)) > 1e-3


def test_fresh_noise_is_the_same_on_the_way_back() -> None:
    """A step that is made again must not draw again."""

    def seeded(x: Tensor) -> Tensor:
        torch.manual_seed(0)
        return wavering()(x, fresh)

    assert disagreement(seeded, 0.2 + 0.6 * images(2)) < EXACT


@pytest.mark.parametrize("gradient", ["detached", "exact"])
def test_an_image_is_judged_the_same_alone_and_in_any_batch(gradient: str) -> None:
    x, ids = images(), names(3)
    purify = diffdefense(uncentred(network()), 3, 2, steps=4, gradient=gradient, rate=0.5)
    together = purify(x, PerImage(5, ids))
    for i in range(3):
        alone = purify(x[i : i + 1], PerImage(5, ids[i : i + 1]))
        torch.testing.assert_close(alone[0], together[i], rtol=1e-4, atol=1e-4)


def test_parts_of_the_noise_may_be_known() -> None:
    x, purify = images(), diffdefense(uncentred(network()), 3, 2, steps=4)
    known = Split(Fixed(1), Fixed(2))
    assert torch.equal(purify(x, known), purify(x, known))
    assert not torch.equal(purify(x, known), purify(x, Split(Fixed(1), Fixed(3))))
    assert not torch.equal(purify(x, known), purify(x, Split(Fixed(3), Fixed(2))))


def test_the_search_touches_no_parameter_and_needs_no_gradient_around_it() -> None:
    denoiser = uncentred(network()).requires_grad_(True)
    for gradient in ("detached", "exact"):
        purify = diffdefense(denoiser, 3, 2, steps=3, gradient=gradient)
        with torch.no_grad():
            still = purify(images(), Fixed(0))
        torch.testing.assert_close(purify(images(), Fixed(0)), still, rtol=1e-4, atol=1e-4)
    assert all(parameter.grad is None for parameter in denoiser.parameters())


def held_for(iterations: int, gradient: str) -> int:
    purify = diffdefense(uncentred(network()), iterations, 1, steps=4, gradient=gradient)
    return held(lambda x: purify(x, Fixed(0)), images(1))


@pytest.mark.parametrize("gradient", ["detached", "exact"])
def test_its_memory_grows_with_images_and_not_with_activations(gradient: str) -> None:
    """A pass adds what Adam and its four jumps hold; one call of the network holds more."""
    added = (held_for(6, gradient) - held_for(2, gradient)) / 4
    assert 0 < added < 16 * 4 * SIDE**2
    assert added < held(lambda x: network()(x, 5), images(1))


# --- the parts that it shares ---


def test_a_step_that_is_made_again_has_the_same_gradient() -> None:
    step = lambda a, b: (a * b.sin(), a + b.square())
    a, b = (torch.randn(5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    both = [
        torch.autograd.grad(sum(part.square().sum() for part in made), (a, b))
        for made in (step(a, b), remade(step, a, b))
    ]
    for one, other in zip(*both, strict=True):
        torch.testing.assert_close(one, other)


def test_a_slope_can_be_differentiated_where_it_is_wanted() -> None:
    z, x = torch.tensor([2.0], requires_grad=True), torch.tensor([5.0], requires_grad=True)
    found = slope(lambda z: (z - x) ** 3, z, x)
    assert found.item() == pytest.approx(27)
    assert torch.autograd.grad(found, (z, x))[0].item() == pytest.approx(-18)
    assert not slope(lambda z: z**3, z.detach()).requires_grad
    with torch.no_grad():
        assert not slope(lambda z: z**3, z).requires_grad
    assert z.grad is None


def test_squared_error_is_the_mean_over_an_image() -> None:
    assert squared_error(torch.full((2, 1, 2, 2), 3.0), torch.ones(2, 1, 2, 2)).tolist() == [4, 4]


# --- what is refused ---


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"iterations": 0}, "0 iterations"),
        ({"restarts": 0}, "0 starts"),
        ({"steps": 0}, "expected 1 to 1000"),
        ({"steps": 1001}, "expected 1 to 1000"),
        ({"schedule": "other"}, "paper or respaced"),
        ({"gradient": "none"}, "detached, exact"),
        ({"iterations": 1000, "restarts": 100}, "at most 65536"),
        ({"rate": -1.0}, "rate=-1.0: expected a number above 0"),
        ({"rate": math.nan}, "rate=nan"),
        ({"rate": math.inf}, "rate=inf"),
    ],
)
def test_what_is_impossible_is_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        diffdefense(uncentred(network()), **settings)
