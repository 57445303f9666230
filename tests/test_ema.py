"""The moving average of weights: its formula, its warm-up, and what it does not average."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from torch import nn

from scoresde import BadInput
from scoresde.train.ema import EMA, find_rate, overlap, power_exponent


def network(value: float) -> nn.Module:
    """Parameters all equal to ``value``; the batch norm brings float and integer buffers."""
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(value)
    return net


def history(values: list[float], decay: float) -> list[float]:
    """The average after each update, all weights being equal; the network's value before the first is 0."""
    ema, out = EMA(network(0.0), decay), []
    for step, value in enumerate(values):
        ema.update(network(value), step)
        averaged = torch.cat([ema.weights[name].flatten() for name, _ in network(0.0).named_parameters()])
        assert averaged.min() == averaged.max()
        out.append(float(averaged[0]))
    return out


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9, 0.999, 0.9999])
def test_the_average_is_its_formula(decay: float) -> None:
    """θ̄_k = Σ_i (1 - d_i) Π_{j>i} d_j θ_i with d = min(decay, (1 + k)/(10 + k)), written out as one sum."""
    values = torch.randn(60, generator=torch.Generator().manual_seed(0), dtype=torch.float64).tolist()
    d = [min(decay, (1 + k) / (10 + k)) for k in range(60)]
    for k, average in enumerate(history(values, decay)):
        weights = [(1 - d[i]) * math.prod(d[i + 1 : k + 1]) for i in range(k + 1)]
        assert average == pytest.approx(sum(w * v for w, v in zip(weights, values, strict=False)), abs=1e-12)


def test_a_young_average_forgets_the_first_weights() -> None:
    """Under warm-up the first weights' share after k steps is Π (1+i)/(10+i) = k! 9!/(k+9)!, whatever the decay."""
    shares = [1 - average for average in history([1.0] * 50, 0.9999)]
    expected = [math.factorial(k) * math.factorial(9) / math.factorial(k + 9) for k in range(1, 51)]
    assert shares == pytest.approx(expected, rel=1e-6, abs=1e-15)


def test_buffers_are_copied() -> None:
    net = network(1.0)
    ema = EMA(net, 0.999)
    for step in range(3):
        net(torch.randn(8, 3, generator=torch.Generator().manual_seed(step), dtype=torch.float64))
        ema.update(net, step)
    for name, buffer in net.named_buffers():
        assert torch.equal(ema.weights[name], buffer) and ema.weights[name].dtype == buffer.dtype
    assert int(ema.weights["1.num_batches_tracked"]) == 3 and ema.weights["1.running_var"].min() != 1


def test_average_and_network_share_no_memory() -> None:
    net, other = network(1.0), network(2.0)
    ema = EMA(net, 0.999)
    ema.update(other, 0)
    assert all((parameter == 1).all() for parameter in net.parameters())
    assert all((parameter == 2).all() for parameter in other.parameters())
    before = {name: tensor.clone() for name, tensor in ema.weights.items()}
    with torch.no_grad():
        for tensor in other.state_dict().values():
            tensor.zero_()
    assert all(torch.equal(ema.weights[name], tensor) for name, tensor in before.items())
    again = EMA(net, 0.999)
    again.load(ema.groups())
    for average in (again, ema):
        average.update(net, 5)
    assert all(torch.equal(again.weights[name], tensor) for name, tensor in ema.weights.items())


# ---------------------------------------------------------------------------------------------------- kinds of averages


def profile(spec: float | str, steps: int) -> np.ndarray:
    """How much the weights of each step count after ``steps`` updates."""
    rate, weights = find_rate(spec)[1], np.zeros(steps)
    for k in range(steps):
        weights *= rate(k)
        weights[k] += 1 - rate(k)
    return weights


@pytest.mark.parametrize("width", [0.05, 0.1, 0.2])
def test_a_power_average_has_its_width(width: float) -> None:
    """Sum 1, weights as k^γ, and a standard deviation of ``width`` of the run's length, whatever that is."""
    for steps in (400, 4000):
        weights, at = profile(f"power:{width}", steps), np.arange(1, steps + 1)
        mean = float(weights @ at)
        assert weights.sum() == pytest.approx(1) and (weights @ (at - mean) ** 2) ** 0.5 == pytest.approx(
            width * steps, rel=20 / steps
        )
    gamma = power_exponent(width)
    assert np.log(weights[3999] / weights[1999]) == pytest.approx(gamma * np.log(2), rel=0.01)
    assert width == pytest.approx((gamma + 1) ** 0.5 / (gamma + 2) / (gamma + 3) ** 0.5)


def test_a_half_life_halves() -> None:
    weights = profile("half_life:50", 1000)
    assert weights[-51] == pytest.approx(weights[-1] / 2) and weights[-101] == pytest.approx(weights[-1] / 4)


@pytest.mark.parametrize("a", [(0.0, 3.0), (6.9, 5.0), (17.0, 4.0)])
@pytest.mark.parametrize("b", [(0.0, 3.0), (2.5, 6.0)])
def test_overlaps_are_integrals(a: tuple[float, float], b: tuple[float, float]) -> None:
    def p(profile: tuple[float, float], t: float) -> float:
        gamma, end = profile
        return (gamma + 1) * t**gamma / end ** (gamma + 1)

    integral, _ = quad(lambda t: p(a, t) * p(b, t), 0, min(a[1], b[1]), epsabs=1e-12)
    assert overlap(a, b) == pytest.approx(integral, rel=1e-9)


@pytest.mark.parametrize(
    "spec, match",
    [
        ("powr:0.1", "did you mean 'power'"),
        ("power", "decay takes a number, as in decay:0.999"),
        ("power:x", "power takes a number, as in power:0.1"),
        ("power:0.3", "relative width is above 0 and below 0.288"),
        ("half_life:0", "positive number of steps"),
        (1.5, "at least 0 and below 1"),
        (["power:0.1", "power:0.10"], "named twice"),
        ([], "at least one"),
    ],
)
def test_averages_that_do_not_exist(spec: object, match: str) -> None:
    with pytest.raises(BadInput, match=match):
        EMA(network(0.0), spec)  # type: ignore[arg-type]
