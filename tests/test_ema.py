"""The average of weights against its definition."""

import pytest
import torch
from torch import nn

from advrad.diffusion import Average


def module(value: float) -> nn.Module:
    layer = nn.Linear(1, 1)
    for parameter in layer.parameters():
        nn.init.constant_(parameter, value)
    return layer


def follow(values: list[float], decay: float) -> float:
    """The average after the module went through `values`, from weights of 100."""
    average = Average(module(100.0), decay)
    for value in values:
        average.update(module(value))
    target = module(0.0)
    average.copy_to(target)
    assert target.weight.item() == target.bias.item()
    return target.weight.item()


def test_the_warm_up_is_1_plus_n_over_10_plus_n() -> None:
    values = [float(i * i % 7) for i in range(60)]
    expected = 100.0
    for n, value in enumerate(values, 1):
        decay = min(0.8, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * value
    assert follow(values, 0.8) == pytest.approx(expected, rel=1e-5)


def test_what_is_left_of_the_initial_weights_has_a_closed_form() -> None:
    """The product of (1 + i) / (10 + i) over i = 1 ... n is 10! (n + 1)! / (n + 10)!."""
    left = 100.0
    for i in range(2, 11):  # 10! / ((n + 2) ... (n + 10)), n = 50
        left *= i / (50 + i)
    assert follow([0.0] * 50, 0.9999) == pytest.approx(left, rel=1e-4)
    assert left < 1e-5


def test_after_the_warm_up_the_decay_is_plain() -> None:
    average, layer = Average(module(0.0), 0.5), module(1.0)
    average.updates = 1000
    average.update(layer)
    assert average.values["weight"].item() == pytest.approx(0.5)


def test_a_decay_of_0_keeps_the_last_weights() -> None:
    assert follow([3.0, 5.0, 4.0], 0.0) == 4.0


def test_constant_weights_are_their_own_average() -> None:
    assert follow([100.0] * 20, 0.999) == 100.0


def test_the_average_shares_no_memory_with_the_module() -> None:
    layer = module(1.0)
    average = Average(layer, 0.9)
    with torch.no_grad():
        layer.weight.fill_(7)
    assert average.values["weight"].item() == 1.0
    average.copy_to(layer)
    average.update(module(0.0))
    assert layer.weight.item() == 1.0
    assert not any(value.requires_grad for value in average.values.values())
