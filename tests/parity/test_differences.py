"""Where diffusers and k-diffusion do not do what the name says: what they do instead, and what ours meets in its place.

Run by python -m pytest -m parity; needs the extra `bench` and k-diffusion, see benchmarks/adapters.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from types import ModuleType

import pytest
import torch
from exact import F64, SDES, mixture, start
from sides import FULL, RAW, SHAPE, TRAILING, VP, N, beyond, chain, draws, levels, ours, same

import scoresde
from scoresde.grids import from_sigmas, make_grid
from scoresde.samplers.multistep import exponential_multistep

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]


@cache
def flow(sde: scoresde.SDE) -> torch.Tensor:
    """The end of the exact flow at t_min."""
    times = make_grid("phi", sde, 300, "t_min")
    return scoresde.sample(mixture().denoiser(sde), SHAPE, "ode", x=start(sde, SHAPE), grid=times, dtype=F64).x


def flow_error(x: torch.Tensor, sde: scoresde.SDE) -> float:
    return float((x - flow(sde)).abs().mean())


def order_of(run: Callable[[int], torch.Tensor], sde: scoresde.SDE, n: int = 100) -> float:
    return math.log2(flow_error(run(n), sde) / flow_error(run(2 * n), sde))


@pytest.mark.parametrize("algorithm, exact", [("dpmsolver++", "x0"), ("dpmsolver", "eps")])
def test_third_order_multistep_of_diffusers_is_of_second_order(algorithm: str, exact: str, peers: ModuleType) -> None:
    """Its second difference lacks a factor 2 (as published: ours by the same name agrees); exact integrals reach 3."""
    sde = SDES["vp"]
    denoiser, x = mixture().denoiser(sde), start(sde, SHAPE)
    config = {"algorithm_type": algorithm, "solver_order": 3, "final_sigmas_type": "sigma_min", **FULL}

    def theirs(n: int) -> torch.Tensor:
        times = make_grid("lambda", sde, n, "t_min")
        return peers.run_diffusers("DPMSolverMultistep", denoiser, x, n, chain(times), **config).x

    def mine(n: int) -> torch.Tensor:
        table = exponential_multistep(sde, make_grid("lambda", sde, n, "t_min"), order=3, space=exact)
        return table.run(denoiser, x)[0]

    assert order_of(theirs, sde) == pytest.approx(2, abs=0.2)
    assert order_of(mine, sde) > 2.8


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("sde", VP)
def test_deis_of_diffusers_is_exponential_adams_in_noise_space(order: int, sde: str, peers: ModuleType) -> None:
    """It interpolates in log σ/α, not in t as the paper's tAB and our `deis` do."""
    times = make_grid("t2", SDES[sde], N, "t_min")
    denoiser, x = mixture().denoiser(SDES[sde]), start(SDES[sde], SHAPE)
    run = peers.run_diffusers("DEISMultistep", denoiser, x, N, chain(times), solver_order=order, **FULL)
    table = exponential_multistep(SDES[sde], times, order=order, space="eps")
    same(table.run(denoiser, x)[0], run.x)
    if order > 1:
        assert (ours("deis", SDES[sde], times, order=order).x - run.x).abs().max() > 1e-3


@pytest.mark.parametrize("algorithm, name", [("dpmsolver++", "dpm++3s"), ("dpmsolver", "dpm3s")])
def test_third_order_singlestep_of_diffusers_has_another_second_stage(
    algorithm: str, name: str, peers: ModuleType
) -> None:
    """Its stage at 2/3 is a midpoint step, not the paper's φ-function: of third order as well, and other numbers."""
    sde = SDES["vp"]
    denoiser, x = mixture().denoiser(sde), start(sde, SHAPE)
    config = {"algorithm_type": algorithm, "solver_order": 3, "final_sigmas_type": "sigma_min", **FULL}

    def theirs(n: int) -> torch.Tensor:
        times = make_grid("lambda", sde, n, "t_min")
        return peers.run_diffusers("DPMSolverSinglestep", denoiser, x, n, chain(times), **config).x

    assert order_of(theirs, sde, 96) == pytest.approx(3, abs=0.2)
    mine = {n: ours(name, sde, make_grid("lambda", sde, n, "t_min")[::3]).x for n in (96, 192)}
    assert order_of(mine.__getitem__, sde, 96) == pytest.approx(3, abs=0.2)
    assert (theirs(96) - mine[96]).abs().max() > 1e-4


