"""From a request to a solver: a sampler with its grid, its ending and its options, defaults filled in."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from scoresde import __version__
from scoresde.analytic_start import AnalyticStart, Start
from scoresde.errors import BadInput, choose, positive
from scoresde.grids import Numbers, Spacing, Times, make_grid, respacing
from scoresde.samplers.checks import check_start, is_list
from scoresde.samplers.options import check_kinds, no_option, options_of
from scoresde.samplers.registry import SAMPLERS, Sampler
from scoresde.samplers.solver import Solver
from scoresde.sde import SDE

ENCODE_STEPS = 100  # where none are given


def plan_run(
    sde: SDE,
    sampler: Sampler,
    steps: int | None = None,
    nfe: int | None = None,
    grid: str | Spacing | Numbers | None = None,
    final: str | None = None,
    options: Mapping[str, Any] | None = None,
    start: Start | None = None,
) -> tuple[Solver, dict[str, Any]]:
    """The solver of a request, every fault found before any network call, and its settings with defaults filled in."""
    options = dict(options or {})
    if steps is not None and nfe is not None:
        raise BadInput(f"steps = {steps} and nfe = {nfe}: give one, the grid intervals or the budget of network calls")
    for name, value in {"steps": steps, "nfe": nfe}.items():
        if value is not None:
            positive(name, value)
    check_start(start)
    if nfe is not None and not sampler.build and grid is None:  # a cap
        if "max_nfe" in options:
            raise BadInput(f"nfe = {nfe} and max_nfe = {options['max_nfe']}: give one, the most calls of a sample")
        options["max_nfe"], nfe = nfe, None
    asked = steps is not None or nfe is not None or grid is not None
    adaptive = sampler.adaptive is not None and sampler.steps is None and not asked
    if asked and not sampler.build:
        raise BadInput(f"sampler {sampler.name!r} chooses its own steps by rtol and atol: give no steps or grid")
    sampler.check_options(options, adaptive)
    numbers = {name: value.item() if isinstance(value, np.generic) else value for name, value in options.items()}
    filled = {**sampler.options(adaptive), **numbers}
    if adaptive:
        return _plan_adaptive(sde, sampler, final, filled, start)
    return _plan_fixed(sde, sampler, steps, nfe, grid, final, filled, start)


def _plan_adaptive(
    sde: SDE, sampler: Sampler, final: str | None, options: dict[str, Any], start: Start | None
) -> tuple[Solver, dict[str, Any]]:
    """`plan_run` where the error decides the steps."""
    if isinstance(start, AnalyticStart):
        raise BadInput(f"an analytic start needs a grid: give {sampler.name!r} a number of steps, or another sampler")
    final = choose("final of an adaptive run", final or sampler.final, ("t_min", "denoise"))
    first = start.time(sde) if start else sde.t_max
    times = (first, sde.t_min) if final == "t_min" else (first, sde.t_min, 0.0)
    assert sampler.adaptive
    solver = sampler.adaptive(sde, times, **options)
    late = {"start": start.setting} if start else {}
    return solver, {"sampler": sampler.name, "adaptive": True, "final": final, **late, "options": options}


def _plan_fixed(
    sde: SDE,
    sampler: Sampler,
    steps: int | None,
    nfe: int | None,
    grid: str | Spacing | Numbers | None,
    final: str | None,
    options: dict[str, Any],
    start: Start | None,
) -> tuple[Solver, dict[str, Any]]:
    """`plan_run` on a grid."""
    given = is_list(grid)
    if given and (steps or nfe or final or start):
        raise BadInput("a list of times is used verbatim: give no steps, nfe, final or start with it")
    if (kept := respacing(grid) is not None) and nfe is not None:
        raise BadInput(f"grid {grid!r} has a number of steps of its own: give no nfe = {nfe}")
    first = start.time(sde) if start else None

    def chosen(n: int | None) -> tuple[str | Spacing | Numbers, str]:
        """The grid and ending of n steps."""
        by_default, end = sampler.defaults(n or 1)
        if sampler.adaptive is None:  # ode calls between knots wherever they are
            by_default = on_chain(by_default, sde)
        return by_default if grid is None else grid, final or ("zero" if kept else end)

    def laid(n: int | None) -> Times:
        name, end = chosen(n)
        return make_grid(name, sde, n, end, first)

    if nfe is not None:
        steps = _intervals(nfe, sampler, laid, sde, options)
    n = steps if kept else steps or sampler.steps
    solver = sampler.build(sde, laid(n), **options)
    used, end = chosen(n)
    named = used if isinstance(used, str) else "function"
    name = {"grid": "given"} if given else {"grid": named, "final": end, "start": start.setting if start else 0.0}
    return solver, {
        "sampler": sampler.name,
        "adaptive": False,
        "steps": len(solver.times) - 1,
        **name,
        "options": options,
    }


def on_chain(grid: str, sde: SDE) -> str:
    """A grid by name at the whole indices of a chain, whose network knows no others."""
    return f"{grid}@index" if sde.by_index else grid


def plan_encode(
    sde: SDE, sampler: Sampler, steps: int | None, grid: str | Spacing | Numbers | None, options: dict[str, Any]
) -> tuple[Solver, dict[str, Any]]:
    """The solver of a run from data to noise, and its settings."""
    if sampler.encode is None:
        able = [s.name for s in SAMPLERS.values() if s.encode]
        raise BadInput(f"sampler {sampler.name!r} cannot encode: choose from {', '.join(able)}")
    own = sampler.adaptive is not None and steps is None and grid is None
    if not own and not sampler.build:
        raise BadInput(f"sampler {sampler.name!r} chooses its own steps by rtol and atol: give no steps or grid")
    given = is_list(grid)
    if steps is not None and given:
        raise BadInput("a list of times is used verbatim: give no steps with it")
    build = sampler.adaptive if own and sampler.adaptive else sampler.encode
    for name in options:
        if name not in options_of(build):
            raise no_option(f"encoding by {sampler.name!r}", name, options_of(build))
    check_kinds(build, options)
    if grid is None and not own:
        grid = sampler.encode_grid if math.isfinite(sde.knots([sde.t_max]).lam[0]) else "phi"
        grid = grid if sampler.adaptive else on_chain(grid, sde)
    if own:
        times = (sde.t_min, sde.t_max)
    else:
        assert grid is not None
        times = make_grid(grid, sde, ENCODE_STEPS if steps is None else steps, "t_min")[::-1]
        if times[0] == 0:
            raise BadInput(f"grid: data are encoded from t_min = {sde.t_min:g} or above: leave out its last time, 0")
    settings = {
        "encode": True,
        "sampler": sampler.name,
        "adaptive": own,
        "steps": None if own else len(times) - 1,
        "grid": grid if isinstance(grid, str) else "given" if given else "function" if grid is not None else None,
        "options": {**options_of(build), **options},
        "scoresde": __version__,
    }
    return build(sde, times, **options), settings


def _intervals(nfe: int, sampler: Sampler, grid: Callable[[int], Times], sde: SDE, options: dict[str, Any]) -> int:
    """The most intervals whose calls stay within a budget: calls grow with intervals, so by bisection."""

    def calls(n: int) -> int:
        try:
            return sampler.build(sde, grid(n), **options).nfe or 0
        except BadInput:  # options that so few steps cannot take: more may
            return 0

    if calls(1) > nfe:
        raise BadInput(f"nfe = {nfe} is below the {calls(1)} calls of one step of {sampler.name!r}")
    low, high = 1, nfe + 1  # low fits, high does not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if calls(middle) <= nfe else (low, middle)
    return low
