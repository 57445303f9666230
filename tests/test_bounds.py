"""The variational bound against Gaussian algebra: every term, the decoder, a learned variance, and the whole sum."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from exact import F64, SDES, mixture
from torch import Tensor
from torch.distributions import Normal, kl_divergence

import scoresde
from scoresde import BadInput, Denoiser
from scoresde.losses import chain_times, denoising_loss, hybrid_loss, prior_bound, vlb_loss
from scoresde.losses.vlb import decoder_nats

SPREAD = torch.tensor([0.7, 0.1], dtype=F64)
GAUSSIAN = scoresde.Gaussian(torch.zeros(2, dtype=F64), torch.diag(SPREAD))


def draw(n: int, N: int, sde: scoresde.SDE, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """x_0 and ε of n samples and every step of a chain in turn."""
    generator = torch.Generator().manual_seed(seed)
    t = (torch.arange(n) % N + 1.0).to(F64) / N * sde.t_max
    return GAUSSIAN.sample(n, seed=seed + 1), t, torch.randn(n, 2, generator=generator, dtype=F64)


@pytest.mark.parametrize("variance", ["posterior", "upper"])
@pytest.mark.parametrize("name", ["vp", "cosine", "ve", "ddpm"])
def test_every_term_is_the_divergence_of_two_gaussians(name: str, variance: str) -> None:
    sde = SDES[name]
    N = sde.N or 20
    x0, t, noise = draw(40, N, sde)
    t = torch.where(t < 1.5 / N * sde.t_max, 2 / N * sde.t_max, t)  # the first step is the decoder's
    x, s = sde.perturb(x0, t, noise), chain_times(sde, N, t)
    denoiser = mixture().denoiser(sde)
    mean, std = sde.posterior(x, x0, s, t)
    other, _ = sde.posterior(x, denoiser.x0(x, t), s, t)
    wide = std * (sde.sigma(t) / sde.sigma(s))[:, None] if variance == "upper" else std
    want = kl_divergence(Normal(mean, std), Normal(other, wide)).mean(1) / math.log(2)
    got = vlb_loss(denoiser, x0, t, noise, N, variance=variance)
    assert torch.allclose(got, want, rtol=1e-7, atol=1e-12)


def test_the_bound_is_the_entropy_of_unit_gaussians() -> None:
    """For N(0, I) under VP the reverse steps are Gaussians of variance β: the bound is exact, for any N; else above."""
    sde, n = scoresde.VPSDE(), 100_000
    for spread in (torch.ones(2, dtype=F64), torch.full((2,), 0.01, dtype=F64)):
        data = scoresde.Gaussian(torch.zeros(2, dtype=F64), spread.diag())
        entropy = float(0.5 * (2 * math.pi * math.e * spread).log2().mean())
        for N in (4, 50):
            _, t, noise = draw(n, N, sde)
            x0 = data.sample(n, seed=2)
            terms = vlb_loss(data.denoiser(sde), x0, t, noise, N, variance="upper").reshape(-1, N)
            bound = float(terms.sum(1).mean() + prior_bound(sde, x0).mean())
            error = 4 * float(terms.var(0).sum().div(n / N).sqrt())
            assert bound > entropy - error
            assert (bound < entropy + error) == bool((spread == 1).all())


@pytest.mark.parametrize("std", [1e-3, 0.004, 0.1, 3.0])
@pytest.mark.parametrize("mean", [-1.3, -0.2, 0.5, 1.0])
def test_the_decoder_is_a_distribution_over_the_bins(mean: float, std: float) -> None:
    x0 = torch.linspace(-1, 1, 256, dtype=F64)
    nats = decoder_nats(x0, torch.full_like(x0, mean), torch.full_like(x0, math.log(std)), 256)
    assert nats.isfinite().all() and nats.min() > -1e-6 and float((-nats).exp().sum()) == pytest.approx(1, abs=1e-6)


def test_a_fine_decoder_is_a_density() -> None:
    x0 = torch.linspace(-0.9, 0.9, 11, dtype=F64)
    mean, log_std = 0.1 * torch.ones_like(x0), torch.full_like(x0, math.log(0.3))
    levels = 2**16 + 1
    fine = decoder_nats(x0, mean, log_std, levels) + math.log(2 / (levels - 1))
    assert torch.allclose(fine, decoder_nats(x0, mean, log_std, None), atol=1e-6)


@pytest.mark.parametrize("v, variance", [(0.0, "posterior"), (1.0, "upper")])
def test_a_learned_variance_has_the_fixed_ones_at_its_ends(v: float, variance: str) -> None:
    chain = scoresde.DDPM.named("linear", 30)
    network = mixture().network(chain, "eps")

    def doubled(x: Tensor, t: Tensor) -> Tensor:
        out = network(x, t)
        return torch.cat([out, torch.full_like(out, 2 * v - 1)], dim=1)

    x0, t, noise = draw(60, 30, chain)
    learned = vlb_loss(Denoiser(doubled, chain, learned_variance=True), x0, t, noise)
    assert torch.allclose(learned, vlb_loss(Denoiser(network, chain), x0, t, noise, variance=variance), rtol=1e-9)


def test_the_hybrid_loss_splits_its_gradient() -> None:
    """The mean learns from the simple loss alone, the variance from the bound alone."""
    chain, share = scoresde.DDPM.named("cosine", 25), 0.01
    x0, t, noise = draw(50, 25, chain)
    mean, raw = (0.1 * torch.randn(50, 2, dtype=F64, generator=torch.Generator().manual_seed(k)) for k in (5, 6))
    both = mean.clone().requires_grad_(), raw.clone().requires_grad_()

    def denoiser(mean: Tensor, raw: Tensor) -> Denoiser:
        return Denoiser(lambda x, t: torch.cat([mean, raw], dim=1), chain, learned_variance=True)

    hybrid = hybrid_loss(denoiser(*both), x0, t, noise, share=share)
    of_mean, of_raw = torch.autograd.grad(hybrid.sum(), both)
    simple = denoising_loss(denoiser(*both), x0, t, noise)
    bound = vlb_loss(denoiser(*both), x0, t, noise)
    assert torch.allclose(hybrid, simple + share * 25 * bound)
    assert torch.allclose(of_mean, torch.autograd.grad(simple.sum(), both[0])[0])
    assert torch.allclose(of_raw, 25 * share * torch.autograd.grad(bound.sum(), both[1])[0])


def test_the_prior_term() -> None:
    for name in ("vp", "ve", "flow"):
        sde, x0 = SDES[name], GAUSSIAN.sample(9)
        mean, std = sde.marginal(x0, torch.full((9,), sde.t_max, dtype=F64))
        want = kl_divergence(Normal(mean, std.expand_as(mean)), Normal(torch.zeros_like(mean), sde.prior_std()))
        assert torch.allclose(prior_bound(sde, x0), want.mean(1) / math.log(2), rtol=1e-9, atol=1e-12)


def test_what_the_bound_refuses() -> None:
    x, t, denoiser = torch.zeros(2, 2), torch.full((2,), 0.5), mixture().denoiser(scoresde.VPSDE())
    cases: list[tuple[dict[str, Any], str]] = [
        ({}, "give the number of steps N"),
        ({"N": 10, "levels": 1}, "levels = 1"),
        ({"N": 10, "variance": "uper"}, "did you mean 'upper'"),
    ]
    for how, match in cases:
        with pytest.raises(BadInput, match=match):
            vlb_loss(denoiser, x, t, x, **how)
    with pytest.raises(BadInput, match="learned_variance=True"):
        hybrid_loss(denoiser, x, t, x, N=10)
