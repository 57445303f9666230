"""DDPM is a discretised VP-SDE: the numbers of that statement, both ways, and the named chains of betas."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
import torch
from mpmath import mp, mpf

import scoresde
from scoresde import DDPM, VPSDE, BadInput, Denoiser, SubVPSDE
from scoresde.ddpm import BETAS

F64 = torch.float64
NAMES = list(BETAS)


# ----------------------------------------------------------------------------------------------------- SDE to chain


def test_the_published_betas_are_the_sde_at_a_thousand_steps() -> None:
    assert np.allclose(DDPM.from_vpsde(VPSDE(), 1000).betas, np.linspace(1e-4, 0.02, 1000), rtol=1e-12, atol=0)
    assert DDPM.from_vpsde(VPSDE(), 1000).betas == DDPM.named("linear", 1000).betas


@pytest.mark.parametrize("N", [200, 400, 1000, 2000, 4000])
def test_its_log_alpha_bar_differs_by_67_over_n(N: int) -> None:
    # Σ -log(1 - β_n) - β_n = Σ β_n²/2 + ... → ∫ β²/2 / N = (β_min² + β_min β_max + β_max²)/(6 N) = 67.0/N, while the
    # sum of the betas is the integral ∫ β already.
    limit = (0.1**2 + 0.1 * 20 + 20**2) / 6
    assert limit == pytest.approx(67.0, abs=0.01)
    sde = VPSDE()
    chain = DDPM.from_vpsde(sde, N)
    gap = 2 * sde.log_alpha(torch.tensor(1.0, dtype=F64)).item() - math.log(chain.alpha_bar[-1])
    assert gap * N == pytest.approx(limit, rel=0.06)


@pytest.mark.parametrize("N", [1, 10, 20])
def test_too_few_steps_for_the_betas_raise(N: int) -> None:
    with pytest.raises(BadInput, match="use N > 20"):
        DDPM.from_vpsde(VPSDE(), N)
    assert DDPM.from_vpsde(VPSDE(), 21).betas[-1] < 1


@pytest.mark.parametrize("N", [1, 2, 10, 20, 50, 1000])
def test_the_exact_chain_keeps_the_last_alpha_bar(N: int) -> None:
    sde = VPSDE()
    chain = DDPM.from_chain(sde.discretize(N))
    want = mpmath.exp(-(mpf("0.1") + (mpf(20) - mpf("0.1")) / 2))
    assert chain.alpha_bar[-1] == pytest.approx(float(want), rel=1e-12)
    t = torch.arange(1, N + 1, dtype=F64) / N
    assert np.allclose(chain.alpha_bar, sde.alpha(t).numpy() ** 2, rtol=1e-11)
    assert torch.allclose(chain.lam(t), sde.lam(t), rtol=0, atol=1e-10)


def test_discretising_a_chain_at_its_own_knots_gives_it_back() -> None:
    for name in NAMES:
        chain = DDPM.named(name)
        again = DDPM.from_chain(chain.discretize(chain.N))
        assert np.allclose(again.betas, chain.betas, rtol=1e-9)


def test_a_chain_that_loses_variance_is_refused() -> None:
    for sde in (scoresde.EDM(), scoresde.RectifiedFlow(), SubVPSDE()):
        with pytest.raises(BadInput, match="variance-preserving"):
            DDPM.from_chain(sde.discretize(10))


# ----------------------------------------------------------------------------------------------------- chain to SDE


@pytest.mark.parametrize("N", [100, 1000])
def test_linear_betas_round_trip(N: int) -> None:
    sde = VPSDE(0.3, 15.0)
    back = DDPM.from_vpsde(sde, N).to_vpsde()
    assert (back.beta_min, back.beta_max) == pytest.approx((0.3, 15.0), rel=1e-12)
    assert DDPM.from_vpsde(back, N).betas == pytest.approx(DDPM.from_vpsde(sde, N).betas, rel=1e-12)


def test_only_linear_betas_have_a_vpsde() -> None:
    for name in ("scaled-linear", "cosine", "sigmoid"):
        with pytest.raises(BadInput, match="not linear"):
            DDPM.named(name).to_vpsde()
    with pytest.raises(BadInput, match="needs a VPSDE"):
        DDPM.from_vpsde(SubVPSDE())


@pytest.mark.parametrize("t", [0.2, 0.5, 0.9])
def test_one_ancestral_step_is_one_euler_maruyama_step_to_second_order(t: float) -> None:
    sde, x, eps = VPSDE(), torch.tensor([0.8], dtype=F64), torch.tensor([-1.3], dtype=F64)
    sizes, gaps = (100, 200, 400, 800, 1600, 3200), []
    for N in sizes:
        chain, n = DDPM.from_vpsde(sde, N), round(t * N) - 1
        beta, bar = chain.betas[n], chain.alpha_bar[n]
        textbook = (x - beta / math.sqrt(1 - bar) * eps) / math.sqrt(1 - beta)  # Ho et al. 2020, algorithm 2
        x0 = (x - math.sqrt(1 - bar) * eps) / math.sqrt(bar)
        ancestral, _ = chain.posterior(x, x0, n / N, (n + 1) / N)
        assert torch.allclose(ancestral, textbook, rtol=1e-11)
        euler = x - sde.reverse_drift(x, t, -eps / sde.sigma(torch.tensor(t, dtype=F64))) / N
        gaps.append(float((ancestral - euler).abs()))
    order = -np.polyfit(np.log(sizes), np.log(gaps), 1)[0]
    assert 1.8 <= order <= 2.4


# ------------------------------------------------------------------------------------------------------- named betas


def written_out(name: str, N: int) -> list[mpf]:
    """The betas of the papers in many digits."""
    if name == "linear":  # Ho et al. 2020: 1e-4 to 0.02 at N = 1000, scaled by 1000/N
        return [mpf(1) / 10 / N + n * (20 - mpf(1) / 10) / N / (N - 1) for n in range(N)]
    if name == "scaled-linear":  # Rombach et al. 2022: 0.00085 to 0.012 at N = 1000, linear in the square root
        a, b = mp.sqrt(mpf("0.85") / N), mp.sqrt(mpf(12) / N)
        return [(a + n * (b - a) / (N - 1)) ** 2 for n in range(N)]

    def bar(t: mpf) -> mpf:
        if name == "cosine":  # Nichol & Dhariwal 2021, eq. 17
            return mp.cos((t + mpf("0.008")) / mpf("1.008") * mp.pi / 2) ** 2
        return 1 / (1 + mp.exp(-3)) - 1 / (1 + mp.exp(3 - 6 * t))  # Jabri et al. 2022, algorithm 1, up to scale

    return [min(1 - bar(mpf(n + 1) / N) / bar(mpf(n) / N), mpf("0.999")) for n in range(N)]


@pytest.mark.parametrize("N", [50, 1000])
@pytest.mark.parametrize("name", NAMES)
def test_named_betas_are_those_of_the_papers(name: str, N: int) -> None:
    with mp.workdps(30):
        want = [float(beta) for beta in written_out(name, N)]
    chain = DDPM.named(name, N)
    assert chain.N == N and chain.t_min == 1 / N and chain.t_max == 1
    assert np.allclose(chain.betas, want, rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize("dtype, tolerance", [(F64, 1e-12), (torch.float32, 1e-6)])
@pytest.mark.parametrize("N", [7, 1000])
@pytest.mark.parametrize("name", NAMES)
def test_the_knots_are_the_cumulative_products(name: str, N: int, dtype: torch.dtype, tolerance: float) -> None:
    chain = DDPM.named(name, N) if N > 20 or name in ("cosine", "sigmoid") else DDPM(tuple(np.linspace(0.01, 0.9, N)))
    with mp.workdps(30):
        bar, bars = mpf(1), []
        for beta in chain.betas:
            bar *= 1 - mpf(beta)
            bars.append(bar)
        alpha, sigma = ([float(mp.sqrt(b)) for b in these] for these in (bars, [1 - b for b in bars]))
    t = (torch.arange(N, dtype=dtype) + 1) / N
    assert np.allclose(chain.alpha(t).double(), alpha, rtol=tolerance, atol=0)
    assert np.allclose(chain.sigma(t).double(), sigma, rtol=tolerance, atol=0)
    assert np.allclose(chain.alpha_bar, np.square(alpha), rtol=1e-12)


def test_between_knots_the_rate_is_constant() -> None:
    chain = DDPM((0.1, 0.3, 0.2))
    t = torch.tensor([1.1, 1.5, 1.9], dtype=F64) / 3
    assert torch.allclose(chain.f(t), torch.full_like(t, 1.5 * math.log(0.7)), rtol=1e-12)
    assert torch.allclose(chain.g2(t), -2 * chain.f(t), rtol=1e-12)  # variance preserving: g² = -2 f


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: DDPM.named("cosin"), "did you mean 'cosine'"),
        (lambda: DDPM.named("linear", 0), "positive integer"),
        (lambda: DDPM.named("linear", 20), "use a larger N"),
        (lambda: DDPM(()), "betas must be"),
        (lambda: DDPM((0.1, 1.2)), "betas must be"),
        (lambda: DDPM((0.0, 0.1)), "betas must be"),
        (lambda: DDPM((1.0, 0.1)), "betas must be"),
        (lambda: DDPM((float("nan"),)), "betas must be"),
        (lambda: DDPM.from_vpsde(VPSDE(), 0), "N ≥ 1"),
    ],
)
def test_bad_chains_are_refused(build, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        build()


# ------------------------------------------------------------------------------------------------ zero terminal SNR


@pytest.mark.parametrize("name", NAMES)
def test_zero_terminal_snr_moves_only_the_far_end(name: str) -> None:
    plain, zero = DDPM.named(name), DDPM.named(name, zero_terminal_snr=True)
    t = torch.linspace(0.0, 1.0, 3001, dtype=F64)
    alpha, sigma = zero.alpha(t), zero.sigma(t)
    assert alpha[-1] == 0 and sigma[-1] == 1 and alpha[0] == 1 and sigma[0] == 0
    assert alpha.isfinite().all() and sigma.isfinite().all()
    assert (alpha.diff() < 0).all() and (sigma.diff() >= 0).all()
    first = torch.tensor(1 / plain.N, dtype=F64)
    assert zero.alpha(first).item() == pytest.approx(plain.alpha(first).item(), rel=1e-12)
    # Lin et al. 2024, algorithm 1, from the cumulative products
    root = np.sqrt(plain.alpha_bar)
    shifted = (root - root[-1]) * root[0] / (root[0] - root[-1])
    knots = torch.arange(1, plain.N + 1, dtype=F64) / plain.N
    assert np.allclose(zero.alpha(knots), shifted, rtol=1e-9, atol=1e-12)
    single = zero.alpha(t.float())
    assert single.isfinite().all() and single[-1] == 0


def test_zero_terminal_snr_needs_v_or_x0() -> None:
    sde = DDPM.named("linear", zero_terminal_snr=True)
    data = scoresde.GaussianMixture.example(2)
    x = data.sample(5)
    for form in ("eps", "score", "edm"):
        net = data.network(sde, "v")  # any network: the plan is refused before its first call
        with pytest.raises(BadInput, match="'v' or 'x0'"):
            Denoiser(net, sde, form).plan("x0", [1.0, 0.5], x)
        Denoiser(net, sde, form).plan("x0", [0.999, 0.5], x)
    for prediction in ("v", "x0"):
        denoiser = data.denoiser(sde, prediction)
        plan = {form: denoiser.plan(form, [1.0, 0.5], x) for form in ("x0", "eps", "v")}
        mean = data.moments()[0].expand(x.shape)  # at t = 1 the state says nothing of the data
        assert torch.allclose(plan["x0"](0, x), mean) and torch.allclose(denoiser.x0(x, 1.0), mean)
        assert torch.allclose(plan["eps"](0, x), x) and torch.allclose(plan["v"](0, x), -mean)


def test_transitions_reach_the_end_without_signal() -> None:
    sde = DDPM.named("linear", zero_terminal_snr=True)
    x, x0 = torch.ones(3, 2, dtype=F64), torch.full((3, 2), 0.5, dtype=F64)
    mean, std = sde.transition(x, 0.4, 1.0)
    assert (mean == 0).all() and std == 1
    mean, std = sde.posterior(x, x0, 0.4, 1.0)  # x_1 is pure noise: the posterior is the marginal
    want = sde.marginal(x0, 0.4)
    assert torch.allclose(mean, want[0]) and torch.allclose(std, want[1])
    assert sde.prior_std() == 1 and sde.discretize(50).scale[-1] == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("N", [7, 200, 777, 999, 1000])
def test_every_knot_has_the_rate_of_the_step_that_ends_there(N: int, dtype: torch.dtype) -> None:
    """f((n+1)/N) = N log(1 - β_n)/2, also where t N rounds up past the knot."""
    chain = scoresde.DDPM.named("cosine", N)
    t = (torch.arange(1, N + 1, dtype=torch.float64) / N).to(dtype)
    expected = N * torch.log1p(-torch.tensor(chain.betas, dtype=torch.float64)) / 2
    assert chain.f(t).double().numpy() == pytest.approx(expected.numpy(), rel=1e-6 if dtype == torch.float32 else 1e-12)


@pytest.mark.parametrize("zero_terminal_snr", [False, True])
@pytest.mark.parametrize("betas", BETAS)
def test_float32_is_as_accurate_as_its_times(betas: str, zero_terminal_snr: bool) -> None:
    """At one and the same float32 t, on knots and between: α, σ to 1e-6 relative, λ to 1e-5, rates too."""
    chain = scoresde.DDPM.named(betas, zero_terminal_snr=zero_terminal_snr)
    between = torch.rand(20_000, generator=torch.Generator().manual_seed(0)) * 0.999 + 0.001
    t = torch.cat([between, torch.arange(1, 1000) / 1000])
    for name, tolerance in {"alpha": 1e-6, "sigma": 1e-6, "f": 1e-6}.items():
        single, double = getattr(chain, name)(t).double(), getattr(chain, name)(t.double())
        assert ((single - double) / double).abs().max() < tolerance
    assert (chain.lam(t).double() - chain.lam(t.double())).abs().max() < 1e-5


@pytest.mark.parametrize("d", [2, 16])
@pytest.mark.parametrize("betas", ["linear", "cosine", "scaled-linear", "sigmoid"])
def test_second_order_beats_first_on_every_chain(betas: str, d: int) -> None:
    """Twenty steps at whole indices, as by default, against the flow."""
    chain, data = DDPM.named(betas), scoresde.GaussianMixture.example(d)
    denoiser, errors = data.denoiser(chain), []
    x = torch.randn(64, d, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * chain.prior_std()
    flow = scoresde.sample(denoiser, (64, d), "rk4", 60, x=x, grid="phi", final="t_min").x
    for name in ("ddim", "dpm++2m", "auto"):
        out = scoresde.sample(denoiser, (64, d), name, nfe=20, x=x)
        end = flow if out.times[-1] else denoiser.x0(flow, chain.t_min)
        errors.append(float((out.x - end).square().mean().sqrt()))
    assert errors[2] < errors[1] < errors[0]
