"""Ours equal diffusers' schedulers in float64: same exact denoiser, grid, start and noise.

Run by python -m pytest -m parity; needs the extra `bench` and k-diffusion, see benchmarks/adapters.py.

A scheduler runs on any grid of ours if the grid is its training chain, one index a knot.
"""

from __future__ import annotations

from itertools import pairwise
from types import ModuleType
from typing import Any

import pytest
from exact import SDES, mixture, start
from sides import FULL, RAW, SHAPE, TRAILING, VP, N, beyond, chain, draws, ours, same

from scoresde.grids import make_grid

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]


D_ZERO = [
    ("DDIM", RAW, {}, "ddim", {}),
    ("DDIM", RAW, {"eta": 0.5}, "ddim", {"eta": 0.5}),
    ("DDIM", RAW, {"eta": 1.0}, "ddpm", {"variance": "posterior"}),
    ("DDPM", RAW, {}, "ddpm", {"variance": "posterior"}),
    ("DDPM", {**RAW, "variance_type": "fixed_large"}, {}, "ddpm", {"variance": "upper"}),
    ("EulerDiscrete", {}, {}, "ddim", {}),
    ("EulerAncestralDiscrete", {}, {}, "ddim", {"eta": 1.0}),
    ("HeunDiscrete", {}, {}, "edm", {}),
    ("KDPM2Discrete", {}, {}, "dpm2s", {}),
    ("KDPM2AncestralDiscrete", {}, {}, "dpm2a", {}),
]


@pytest.mark.parametrize("sde", VP)
@pytest.mark.parametrize("scheduler, config, step, name, options", D_ZERO)
def test_diffusers_is_met_to_the_data(
    scheduler: str, config: dict, step: dict, name: str, options: dict, sde: str, peers: ModuleType
) -> None:
    times = make_grid("t2", SDES[sde], N, "zero")
    config, denoiser, x = {**config, **TRAILING}, mixture().denoiser(SDES[sde]), start(SDES[sde], SHAPE)
    run = peers.run_diffusers(scheduler, denoiser, x, N, chain(times), noise=draws(), step=step, **config)
    out = ours(name, SDES[sde], times, **options)
    same(out.x, run.x)
    assert run.end == 0 and run.calls == out.nfe


def dpm(algorithm: str, order: int, **more: Any) -> tuple[str, dict]:
    return "DPMSolverMultistep", {"algorithm_type": algorithm, "solver_order": order, **more}


def uni(order: int, **more: Any) -> tuple[str, dict]:
    return "UniPCMultistep", {"solver_order": order, **more}


HEUN, EPS = {"solver_type": "heun"}, {"predict_x0": False}
D_MULTI = [
    (*dpm("dpmsolver++", 1), "ddim", {}),
    (*dpm("dpmsolver++", 2, **FULL), "dpm++2m", {}),
    (*dpm("dpmsolver++", 2), "dpm++2m", {"lower_order_final": True}),
    (*dpm("dpmsolver++", 2, **FULL, **HEUN), "eab2", {}),
    (*dpm("dpmsolver++", 3, **FULL), "dpm++3m", {}),
    (*dpm("dpmsolver++", 3), "dpm++3m", {"lower_order_final": True}),
    (*dpm("sde-dpmsolver++", 1), "ddpm", {"variance": "posterior"}),
    (*dpm("sde-dpmsolver++", 2, **FULL), "dpm++2m-sde", {}),
    (*dpm("sde-dpmsolver++", 2, **FULL, **HEUN), "dpm++2m-sde", {"solver": "heun"}),
    (*dpm("sde-dpmsolver++", 2, **FULL, **HEUN), "eab2", {"tau": 1.0}),
    (*uni(1), "unipc", {"order": 1}),
    (*uni(2), "unipc", {"order": 2}),
    (*uni(3), "unipc", {"order": 3}),
    (*uni(3, disable_corrector=list(range(99))), "unipc", {"order": 3, "corrector": False}),
]
D_T_MIN = [
    (*dpm("dpmsolver", 2, **FULL), "dpm2m", {}),
    (*dpm("dpmsolver", 2), "dpm2m", {"lower_order_final": True}),
    (*dpm("dpmsolver", 3, **FULL), "dpm3m", {}),
    (*dpm("dpmsolver", 3), "dpm3m", {"lower_order_final": True}),
    (*uni(2, **FULL), "unipc", {"order": 2, "lower_order_final": False}),
    (*uni(3, **FULL), "unipc", {"order": 3, "lower_order_final": False}),
    (*uni(1, solver_type="bh1"), "unipc", {"order": 1, "variant": "bh1"}),
    (*uni(2, solver_type="bh1"), "unipc", {"order": 2, "variant": "bh1"}),
    (*uni(3, solver_type="bh1"), "unipc", {"order": 3, "variant": "bh1"}),
    (*uni(2, **EPS), "unipc", {"order": 2, "space": "eps"}),
    (*uni(3, **EPS), "unipc", {"order": 3, "space": "eps"}),
    (*uni(3, solver_type="bh1", **EPS), "unipc", {"order": 3, "variant": "bh1", "space": "eps"}),
]


