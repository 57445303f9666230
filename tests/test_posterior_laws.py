"""The laws that posterior samplers draw, against the closed form of linear-Gaussian problems: without Monte Carlo, as
with an affine denoiser a run is affine in its start and its noises."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from exact import F64, GAUSSIAN, SDES, STOCHASTIC, few, law_error

import scoresde
from scoresde import SAMPLERS, Gaussian
from scoresde.grids import make_grid
from scoresde.guidance import Matrix, gaussian_posterior, measured
from scoresde.noise import DeviceNoise
from scoresde.samplers.adaptive import sde_adaptive

MEAN = torch.tensor([0.7, -0.4, 0.5], dtype=F64)
ROOT = torch.tensor([[0.9, 0.0, 0.0], [0.5, 0.6, 0.0], [-0.3, 0.2, 0.4]], dtype=F64)
PRIOR = Gaussian(MEAN, ROOT @ ROOT.mT)
ROUND = Gaussian(MEAN, 0.6 * torch.eye(3, dtype=F64))  # isotropic
A = Matrix(torch.tensor([[1.0, 0.5, 0.0], [0.0, 1.0, -1.0]], dtype=F64), (3,))
Y = torch.tensor([0.8, -1.5], dtype=F64)
HIGH = [s.name for s in SAMPLERS.values() if not s.stochastic and s.build and (s.order or 0) >= 3]


def error(
    d: Any, prior: Gaussian, noise_std: float, sampler: str, n: int, on: tuple[str, str] | None = None, **options: Any
) -> float:
    """Largest distance of the output's mean and covariance from the closed form, noised to where the run ends; ``on``
    is a grid and an ending."""
    grid, final = on or SAMPLERS[sampler].defaults(n)
    solver = SAMPLERS[sampler].build(d.sde, make_grid(grid, d.sde, n, final), **options)
    return law_error(solver, d.sde, gaussian_posterior(prior, A, Y, noise_std), d)


def exactly(prior: Gaussian, sde: scoresde.SDE, noise_std: float = 0.3) -> Any:
    return measured(prior.denoiser(sde), Y, A, "exact", noise_std, covariance=prior.cov)


# ------------------------------------------------------------------------------------------------------ the closed form


def test_the_closed_form_is_the_limit_of_weighted_samples() -> None:
    """Against importance sampling from the prior: the weights are the likelihood."""
    x = PRIOR.sample(50_000, seed=1)
    weights = (-(Y - A(x)).square().sum(1) / (2 * 0.5**2)).softmax(0)
    truth = gaussian_posterior(PRIOR, A, Y, 0.5)
    mean = weights @ x
    assert torch.allclose(mean, truth.mean, atol=0.02)
    assert torch.allclose((x - mean).mT * weights @ (x - mean), truth.cov, atol=0.02)


@pytest.mark.parametrize("name", SDES)
@pytest.mark.parametrize("noise_std", [0.3, 0.0])
def test_exact_guidance_is_the_posteriors_own_denoiser(name: str, noise_std: float) -> None:
    """At any time, one per sample too; and with isotropic data pigdm is the same, by its backward pass."""
    sde, x = SDES[name], torch.randn(4, 3, dtype=F64, generator=torch.Generator().manual_seed(0))
    t = torch.linspace(0.1, 0.9, 4, dtype=F64) * sde.t_max
    for prior in (PRIOR, ROUND):
        truth = gaussian_posterior(prior, A, Y, noise_std).denoiser(sde)
        assert torch.allclose(exactly(prior, sde, noise_std).x0(x, t), truth.x0(x, t), rtol=1e-8, atol=1e-8)
    guided = measured(ROUND.denoiser(sde), Y, A, "pigdm", noise_std, variance=0.6)
    assert torch.allclose(guided.x0(x, t), truth.x0(x, t), rtol=1e-8, atol=1e-8)
    assert torch.allclose(guided.score(x, t), truth.score(x, t), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("sampler", HIGH)
def test_ode_samplers_of_high_order_give_the_posterior(sampler: str) -> None:
    """Mean and covariance to 1e-6, float64."""
    steps = {"rk4": 100, "ode": 100, "dpm3s": 150, "dpm++3s": 150}.get(sampler, 400)
    assert error(exactly(PRIOR, SDES["vp"]), PRIOR, 0.3, sampler, steps) < 1e-6


class Law(NamedTuple):
    """On what grid, from how many steps on, and with which options the error falls like n^-order, or n^-order log n."""

    on: tuple[str, str] = ("lambda", "t_min")
    n: int = 100
    options: Callable[[int], dict[str, Any]] = lambda n: {}
    order: int | None = None  # as declared
    log_n: bool = False

    def slope(self, order: int, n: int) -> float:
        """The least slope to be seen from n/2 to n steps."""
        return order - 0.15 - self.log_n * math.log2(math.log(n) / math.log(n / 2))


LAWS: dict[str, Law] = {
    "ddpm": Law(("phi", "zero"), 500),
    "em": Law(("phi", "zero"), 1000, log_n=True),  # relative steps 1, 1/2, 1/3, … at the end
    "reverse-diffusion": Law(("phi", "zero"), 400),
    "cas": Law(n=200),
    "travel": Law(("phi", "zero"), 320, lambda n: {"jump": n // 20, "repeats": 1}),
    "restart": Law(options=lambda n: {"inner": n // 10}, order=2),
}
NO_RATE = {"pc", "langevin", "sde-adaptive"}  # their own tests are below


@pytest.mark.parametrize("name", SDES)
@pytest.mark.parametrize("sampler", [name for name in STOCHASTIC if name not in NO_RATE])
def test_sde_samplers_converge_to_the_posterior(sampler: str, name: str) -> None:
    """Correlated data, exact guidance: mean and covariance converge at the weak order, and to nothing else."""
    how, d = LAWS.get(sampler, Law()), exactly(PRIOR, SDES[name])
    order = how.order or SAMPLERS[sampler].order
    assert order
    coarse, fine = (error(d, PRIOR, 0.3, sampler, n, how.on, **how.options(n)) for n in (how.n // 2, how.n))
    assert math.log2(coarse / fine) > how.slope(order, how.n) and fine < 0.01
    assert abs(2**order * fine - coarse) / (2**order - 1) < max(0.3 * fine, 1e-3)  # what is left at n = ∞


@pytest.mark.parametrize("problem", ["data", "posterior"])
@pytest.mark.parametrize("name", few(SDES, "vp", "subvp", "edm"))
@pytest.mark.parametrize("sampler", [name for name in STOCHASTIC if name not in NO_RATE])
def test_default_grids_keep_the_order_down_to_the_last_jump(sampler: str, name: str, problem: str) -> None:
    """From 250 steps on, on data and under guidance: what the order leaves, and the last jump, from t_min into the
    data, whose own error is that of its row from the exact law at t_min."""
    how, sde = LAWS.get(sampler, Law()), SDES[name]
    order = how.order or SAMPLERS[sampler].order
    assert order
    if problem == "data":
        truth, d = GAUSSIAN, GAUSSIAN.denoiser(sde)
    else:
        truth, d = gaussian_posterior(PRIOR, A, Y, 0.3), exactly(PRIOR, sde)
    jump = law_error(SAMPLERS["ddim"].build(sde, (sde.t_min, 0.0)), sde, truth, d)
    coarse, fine = (
        law_error(SAMPLERS[sampler].build(sde, make_grid(grid, sde, n, final), **how.options(n)), sde, truth, d)
        for n in (250, 500)
        for grid, final in [SAMPLERS[sampler].defaults(n)]
    )
    assert fine < coarse / 2 ** how.slope(order, 500) + 1.5 * jump and jump < 2e-4


@pytest.mark.parametrize("sampler", ["ddpm", "em", "dpm++2m-sde", "sa-solver"])
def test_sde_samplers_converge_under_pigdm(sampler: str) -> None:
    """Which is exact for isotropic data of its variance: the same chains, by its backward pass."""
    d = measured(ROUND.denoiser(SDES["vp"]), Y, A, "pigdm", 0.3, variance=0.6)
    errors = [error(d, ROUND, 0.3, sampler, n) for n in (30, 90)]
    assert errors[1] < 0.5 * errors[0] and errors[1] < 0.08


@pytest.mark.parametrize("name", SDES)
def test_predictor_corrector_approaches_the_posterior(name: str) -> None:
    """The bias of a corrector of fixed snr vanishes with σ_t: the run's end is right."""
    errors = [error(exactly(PRIOR, SDES[name]), PRIOR, 0.3, "pc", n) for n in (100, 400)]
    assert errors[1] < 0.6 * errors[0] and errors[1] < 0.02


