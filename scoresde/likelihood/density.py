"""The log-density of a model at given data, by the probability flow (Song et al. 2021, section 4.3 and appendix D.2).

With y = x / sqrt(α² + σ²) and φ = atan(σ/α) the flow is dy/dφ = v̂(x, t) / sqrt(α² + σ²) for every SDE
(`samplers.ode`), its divergence the trace of ∂v̂/∂x, and along it (Chen et al. 2018)

    log p_x(x) = log prior(x_T) + d log sqrt(α_T² + σ_T²) + ∫ tr(∂v̂/∂x) dφ - d log sqrt(α² + σ²),

both sides integrated together from t_min to t_max. What it gives is the density of x_{t_min}, taken at the data.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from scoresde.denoiser import AnyDenoiser
from scoresde.errors import BadInput, choose, positive
from scoresde.grids import Numbers, Spacing, Times
from scoresde.likelihood.trace import Divergence, Traced, check_derivative
from scoresde.samplers.checks import check_denoiser, check_grad, check_index, check_state
from scoresde.samplers.ode import FIXED, STEPPING
from scoresde.samplers.plan import plan_encode
from scoresde.samplers.registry import find_sampler
from scoresde.samplers.run import encode
from scoresde.samplers.solver import Callback, cut
from scoresde.sde import SDE

STEPS = 50  # where neither steps nor tolerances are given
TOLERANCE = 1e-5  # of an adaptive method without one
METHODS = (*FIXED, *STEPPING)  # scipy's know no sample: their error is that of the batch


@runtime_checkable
class Affine(Protocol):
    """What is asked of a scaler: `scoresde.data.Scaler` is one."""

    def encode(self, x: Tensor) -> Tensor:
        """Data units to the denoiser's."""
        ...

    def log_det(self, event_shape: tuple[int, ...]) -> float:
        """log |d encode(x) / dx| of one event."""
        ...


@dataclass(frozen=True, eq=False)
class Likelihood:
    """What `log_prob` returns.

    log_prob         (n,) nats, of the density in the data's own units; of the probability where x is discrete
    standard_error   (n,) nats, that of the mean over the probes: 0 if exact, NaN of a single probe
    latent           (n, *event), the states at t_max
    nfe              denoiser calls per sample
    products         vector-Jacobian products per sample: what the divergence costs
    times            the grid, rising (the two ends of an adaptive run)
    settings         everything needed to compute it again, defaults filled in
    """

    log_prob: Tensor
    standard_error: Tensor
    latent: Tensor = field(repr=False)
    nfe: int
    products: int
    times: Times = field(repr=False)
    settings: Mapping[str, Any] = field(repr=False)


