"""Estimates of the divergence: unbiased, of honest error, functions of seed and index."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from exact import F64, SDES, mixture
from torch import Tensor

import scoresde
from scoresde import log_prob
from scoresde.likelihood import Divergence

VP = SDES["vp"]


@pytest.mark.parametrize(
    ("divergence", "probe"), [("hutchinson", "rademacher"), ("hutchinson", "gaussian"), ("hutch++", "gaussian")]
)
def test_estimates_are_unbiased_and_their_errors_honest(divergence: str, probe: str) -> None:
    """n copies of one point: an average over their probes; whatever the number of probes the mean is the exact one."""
    data = mixture(4)
    x = data.sample(1).expand(400, 4)
    exact = log_prob(data.denoiser(VP), x[:1], 4).log_prob
    spreads: dict[int, float] = {}
    for probes in (1, 4, 16) if divergence == "hutchinson" else (1, 2):
        found = log_prob(data.denoiser(VP), x, 4, divergence=divergence, probes=probes, probe=probe)
        spreads[probes] = float(found.log_prob.std())
        assert abs(float(found.log_prob.mean() - exact)) < 4 * spreads[probes] / 20
        if probes > 1:
            assert float(found.standard_error.square().mean().sqrt()) == pytest.approx(spreads[probes], rel=0.2)
        else:
            assert found.standard_error.isnan().all()
    if divergence == "hutchinson":
        assert spreads[1] / spreads[4] == pytest.approx(2, rel=0.2)
        assert spreads[4] / spreads[16] == pytest.approx(2, rel=0.2)


def test_64_probes_are_within_three_standard_errors() -> None:
    data = mixture(16)
    x = data.sample(12)
    exact = log_prob(data.denoiser(VP), x, 6).log_prob
    found = log_prob(data.denoiser(VP), x, 6, divergence="hutchinson", probes=64)
    z = (found.log_prob - exact) / found.standard_error
    assert z.abs().max() < 3 and 0.3 < z.square().mean() < 2.2


@pytest.mark.parametrize("divergence", ["hutchinson", "hutch++"])
def test_fixed_steps_average_over_signs_drawn_anew(divergence: str) -> None:
    """Copies of one point: unbiased as with the one probe of an adaptive run, and closer; a replay meets its signs."""
    data = mixture(16)
    x = data.sample(1).expand(300, 16)
    one, anew = (
        log_prob(data.denoiser(VP), x, divergence=divergence, **how).log_prob for how in ({"rtol": 1e-3}, {"steps": 12})
    )
    exact = log_prob(data.denoiser(VP), x[:1], 12).log_prob
    assert anew.std() < 0.5 * one.std()
    assert abs(anew.mean() - exact) < 4 * anew.std() / 300**0.5
    point = x[:2].clone().requires_grad_()
    plain, replayed = (
        log_prob(data.denoiser(VP), point, 4, divergence=divergence, grad=grad) for grad in (True, "checkpoint")
    )
    slopes = [torch.autograd.grad(found.log_prob.sum(), point)[0] for found in (plain, replayed)]
    assert torch.equal(plain.log_prob, replayed.log_prob) and torch.equal(*slopes)


def matrix_product(J: Tensor) -> Any:
    return lambda vectors: vectors @ J


def test_hutchpp_is_exact_on_low_rank_and_lowers_the_variance() -> None:
    generator, d = torch.Generator().manual_seed(0), 24
    low = torch.randn(d, 3, generator=generator, dtype=F64)
    right = torch.randn(d, 3, generator=generator, dtype=F64)
    x = torch.zeros(200, d, dtype=F64)
    noisy = torch.diag(torch.linspace(1, 2, d, dtype=F64))
    for J, exact in (
        (low @ right.T, True),
        (0.7 * torch.eye(d, dtype=F64), True),
        (low @ low.T + 0.7 * torch.eye(d, dtype=F64), False),
        (low @ low.T + noisy, False),
    ):
        runs = {}
        for kind, probes in (("hutch++", 4), ("hutchinson", 12)):  # the same number of products
            how = Divergence(kind, probes, "gaussian")
            assert how.products(d) == 12
            runs[kind] = how(matrix_product(J), how.draw(range(200), x), x).mean(1)
        spread = runs["hutch++"].std()
        assert spread < 0.2 * runs["hutchinson"].std()
        assert abs(runs["hutch++"].mean() - J.trace()) < 4 * spread / 200**0.5 + 1e-9 * J.norm()
        assert not exact or spread < 1e-9
    full = Divergence("hutch++", d + 5)
    assert torch.allclose(full(matrix_product(noisy), full.draw(range(200), x), x), noisy.trace())


@pytest.mark.parametrize("divergence", ["hutchinson", "hutch++"])
def test_a_number_depends_on_seed_and_index_alone(divergence: str) -> None:
    data, x = mixture(8), mixture(8).sample(7)
    how: dict[str, Any] = {"divergence": divergence, "probes": 2, "probe": "gaussian"}  # those of hutch++ always are
    state = torch.get_rng_state(), np.random.get_state()[1].copy()
    whole = log_prob(data.denoiser(VP), x, 3, seed=4, **how)
    assert ("probe" in whole.settings) == (divergence == "hutchinson")
    assert torch.equal(torch.get_rng_state(), state[0]) and (np.random.get_state()[1] == state[1]).all()
    for again in (
        log_prob(data.denoiser(VP), x, 3, seed=4, **how),
        log_prob(data.denoiser(VP), x, 3, seed=4, batch_size=3, **how),
        log_prob(data.denoiser(VP), x, 3, seed=4, chunk=1, **how),
    ):
        assert torch.allclose(again.log_prob, whole.log_prob, rtol=1e-12)
        assert torch.allclose(again.standard_error, whole.standard_error, rtol=1e-9)
    alone = log_prob(data.denoiser(VP), x[5:], 3, seed=4, first=5, **how)
    assert torch.allclose(alone.log_prob, whole.log_prob[5:], rtol=1e-12)
    assert (log_prob(data.denoiser(VP), x, 3, seed=5, **how).log_prob - whole.log_prob).abs().min() > 1e-6


def test_the_order_of_the_samples_does_not_matter_when_exact() -> None:
    data, x = mixture(3), mixture(3).sample(7)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(0))
    mixed, straight = log_prob(data.denoiser(VP), x[order], 5), log_prob(data.denoiser(VP), x, 5)
    assert torch.allclose(mixed.log_prob, straight.log_prob[order], rtol=1e-12)


def test_probes_are_no_noise_of_a_run() -> None:
    """A sample's probe by a seed is not the sign of the latent that this seed draws."""
    blank = torch.zeros(1, 4000)
    drawn = Divergence("hutchinson", 2).draw([0], blank)
    assert drawn is not None
    start = scoresde.SeededNoise(0, [0])(-1, 0, blank)
    assert (
        abs(float((drawn[0][0] * start.sign()).mean())) < 0.06 and abs(float((drawn[0][0] * drawn[0][1]).mean())) < 0.06
    )
