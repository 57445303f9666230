"""Ours equal k-diffusion's samplers in float64: same exact denoiser, noise levels, start and noise, under every SDE.

Run by python -m pytest -m parity; needs the extra `bench` and k-diffusion, see benchmarks/adapters.py.
"""

from __future__ import annotations

import math
from types import ModuleType

import pytest
import torch
from exact import SDES, mixture, start
from sides import ALL, SHAPE, N, draws, levels, ours, same

import scoresde
from scoresde.grids import make_grid

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]


K_EQUAL = [
    ("euler", {}, "ddim", {}),
    ("euler_ancestral", {}, "ddpm", {"variance": "posterior"}),
    ("euler_ancestral", {"eta": 0.5}, "ddim", {"eta": 0.5}),
    ("heun", {}, "edm", {}),
    ("dpm_2", {}, "dpm2s", {}),
    ("dpm_2_ancestral", {}, "dpm2a", {}),
    ("dpm_2_ancestral", {"eta": 0.5}, "dpm2a", {"eta": 0.5}),
    ("dpmpp_2s_ancestral", {}, "dpm++2sa", {}),
    ("dpmpp_2s_ancestral", {"eta": 0.0}, "dpm++2s", {}),
    ("dpmpp_2m", {}, "dpm++2m", {}),
    ("dpmpp_2m_sde", {}, "dpm++2m-sde", {}),
    ("dpmpp_2m_sde", {"solver_type": "heun", "eta": 0.7}, "dpm++2m-sde", {"solver": "heun", "eta": 0.7}),
    ("dpmpp_3m_sde", {}, "dpm++3m-sde", {}),
    ("dpmpp_3m_sde", {"eta": 0.0}, "dpm++3m-sde", {"eta": 0.0}),
]


@pytest.mark.parametrize("final", ["zero", "t_min"])
@pytest.mark.parametrize("sde", ALL)
@pytest.mark.parametrize("theirs, given, name, options", K_EQUAL)
def test_k_diffusion_is_met(
    theirs: str, given: dict, name: str, options: dict, sde: str, final: str, peers: ModuleType
) -> None:
    times = make_grid("karras", SDES[sde], N, final)
    noise = draws() if "ancestral" in theirs or "sde" in theirs else None
    run = peers.run_k(
        theirs, mixture().denoiser(SDES[sde]), start(SDES[sde], SHAPE), levels(SDES[sde], times), noise=noise, **given
    )
    out = ours(name, SDES[sde], times, **options)
    same(out.x, run.x)
    assert run.calls == out.nfe


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("sde", ALL)
def test_k_diffusions_lms_is_met_to_t_min(order: int, sde: str, peers: ModuleType) -> None:
    """Into the data theirs extrapolates with all outputs, ours is x̂_0."""
    times = make_grid("karras", SDES[sde], N, "t_min")
    denoiser, x = mixture().denoiser(SDES[sde]), start(SDES[sde], SHAPE)
    same(
        ours("lms", SDES[sde], times, order=order).x,
        peers.run_k("lms", denoiser, x, levels(SDES[sde], times), order=order).x,
    )


@pytest.mark.parametrize("sde", ALL)
def test_k_diffusions_churn_is_met(sde: str, peers: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Below t_max: from there theirs would ask the network for more noise than there is."""
    times = make_grid("karras", SDES[sde], N, "zero")
    sigmas = levels(SDES[sde], times)
    churn = {"s_churn": 2.0, "s_noise": 1.003}
    own = draws()
    monkeypatch.setattr(torch, "randn_like", lambda x: own(x) if seen["calls"] else torch.zeros_like(x))
    seen = {"calls": 0}
    denoiser = mixture().denoiser(SDES[sde])

    def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        seen["calls"] += 1
        return denoiser.network(x, t)

    counting = scoresde.Denoiser(network, SDES[sde], "x0")
    at = {"s_tmin": 0.0, "s_tmax": sigmas[1] * 1.001}
    run = peers.run_k("heun", counting, start(SDES[sde], SHAPE), sigmas, **churn, **at)
    monkeypatch.undo()
    same(ours("edm", SDES[sde], times, s_min=0.0, s_max=at["s_tmax"], **churn).x, run.x)


@pytest.mark.parametrize("final", ["zero", "t_min"])
@pytest.mark.parametrize("sde", ALL)
def test_k_diffusions_dpmpp_sde_is_met_on_a_brownian_path(sde: str, final: str, peers: ModuleType) -> None:
    """Both its noises of a step are increments from the step's start of one Brownian motion over σ/α."""
    times = make_grid("karras", SDES[sde], N, final)
    own, first = draws(), list[tuple[float, torch.Tensor]]()
    x = start(SDES[sde], SHAPE)

    def increments(sigma: torch.Tensor, sigma_next: torch.Tensor) -> torch.Tensor:
        length = float(sigma - sigma_next)
        if not first:
            first.append((length, own(x)))
            return first[0][1]
        half, z = first.pop()
        return math.sqrt(half / length) * z + math.sqrt(1 - half / length) * own(x)

    sigmas = levels(SDES[sde], times)
    run = peers.run_k("dpmpp_sde", mixture().denoiser(SDES[sde]), x, sigmas, noise_sampler=increments)
    same(ours("dpm++sde", SDES[sde], times).x, run.x)
