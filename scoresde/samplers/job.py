"""A request to `sample` as a job: what its solver runs on, batch by batch.

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
from scoresde.analytic_start import Start
from scoresde.denoiser import AnyDenoiser, layers
from scoresde.errors import BadInput, choose, positive
from scoresde.grids import Numbers, Spacing, respacing
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
    check_state,
    checked,
    is_list,
)
from scoresde.samplers.plan import on_chain, plan_run
from scoresde.samplers.registry import Sampler, find_sampler
from scoresde.samplers.solver import Hook, Solver, cut
from scoresde.samplers.table import Table
from scoresde.transforms import Checkpointed


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
