"""Training times: every density against its closed form, weights that keep the expectation, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from exact import F64, SDES, mixture
from torch import Tensor
from torch.distributions import Normal

import scoresde
from scoresde import BadInput, Denoiser
from scoresde.losses import TIMES, LossAware, make_times, sample_times, sliced_score_matching_loss, weight
from scoresde.losses.times import SPREADS, spread_out
from scoresde.losses.weightings import find_weighting
from scoresde.nn.uncertainty import Uncertainty

WEIGHED = ("importance", "loss_aware")  # whose expectation is that of uniform times


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("name", SDES)
def test_times_lie_within_the_sde(name: str, times: str, spread: str) -> None:
    sde = SDES[name]
    t, weights = sample_times(501, sde, generator(), {"name": times, "spread": spread})
    assert t.dtype == weights.dtype == torch.float32 and t.shape == weights.shape == (501,)
    assert (t >= sde.t_min * (1 - 1e-5)).all() and (t <= sde.t_max * (1 + 1e-6)).all() and (weights > 0).all()
    assert times in WEIGHED or (weights == 1).all()


def aware(sde: scoresde.SDE, bins: int = 20) -> LossAware:
    """Taught losses that grow with t."""
    times = LossAware(sde, bins=bins, history=4)
    for seed in range(60):
        t = make_times("uniform", sde).draw(64, generator(seed)).t
        times.update(t, 0.1 + t / sde.t_max)
    return times


@pytest.mark.parametrize("times", WEIGHED)
@pytest.mark.parametrize("name", ["vp", "flow", "cosine"])
def test_weights_keep_the_expectation_of_uniform_times(name: str, times: str) -> None:
    sde = SDES[name]
    made = aware(sde) if times == "loss_aware" else make_times(times, sde)
    t, weights = (each.double() for each in made.draw(200_000, generator()))
    share = (t - sde.t_min) / (sde.t_max - sde.t_min)
    for power in (0, 1, 2):
        assert float((weights * share**power).mean()) == pytest.approx(1 / (power + 1), rel=2e-3)


def test_importance_takes_the_likelihood_weights_variance() -> None:
    """Uniform in λ, and times the likelihood weighting the same at every time."""
    sde = SDES["vp"]
    t, weights = (each.double() for each in make_times("importance", sde).draw(1000, generator()))
    lam = sde.lam(t).sort().values
    assert float(lam.diff().std() / lam.diff().mean()) < 0.01
    flat = weights * weight("likelihood", mixture().denoiser(sde, "eps"), t)
    assert float(flat.std() / flat.mean()) < 1e-3


def quantiles(values: Tensor, law: Normal) -> float:
    """The largest gap between the law of the values and another."""
    n = len(values)
    return float((law.cdf(values.double().sort().values) - (torch.arange(n, dtype=F64) + 0.5) / n).abs().max())


def test_lognormal_is_edms_density() -> None:
    sde = scoresde.EDM()
    t = sample_times(20_000, sde, generator(), "lognormal").t
    assert quantiles(t.log(), Normal(-1.2, 1.2)) < 1e-3
    t = sample_times(20_000, SDES["vp"], generator(), {"name": "lognormal", "mean": -0.5, "std": 0.7}).t
    assert quantiles(-SDES["vp"].lam(t.double()), Normal(-0.5, 0.7)) < 1e-3


def test_logitnormal_is_the_flows_density() -> None:
    sde = SDES["flow"]
    t = sample_times(20_000, sde, generator(), {"name": "logitnormal", "mean": 0.3, "std": 0.8}).t.double()
    share = (t - sde.t_min) / (sde.t_max - sde.t_min)
    assert quantiles(share.logit(), Normal(0.3, 0.8)) < 1e-3


def test_levels_are_ncsns_geometric_sequence() -> None:
    sde = SDES["ve"]
    sigma = sde.sigma(sample_times(5000, sde, generator(), {"name": "levels", "n": 10}).t.double())
    levels = sigma.log().round(decimals=3).unique()
    assert len(levels) == 10 and float(levels.diff().std() / levels.diff().mean()) < 1e-2


def test_loss_aware_draws_in_proportion_to_the_root_mean_square() -> None:
    times = aware(SDES["vp"])
    middle = (torch.arange(20, dtype=F64) + 0.5) / 20
    assert torch.allclose(
        times.probabilities() / (0.1 + middle) * (0.1 + middle).sum(), torch.ones(20, dtype=F64), rtol=0.1
    )
    again = LossAware(SDES["vp"], bins=20, history=4)
    again.load(times.state())
    assert torch.equal(times.draw(9, generator()).t, again.draw(9, generator()).t)
    times.update(torch.tensor([0.5]), torch.tensor([math.nan]))
    assert torch.isfinite(times.probabilities()).all()


def test_loss_aware_on_a_chain_is_on_its_steps() -> None:
    chain = scoresde.DDPM.named("cosine", 12)
    times = LossAware(chain, history=2)
    for seed in range(9):
        t = make_times("index", chain).draw(24, generator(seed)).t
        times.update(t, t)
    drawn = times.draw(6000, generator()).t
    step = drawn.double() * 12 - 1
    assert torch.allclose(step, step.round(), atol=1e-5)
    counts = torch.bincount(step.round().long(), minlength=12).double()
    want = torch.arange(1, 13, dtype=F64) / 78
    assert ((counts / 6000 - want).abs() < 0.01).all()


@pytest.mark.parametrize("n", [1, 2, 7, 64])
def test_spreads(n: int) -> None:
    even = spread_out(n, generator()).double().sort().values
    assert torch.allclose(even.diff(), torch.full((n - 1,), 1 / n, dtype=F64), atol=1e-6)
    pairs = spread_out(n, generator(), "antithetic")
    half = (n + 1) // 2
    assert torch.allclose(pairs[: n - half] + pairs[half:], torch.ones(n - half))


@pytest.mark.parametrize(
    "spec, match",
    [
        ("unifrom", "did you mean 'uniform'"),
        ({"name": "lognormal", "std": 0.0}, "std = 0.0 must be a positive number"),
        ({"name": "lognormal", "mean": 99.0}, "no noise level between the ends"),
        ({"name": "levels", "n": 1}, "at least the two ends"),
        ({"name": "index", "N": 0}, "positive integer"),
        ({"name": "uniform", "spred": "x"}, "did you mean 'spread'"),
        ({"name": "uniform", "spread": "even"}, "stratified, antithetic"),
        ({"name": "loss_aware", "floor": 0}, "must be in"),
    ],
)
def test_what_times_refuse(spec: Any, match: str) -> None:
    with pytest.raises(BadInput, match=match):
        make_times(spec, SDES["vp"])


def test_times_that_a_chain_refuses() -> None:
    with pytest.raises(BadInput, match="the chain has 1000 steps"):
        make_times({"name": "index", "N": 10}, SDES["ddpm"])
    with pytest.raises(BadInput, match="no end at t_max"):
        make_times("importance", scoresde.DDPM.named("cosine", 10, zero_terminal_snr=True))


@pytest.mark.parametrize(
    "text, match", [("snr:2", "takes no number"), ("p2:x", "'x' must be"), ("min_snr:-1", "positive")]
)
def test_numbers_of_weightings(text: str, match: str) -> None:
    with pytest.raises(BadInput, match=match):
        find_weighting(text)
    assert find_weighting("sigmoid:-1") == ("sigmoid", -1.0) and find_weighting("min_snr") == ("min_snr", 5.0)


# ------------------------------------------------------------------------------------- sliced, and learned uncertainty


@pytest.mark.parametrize("name", ["vp", "ve", "flow"])
def test_the_sliced_loss_of_the_exact_score(name: str) -> None:
    """At ∇ log p the loss is -σ² E‖∇ log p‖²/2, and its gradient in any direction vanishes."""
    sde, spread, n = SDES[name], torch.tensor([0.3, 1.2], dtype=F64), 20000
    data = scoresde.Gaussian(torch.zeros(2, dtype=F64), spread.diag())
    noise, probe = torch.randn(2, n, 2, generator=generator(), dtype=F64)
    x0 = data.sample(n, seed=3)
    t = torch.full((n,), 0.4 * sde.t_max, dtype=F64)
    exact = data.network(sde, "score")
    loss = sliced_score_matching_loss(Denoiser(exact, sde, "score"), x0, t, noise, probe)
    alpha, sigma = sde.alpha(t[:1]), sde.sigma(t[:1])
    want = -0.5 * sigma**2 * (1 / (alpha**2 * spread + sigma**2)).mean()
    assert abs(float((loss.mean() - want).detach())) < 4 * float(loss.detach().std()) / math.sqrt(n)
    more = torch.zeros(n, 2, dtype=F64, requires_grad=True)

    def net(x: Tensor, t: Tensor) -> Tensor:
        return exact(x, t) + more[:, :1] + more[:, 1:] * x

    (slope,) = torch.autograd.grad(
        sliced_score_matching_loss(Denoiser(net, sde, "score"), x0, t, noise, probe).sum(), more
    )
    assert (slope.mean(0).abs() < 4 * slope.std(0) / math.sqrt(n)).all()


def test_uncertainty_learns_the_loss_of_every_level() -> None:
    levels = torch.linspace(-4, 4, 64)
    losses, u = (0.3 * levels).exp(), Uncertainty(32)
    assert torch.equal(u(losses, levels), losses)
    optimiser = torch.optim.LBFGS(u.parameters(), max_iter=300, line_search_fn="strong_wolfe")

    def step() -> Tensor:
        optimiser.zero_grad()
        total = u(losses, levels).mean()
        total.backward()
        return total

    optimiser.step(step)
    assert (u.of(levels) - losses.log()).abs().max() < 0.05
