"""Stochastic samplers measured exactly: on Gaussian data a chain is affine in (x_T, z_1 … z_K), so one batched run with
injected unit noises gives the mean and variance of its output, without Monte Carlo."""

from __future__ import annotations

import math

import pytest
import torch
from exact import SDES, law_error

import scoresde
from scoresde import SAMPLERS
from scoresde.grids import make_grid


def error(sampler: str, sde: scoresde.SDE, n: int, **options: object) -> float:
    """Distance of the output law from the data's own (smoothed to t_min where the run ends there)."""
    spec = SAMPLERS[sampler]
    grid, final = spec.defaults(n)
    times = make_grid(grid, sde, n, final)
    return law_error(spec.build(sde, times, **options), sde)


@pytest.mark.parametrize("name", SDES)
@pytest.mark.parametrize(
    "sampler, options", [("ddpm", {}), ("ddpm", {"variance": "upper"}), ("em", {}), ("ddim", {"eta": 0.6})]
)
def test_first_order_convergence_of_the_output_law(sampler: str, options: dict, name: str) -> None:
    """The error of mean and covariance falls like 1/N on the sampler's default grid (weak order 1).

    Euler-Maruyama's relative steps next to the data are 1, 1/2, 1/3, …, which adds a factor log N under some SDEs.
    """
    sde = SDES[name]
    finest = 1000 if name in ("vp", "subvp", "ve") else 500
    errors = [error(sampler, sde, n, **options) for n in (finest // 4, finest // 2, finest)]
    slope = math.log2(errors[0] / errors[2]) / 2
    assert slope > 1 - (0.2 if sampler == "em" else 0.15)
    assert abs(2 * errors[2] - errors[1]) < 1e-3


@pytest.mark.parametrize("name", ["vp", "cosine", "edm", "flow"])
def test_predictor_corrector_converges(name: str) -> None:
    """A Langevin corrector of fixed snr has a bias at each t that vanishes with σ_t: the run's end is right."""
    errors = [error("pc", SDES[name], n) for n in (100, 400)]
    assert errors[1] < 0.6 * errors[0] and errors[1] < 0.05


@pytest.mark.parametrize("name", ["ve", "edm", "vp"])
def test_annealed_langevin_approaches_the_data(name: str) -> None:
    """More steps at each level bring the output law closer: it is a stationary law, not a discretised SDE."""
    errors = [error("langevin", SDES[name], 60, repeats=m, step=0.05) for m in (3, 30)]
    assert errors[1] < 0.5 * errors[0] and errors[1] < 0.25


@pytest.mark.parametrize("name", SDES)
def test_every_stochastic_sampler_draws_from_a_prior_of_the_right_size(name: str) -> None:
    """Starting at t_max draws N(0, α² + σ²): unit-variance, zero-mean data have exactly that law there."""
    sde = SDES[name]
    seen: list[torch.Tensor] = []
    denoiser = scoresde.Denoiser(lambda x, t: seen.append(x) or x, sde, "x0")
    scoresde.sample(denoiser, (4000, 2), "ddim", 1)
    at = sde.knots([sde.t_max])
    expected = math.hypot(float(at.alpha[0]), float(at.sigma[0]))
    assert float(seen[0].std()) == pytest.approx(expected, rel=4 / math.sqrt(2 * 8000))
