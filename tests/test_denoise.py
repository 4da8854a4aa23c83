"""The estimate of x_0 and the learned variance."""

import math

import pytest
import torch
from oracles import KnowsEps, saying
from torch import Tensor, nn

from advrad.diffusion import Cosine, EpsDenoiser, Linear, Schedule, UNet
from advrad.diffusion.loss import diffuse

X_0 = torch.rand(2, 3, 4, 4) * 2 - 1
SCHEDULES = [Linear(), Cosine(), Linear(100)]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 1.0])
def test_who_knows_the_noise_gets_the_image_back(schedule: Schedule, share: float) -> None:
    """Catches eps taken for x_0, and any level off by one."""
    t = max(1, int(share * schedule.steps))
    x_0 = X_0.double()
    x_t = diffuse(schedule, x_0, torch.full((2,), t), torch.randn_like(x_0))
    got = EpsDenoiser(KnowsEps(schedule, x_0), schedule)(x_t, t)
    torch.testing.assert_close(got, x_0, rtol=0, atol=1e-4 if t == schedule.steps else 1e-9)


def test_x_0_is_not_clipped() -> None:
    got = saying(eps=0.0)(torch.full((1, 1, 2, 2), 3.0), 500)
    assert got[0, 0, 0, 0].item() == pytest.approx(3 / math.sqrt(Linear().alpha_bar(500)))


@pytest.mark.parametrize(("steps", "t", "index"), [(1000, 1, 0), (1000, 100, 99), (100, 11, 100)])
def test_the_network_counts_levels_from_0_to_999(steps: int, t: int, index: float) -> None:
    network = KnowsEps(Linear(steps), X_0)
    denoiser = EpsDenoiser(network, Linear(steps))
    denoiser(X_0, t)
    denoiser.predict(X_0, torch.tensor([t, t]))
    assert network.indices == [index] * 4


def beta_and_posterior(t: int) -> tuple[float, float]:
    """beta_t and beta~_t of the linear schedule, as the papers write them."""
    betas = Linear().betas().tolist()
    before, here = Linear().alpha_bar(t - 1), Linear().alpha_bar(t)
    return betas[t - 1], (1 - before) / (1 - here) * betas[t - 1]


@pytest.mark.parametrize("t", [2, 3, 50, 1000])
@pytest.mark.parametrize("v", [-1.0, -0.5, 0.0, 1.0])
def test_the_log_variance_lies_between_beta_tilde_and_beta(t: int, v: float) -> None:
    """Eq. A.7 as it should read: exp(w log beta_t + (1 - w) log beta~_t), w = (v + 1) / 2."""
    beta, posterior = beta_and_posterior(t)
    share = (v + 1) / 2
    expected = share * math.log(beta) + (1 - share) * math.log(posterior)
    got = saying(v=v).predict(torch.zeros(1, 1, 2, 2), torch.tensor([t])).log_variance
    torch.testing.assert_close(got, torch.full((1, 1, 2, 2), expected))


@pytest.mark.parametrize(("v", "number"), [(-1.0, 2), (1.0, 1)])
def test_beta_tilde_of_level_1_is_that_of_level_2(v: float, number: int) -> None:
    """beta~_1 is 0, which has no logarithm; beta_1 stays what it is."""
    expected = math.log(beta_and_posterior(2)[1] if number == 2 else beta_and_posterior(1)[0])
    got = saying(v=v).predict(torch.zeros(1, 1, 1, 1), torch.tensor([1])).log_variance
    assert got.item() == pytest.approx(expected, rel=1e-6)


def test_asking_for_the_variance_leaves_the_schedule_as_it_was() -> None:
    denoiser = saying()
    before = denoiser.schedule.alpha_bars.clone()
    denoiser.predict(X_0, torch.tensor([1, 2]))
    assert torch.equal(denoiser.schedule.alpha_bars, before)


def test_each_image_has_its_own_level() -> None:
    t = torch.tensor([1, 700])
    together = saying(v=0.3).predict(X_0, t)
    for i in range(2):
        alone = saying(v=0.3).predict(X_0[i : i + 1], t[i : i + 1])
        assert torch.equal(together.log_variance[i : i + 1], alone.log_variance)


class Notes(nn.Module):
    """A network that notes in which type a convolution answers."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.seen = nn.Conv2d(3, 6, 1), torch.float64

    def forward(self, x_t: Tensor, index: Tensor) -> tuple[Tensor, ...]:
        answer = self.layer(x_t)
        self.seen = answer.dtype
        return answer.chunk(2, 1)


@pytest.mark.parametrize(
    ("precision", "inside"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)]
)
def test_precision_is_that_of_the_network_alone(precision: str, inside: torch.dtype) -> None:
    network = Notes()
    denoiser = EpsDenoiser(network, Linear(), precision)
    prediction = denoiser.predict(X_0, torch.tensor([5, 5]))
    assert network.seen == inside
    assert prediction.eps.dtype == prediction.log_variance.dtype == torch.float32
    assert denoiser(X_0, 5).dtype == torch.float32


def test_bfloat16_is_close_to_float32() -> None:
    network = UNet(3, (8, 16), attention=(1,))
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.05)
    x = torch.randn(2, 3, 8, 8)
    exact = EpsDenoiser(network, Linear())(x, 100)
    rough = EpsDenoiser(network, Linear(), "bfloat16")(x, 100)
    assert not torch.equal(exact, rough)
    torch.testing.assert_close(exact, rough, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_gradients_reach_the_image(precision: str) -> None:
    x = X_0.clone().requires_grad_()
    EpsDenoiser(Notes(), Linear(), precision)(x, 100).square().sum().backward()
    assert x.grad is not None
    assert (x.grad != 0).any()