@pytest.mark.parametrize("name", few(SDES, "vp", "ve", "ddpm"))
def test_annealed_langevin_approaches_the_posterior(name: str) -> None:
    """More steps at each level bring its law closer: it is stationary, not a discretised SDE."""
    d = exactly(PRIOR, SDES[name])
    errors = [error(d, PRIOR, 0.3, "langevin", 60, repeats=m, step=0.05) for m in (3, 30)]
    assert errors[1] < 0.5 * errors[0] and errors[1] < 0.1


@pytest.mark.parametrize("name", ["vp", "edm"])
def test_the_adaptive_sde_solver_draws_the_posterior(name: str) -> None:
    """Its steps depend on the state, so by Monte Carlo: every mean and covariance within four standard errors."""
    sde, n = SDES[name], 2000
    truth, ends = gaussian_posterior(PRIOR, A, Y, 0.3), (sde.t_max, sde.t_min)
    at = sde.knots(ends)
    (a0, a1), (s0, s1) = at.alpha.tolist(), at.sigma.tolist()
    generator = torch.Generator().manual_seed(0)
    x = a0 * truth.sample(n, seed=1) + s0 * torch.randn(n, 3, dtype=F64, generator=generator)
    noise = DeviceNoise(1, torch.device("cpu"))
    out = sde_adaptive(sde, ends).solve(exactly(PRIOR, sde), x, noise).x
    root = torch.linalg.cholesky(a1**2 * truth.cov + s1**2 * torch.eye(3))
    standard = torch.linalg.solve_triangular(root, (out - a1 * truth.mean).T, upper=False).T
    assert (standard.mean(0) * math.sqrt(n)).abs().max() < 4
    scale = torch.ones(3, 3, dtype=F64) + torch.eye(3)  # the variance of an entry of the covariance, times n
    assert ((standard.T.cov(correction=0) - torch.eye(3)) * (n / scale).sqrt()).abs().max() < 4
