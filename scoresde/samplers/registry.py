"""Every sampler by name: one builder and one line here make a new one in the library, on the command line, in tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from scoresde.errors import BadInput, choose
from scoresde.samplers.adams import deis, ipndm, lms, phi_ab, plms, pndm
from scoresde.samplers.adaptive import dpm_adaptive, rk45, sde_adaptive
from scoresde.samplers.aliases import in_our_words
from scoresde.samplers.dpm_solver import dpm2m, dpm3m, dpmpp_2m, dpmpp_2m_sde, dpmpp_3m, dpmpp_3m_sde
from scoresde.samplers.edm import edm
from scoresde.samplers.langevin import langevin, pc
from scoresde.samplers.multistep import ddim, eab2, eab3, eab4, exponential_multistep
from scoresde.samplers.ode import ode, ode_adaptive
from scoresde.samplers.options import check_kinds, no_option, options_of
from scoresde.samplers.predictor_corrector import ddim_inverse, sa_solver, unipc
from scoresde.samplers.restart import restart, travel
from scoresde.samplers.runge_kutta import heun, midpoint, rk4, sheun
from scoresde.samplers.sde_steps import cas, ddpm, em, reverse_diffusion
from scoresde.samplers.singlestep import dpm2a, dpm2s, dpm3s, dpmpp_2s, dpmpp_2sa, dpmpp_3s, dpmpp_sde
from scoresde.samplers.solver import Solver

Builder = Callable[..., Solver]  # (sde, times, *, options) -> Solver


class _OwnSteps:
    """Stands for the builder of a sampler that has none, as it takes no times: false, and an error when called."""

    def __bool__(self) -> bool:
        return False

    def __call__(self, *args: Any, **options: Any) -> Solver:
        raise BadInput("this sampler chooses its own steps by rtol and atol: it takes no times")


OWN_STEPS: Builder = _OwnSteps()


@dataclass(frozen=True)
class Sampler:
    """A named sampler: its builder and what a user wants to know before choosing it.

    ``steps``, ``grid`` and ``final`` are its defaults, but for few steps those of ``by_steps``, (up to n steps, grid,
    final), n rising: by measurement (`benchmarks/grids.py`). ``nfe`` is its calls in n steps, a formula in n and the
    options. ``build`` makes it from times, ``adaptive`` the variant that chooses its own; a sampler has one or both.
    ``encode`` builds the one that runs from data to noise (deterministic samplers only): in noise space or in φ, as
    data space amplifies errors on the way up; ``encode_grid`` is its default grid. ``revision`` rises when its numbers
    change.
    """

    name: str
    build: Builder
    order: int | None
    stochastic: bool
    nfe: str
    use: str
    steps: int | None
    grid: str = "phi"
    final: str = "zero"
    adaptive: Builder | None = None
    encode: Builder | None = None
    encode_grid: str = "phi"
    by_steps: tuple[tuple[int, str, str], ...] = ()
    revision: int = 1

    def defaults(self, n: int) -> tuple[str, str]:
        """The grid and ending of n steps where none are given."""
        return next((grid, final) for most, grid, final in self.spans if most is None or n <= most)

    @property
    def spans(self) -> list[tuple[int | None, str, str]]:
        """(up to n steps, grid, final) for every number of steps; None for all the rest."""
        return [*self.by_steps, (None, self.grid, self.final)]

    def options(self, adaptive: bool = False) -> dict[str, Any]:
        """The options of the builder and their defaults, read off its signature."""
        return options_of(self.builder(adaptive))

    def builder(self, adaptive: bool = False) -> Builder:
        """The builder of runs with fixed steps, or of adaptive ones."""
        return self.adaptive if self.adaptive and (adaptive or not self.build) else self.build

    def check_options(self, options: dict[str, Any], adaptive: bool = False) -> None:
        """Refuse an option this sampler cannot use, or a value that is not of its type."""
        known = self.options(adaptive)
        for name in options:
            if name in known:
                continue
            if self.adaptive and name in self.options(not adaptive):
                rule = (
                    "needs a number of steps" if adaptive else "belongs to an adaptive run: give no steps, nfe or grid"
                )
                raise BadInput(f"sampler {self.name!r}: option {name!r} {rule}")
            raise no_option(f"sampler {self.name!r}", name, known)
        check_kinds(self.builder(adaptive), options)


_EPS = {k: partial(exponential_multistep, order=k, space="eps") for k in (2, 3, 4)}  # encoders of data-space tables

# name, builder, order, draws noise, NFE(n), use when, steps, grid, final
_ALL = (
    # The probability flow, several calls a step
    Sampler("ode", ode, 4, False, "4n", "the default: smooth, accurate, invertible; adaptive when no steps are given",
            None, "phi", "t_min", adaptive=ode_adaptive, encode=ode),
    Sampler("rk4", rk4, 4, False, "4n", "the step of ode, without its reads of the device", 10, "phi", "t_min",
            encode=rk4),
    Sampler("heun", heun, 2, False, "2n", "two calls a step in the angle", 20, "logitnormal:1.5",
            "t_min", encode=heun, by_steps=((10, "logitnormal:2", "t_min"),), revision=2),
    Sampler("midpoint", midpoint, 2, False, "2n", "10 to 30 calls on smooth problems: two calls a step in the angle",
            12, "phi", "t_min", encode=midpoint, by_steps=((5, "logitnormal:1.5", "t_min"),), revision=2),
    Sampler("edm", edm, 2, False, "2n - 1", "EDM's models as published; s_churn adds noise", 18, "karras",
            encode=edm),
    Sampler("dpm2s", dpm2s, 2, False, "2n - 1", "DPM-Solver-2 as published; k-diffusion's DPM2", 12, "logitnormal:2",
            encode=dpm2s, by_steps=((5, "logitnormal:2", "zero"), (10, "logitnormal:2.5", "zero")), revision=2),
    Sampler("dpm3s", dpm3s, 3, False, "3n", "DPM-Solver-3 as published", 10, "logitnormal:2.5", "t_min",
            encode=dpm3s, revision=2),
    Sampler("dpm++2s", dpmpp_2s, 2, False, "2n", "DPM-Solver++(2S): data space, two calls a step", 12,
            "logitnormal:2.5", "t_min", encode=dpm2s, revision=2),
    Sampler("dpm++3s", dpmpp_3s, 3, False, "3n", "DPM-Solver++(3S): data space, three calls a step", 10,
            "logitnormal:2.5", "t_min", encode=dpm3s, revision=2),
    # The probability flow, one call a step
    Sampler("ddim", ddim, 1, False, "n", "the familiar baseline; eta 1 is ancestral DDPM", 50,
            encode=ddim_inverse, encode_grid="lambda", by_steps=((50, "logitnormal:2", "zero"),), revision=3),
    Sampler("eab2", eab2, 2, False, "n", "exact second order in λ; tau adds noise", 20, "logitnormal:2.5", "zero",
            encode=_EPS[2], encode_grid="lambda", revision=2),
    Sampler("eab3", eab3, 3, False, "n", "exact third order in λ: 20 calls and more", 30, "lambda", "t_min",
            encode=_EPS[3], encode_grid="lambda", by_steps=((10, "logitnormal:2.5", "zero"),), revision=2),
    Sampler("eab4", eab4, 4, False, "n", "exact fourth order in λ: 50 calls and more", 50, "lambda", "t_min",
            encode=_EPS[4], encode_grid="lambda"),
    Sampler("dpm2m", dpm2m, 2, False, "n", "multistep DPM-Solver-2, noise space", 20, "logitnormal:2.5", "t_min",
            encode=dpm2m, encode_grid="lambda", revision=2),
    Sampler("dpm3m", dpm3m, 2, False, "n", "multistep DPM-Solver-3 as published, of order 2", 20, "lambda", "t_min",
            encode=dpm3m, encode_grid="lambda", by_steps=((20, "logitnormal:3", "t_min"),), revision=2),
    Sampler("dpm++2m", dpmpp_2m, 2, False, "n", "10 to 30 calls, as published", 20, "logitnormal:2.5", "zero",
            encode=dpm2m, encode_grid="lambda", revision=2),
    Sampler("dpm++3m", dpmpp_3m, 2, False, "n", "as published, of order 2; eab3 is of order 3", 20,
            "logitnormal:2.5", "zero", encode=dpm3m, encode_grid="lambda", revision=2),
    Sampler("deis", deis, 3, False, "n", "5 to 20 calls", 10, "logitnormal:2.5", "t_min",
            encode=deis, encode_grid="lambda", revision=2),
    Sampler("lms", lms, 4, False, "n", "k-diffusion's LMS, exact in the noise level", 20, "logitnormal:2.5", "t_min",
            encode=partial(lms, order=2), encode_grid="lambda", revision=2),
    Sampler("ipndm", ipndm, 2, False, "n", "4 to 15 calls: the least error here", 10, "logitnormal:2",
            "t_min", encode=ipndm, encode_grid="lambda", by_steps=((6, "logitnormal:2.5", "t_min"),), revision=2),
    Sampler("plms", plms, 2, False, "n + 1", "PLMS of latent diffusion", 50, "logitnormal:2.5", "t_min",
            encode=plms, encode_grid="lambda", by_steps=((19, "logitnormal:3", "t_min"),), revision=2),
    Sampler("pndm", pndm, 2, False, "n + 3*min(n, 3)", "PNDM with its Runge-Kutta start", 50, "logitnormal:2.5",
            "t_min", encode=pndm, encode_grid="lambda", by_steps=((11, "karras", "t_min"),), revision=2),
    Sampler("phi-ab", phi_ab, 3, False, "n", "40 to 100 calls: Adams-Bashforth in the angle", 20, "logitnormal:2",
            "t_min", encode=phi_ab, encode_grid="lambda", revision=2),
    Sampler("unipc", unipc, 4, False, "n", "16 to 40 calls: predictor and corrector", 20, "logitnormal:2.5", "t_min",
            encode=partial(unipc, space="eps"), encode_grid="lambda", revision=2,
            by_steps=((20, "logitnormal:2", "t_min"),)),
    # To a tolerance, each sample with its own steps
    Sampler("rk45", OWN_STEPS, 5, False, "by tolerance", "the flow to a tolerance, steps for each sample", None,
            "phi", "t_min", adaptive=rk45, encode=rk45),
    Sampler("dpm-adaptive", OWN_STEPS, 3, False, "by tolerance", "DPM-Solver-23, steps for each sample", None,
            "lambda", "t_min", adaptive=dpm_adaptive, encode=dpm_adaptive),
    Sampler("sde-adaptive", OWN_STEPS, None, True, "by tolerance", "the reverse SDE, steps for each sample", None,
            "t", "denoise", adaptive=sde_adaptive),
    # The reverse SDE
    Sampler("ddpm", ddpm, 1, True, "n", "hundreds of calls: the founding chain, forgives network error", 1000),
    Sampler("em", em, 1, True, "n", "hundreds of calls: the plain reverse SDE, for study", 1000,
            by_steps=((20, "logitnormal:2", "zero"),), revision=2),
    Sampler("reverse-diffusion", reverse_diffusion, 1, True, "n", "the reverse SDE matched to the forward chain", 1000),
    Sampler("sheun", sheun, 2, True, "2n - 1", "50 calls and more: the reverse SDE at second order", 50,
            "logitnormal:2.5", revision=2),
    Sampler("sa-solver", sa_solver, 2, True, "n", "20 to 100 calls with noise, any tau", 30, "logitnormal:3",
            "t_min", by_steps=((20, "logitnormal:1.5", "t_min"),), revision=2),
    Sampler("dpm++2m-sde", dpmpp_2m_sde, 2, True, "n", "20 to 100 calls with noise", 30, "logitnormal:3",
            by_steps=((10, "lambda", "t_min"), (20, "logitnormal:2", "zero")), revision=2),
    Sampler("dpm++3m-sde", dpmpp_3m_sde, 2, True, "n", "50 calls and more with noise", 50, "logitnormal:3",
            by_steps=((10, "logitnormal:1.5", "zero"), (20, "logitnormal:2", "zero")), revision=2),
    Sampler("dpm2a", dpm2a, 2, True, "2n - 1", "k-diffusion's DPM2 a", 50, "logitnormal:2.5", revision=2),
    Sampler("dpm++2sa", dpmpp_2sa, 2, True, "2n - 1", "k-diffusion's DPM++ 2S a", 50, "logitnormal:2.5",
            by_steps=((10, "logitnormal:2", "zero"),), revision=2),
    Sampler("dpm++sde", dpmpp_sde, 2, True, "2n - 1", "20 to 100 calls with noise: k-diffusion's DPM++ SDE", 30,
            "logitnormal:2.5", by_steps=((10, "logitnormal:2", "zero"),), revision=2),
    Sampler("cas", cas, 1, True, "n", "score networks: consistent annealed sampling, one call a level", 500),
    # With noise put back on the way
    Sampler("restart", restart, None, True, "2n - 1 + 2*repeats*inner", "30 calls and more: contracts earlier errors",
            18, "logitnormal:2.5", by_steps=((6, "karras", "zero"),), revision=2),
    Sampler("travel", travel, 1, True, "n + repeats*min(jump or 10, n - 1)*max(1, (n - 1)//(jump or 10))",
            "inpainting and conditions: RePaint's", 250),
    Sampler("pc", pc, None, True, "n + correctors*(n - 1)", "hundreds of calls: a predictor with Langevin steps", 500),
    Sampler("langevin", langevin, None, True, "repeats*n + 1", "score networks alone: Langevin steps at each level",
            100, "lambda"),
)  # fmt: skip
SAMPLERS: dict[str, Sampler] = {sampler.name: sampler for sampler in _ALL}


def find_sampler(name: str | Sampler) -> Sampler:
    """The sampler of this name, or an error that lists them all and the nearest, or translates another toolkit's."""
    if isinstance(name, Sampler):
        return name
    if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise BadInput(f"sampler = {name!r:.60}: give a name of scoresde.SAMPLERS, 'auto', or a Sampler")
    if name not in SAMPLERS and (words := in_our_words(name)):
        raise BadInput(f"unknown sampler {name!r}: {words}")
    choose("sampler", name, [*SAMPLERS, "auto"])
    if name == "auto":
        raise BadInput("sampler 'auto' is a choice for a budget of calls, made by sample: name a sampler here")
    return SAMPLERS[name]
