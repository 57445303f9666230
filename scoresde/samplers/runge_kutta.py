"""Runge-Kutta methods: several calls in each interval, as rows that end no interval but the last.

The probability flow is followed in y = x/r over the angle φ = atan(σ/α), r = sqrt(α² + σ²), where it is bounded,

    dy/dφ = v̂/r,        v̂ = α ε̂ - σ x̂_0,

and a method is its tableau (c, A, b): K_k = v̂_k/r_k at φ_s + c_k Δ, Δ = φ_t - φ_s, with

    y_k = y_s + Δ Σ_{j<k} A_kj K_j,        y_t = y_s + Δ Σ_j b_j K_j.

v̂ is no constant on a point mass, so these tables are not exact there: what they miss is of the method's order in Δ.
`sheun` is a method of this kind for the reverse SDE.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import zip_longest
from typing import NamedTuple

import numpy as np
import torch

from scoresde.errors import BadInput
from scoresde.grids import Times
from scoresde.samplers.table import Row, Table
from scoresde.schedule import Knots
from scoresde.sde import SDE


class Stage(NamedTuple):
    """A state within a step, at time t: keep x + Σ_j b_j D_j + Σ_j c_j z_j, where x is the state at the step's start.

    D_j is the output of the step's call j, from 0, and z_j a noise drawn after it.
    """

    t: float
    keep: float
    b: Sequence[float]
    c: Sequence[float] = ()


def step_rows(t: float, stages: Sequence[Stage]) -> list[Row]:
    """The rows of one step from ``t``, each stage relative to the one before; the last stage ends the interval.

    >>> step_rows(1.0, [Stage(0.5, 2.0, [3.0]), Stage(0.0, 4.0, [5.0, 6.0])])[1].b  # 5 D_0 = (4/2) 3 D_0 - 1 D_0
    (6.0, -1.0)
    """
    rows: list[Row] = []
    before = Stage(t, 1.0, [])
    for k, stage in enumerate(stages):
        a = stage.keep / before.keep
        b, c = (
            [now - a * then for now, then in zip_longest(new, old, fillvalue=0.0)]
            for new, old in ((stage.b, before.b), (stage.c, before.c))
        )
        c = [0.0] * (k + 1 - len(c)) + c[::-1]  # newest first
        while c and not c[-1]:
            c.pop()
        rows.append(Row(before.t, stage.t, a, tuple(b[::-1]), tuple(c), ends=k == len(stages) - 1))
        before = stage
    return rows


# -------------------------------------------------------------------------------------------- the flow in the angle φ


class Tableau(NamedTuple):
    """An explicit Runge-Kutta method of the given order: nodes c from 0, rows of A from the second on, weights b."""

    order: int
    c: tuple[float, ...]
    A: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]


# By the names that torchdiffeq has for them.
TABLEAUX = {
    "euler": Tableau(1, (0,), (), (1,)),
    "midpoint": Tableau(2, (0, 1 / 2), ((1 / 2,),), (0, 1)),
    "heun2": Tableau(2, (0, 1), ((1,),), (1 / 2, 1 / 2)),
    "heun3": Tableau(3, (0, 1 / 3, 2 / 3), ((1 / 3,), (0, 2 / 3)), (1 / 4, 0, 3 / 4)),
    "rk4": Tableau(4, (0, 1 / 3, 2 / 3, 1), ((1 / 3,), (-1 / 3, 1), (1, -1, 1)), (1 / 8, 3 / 8, 3 / 8, 1 / 8)),
}


def runge_kutta(sde: SDE, times: Times, tableau: Tableau) -> Table:
    """The flow in φ by any explicit tableau: as many calls in each interval as it has nodes, one into t = 0.

    Into t = 0 the row is x = x̂_0 = (α x - σ v̂)/r². The times may also rise: that encodes.
    """
    rows: list[Row] = []
    ends = times[:-1] if times[-1] == 0 else times
    at = [_between(sde, ends, c) for c in (*tableau.c, 1.0)]
    for i, t in enumerate(ends[:-1]):
        r = [math.hypot(node.alpha[i], node.sigma[i]) for node in at]
        step = math.atan2(at[-1].sigma[i], at[-1].alpha[i]) - math.atan2(at[0].sigma[i], at[0].alpha[i])
        stages: list[Stage] = []
        for k, weights in enumerate((*tableau.A, tableau.b), start=1):
            b = [r[k] * step * w / r_j for w, r_j in zip(weights, r, strict=False)]
            stages.append(Stage(float(at[k].t[i]), r[k] / r[0], b))
        rows += step_rows(t, stages)
    if times[-1] == 0:
        (alpha, sigma), t = _level(sde, times[-2]), times[-2]
        rows.append(Row(t, 0.0, alpha / (alpha**2 + sigma**2), (-sigma / (alpha**2 + sigma**2),)))
    return Table(sde, "v", tuple(rows), order=tableau.order, order_with_start=tableau.order)


def _between(sde: SDE, times: Sequence[float], c: float) -> Knots:
    """The knots at the fraction c in φ of every interval; the ends of the intervals to the last bit."""
    if c in (0.0, 1.0):
        return sde.knots(times[:-1] if c == 0 else times[1:])
    at = sde.knots(times)
    phi = np.arctan2(at.sigma, at.alpha)
    return sde.knots(sde.t_of_phi(torch.from_numpy(phi[:-1] + c * np.diff(phi))).tolist())


def _level(sde: SDE, t: float) -> tuple[float, float]:
    at = sde.knots([t])
    return float(at.alpha[0]), float(at.sigma[0])


def heun(sde: SDE, times: Times) -> Table:
    """Heun's method of order 2 in φ, two calls an interval: y + Δ (K_0 + K_1)/2 with K_1 at y + Δ K_0 and φ_t.

    Karras et al.'s method of this name is the same tableau in the noise level σ/α: see "edm".

    >>> import scoresde
    >>> table = heun(scoresde.VPSDE(), (1.0, 0.5, 0.1, 0.0))
    >>> table.nfe, [(row.t, row.t_next) for row in table.rows[:2]]
    (5, [(1.0, 0.5), (0.5, 0.5)])
    """
    return runge_kutta(sde, times, TABLEAUX["heun2"])


def midpoint(sde: SDE, times: Times) -> Table:
    """The midpoint method of order 2 in φ, two calls an interval: y + Δ K_1 with K_1 at y + Δ K_0/2 and φ_s + Δ/2."""
    return runge_kutta(sde, times, TABLEAUX["midpoint"])


def rk4(sde: SDE, times: Times) -> Table:
    """Kutta's 3/8 rule of order 4 in φ, four calls an interval: y + Δ (K_0 + 3 K_1 + 3 K_2 + K_3)/8 (Kutta 1901).

    K_1 at y + Δ K_0/3, K_2 at y + Δ (K_1 - K_0/3), K_3 at y + Δ (K_0 - K_1 + K_2), a third of Δ apart. It is the same
    step as torchdiffeq's "rk4", and so as the sampler "ode" with a number of steps, without reading the device.

    >>> import scoresde
    >>> rk4(scoresde.VPSDE(), (1.0, 0.5, 0.0)).nfe
    5
    """
    return runge_kutta(sde, times, TABLEAUX["rk4"])


# -------------------------------------------------------------------------------------------------- the reverse SDE


def sheun(sde: SDE, times: Times) -> Table:
    """Stochastic Heun on the reverse SDE dx = F dt + g dw̄, F = f x + (g²/σ) ε̂: the mean of two Euler-Maruyama steps.

    x' = x + F(x, s) dt + g_s sqrt(|dt|) z, then x + (F(x, s) + F(x', t)) dt/2 + (g_s + g_t) sqrt(|dt|) z/2, one z for
    both (Roberts 2012; Jolicoeur-Martineau et al. 2021b, algorithm 1 without its error control). The noise does not
    depend on x, so the law of the output is of second order where Euler-Maruyama's is of first. Into t = 0, where F has
    no limit, the row is x = x̂_0. The rows are in eps space: the second divides by the first one's weight of x, which
    there is 1 + f dt ≥ 1. The drift is stiff near the data: with few steps use a grid in λ, not in φ.

    >>> import scoresde
    >>> [row.c for row in sheun(scoresde.EDM(), (2.0, 1.0)).rows]  # g² = 2 t: 2 z, then (sqrt(2) - 2)/2 of the same z
    [(2.0,), (0.0, -0.29289321881345254)]
    """
    at = sde.knots(times)
    if at.alpha[0] == 0:
        raise BadInput(f"sheun: no signal at t = {times[0]} of {sde}: start the grid below it")
    t = torch.tensor([time for time in times if time], dtype=torch.float64)
    f, g = sde.f(t).tolist(), sde.g2(t).sqrt().tolist()
    rows: list[Row] = []
    for i, dt in enumerate(np.diff(times).tolist()):
        alpha, sigma = float(at.alpha[i]), float(at.sigma[i])
        if times[i + 1] == 0:
            rows.append(Row(times[i], 0.0, 1 / alpha, (-sigma / alpha,)))
            continue
        root, half = math.sqrt(-dt), 0.5 * dt
        q, q_next = g[i] ** 2 / sigma, g[i + 1] ** 2 / float(at.sigma[i + 1])
        euler = Stage(times[i + 1], 1 + f[i] * dt, [q * dt], [g[i] * root])
        keep = 1 + half * (f[i] + f[i + 1] * euler.keep)
        b = [half * (q + f[i + 1] * euler.b[0]), half * q_next]
        c = [half * f[i + 1] * euler.c[0] + 0.5 * (g[i] + g[i + 1]) * root]
        rows += step_rows(times[i], [euler, Stage(times[i + 1], keep, b, c)])
    return Table(sde, "eps", tuple(rows))
