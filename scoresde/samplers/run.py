"""`sample`, `trajectory` and `encode`: from a denoiser, a sampler's name and a seed to a frozen result."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scoresde.analytic_start import Start
from scoresde.denoiser import AnyDenoiser, layers
from scoresde.errors import BadInput, SolverFailure, positive
from scoresde.grids import Numbers, Spacing, Times
from scoresde.noise import Noise
from scoresde.samplers.checks import check_denoiser, check_grad, check_state
from scoresde.samplers.job import brought, prepare
from scoresde.samplers.plan import plan_encode
from scoresde.samplers.registry import Sampler, find_sampler
from scoresde.samplers.solver import Callback, Hook, Interval, Solution, Solver, cut
from scoresde.transforms import Checkpointed, Counted, Watched


@dataclass(frozen=True, eq=False)
class Result:
    """What a run returns.

    x             the samples (n, *event), in the denoiser's (scaled) space
    nfe           denoiser calls per sample: of an adaptive run, of the sample with the most
    network_evals network rows per sample, of the one with the most: a guided pair is one call and two evaluations
    times         the grid that was used (the two ends of an adaptive run)
    nfe_each      denoiser calls of each sample (n,): they differ where each has its own steps
    accepted      steps of each sample (n,), and the attempts of an adaptive run that were
    rejected      refused (n,); -1 where a library keeps them to itself (`ode` by a method of scipy)
    t_each        the time of each sample (n,): times[-1], unless on_limit="return" stopped it before
    seed          None when the noise was given by the caller
    settings      everything needed to draw x again, defaults filled in; what the caller handed over says "given"
    """

    x: Tensor
    nfe: int
    network_evals: int
    times: Times
    nfe_each: np.ndarray = field(repr=False)
    accepted: np.ndarray = field(repr=False)
    rejected: np.ndarray = field(repr=False)
    t_each: np.ndarray = field(repr=False)
    seed: int | None
    settings: Mapping[str, Any] = field(repr=False)


def sample(
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
    batch_size: int | None = None,
    first: int = 0,
    callback: Callback | None = None,
    cond: Mapping[str, Any] | None = None,
    hook: Hook | None = None,
    grad: bool | str = False,
    check: bool = True,
    **options: Any,
) -> Result:
    """Draw ``shape[0]`` samples of event shape ``shape[1:]``.

    sampler       a name of ``SAMPLERS``, a `Sampler` of your own, or "auto": the measured best for the number of calls
    steps | nfe   intervals of the grid, or a budget of network calls; neither: the sampler's default
    grid, final   a name of `scoresde.grids`, or a list of times used verbatim; how the run ends
    x             the state to start from at the first time, instead of a draw from the prior
    noise         "cpu" (a function of seed and sample index alone), "brownian" (that too, and of time: runs with more
                  steps refine the same path), "device" (faster, not reproducible elsewhere), or your own
                  (step, draw, x) -> tensor
    start         an `AnalyticStart`: the grid begins later, where the flow up to there is known from mean and variance;
                  or a `scoresde.guidance.Noised`: from data with noise
    first         index of the first sample: first=5 with one sample is row 5 of a larger run
    batch_size    samples per network call: memory and rounding; an adaptive `ode`, which shares its steps over a batch,
                  changes by about its tolerance
    dtype, device of the state; default: those of x, else float32 on the CPU
    callback      (i, t, t_next, x, x0_hat, nfe), once per interval, for each batch in turn
    grad          whether gradients flow through the run; "checkpoint": without keeping the network's activations
    check         whether to read at the end of a batch that it is finite; one that is not runs again to say where
    cond          passed to the network; tensors with one row per sample are cut into the same batches
    hook          (t, x, noise) -> x, acts on the state after every row of a sampler that is a table, jumps back up and
                  stages within a step included; noise() draws from the run's own source, see `samplers.solver.Hook`
    options       the sampler's own, such as eta, rtol, snr: see ``SAMPLERS[name].options()``

    Raises BadInput before the first call for anything unknown or impossible, SolverFailure if a solver cannot finish.

    >>> import torch, scoresde
    >>> data = scoresde.Gaussian(torch.zeros(2), torch.eye(2))
    >>> out = scoresde.sample(data.denoiser(scoresde.VPSDE()), (5, 2), "ddim", steps=10)
    >>> out.x.shape, out.nfe
    (torch.Size([5, 2]), 10)
    """
    job = prepare(
        denoiser,
        shape,
        sampler,
        steps,
        nfe=nfe,
        seed=seed,
        grid=grid,
        final=final,
        start=start,
        x=x,
        noise=noise,
        dtype=dtype,
        device=device,
        first=first,
        cond=cond,
        hook=hook,
        grad=grad,
        **options,
    )
    size = positive("batch_size", job.shape[0] if batch_size is None else batch_size)
    if callback is not None and not callable(callback):
        raise BadInput(f"callback = {callback!r:.60}: a function of (i, t, t_next, x, x0_hat, nfe)")
    parts: list[Solution] = []
    run, row = _counting(job.denoiser, job.shape[0])
    job = replace(job, cond={**job.cond, **row})
    with torch.set_grad_enabled(bool(grad)), _naming(denoiser):
        for state, source, given in job.batches(size):
            parts.append(job.solver.solve(run, state, source, callback, **given))
            if check and not bool(torch.isfinite(parts[-1].x).all()):
                raise _failure(job.settings, job.solver, run, state, source, given)
    return _result(run, job.solver, parts, job.settings["seed"], job.settings)


# What `sample` takes and `prepare` does not, since it is of a run of many batches: `trajectory` has no use for it.
ALL_AT_ONCE = {
    "batch_size": "ask for fewer samples, and for the next ones with first=",
    "callback": "do it in the loop over the intervals",
    "check": "look at the states in the loop",
}


def trajectory(
    denoiser: AnyDenoiser,
    shape: Sequence[int],
    sampler: str | Sampler = "ode",
    steps: int | None = None,
    *,
    x0: bool = True,
    grad: bool | str = False,
    **how: Any,
) -> Iterator[Interval]:
    """The same run as `sample`, one interval of the grid at a time, as one batch; ``how`` is the rest of what it takes.

    Each item has the fields (i, t, t_next, x, x0, nfe). Leave the loop when you have seen enough: what is not asked for
    is not computed, and without ``x0`` neither is x̂_0. Faults of the request are found at once, not at the first item.

    >>> import torch, scoresde
    >>> denoiser = scoresde.Gaussian(torch.zeros(2), torch.eye(2)).denoiser(scoresde.VPSDE())
    >>> [round(step.t_next, 2) for step in scoresde.trajectory(denoiser, (5, 2), "ddim", steps=3, grid="t")]
    [0.67, 0.33, 0.0]
    """
    for name, instead in ALL_AT_ONCE.items():
        if name in how:
            raise BadInput(f"{name}: a trajectory is one batch, seen interval by interval: {instead}")
    job = prepare(denoiser, shape, sampler, steps, grad=grad, **how)

    def intervals() -> Iterator[Interval]:
        with torch.set_grad_enabled(bool(grad)):
            state, source, given = next(job.batches(job.shape[0]))
        run = job.solver.iterate(job.denoiser, state, source, x0=x0, **given)
        while True:
            with torch.set_grad_enabled(bool(grad)):  # never while the caller's code runs
                interval = next(run, None)
            if interval is None:
                return
            yield interval

    return intervals()


def encode(
    denoiser: AnyDenoiser,
    x: Tensor,
    sampler: str | Sampler = "ode",
    steps: int | None = None,
    *,
    grid: str | Spacing | Numbers | None = None,
    batch_size: int | None = None,
    cond: Mapping[str, Any] | None = None,
    callback: Callback | None = None,
    grad: bool | str = False,
    **options: Any,
) -> Result:
    """Carry data x, taken as the state at t_min, along the probability flow up to noise at t_max.

    The inverse of ``sample(..., x=latent, final="t_min")`` with the same sampler and grid, up to the sampler's order.
    Without ``steps`` or ``grid`` an adaptive sampler chooses its own, and another takes 100 on its ``encode_grid``
    (told in the settings). A ``grid`` of your own is a list of falling times, as `sample` takes it, run backwards.

    >>> import torch, scoresde
    >>> d = scoresde.Gaussian(torch.zeros(2), torch.eye(2)).denoiser(scoresde.VPSDE())
    >>> scoresde.encode(d, torch.ones(1, 2), "ode", steps=10).x.allclose(torch.ones(1, 2), atol=1e-3)
    True
    """
    check_denoiser(denoiser)
    check_state(x)
    check_grad(grad)
    if not len(x):
        raise BadInput("x: no samples to encode")
    n = len(x)
    run, row = _counting(Checkpointed(denoiser) if grad == "checkpoint" else denoiser, n)
    solver, settings = plan_encode(denoiser.sde, find_sampler(sampler), steps, grid, options)
    size = positive("batch_size", n if batch_size is None else batch_size)
    parts: list[Solution] = []
    with torch.set_grad_enabled(bool(grad)), _naming(denoiser):
        for rows in (slice(first, first + size) for first in range(0, n, size)):
            given = cut({**brought(denoiser), **(cond or {}), **row}, rows, n)
            parts.append(solver.solve(run, x[rows], None, callback, **given))
            if not bool(torch.isfinite(parts[-1].x).all()):
                raise _failure(settings, solver, run, x[rows], None, given)
    return _result(run, solver, parts, None, settings)


def _counting(denoiser: AnyDenoiser, n: int) -> tuple[AnyDenoiser, dict[str, Tensor]]:
    """The denoiser, counting where its calls differ in their network rows, and the condition it then needs."""
    if not denoiser.varies:
        return denoiser, {}
    return Counted(denoiser, torch.zeros(n, dtype=torch.int64)), {"row": torch.arange(n)}


@contextmanager
def _naming(denoiser: AnyDenoiser) -> Generator[None]:
    """A solver's failure told with the guidance that may be its cause."""
    try:
        yield
    except SolverFailure as failure:
        if found := [layer.guidance for layer in layers(denoiser) if layer.guidance]:
            raise SolverFailure(f"{failure} (under {' and '.join(found)}: try a smaller one)") from failure
        raise


def _failure(
    settings: Mapping[str, Any],
    solver: Solver,
    denoiser: AnyDenoiser,
    state: Tensor,
    noise: Noise | None,
    given: dict[str, Any],
) -> SolverFailure:
    """Why a batch ended in values that are not finite, from a second run that looks at every call."""
    name = settings["sampler"]
    try:
        with torch.no_grad():
            solver.run(Watched(denoiser), state, noise, **given)
    except SolverFailure as failure:
        return SolverFailure(f"{name}: {failure}")
    return SolverFailure(f"{name}: the samples are not finite, though all the network's outputs are: take more steps")


def _result(
    denoiser: AnyDenoiser, solver: Solver, parts: Sequence[Solution], seed: int | None, settings: Mapping[str, Any]
) -> Result:
    """The batches as one."""
    x = torch.cat([part.x for part in parts])
    t, nfe, accepted, rejected = (np.concatenate(each) for each in list(zip(*parts, strict=True))[1:])
    calls = int(nfe.max())
    rows = int(denoiser.counts.max()) if isinstance(denoiser, Counted) else calls * denoiser.rows_per_call
    return Result(x, calls, rows, solver.times, nfe, accepted, rejected, t, seed, settings)
