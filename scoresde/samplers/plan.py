"""From a request to a run: the solver of a sampler's name and grid, and the states and noise it starts from.

Every fault of a request is found here, before any network call.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scoresde import __version__
from scoresde.analytic_start import AnalyticStart, Start
from scoresde.denoiser import AnyDenoiser, layers
from scoresde.errors import BadInput, choose, positive
from scoresde.grids import Numbers, Spacing, Times, make_grid, respacing
from scoresde.noise import START, DeviceNoise, Noise, SeededNoise, check_seed
from scoresde.samplers.auto import BUDGET, choose_for
from scoresde.samplers.checks import (
    check_denoiser,
    check_device,
    check_first,
    check_grad,
    check_hook,
    check_index,
    check_shape,
    check_start,
    check_state,
    checked,
    is_list,
)
from scoresde.samplers.options import check_kinds, no_option, options_of
from scoresde.samplers.registry import SAMPLERS, Sampler, find_sampler
from scoresde.samplers.solver import Hook, Solver, cut
from scoresde.samplers.table import Table
from scoresde.sde import SDE
from scoresde.transforms import Checkpointed

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
        if isinstance(start, AnalyticStart):
            raise BadInput(
                f"an analytic start needs a grid: give {sampler.name!r} a number of steps, or another sampler"
            )
        final = choose("final of an adaptive run", final or sampler.final, ("t_min", "denoise"))
        first = start.time(sde) if start else sde.t_max
        times = (first, sde.t_min) if final == "t_min" else (first, sde.t_min, 0.0)
        assert sampler.adaptive
        solver = sampler.adaptive(sde, times, **filled)
        late = {"start": start.setting} if start else {}
        return solver, {"sampler": sampler.name, "adaptive": True, "final": final, **late, "options": filled}
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
        steps = _intervals(nfe, sampler, laid, sde, filled)
    n = steps if kept else steps or sampler.steps
    solver = sampler.build(sde, laid(n), **filled)
    used, end = chosen(n)
    named = used if isinstance(used, str) else "function"
    name = {"grid": "given"} if given else {"grid": named, "final": end, "start": start.setting if start else 0.0}
    return solver, {
        "sampler": sampler.name,
        "adaptive": False,
        "steps": len(solver.times) - 1,
        **name,
        "options": filled,
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


def _brownian(seed: int, indices: Sequence[int], solver: Solver) -> Noise:
    from scoresde.brownian import brownian

    if not isinstance(solver, Table):
        raise BadInput(
            "noise 'brownian' is laid along a table of rows: this sampler has none, or finds its numbers as it runs"
        )
    return brownian(seed, indices, solver)


# Where noise comes from, for the samples of these indices; "device" is one stream for all of a run.
SOURCES: dict[str, Callable[[int, Sequence[int], Solver], Noise]] = {
    "cpu": lambda seed, indices, solver: SeededNoise(seed, indices),
    "brownian": _brownian,
}


@dataclass(frozen=True, eq=False)
class Job:
    """A request with every fault found and every default filled in: what a solver needs to run its batches."""

    denoiser: AnyDenoiser
    solver: Solver
    settings: dict[str, Any]
    shape: tuple[int, ...]
    x: Tensor | None
    noise: str | Noise
    start: Start | None
    dtype: torch.dtype
    device: torch.device
    cond: dict[str, Any]
    hook: Hook | None = None

    def batches(self, size: int) -> Iterator[tuple[Tensor, Noise, dict[str, Any]]]:
        """State at the first time, source of noise, and conditioning and hook, for ``size`` samples at a time."""
        seed, first, sde = self.settings["seed"], self.settings["first"], self.denoiser.sde
        fast = DeviceNoise(seed, self.device, first) if self.noise == "device" else None
        for begin in range(0, self.shape[0], size):
            rows = slice(begin, min(begin + size, self.shape[0]))
            indices = range(first + rows.start, first + rows.stop)
            if isinstance(self.noise, str):
                source: Noise = fast or SOURCES[self.noise](seed, indices, self.solver)
            else:
                source = checked(self.noise)
            t = sde.t_max if self.start else self.solver.times[0]
            if self.x is None:
                blank = torch.empty((len(indices), *self.shape[1:]), dtype=self.dtype, device=self.device)
                state = source(START, self.start.draw if self.start else 0, blank) * sde.prior_std(t)
            else:
                state = self.x[rows].to(dtype=self.dtype, device=self.device)
            if self.start:
                state = self.start.rows(rows, len(self.shape)).state(sde, state)
            given = cut(self.cond, rows, self.shape[0])
            if self.hook:
                of_rows = getattr(self.hook, "rows", None)
                given["hook"] = of_rows(rows) if of_rows else self.hook
            yield state, source, given


def brought(denoiser: AnyDenoiser) -> dict[str, Any]:
    """The conditions that a denoiser brings along."""
    return {name: rows for layer in layers(denoiser) for name, rows in layer.given.items()}


def prepare(
    denoiser: AnyDenoiser,
    shape: Sequence[int],
    sampler: str | Sampler = "ode",
    steps: int | None = None,
    *,
    nfe: int | None = None,
    seed: int = 0,
    grid: str | Spacing | Numbers | None = None,
    final: str | None = None,
    start: Start | None = None,
    x: Tensor | None = None,
    noise: str | Noise = "cpu",
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    first: int = 0,
    cond: Mapping[str, Any] | None = None,
    hook: Hook | None = None,
    grad: bool | str = False,
    **options: Any,
) -> Job:
    """The job of a request to `sample`, whose arguments these are."""
    check_denoiser(denoiser)
    shape = check_shape(shape)
    check_state(x, dtype)
    if x is not None and tuple(x.shape) != shape:
        raise BadInput(f"x has shape {tuple(x.shape)}, the samples asked for {shape}")
    dtype = dtype or (torch.float32 if x is None else x.dtype)
    device = check_device(device or ("cpu" if x is None else x.device))
    check_grad(grad)
    if sampler == "auto":
        if options:
            raise BadInput(f"sampler 'auto' sets its own options: give no {next(iter(options))!r}, or name the sampler")
        if steps is not None:
            raise BadInput(f"sampler 'auto' chooses for a budget of calls: give nfe = {steps!r}, not steps")
        if is_list(grid) or respacing(grid) is not None:
            raise BadInput("sampler 'auto' chooses for a budget of calls: give nfe, or name a sampler for this grid")
        nfe = positive("nfe", BUDGET if nfe is None else nfe)
        choice = choose_for(nfe, pure_noise=not math.isfinite(denoiser.sde.knots([denoiser.sde.t_max]).lam[0]))
        sampler, options = choice.sampler, dict(choice.options)
        grid = grid if grid is not None else on_chain(choice.grid, denoiser.sde)
    found = find_sampler(sampler)
    solver, settings = plan_run(denoiser.sde, found, steps, nfe, grid, final, options, start)
    if x is None and start is None:
        check_first(denoiser.sde, solver.times[0])
    check_hook(hook, found, solver)
    if isinstance(noise, str):
        choose("noise", noise, (*SOURCES, "device"))
    elif not callable(noise):
        raise BadInput(f"noise = {noise!r:.60}: give one of {', '.join((*SOURCES, 'device'))}, or a function")
    if cond is not None and not isinstance(cond, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise BadInput(f"cond = {cond!r:.60}: what the network is given by name, a dict")
    cond = {**brought(denoiser), **(cond or {})}
    denoiser = Checkpointed(denoiser) if grad == "checkpoint" else denoiser
    settings = {
        **settings,
        "seed": check_seed(seed) if isinstance(noise, str) else None,
        "noise": noise if isinstance(noise, str) else "given",
        "first": check_index(first),
        "dtype": str(dtype).removeprefix("torch."),
        "device": str(device),
        **({"hook": "given"} if hook else {}),
        **({"x": "given"} if x is not None else {}),
        "revision": found.revision,
        "scoresde": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
    }
    return Job(denoiser, solver, settings, shape, x, noise, start, dtype, device, cond, hook)
