"""Every sampler by name: one builder and one line here make a new one in the library, on the command line, in tests."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from scoresde.errors import BadInput, choose, nearest
from scoresde.samplers.multistep import ddim, dpmpp_2m, eab2, eab3, exponential_multistep
from scoresde.samplers.ode import ode, ode_adaptive
from scoresde.samplers.sde_steps import ddpm, em, langevin, pc
from scoresde.samplers.solver import Solver

Builder = Callable[..., Solver]  # (sde, times, *, options) -> Solver


@dataclass(frozen=True)
class Sampler:
    """A named sampler: its builder and what a user wants to know before choosing it.

    ``steps``, ``grid`` and ``final`` are its defaults and ``nfe`` its calls in n steps of them (m: correctors or
    repeats). ``adaptive`` builds the variant without a step count, ``encode`` the one that runs from data to noise
    (deterministic samplers only). ``revision`` rises when its numbers change.
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
    revision: int = 1

    def options(self, adaptive: bool = False) -> dict[str, Any]:
        """The options of the builder and their defaults, read off its signature."""
        build = self.adaptive if adaptive and self.adaptive else self.build
        parameters = inspect.signature(build).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}

    def check_options(self, options: dict[str, Any], adaptive: bool = False) -> None:
        """Refuse an option this sampler cannot use."""
        known = self.options(adaptive)
        for name in options:
            if name in known:
                continue
            if self.adaptive and name in self.options(not adaptive):
                rule = (
                    "needs a number of steps" if adaptive else "belongs to an adaptive run: give no steps, nfe or grid"
                )
                raise BadInput(f"sampler {self.name!r}: option {name!r} {rule}")
            allowed = f"choose from {', '.join(known)}" if known else "it has none"
            raise BadInput(f"sampler {self.name!r} has no option {name!r}: {allowed}{nearest(name, known)}")


_AB = partial(partial, exponential_multistep, space="eps")
_ALL = (
    Sampler("ode", ode, 4, False, "4n", "the default: smooth, accurate, invertible; adaptive when no steps are given",
            None, "phi", "t_min", adaptive=ode_adaptive, encode=ode),
    Sampler("ddim", ddim, 1, False, "n", "the familiar baseline; eta 1 is ancestral DDPM", 50, encode=_AB(order=1)),
    Sampler("dpm++2m", dpmpp_2m, 2, False, "n", "10 to 30 calls, as published", 20, "lambda", "t_min"),
    Sampler("eab2", eab2, 2, False, "n", "10 to 30 calls, exact second order", 20, "lambda", "t_min",
            encode=_AB(order=2)),
    Sampler("eab3", eab3, 3, False, "n", "20 calls and more, exact third order", 30, "lambda", "t_min",
            encode=_AB(order=3)),
    Sampler("ddpm", ddpm, 1, True, "n", "hundreds of calls: the founding chain, forgives network error", 1000),
    Sampler("em", em, 1, True, "n", "hundreds of calls: the plain reverse SDE, for study", 1000),
    Sampler("pc", pc, 1, True, "n + m(n-1)", "hundreds of calls: a predictor with m Langevin correctors", 500),
    Sampler("langevin", langevin, None, True, "mn + 1", "score networks alone: m Langevin steps at each level",
            100, "lambda"),
)  # fmt: skip
SAMPLERS: dict[str, Sampler] = {sampler.name: sampler for sampler in _ALL}


def find_sampler(name: str) -> Sampler:
    """The sampler of this name, or an error that lists them all and the nearest."""
    return SAMPLERS[choose("sampler", name, SAMPLERS)]
