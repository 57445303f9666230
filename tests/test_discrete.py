"""Probabilities of whole numbers, bits, and the variational bound."""

from __future__ import annotations

import math

import pytest
import torch
from exact import F64, SDES, mixture

import scoresde
from scoresde import BadInput, bits_per_dim, discrete_log_prob, log_prob, variational_bound
from scoresde.data import Scaler
from scoresde.likelihood import dequantise

VP = SDES["vp"]


# ------------------------------------------------------------------------------------------------------- discrete data


def test_dequantised_data_stay_in_their_bins() -> None:
    x = torch.randint(0, 256, (20, 1, 5, 5), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    some, other = dequantise(x, range(20), 3), dequantise(x, range(20), 3, draw=1)
    offset = some - x
    assert torch.equal(some.round().to(torch.uint8), x) and not torch.equal(some, other)
    assert torch.equal(dequantise(x[7:], range(7, 20), 3), some[7:])
    assert abs(float(offset.mean())) < 0.05 and float(offset.std()) == pytest.approx(12**-0.5, rel=0.05)


def test_the_probability_of_whole_numbers_is_bounded_ever_more_tightly() -> None:
    """Bins of N(m, s²) have a closed form: the bound lies below it, and rises to it with the draws."""
    sde, scaler = SDES["edm"], Scaler((8.0,), (8.0,))
    data = scoresde.Gaussian(torch.tensor([0.1], dtype=F64), torch.tensor([[0.01]], dtype=F64))
    x = torch.arange(6, 12, dtype=F64).repeat(20).unsqueeze(1)
    std = math.hypot(0.1, sde.t_min) * 8
    edges = torch.stack([x[:, 0] - 0.5, x[:, 0] + 0.5])
    cdf = torch.special.ndtr((edges - (8 + 0.8)) / std)
    want = (cdf[1] - cdf[0]).log()
    gaps: list[float] = []
    for draws in (1, 4):
        found = discrete_log_prob(data.denoiser(sde), x, 12, levels=16, draws=draws, scaler=scaler)
        gaps.append(float((want - found.log_prob).mean()))
        assert torch.allclose(bits_per_dim(found), -found.log_prob / math.log(2))
        assert found.nfe == 48 * draws
    assert 0 < gaps[1] < gaps[0] / 2


def test_all_256_values_of_a_byte_are_whole_numbers() -> None:
    """The values of one pixel under one density: they are told apart, all 256, and their probabilities sum to 1."""
    data = scoresde.Gaussian(torch.zeros(1), 0.04 * torch.eye(1))
    x = torch.arange(256, dtype=torch.uint8).unsqueeze(1)
    found = discrete_log_prob(data.denoiser(VP), x, 10, scaler=Scaler.image())
    assert float(found.log_prob.exp().sum()) == pytest.approx(1, abs=0.02)


def test_bits_follow_from_nats() -> None:
    density = log_prob(mixture().denoiser(VP), mixture().sample(3), 4)
    with pytest.raises(BadInput, match="declare the width"):
        bits_per_dim(density)
    bits = bits_per_dim(density, width=1 / 128)
    assert torch.allclose(bits, 7 - density.log_prob / 2 / math.log(2))
    uniform = torch.full((2,), -3072 * math.log(256.0))
    assert torch.allclose(bits_per_dim(uniform, width=1.0, dims=3072), torch.tensor(8.0))


# ----------------------------------------------------------------------------------------------------------- the bound


def test_the_bound_lies_above_and_tends_to_the_likelihood() -> None:
    spread = torch.tensor([0.7, 0.1], dtype=F64)
    data = scoresde.Gaussian(torch.zeros(2, dtype=F64), torch.diag(spread))
    x = data.sample(1500, seed=1)
    exact = -data.log_prob(x)
    gaps: list[float] = []
    for N in (1, 4, 32):
        gap = variational_bound(data.denoiser(VP), x, N).total - exact
        gaps.append(float(gap.mean()))
        assert gaps[-1] > -4 * float(gap.std() / len(gap) ** 0.5)
    assert gaps[0] > gaps[1] > gaps[2] and gaps[2] < 0.4 * gaps[1]
    limit = variational_bound(data.denoiser(VP), x, continuous=True, strata=32).total - exact
    error = 4 * float(limit.std() / len(x) ** 0.5)
    assert -error < float(limit.mean()) < error


def test_the_bound_in_its_parts_and_units() -> None:
    data, x = mixture(), mixture().sample(6)
    whole = variational_bound(data.denoiser(VP), x, 5)
    assert whole.terms.shape == (6, 5) and torch.equal(whole.terms[:, 0], whole.decoder)
    assert torch.allclose(whole.total, whole.terms.sum(1) + whole.prior) and whole.bits_per_dim is None
    part = variational_bound(data.denoiser(VP), x[2:], 5, first=2)
    assert torch.allclose(part.total, whole.total[2:], rtol=1e-12)
    scaler = Scaler((1.0,), (4.0,))
    for how in ({"N": 5}, {"continuous": True, "strata": 5}):
        plain = variational_bound(data.denoiser(VP), x, **how)
        lifted = variational_bound(data.denoiser(VP), scaler.decode(x), scaler=scaler, **how)
        assert torch.allclose(lifted.total, plain.total + 2 * math.log(4.0))
        assert torch.allclose(lifted.decoder + lifted.prior + lifted.terms[:, "N" in how :].sum(1), lifted.total)


def test_the_bound_of_bits() -> None:
    """Pixels that the model knows nothing of cost at least their entropy, 8 bits, whichever bound."""
    pixels = torch.randint(0, 256, (400, 2), generator=torch.Generator().manual_seed(0))
    wide = scoresde.Gaussian(torch.zeros(2), 0.33 * torch.eye(2))
    for how in ({"N": 15}, {"continuous": True, "strata": 16}):
        found = variational_bound(wide.denoiser(VP), pixels, levels=256, scaler=Scaler.image(), **how)
        assert found.bits_per_dim is not None
        assert 7.9 < float(found.bits_per_dim.mean()) < 8.6
    chain = scoresde.DDPM.named("cosine", 20)
    assert variational_bound(mixture().denoiser(chain), mixture().sample(2)).terms.shape == (2, 20)
