"""`sample` and `encode`: from a denoiser, a sampler's name and a seed to a frozen result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scoresde import __version__
from scoresde.denoiser import AnyDenoiser
from scoresde.errors import BadInput, choose, positive
from scoresde.grids import Times, make_grid
from scoresde.noise import START, DeviceNoise, Noise, SeededNoise
from scoresde.samplers.registry import SAMPLERS, Sampler, find_sampler
from scoresde.samplers.solver import Callback, Solver
from scoresde.sde import SDE
from scoresde.transforms import Checkpointed


@dataclass(frozen=True, eq=False)
class Result:
    """What a run returns.

    x             the samples (n, *event), in the denoiser's (scaled) space
    nfe           denoiser calls per sample; with batches of an adaptive run, the largest
    network_evals network rows per sample: a guided pair is one call and two evaluations
    times         the grid that was used (the two ends of an adaptive run)
    seed          None when the noise was given by the caller
    settings      everything needed to draw x again, defaults filled in
    """

    x: Tensor
    nfe: int
    network_evals: int
    times: Times
    seed: int | None
    settings: Mapping[str, Any] = field(repr=False)


def plan_run(
    sde: SDE,
    sampler: Sampler,
    steps: int | None = None,
    nfe: int | None = None,
    grid: str | Sequence[float] | None = None,
    final: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> tuple[Solver, dict[str, Any]]:
    """The solver of a request, every fault found before any network call, and its settings with defaults filled in."""
    options = dict(options or {})
    if steps is not None and nfe is not None:
        raise BadInput(f"steps = {steps} and nfe = {nfe}: give one, the grid intervals or the budget of network calls")
    for name, value in {"steps": steps, "nfe": nfe}.items():
        if value is not None:
            positive(name, value)
    adaptive = sampler.adaptive is not None and sampler.steps is None and steps is None and nfe is None and grid is None
    sampler.check_options(options, adaptive)
    filled = {**sampler.options(adaptive), **options}
    if adaptive:
        final = choose("final of an adaptive run", final or "t_min", ("t_min", "denoise"))
        times = (sde.t_max, sde.t_min) if final == "t_min" else (sde.t_max, sde.t_min, 0.0)
        solver = sampler.adaptive(sde, times, **filled)  # pyright: ignore[reportOptionalCall]
        return solver, {"sampler": sampler.name, "adaptive": True, "final": final, "options": filled}
    given = grid is not None and not isinstance(grid, str)
    if given and (steps or nfe or final):
        raise BadInput("a list of times is used verbatim: give no steps, nfe or final with it")
    chain = sde.default_grid if sampler.adaptive is None else None  # rk4 calls between knots wherever they are
    grid, final = grid or chain or sampler.grid, final or sampler.final
    if nfe is not None:
        steps = _intervals(sde, sampler, nfe, str(grid), final, filled)
    solver = sampler.build(sde, make_grid(grid, sde, steps or sampler.steps, final), **filled)
    name = {"grid": "given"} if given else {"grid": grid, "final": final}
    return solver, {
        "sampler": sampler.name,
        "adaptive": False,
        "steps": len(solver.times) - 1,
        **name,
        "options": filled,
    }


def _intervals(sde: SDE, sampler: Sampler, nfe: int, grid: str, final: str, options: dict[str, Any]) -> int:
    """The most intervals whose calls stay within a budget: calls grow with intervals, so by bisection."""

    def calls(n: int) -> int:
        return sampler.build(sde, make_grid(grid, sde, n, final), **options).nfe or 0

    if calls(1) > nfe:
        raise BadInput(f"nfe = {nfe} is below the {calls(1)} calls of one step of {sampler.name!r} (final {final!r})")
    low, high = 1, nfe + 1  # low fits, high does not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if calls(middle) <= nfe else (low, middle)
    return low


def sample(
    denoiser: AnyDenoiser,
    shape: Sequence[int],
    sampler: str = "ode",
    steps: int | None = None,
    *,
    nfe: int | None = None,
    seed: int = 0,
    grid: str | Sequence[float] | None = None,
    final: str | None = None,
    x: Tensor | None = None,
    noise: str | Noise = "cpu",
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    batch_size: int | None = None,
    first: int = 0,
    callback: Callback | None = None,
    cond: Mapping[str, Any] | None = None,
    grad: bool | str = False,
    **options: Any,
) -> Result:
    """Draw ``shape[0]`` samples of event shape ``shape[1:]``.

    steps | nfe   intervals of the grid, or a budget of network calls; neither: the sampler's default
    grid, final   a name of `scoresde.grids`, or a list of times used verbatim; how the run ends
    x             the state to start from at the first time, instead of a draw from the prior
    noise         "cpu" (a function of seed and sample index alone), "device" (faster, not reproducible elsewhere),
                  or your own (step, draw, x) -> tensor
    first         index of the first sample: first=5 with one sample is row 5 of a larger run
    batch_size    samples per network call; changes nothing but memory and rounding
    dtype, device of the state; default: those of x, else float32 on the CPU
    callback      (i, t, t_next, x, x0_hat, nfe), once per interval, for each batch in turn
    grad          whether gradients flow through the run; "checkpoint": without keeping the network's activations
    cond          passed to the network; tensors with one row per sample are cut into the same batches
    options       the sampler's own, such as eta, rtol, snr: see ``SAMPLERS[name].options()``

    Raises BadInput before the first call for anything unknown or impossible, SolverFailure if a solver cannot finish.

    >>> import torch, scoresde
    >>> data = scoresde.Gaussian(torch.zeros(2), torch.eye(2))
    >>> out = scoresde.sample(data.denoiser(scoresde.VPSDE()), (5, 2), "ddim", steps=10)
    >>> out.x.shape, out.nfe
    (torch.Size([5, 2]), 10)
    """
    _check_denoiser(denoiser)
    shape = tuple(shape)
    if not shape or shape[0] < 1 or not all(isinstance(size, int) for size in shape):
        raise BadInput(f"shape = {shape}: the first entry is the number of samples, at least 1")
    if x is not None and tuple(x.shape) != shape:
        raise BadInput(f"x has shape {tuple(x.shape)}, the samples asked for {shape}")
    sde, cond = denoiser.sde, dict(cond or {})
    dtype = dtype or (torch.float32 if x is None else x.dtype)
    device = device or ("cpu" if x is None else x.device)
    solver, settings = plan_run(sde, find_sampler(sampler), steps, nfe, grid, final, options)
    if not isinstance(grad, bool) and choose("grad", grad, ("checkpoint",)):
        denoiser = Checkpointed(denoiser)
    size = positive("batch_size", shape[0] if batch_size is None else batch_size)
    if not isinstance(first, int) or first < 0:
        raise BadInput(f"first = {first!r}: the index of a sample is an integer from 0")
    if isinstance(noise, str):
        choose("noise", noise, ("cpu", "device"))
    fast = DeviceNoise(seed, torch.device(device)) if noise == "device" else None
    parts: list[Tensor] = []
    calls = 0
    with torch.set_grad_enabled(bool(grad)):
        for begin in range(0, shape[0], size):
            rows = slice(begin, min(begin + size, shape[0]))
            source = fast or (
                SeededNoise(seed, range(first + rows.start, first + rows.stop)) if noise == "cpu" else noise
            )
            assert not isinstance(source, str)
            if x is None:
                blank = torch.empty((rows.stop - rows.start, *shape[1:]), dtype=dtype, device=device)
                state = source(START, 0, blank) * sde.prior_std(solver.times[0])
            else:
                state = x[rows].to(dtype=dtype, device=device)
            state, used = solver.run(denoiser, state, source, callback, **_rows(cond, rows, shape[0]))
            parts.append(state)
            calls = max(calls, used)
    used_seed = seed if isinstance(noise, str) else None
    settings = {
        **settings,
        "seed": used_seed,
        "noise": noise if isinstance(noise, str) else "given",
        "first": first,
        "dtype": str(dtype).removeprefix("torch."),
        "device": str(device),
        "revision": find_sampler(sampler).revision,
        "scoresde": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
    }
    evals = calls * denoiser.rows_per_call
    return Result(torch.cat(parts), calls, evals, solver.times, used_seed, settings)


def encode(
    denoiser: AnyDenoiser,
    x: Tensor,
    sampler: str = "ode",
    steps: int = 100,
    *,
    grid: str = "phi",
    cond: Mapping[str, Any] | None = None,
    callback: Callback | None = None,
    grad: bool = False,
) -> Result:
    """Carry data x, taken as the state at t_min, along the probability flow up to noise at t_max.

    The inverse of ``sample(..., x=latent, final="t_min")`` with the same sampler, up to the sampler's order.

    >>> import torch, scoresde
    >>> d = scoresde.Gaussian(torch.zeros(2), torch.eye(2)).denoiser(scoresde.VPSDE())
    >>> scoresde.encode(d, torch.ones(1, 2), "ode", steps=10).x.allclose(torch.ones(1, 2), atol=1e-3)
    True
    """
    _check_denoiser(denoiser)
    found = find_sampler(sampler)
    if found.encode is None:
        able = [s.name for s in SAMPLERS.values() if s.encode]
        raise BadInput(f"sampler {sampler!r} cannot encode: choose from {', '.join(able)}")
    times = tuple(reversed(make_grid(grid, denoiser.sde, steps, "t_min")))
    solver = found.encode(denoiser.sde, times)
    with torch.set_grad_enabled(bool(grad)):
        state, calls = solver.run(denoiser, x, None, callback, **dict(cond or {}))
    settings = {"encode": True, "sampler": sampler, "steps": steps, "grid": grid, "scoresde": __version__}
    return Result(state, calls, calls * denoiser.rows_per_call, solver.times, None, settings)


def _rows(cond: dict[str, Any], rows: slice, n: int) -> dict[str, Any]:
    """The rows of every conditioning tensor that has one per sample; everything else untouched."""
    return {k: v[rows] if isinstance(v, Tensor) and v.ndim and len(v) == n else v for k, v in cond.items()}


def _check_denoiser(denoiser: Any) -> None:
    if not isinstance(denoiser, AnyDenoiser):
        raise TypeError(
            f"sample needs a denoiser, got {type(denoiser).__name__}:"
            " wrap the network, scoresde.Denoiser(network, sde, prediction)"
        )
