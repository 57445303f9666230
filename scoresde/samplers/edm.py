"""Heun's method in the noise level ρ = σ/α, with or without noise added before each step (Karras et al. 2022).

With y = x/α the probability flow is dy/dρ = (y - x̂_0)/ρ under every SDE, and adding noise of variance ρ̂² - ρ² to y is
the exact forward transition from ρ to ρ̂. Both are rows: a Heun step is two, the noise one without a call.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from scoresde.errors import BadInput
from scoresde.grids import Times
from scoresde.samplers.sde_steps import forward_row
from scoresde.samplers.table import Row, Table
from scoresde.sde import SDE

UNUSED = {"s_min": 0.0, "s_max": math.inf, "s_noise": 1.0}


def heun_rows(sde: SDE, starts: Sequence[float], ends: Sequence[float]) -> list[list[Row]]:
    """The rows of one Heun step in ρ from each of ``starts`` to the time beside it in ``ends``, in x0 space.

    With d = (y - x̂_0)/ρ, y' = y + (ρ_t - ρ_s) d(s), then y' + (ρ_t - ρ_s) (d(t) - d(s))/2, where d(t) - d(s) is
    (x̂_0(s) - x̂_0(t))/ρ_t since x̂_0(s) lies on the line from y to y'. Into t = 0 one call, x = x̂_0.
    """
    s, t = sde.knots(starts), sde.knots(ends)
    h = t.lam - s.lam
    keep, gain, half = t.sigma / s.sigma, -t.alpha * np.expm1(-h), 0.5 * t.alpha * np.expm1(h)
    steps: list[list[Row]] = []
    for start, end, a, b, w in zip(starts, ends, keep.tolist(), gain.tolist(), half.tolist(), strict=True):
        predict = Row(start, end, a, (b,), ends=end == 0)
        steps.append([predict] if end == 0 else [predict, Row(end, end, 1.0, (w, -w))])
    return steps


def edm(
    sde: SDE,
    times: Times,
    *,
    s_churn: float = 0.0,
    s_min: float = 0.0,
    s_max: float = math.inf,
    s_noise: float = 1.0,
) -> Table:
    """EDM's sampler (Karras et al. 2022, algorithm 2): noise up to ρ̂ = (1 + γ) ρ, then one Heun step down from there.

    γ = min(s_churn/n, √2 - 1) at knots with s_min ≤ ρ ≤ s_max, else 0; the noise is s_noise sqrt(ρ̂² - ρ²) in x/α.
    ``s_churn = 0``, the default, is algorithm 1: deterministic, second order. The two halves are exact in law up to
    Heun's error for any churn while ``s_noise`` is 1. Where (1 + γ) ρ is more noise than there is at t_max, ρ̂ is that
    of t_max (as published it would go beyond, and the network with it).

    >>> import scoresde
    >>> table = edm(scoresde.EDM(), (80.0, 1.0, 0.0), s_churn=1.0)
    >>> [(row.t, row.t_next, row.calls) for row in table.rows]
    [(80.0, 1.0, True), (1.0, 1.0, True), (1.0, 1.4142135623730951, False), (1.4142135623730951, 0.0, True)]
    """
    for name, value in {"s_churn": s_churn, "s_min": s_min, "s_max": s_max}.items():
        if not value >= 0 or (name != "s_max" and math.isinf(value)):
            raise BadInput(f"{name} = {value!r} must be a number of at least 0")
    if s_min > s_max:
        raise BadInput(f"s_min = {s_min!r} must be at most s_max = {s_max!r}")
    check_s_noise(s_noise)
    if not s_churn and (given := {"s_min": s_min, "s_max": s_max, "s_noise": s_noise}) != UNUSED:
        name = next(name for name, value in given.items() if value != UNUSED[name])
        raise BadInput(f"{name} = {given[name]!r} does nothing without noise: give an s_churn above 0")
    gamma = min(s_churn / (len(times) - 1), math.sqrt(2) - 1)
    starts = _raise(sde, times[:-1], gamma, s_min, s_max)
    rows: list[Row] = []
    for t, start, step in zip(times, starts, heun_rows(sde, starts, times[1:]), strict=False):
        rows += [forward_row(sde, t, start, s_noise)] if start > t else []
        rows += step
    order = 2 if starts == list(times[:-1]) else None
    return Table(sde, "x0", tuple(rows), exact=s_noise == 1 or order == 2, order=order, order_with_start=order)


def check_s_noise(s_noise: float) -> None:
    """Refuse a factor of the noise that is not positive and finite."""
    if not 0 < s_noise < math.inf:
        raise BadInput(f"s_noise = {s_noise!r} must be a positive number")


def _raise(sde: SDE, times: Sequence[float], gamma: float, s_min: float, s_max: float) -> list[float]:
    """The times at which ρ is 1 + γ times as large, where it is within [s_min, s_max]; never beyond t_max."""
    if not gamma:
        return list(times)
    at, last = sde.knots(times), sde.knots([sde.t_max])
    rho = np.exp(-at.lam)
    raised = np.minimum((1 + gamma) * rho, np.exp(-last.lam))
    within = (s_min <= rho) & (rho <= s_max)
    if not within.any():
        raise BadInput(
            f"s_churn does nothing: no knot is within s_min = {s_min!r} and s_max = {s_max!r}, their σ/α go from"
            f" {rho[0]:.4g} to {rho[-1]:.4g}"
        )
    churned = within & (raised > rho * (1 + 1e-9))
    hat = sde.t_of_rho(torch.from_numpy(raised)).clamp(max=sde.t_max).numpy()
    return np.where(churned, hat, at.t).tolist()
