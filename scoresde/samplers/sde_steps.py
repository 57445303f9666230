"""First-order steps of the reverse SDE, one call each, with Langevin correctors on request; all as tables in x0 space.

The score is s = (α x̂_0 - x)/σ², so every step that is linear in the score is a row.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import torch

from scoresde.errors import BadInput, choose, positive
from scoresde.grids import Times
from scoresde.samplers.multistep import ddim
from scoresde.samplers.table import Row, Table
from scoresde.sde import SDE


def ddpm(sde: SDE, times: Times, *, variance: str = "posterior") -> Table:
    """Ancestral sampling (Ho et al. 2020, algorithm 2) on any grid and SDE: x_s ~ q(x_s | x_t, x̂_0).

    ``variance`` is "posterior" (β̃, exact for a point mass) or "upper" (β, exact under VP for unit-variance Gaussian
    data); with h = λ_s - λ_t they are σ_s² (1 - e^{-2h}) and σ_t² (1 - e^{-2h}). No noise into t = 0.
    """
    table = ddim(sde, times, eta=1.0)
    if choose("variance", variance, ("posterior", "upper")) == "posterior":
        return table
    at = sde.knots(times)
    ratio = [s / t for t, s in zip(at.sigma[:-1].tolist(), at.sigma[1:].tolist(), strict=True)]
    rows = (replace(row, c=(row.c[0] / r,) if row.c and r else ()) for row, r in zip(table.rows, ratio, strict=True))
    return replace(table, rows=tuple(rows), exact=False)


def em(sde: SDE, times: Times) -> Table:
    """Euler-Maruyama on the reverse SDE (Song et al. 2021, eq. 6): x + (f x - g² s) dt + g sqrt(|dt|) z, dt < 0.

    Into t = 0, where the score's factor 1/σ² has no Euler step, the row is x = x̂_0.
    """
    at = sde.knots(times)
    t = torch.tensor(times[:-1], dtype=torch.float64)
    rows: list[Row] = []
    for i, (f, g2) in enumerate(zip(sde.f(t).tolist(), sde.g2(t).tolist(), strict=True)):
        dt, alpha, sigma2 = times[i + 1] - times[i], float(at.alpha[i]), float(at.sigma[i]) ** 2
        if times[i + 1] == 0:
            rows.append(Row(times[i], 0.0, 0.0, (1.0,)))
        else:
            a, b = 1 + (f + g2 / sigma2) * dt, -g2 * alpha / sigma2 * dt
            rows.append(Row(times[i], times[i + 1], a, (b,), (math.sqrt(-g2 * dt),)))
    return Table(sde, "x0", tuple(rows))


def langevin_row(sde: SDE, t: float, step: float, ends: bool, space: str = "x0") -> Row:
    """One Langevin step x + ε s + sqrt(2ε) z at time t with ε = ``step`` σ_t² (Song et al. 2021, algorithm 4)."""
    at = sde.knots([t])
    alpha, sigma = float(at.alpha[0]), float(at.sigma[0])
    a, b = (1 - step, step * alpha) if space == "x0" else (1.0, -step * sigma)  # s = (α x̂_0 - x)/σ² = -ε̂/σ
    return Row(t, t, a, (b,), (sigma * math.sqrt(2 * step),), ends=ends)


Predictor = Callable[..., Table]  # (sde, times, *, options) -> a table whose intervals use no output of an earlier one
PREDICTORS: dict[str, Predictor] = {"ddpm": ddpm, "em": em, "ddim": ddim}


def pc(
    sde: SDE,
    times: Times,
    *,
    predictor: str | Predictor = "ddpm",
    correctors: int = 1,
    snr: float = 0.16,
    eta: float | None = None,
    variance: str | None = None,
) -> Table:
    """Predictor-corrector sampling (Song et al. 2021, algorithm 1): a first-order step, then Langevin steps at its end.

    The corrector's size is ε(t) = 2 (snr σ_t)²: score_sde's rule with the batch norms ‖z‖, ‖s‖ replaced by their
    expectations, so that it depends on t alone. No corrector at t = 0. ``eta`` and ``variance`` are handed to a
    predictor that has them; a builder of your own, or a `functools.partial` of one, may stand for its name.
    """
    positive("correctors", correctors)
    if not 0 < snr < 1:
        raise BadInput(f"snr = {snr!r} must be in (0, 1)")
    name = predictor if isinstance(predictor, str) else getattr(predictor, "__name__", repr(predictor))
    build = PREDICTORS[choose("predictor", predictor, PREDICTORS)] if isinstance(predictor, str) else predictor
    options = {k: v for k, v in {"eta": eta, "variance": variance}.items() if v is not None}
    for option in options.keys() - inspect.signature(build).parameters.keys():
        raise BadInput(f"predictor {name!r} has no option {option!r}")
    table = build(sde, times, **options)
    if not isinstance(table, Table) or table.space == "v":
        raise BadInput(f"predictor {name!r} is no table in x0 or eps space")
    rows: list[Row] = []
    calls = 0  # of the interval so far
    for row in table.rows:
        calls += row.calls
        if len(row.b) > calls:
            raise BadInput(f"predictor {name!r} uses outputs of earlier steps: a corrector would come between them")
        last = not row.ends or row.t_next == 0
        rows.append(replace(row, ends=row.ends and last))
        if not last:
            steps = [langevin_row(sde, row.t_next, 2 * snr**2, False, table.space) for _ in range(correctors)]
            rows += [*steps[:-1], replace(steps[-1], ends=True)]
        calls = 0 if row.ends else calls
    return Table(sde, table.space, tuple(rows))


def langevin(sde: SDE, times: Times, *, repeats: int = 5, step: float = 0.1) -> Table:
    """Annealed Langevin dynamics (Song & Ermon 2019, algorithm 1): ``repeats`` Langevin steps at each noise level.

    The step is ε = ``step`` σ_t² in x + ε s + sqrt(2ε) z (NCSN's α_i/2 = ε; its 2e-5 at σ = 0.01 is step = 0.1).
    Between levels x is only rescaled by α_s/α_t; into t = 0 the row is x = x̂_0, the denoising that
    Jolicoeur-Martineau et al. 2021 add. It has a stationary law at each level and discretises no SDE, so accuracy
    grows with ``repeats``, not with the levels alone.
    """
    positive("repeats", repeats)
    if not 0 < step < 1:
        raise BadInput(f"step = {step!r} must be in (0, 1)")
    at = sde.knots(times)
    if at.alpha[0] == 0:
        raise BadInput(f"langevin: no signal at t = {times[0]} of {sde}: start the grid below it")
    rows: list[Row] = []
    for i, (t, t_next) in enumerate(pairwise(times)):
        rows += [langevin_row(sde, t, step, ends=False) for _ in range(repeats)]
        if t_next == 0:
            rows.append(Row(t, 0.0, 0.0, (1.0,)))
        else:
            rows.append(Row(t, t_next, float(at.alpha[i + 1] / at.alpha[i]), calls=False))
    return Table(sde, "x0", tuple(rows))
