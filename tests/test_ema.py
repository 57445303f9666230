"""The moving average of weights: its formula, its warm-up, and what it does not average."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from scoresde.train.ema import EMA


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
    again.load(ema.weights)
    for average in (again, ema):
        average.update(net, 5)
    assert all(torch.equal(again.weights[name], tensor) for name, tensor in ema.weights.items())