@pytest.mark.parametrize("sde", VP)
@pytest.mark.parametrize(
    "final, scheduler, config, name, options",
    [("t_min", *case) for case in D_MULTI + D_T_MIN] + [("zero", *case) for case in D_MULTI],
)
def test_diffusers_multistep_is_met(
    scheduler: str, config: dict, name: str, options: dict, final: str, sde: str, peers: ModuleType
) -> None:
    times = make_grid("t2", SDES[sde], N, final)
    config = {**config, "final_sigmas_type": "zero" if final == "zero" else "sigma_min"}
    denoiser, x = mixture().denoiser(SDES[sde]), start(SDES[sde], SHAPE)
    run = peers.run_diffusers(scheduler, denoiser, x, N, beyond(times), noise=draws(), **config)
    out = ours(name, SDES[sde], times, **options)
    same(out.x, run.x)
    assert run.calls == out.nfe == N and run.end == pytest.approx(times[-1], rel=1e-6)


@pytest.mark.parametrize("order", [2, 3])
def test_diffusers_edm_solver_is_met(order: int, peers: ModuleType) -> None:
    sde = SDES["edm"]
    denoiser, x = mixture().denoiser(sde), start(sde, SHAPE)
    run = peers.run_diffusers("EDMDPMSolverMultistep", denoiser, x, N, solver_order=order, lower_order_final=False)
    same(ours(f"dpm++{order}m", sde, make_grid("karras", sde, N, "zero")).x, run.x)


@pytest.mark.parametrize("sde", VP)
def test_diffusers_singlestep_is_met_on_equal_steps_in_lambda(sde: str, peers: ModuleType) -> None:
    """Theirs calls at the knots, so that two of its intervals are a step of ours whose middle is a knot."""
    times = make_grid("lambda", SDES[sde], N, "t_min")
    config = {"solver_order": 2, "final_sigmas_type": "sigma_min", **FULL}
    denoiser, x = mixture().denoiser(SDES[sde]), start(SDES[sde], SHAPE)
    for algorithm, name in (("dpmsolver++", "dpm++2s"), ("dpmsolver", "dpm2s")):
        run = peers.run_diffusers(
            "DPMSolverSinglestep", denoiser, x, N, chain(times), algorithm_type=algorithm, **config
        )
        same(ours(name, SDES[sde], times[::2]).x, run.x)


@pytest.mark.parametrize("sde", VP)
def test_diffusers_pndm_is_met_to_t_min(sde: str, peers: ModuleType) -> None:
    """Its half steps are training indices: the chain is the grid with the middles. Into the data it extrapolates."""
    times = make_grid("t", SDES[sde], N, "t_min")
    middles = [(t + t_next) / 2 for t, t_next in pairwise(times)]
    denoiser, x = mixture().denoiser(SDES[sde]), start(SDES[sde], SHAPE)
    run = peers.run_diffusers("PNDM", denoiser, x, N, sorted([*times, *middles]), steps_offset=2)
    out = ours("pndm", SDES[sde], times)
    same(out.x, run.x)
    assert run.calls == out.nfe == N + 9
    run = peers.run_diffusers("PNDM", denoiser, x, N, chain(times), skip_prk_steps=True, steps_offset=1)
    out = ours("plms", SDES[sde], times)
    same(out.x, run.x)
    assert run.calls == out.nfe == N + 1 and run.end == pytest.approx(times[-1])


@pytest.mark.parametrize("sde", VP)
def test_diffusers_ipndm_is_met_to_t_min(sde: str, peers: ModuleType) -> None:
    """Its betas are σ; into the data theirs extrapolates with all outputs, ours is x̂_0."""
    times = make_grid("t2", SDES[sde], N, "t_min")
    sigma = SDES[sde].knots(times).sigma.tolist()
    denoiser, x = mixture().denoiser(SDES[sde]), start(SDES[sde], SHAPE)
    run = peers.run_diffusers("IPNDM", denoiser, x, N, chain(times), trained_betas=sigma)
    same(ours("ipndm", SDES[sde], times, order=4).x, run.x)


@pytest.mark.parametrize("tau", [0.0, 1.0])
@pytest.mark.parametrize("orders, n, tolerance", [((1, 1), N, 1e-9), ((3, 4), 48, 1e-6)])
def test_diffusers_sa_solver_is_met(
    orders: tuple[int, int], n: int, tolerance: float, tau: float, peers: ModuleType
) -> None:
    """It changes formulas of two outputs by O(h³), where ours are the exact integrals: of the rest, only the start."""
    sde = SDES["vp"]
    times, denoiser, x = make_grid("lambda", sde, n, "t_min"), mixture().denoiser(sde), start(sde, SHAPE)
    theirs = {"predictor_order": orders[0], "corrector_order": orders[1], "tau_func": lambda t: int(tau), **FULL}
    mine = {"predictor_order": orders[0], "corrector_order": orders[1], "tau": tau, **FULL}
    run = peers.run_diffusers("SASolver", denoiser, x, n, chain(times), noise=draws(), **theirs)
    same(ours("sa-solver", sde, times, **mine).x, run.x, tolerance)