def log_prob(
    denoiser: AnyDenoiser,
    x: Tensor,
    steps: int | None = None,
    *,
    rtol: float | None = None,
    atol: float | None = None,
    method: str | None = None,
    grid: str | Spacing | Numbers | None = None,
    divergence: str = "exact",
    probes: int = 1,
    probe: str = "rademacher",
    seed: int = 0,
    first: int = 0,
    prior: Callable[[Tensor], Tensor] | None = None,
    scaler: Affine | None = None,
    batch_size: int | None = None,
    chunk: int | None = None,
    callback: Callback | None = None,
    cond: Mapping[str, Any] | None = None,
    grad: bool | str = False,
) -> Likelihood:
    """log p(x) of each sample (n, *event), x in the data's own units if a ``scaler`` is given, else in the denoiser's.

    steps         intervals of a fixed-step ``method`` (rk4), 50 if no tolerance is given, on the ``grid`` "lambda":
                  near the data the divergence grows like 1/φ along what is noise alone, and equal steps in φ miss it
    rtol, atol    instead: an adaptive ``method`` (dopri5), its error per coordinate, that of log p in nats; one is both
    divergence    "exact": d products a call; "hutchinson" or "hutch++": an unbiased estimate by ``probes`` random
                  vectors per sample, of the former ``probe`` "rademacher" or "gaussian"; with fixed steps their signs
                  are drawn anew at each place of the grid, which makes the error several times smaller
    seed, first   probes are functions of seed and of the sample's index, which counts from ``first``
    prior         log-density at t_max, (n, *event) -> (n,), instead of that of the SDE's prior
    batch_size, chunk   samples at a time and products at a time: memory and rounding alone
    cond          passed to the network; tensors with one row per sample are cut into the same batches
    grad          whether gradients flow to x and to what the network is made of; "checkpoint": at the memory of a
                  state per call, each call made three times or, of hutch++, four (which ``nfe`` does not count)

    The density is that of x_{t_min} at x, as usual; for x_0 itself there is none in a trained network. Networks must be
    in eval mode: a sample must not depend on its batch.

    Raises BadInput before the first step for anything unknown or impossible, SolverFailure if a solver cannot finish.

    >>> import torch, scoresde
    >>> data, sde = scoresde.Gaussian(torch.zeros(2), torch.eye(2)), scoresde.VPSDE()
    >>> x = torch.tensor([[0.0, 1.0]], dtype=torch.float64)
    >>> scoresde.log_prob(data.denoiser(sde), x, 10).log_prob  # -log 2π - 1/2
    tensor([-2.3379], dtype=torch.float64)
    """
    how = Divergence(divergence, probes, probe, seed, chunk)
    check_grad(grad)
    first = check_index(first)
    check_denoiser(denoiser)
    with torch.inference_mode(False), torch.set_grad_enabled(bool(grad)):
        given = {key: _plain(value) for key, value in (cond or {}).items()}
        inside = _plain(x if scaler is None else scaler.encode(x))
        check_state(inside, inside.dtype)
        if not len(inside):
            raise BadInput("x: no samples")
        sde = denoiser.sde
        run = _run_options(sde, steps, rtol, atol, method, grid)
        options = {key: run[key] for key in run if key not in ("steps", "grid")}
        solver, _ = plan_encode(sde, find_sampler("ode"), run["steps"], run.get("grid"), options)
        if prior is None and solver.times[-1] < sde.t_max * (1 - 1e-9):
            raise BadInput(f"grid: its first time is {solver.times[-1]:g}, below t_max: give the prior there")
        check_derivative(denoiser, inside, given)
        constant = scaler.log_det(tuple(inside.shape[1:])) if scaler else 0.0
        knots = sde.phi(torch.tensor(solver.times, dtype=torch.float64)).tolist() if solver.nfe else ()
        size = positive("batch_size", len(inside) if batch_size is None else batch_size)
        parts: list[tuple[Tensor, Tensor, int]] = []
        settings: Mapping[str, Any] = {}
        for begin in range(0, len(inside), size):
            rows = slice(begin, begin + size)
            part = inside[rows]
            drawn = how.draw(range(first + begin, first + begin + len(part)), part)
            traced = Traced(denoiser, tuple(part.shape[1:]), how, drawn, bool(grad), knots)
            found = encode(
                traced,
                traced.join(part),
                "ode",
                callback=_states(callback, traced),
                cond=cut(given, rows, len(inside)),
                grad=grad,
                **run,
            )
            parts.append((*_density(traced, found.x, solver.times, prior, constant), found.nfe))
            settings = found.settings
    each, latent, calls = zip(*parts, strict=True)
    values, nfe = torch.cat(each), max(calls)
    error = (
        values.detach().std(1) / math.sqrt(probes) if values.shape[1] > 1 else torch.full_like(values[:, 0], math.nan)
    )
    return Likelihood(
        values.mean(1),
        torch.zeros_like(error) if divergence == "exact" else error,
        torch.cat(latent),
        nfe,
        nfe * how.products(latent[0][0].numel()),
        solver.times,
        {**settings, **_named(how), "first": first, "prior": "given" if prior else "sde", "units_nats": constant},
    )


def _plain(value: Any) -> Any:
    """A tensor of inference mode as one that autograd takes."""
    return value.clone() if isinstance(value, Tensor) and value.is_inference() else value


def _run_options(
    sde: SDE,
    steps: int | None,
    rtol: float | None,
    atol: float | None,
    method: str | None,
    grid: str | Spacing | Numbers | None,
) -> dict[str, Any]:
    """The arguments of `encode` by "ode"."""
    choose("method", method or "rk4", METHODS)
    named = {} if method is None else {"method": method}
    if rtol is None and atol is None and method not in STEPPING:
        if grid is None:
            grid = "lambda" if math.isfinite(sde.knots([sde.t_max]).lam[0]) else "phi"
        named_grid = isinstance(grid, str) or callable(grid)
        return {"steps": STEPS if steps is None and named_grid else steps, "grid": grid, **named}
    if steps is not None or grid is not None:
        raise BadInput("tolerances and adaptive methods choose the steps: give no steps or grid with them")
    one = next((value for value in (rtol, atol) if value is not None), TOLERANCE)
    return {"steps": None, "rtol": one if rtol is None else rtol, "atol": one if atol is None else atol, **named}


def _states(callback: Callback | None, traced: Traced) -> Callback | None:
    """A callback that is shown the events alone."""
    if callback is None:
        return None
    return lambda i, t, t_next, x, x0, nfe: callback(i, t, t_next, traced.split(x)[0], traced.split(x0)[0], nfe)


def _density(
    traced: Traced, state: Tensor, times: Sequence[float], prior: Callable[[Tensor], Tensor] | None, constant: float
) -> tuple[Tensor, Tensor]:
    """log p, one column for each estimate of the divergence, and the latents, from the state at the last time."""
    sde = traced.sde
    first, last = sde.prior_std(times[0]), sde.prior_std(times[-1])
    latent, _ = traced.split(state)
    _, integral = traced.split(state / last)
    end = (prior or sde.prior_log_prob)(latent)
    if end.shape != (len(latent),):
        raise BadInput(f"prior returned shape {tuple(end.shape)} for {len(latent)} samples: give one number for each")
    return end.unsqueeze(1) + integral + (traced.dims * math.log(last / first) + constant), latent


def _named(how: Divergence) -> dict[str, Any]:
    """The settings of the divergence: what changes no number is left out."""
    idle = ("kind", "chunk", "probe") if how.kind == "hutch++" else ("kind", "chunk")
    settings = {key: value for key, value in asdict(how).items() if key not in idle}
    return {"divergence": how.kind, **(settings if how.kind != "exact" else {})}