def variance_error(run: Callable[..., torch.Tensor], s: float, n: int) -> float:
    """Relative error of the output's variance on N(m, s²) data: x_T and each noise in turn 1, all others 0."""
    sde, made = SDES["vp"], [0]
    x = torch.zeros(n + 2, 1, dtype=F64)
    x[1] = 1.0

    def unit(x: torch.Tensor) -> torch.Tensor:
        z = torch.zeros_like(x)
        made[0] += 1
        z[1 + made[0] : 2 + made[0]] = 1.0
        return z

    out = run(x, unit, make_grid("lambda", sde, n, "t_min"))
    gains, at = out[1:] - out[0], sde.knots([sde.t_max, sde.t_min])
    before, after = at.alpha**2 * s**2 + at.sigma**2
    return abs(float(gains[0] ** 2 * before + gains[1:].square().sum()) / after - 1)


def test_third_order_sde_solver_of_diffusers_is_of_first_order(peers: ModuleType) -> None:
    """A sign makes the weight of its second difference tend to -α, not 0: each noise enters the next steps wrongly."""
    sde, s = SDES["vp"], 0.5
    denoiser = scoresde.Gaussian(torch.full((1,), 0.7, dtype=F64), s**2 * torch.eye(1, dtype=F64)).denoiser(sde)
    config = {"algorithm_type": "sde-dpmsolver++", "solver_order": 3, "final_sigmas_type": "sigma_min", **FULL}

    def theirs(x: torch.Tensor, unit: Callable, times: Sequence[float]) -> torch.Tensor:
        n = len(times) - 1
        return peers.run_diffusers("DPMSolverMultistep", denoiser, x, n, chain(times), noise=unit, **config).x

    def mine(x: torch.Tensor, unit: Callable, times: Sequence[float]) -> torch.Tensor:
        how = {"x": x, "grid": times, "noise": lambda step, draw, x: unit(x), "dtype": F64}
        return scoresde.sample(denoiser, x.shape, "dpm++3m-sde", **how).x

    wrong, right = ([variance_error(run, s, n) for n in (100, 200)] for run in (theirs, mine))
    assert math.log2(wrong[0] / wrong[1]) == pytest.approx(1, abs=0.2)
    assert math.log2(right[0] / right[1]) == pytest.approx(2, abs=0.2)
    assert wrong[1] > 20 * right[1]


def test_third_order_edm_sde_solver_of_diffusers_does_not_run(peers: ModuleType) -> None:
    sde = SDES["edm"]
    with pytest.raises(UnboundLocalError):
        peers.run_diffusers(
            "EDMDPMSolverMultistep", mixture().denoiser(sde), start(sde, SHAPE), N, noise=draws(),
            algorithm_type="sde-dpmsolver++", solver_order=3,
        )  # fmt: skip
    assert torch.isfinite(ours("dpm++3m-sde", sde, make_grid("karras", sde, N, "zero")).x).all()


@pytest.mark.parametrize("name", ["dpmpp_2m_sde", "dpmpp_3m_sde"])
def test_one_step_of_k_diffusions_multistep_sde_solvers_crashes(name: str, peers: ModuleType) -> None:
    """h is read before it is set; ours is x̂_0."""
    sde = SDES["vp"]
    denoiser, x = mixture().denoiser(sde), start(sde, SHAPE)
    with pytest.raises(UnboundLocalError):
        peers.run_k(name, denoiser, x, levels(sde, (sde.t_max, 0.0)), noise=draws())
    same(ours(name.replace("pp_", "++").replace("_", "-"), sde, (sde.t_max, 0.0)).x, denoiser.x0(x, sde.t_max))


