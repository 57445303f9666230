"""The samplers of k-diffusion and the schedulers of diffusers, each a line of one table, on every grid it offers.

How they are run, and what they need: `adapters.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from adapters import Draw, Run, k_diffusion, k_sigmas, run_diffusers, run_k, scheduler_class
from torch import Tensor

from scoresde import make_grid
from scoresde.denoiser import AnyDenoiser


@dataclass(frozen=True)
class Peer:
    """A sampler of another library on one of its grids: ``run(denoiser, x, n, cond, noise)``, ``calls(n)`` calls."""

    library: str
    name: str
    grid: str
    calls: Callable[[int], int]
    run: Callable[..., Run]
    stochastic: bool = False

    def steps(self, budget: int) -> int:
        """The most steps whose calls stay within a budget; 0 if none do."""
        return max((n for n in range(1, budget + 1) if self.calls(n) <= budget), default=0)


# k-diffusion: calls of an interval (the last one to 0 takes one), and whether noise is added.
K_DIFFUSION = {
    "euler": (1, False),
    "heun": (2, False),
    "dpm_2": (2, False),
    "lms": (1, False),
    "dpmpp_2m": (1, False),
    "euler_ancestral": (1, True),
    "dpm_2_ancestral": (2, True),
    "dpmpp_2s_ancestral": (2, True),
    "dpmpp_sde": (2, True),
    "dpmpp_2m_sde": (1, True),
    "dpmpp_3m_sde": (1, True),
}
K_GRIDS = ("karras", "exponential", "vp")

# What selects a grid of diffusers' schedulers; "edm" and iPNDM's are no choice of theirs.
GRIDS = {
    "trailing": {"timestep_spacing": "trailing"},
    "linspace": {},
    "karras": {"use_karras_sigmas": True},
    "exponential": {"use_exponential_sigmas": True},
    "lu": {"use_lu_lambdas": True},
}


def _once(n: int) -> int:
    return n


def _twice(n: int) -> int:
    return 2 * n - 1


class Entry(NamedTuple):
    """A line of the table below: ``NAMEScheduler`` with ``config`` on each of the grids."""

    label: str
    scheduler: str
    config: dict[str, Any]
    grids: tuple[str, ...]
    calls: Callable[[int], int] = _once
    stochastic: bool = False
    step: dict[str, Any] = {}  # noqa: RUF012


def _dpm(algorithm: str, order: int, end: str = "zero", **more: Any) -> dict[str, Any]:
    return {"algorithm_type": algorithm, "solver_order": order, "final_sigmas_type": end, **more}


def _unipc(order: int, end: str = "zero", **more: Any) -> dict[str, Any]:
    return {"solver_order": order, "final_sigmas_type": end, **more}


RAW: dict[str, Any] = {"clip_sample": False}
LOWER: dict[str, Any] = {"lower_order_final": True}
PLMS, PRK = {"skip_prk_steps": True, "set_alpha_to_one": True}, {"set_alpha_to_one": True}
INDEX, ANY, SINGLE = ("trailing",), ("trailing", "karras", "exponential"), ("linspace", "karras", "exponential")
MULTI, SINGLESTEP, EDM = "DPMSolverMultistep", "DPMSolverSinglestep", "EDMDPMSolverMultistep"
LU = (*ANY, "lu")
# To σ_min only the index grid: on the others diffusers' last interval has no length.
DIFFUSERS = (
    Entry("DDIM", "DDIM", RAW, INDEX),
    Entry("DDIM, eta 1", "DDIM", RAW, INDEX, stochastic=True, step={"eta": 1.0}),
    Entry("DDPM", "DDPM", RAW, INDEX, stochastic=True),
    Entry("PNDM, PLMS start", "PNDM", PLMS, INDEX, lambda n: n + 1),
    Entry("PNDM", "PNDM", PRK, INDEX, lambda n: n + 9 if n > 3 else 10**9),  # starts with three steps of four calls
    Entry("Euler", "EulerDiscrete", {}, ANY),
    Entry("Euler a", "EulerAncestralDiscrete", {}, INDEX, stochastic=True),
    Entry("LMS", "LMSDiscrete", {}, ANY),
    Entry("Heun", "HeunDiscrete", {}, ANY, _twice),
    Entry("KDPM2", "KDPM2Discrete", {}, ANY, _twice),
    Entry("KDPM2 a", "KDPM2AncestralDiscrete", {}, ANY, _twice, stochastic=True),
    Entry("DPM-Solver++ 2M", MULTI, _dpm("dpmsolver++", 2), LU),
    Entry("DPM-Solver++ 2M, to σ_min", MULTI, _dpm("dpmsolver++", 2, "sigma_min"), INDEX),
    Entry("DPM-Solver++ 2M, heun", MULTI, _dpm("dpmsolver++", 2, solver_type="heun"), LU),
    Entry("DPM-Solver++ 3M", MULTI, _dpm("dpmsolver++", 3), LU),
    Entry("DPM-Solver++ 3M, to σ_min", MULTI, _dpm("dpmsolver++", 3, "sigma_min"), INDEX),
    Entry("DPM-Solver 2M, to σ_min", MULTI, _dpm("dpmsolver", 2, "sigma_min"), INDEX),
    Entry("DPM-Solver 3M, to σ_min", MULTI, _dpm("dpmsolver", 3, "sigma_min"), INDEX),
    Entry("SDE-DPM-Solver++ 2M", MULTI, _dpm("sde-dpmsolver++", 2), LU, stochastic=True),
    Entry("SDE-DPM-Solver++ 3M", MULTI, _dpm("sde-dpmsolver++", 3), LU, stochastic=True),
    Entry("DPM-Solver++ 2S", SINGLESTEP, _dpm("dpmsolver++", 2, "zero", **LOWER), SINGLE),
    Entry("DPM-Solver++ 3S", SINGLESTEP, _dpm("dpmsolver++", 3, "zero", **LOWER), SINGLE),
    Entry("DPM-Solver++ 3S, to σ_min", SINGLESTEP, _dpm("dpmsolver++", 3, "sigma_min", **LOWER), ("linspace",)),
    Entry("DPM-Solver 3S, to σ_min", SINGLESTEP, _dpm("dpmsolver", 3, "sigma_min", **LOWER), ("linspace",)),
    Entry("UniPC-2", "UniPCMultistep", _unipc(2), ANY),
    Entry("UniPC-3", "UniPCMultistep", _unipc(3), ANY),
    Entry("UniPC-3, to σ_min", "UniPCMultistep", _unipc(3, "sigma_min"), INDEX),
    Entry("UniPC-3, bh1, to σ_min", "UniPCMultistep", _unipc(3, "sigma_min", solver_type="bh1"), INDEX),
    Entry("DEIS-2", "DEISMultistep", {"solver_order": 2}, ANY),
    Entry("DEIS-3", "DEISMultistep", {"solver_order": 3}, ANY),
    Entry("SA-Solver, τ = 0", "SASolver", {"tau_func": lambda t: 0}, ANY),
    Entry("SA-Solver", "SASolver", {}, ANY, stochastic=True),
    Entry("EDM Euler", "EDMEuler", {}, ("edm",)),
    Entry("EDM DPM-Solver++ 2M", EDM, {"solver_order": 2}, ("edm",)),
    Entry("EDM DPM-Solver++ 3M", EDM, {"solver_order": 3}, ("edm",)),
    Entry("iPNDM", "IPNDM", {}, ("t", "lambda", "karras")),
)


def _k_peer(name: str, grid: str, zero: bool) -> Peer:
    per, stochastic = K_DIFFUSION[name]

    def run(denoiser: AnyDenoiser, x: Tensor, n: int, cond: Mapping[str, Any], noise: Draw | None = None) -> Run:
        levels = k_sigmas(grid, denoiser.sde, n, zero)
        return run_k(name, denoiser, x, levels, cond, noise if stochastic else None)

    end = "zero" if zero else "t_min"
    return Peer("k-diffusion", name, f"{grid}, {end}", lambda n: per * n - (per - 1) * zero, run, stochastic)


def _diffusers_peer(entry: Entry, grid: str) -> Peer:
    def run(denoiser: AnyDenoiser, x: Tensor, n: int, cond: Mapping[str, Any], noise: Draw | None = None) -> Run:
        chain = None
        if entry.scheduler == "IPNDM":  # its own schedule is of another SDE: it is given our noise levels
            chain = make_grid(grid, denoiser.sde, n, "zero")[-2::-1]
        config = {**entry.config, **({} if chain else GRIDS.get(grid, {}))}
        return run_diffusers(entry.scheduler, denoiser, x, n, chain, cond, noise, entry.step, **config)

    return Peer("diffusers", entry.label, "karras" if grid == "edm" else grid, entry.calls, run, entry.stochastic)


def peers() -> Iterator[Peer]:
    """Every sampler of both libraries on every grid it offers; raises where the extra is not installed."""
    k_diffusion(), scheduler_class("DDIM")  # pyright: ignore[reportUnusedExpression]
    for name in K_DIFFUSION:
        for grid in K_GRIDS:
            yield from (_k_peer(name, grid, zero) for zero in (True, False))
    for entry in DIFFUSERS:
        yield from (_diffusers_peer(entry, grid) for grid in entry.grids)