def test_bh1_of_diffusers_unipc_is_not_a_number_at_the_data(peers: ModuleType) -> None:
    """B = h is infinite there and multiplies the empty correction; to σ = 0 is its default ending."""
    sde = SDES["vp"]
    times = make_grid("t2", sde, N, "zero")
    denoiser, x = mixture().denoiser(sde), start(sde, SHAPE)
    run = peers.run_diffusers("UniPCMultistep", denoiser, x, N, beyond(times), solver_type="bh1")
    assert run.x.isnan().all()
    assert flow_error(ours("unipc", sde, times, variant="bh1").x, sde) < 0.1


def test_ddim_of_diffusers_ends_before_the_data_where_n_does_not_divide_the_chain(peers: ModuleType) -> None:
    """It steps by the constant stride 1000 // n wherever its next index is: a point mass is left with noise on it."""
    sde = SDES["vp"]
    point = scoresde.Denoiser(lambda x, t: torch.full_like(x, 0.5), sde, "x0")
    x = start(sde, SHAPE)
    whole = peers.run_diffusers("DDIM", point, x, 20, **RAW, **TRAILING)
    odd = peers.run_diffusers("DDIM", point, x, 15, **RAW, **TRAILING)
    assert (whole.x - 0.5).abs().max() < 1e-6
    assert odd.end > 0 and (odd.x - 0.5).abs().max() > 5e-3
    mine = scoresde.sample(point, SHAPE, "ddim", 15, grid="index", x=x, dtype=F64).x
    assert (mine - 0.5).abs().max() < 1e-12


@pytest.mark.parametrize("scheduler, config", [
    ("DEISMultistep", {}), ("SASolver", {}), ("UniPCMultistep", {"final_sigmas_type": "sigma_min"}),
    ("DPMSolverMultistep", {"final_sigmas_type": "sigma_min"}),
])  # fmt: skip
def test_last_interval_of_diffusers_on_karras_sigmas_has_no_length(
    scheduler: str, config: dict, peers: ModuleType
) -> None:
    """Its last call is wasted, or divides by h = 0; grids of ours are strictly decreasing under every SDE."""
    made = peers.scheduler_class(scheduler)(use_karras_sigmas=True, **config)
    made.set_timesteps(N)
    assert float(made.sigmas[-1]) == pytest.approx(float(made.sigmas[-2]), rel=1e-5)
    assert all(t > t_next for t, t_next in pairwise(make_grid("karras", SDES["vp"], N, "t_min")))


def test_multistep_of_diffusers_tells_the_network_another_noise_level(peers: ModuleType) -> None:
    """Karras' levels keep their σ but their labels are rounded to whole indices: by up to 4 % in 20 steps."""
    sde = SDES["vp"]
    told = list[float]()
    denoiser = mixture().denoiser(sde)

    def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        told.append(float(sde.rho(t[0])))
        return denoiser.network(x, t)

    recording = scoresde.Denoiser(network, sde, "x0")
    peers.run_diffusers("DPMSolverMultistep", recording, start(sde, SHAPE), 20, use_karras_sigmas=True)
    meant = peers.k_sigmas("karras", sde, 20, zero=True)[:-1]
    assert max(abs(a / b - 1) for a, b in zip(told, meant, strict=True)) > 0.04
    told.clear()
    scoresde.sample(recording, SHAPE, "dpm++2m", grid=from_sigmas(sde, [*meant, 0.0]), x=start(sde, SHAPE))
    assert max(abs(a / b - 1) for a, b in zip(told, meant, strict=True)) < 1e-6
