"""Samplers that go back up in noise on their way: Restart, and the time travel of RePaint.

Going up is the exact forward transition q(x_t | x_s), a row without a call, so a table stays exact on a point mass. The
excursions lie inside the interval that ends where they begin: the grid and its intervals are the user's own.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from scoresde.errors import BadInput, positive
from scoresde.grids import Times
from scoresde.samplers.edm import check_s_noise, heun_rows
from scoresde.samplers.sde_steps import ddpm, forward_row
from scoresde.samplers.table import Row, Table
from scoresde.sde import SDE


def restart(
    sde: SDE,
    times: Times,
    *,
    repeats: int = 2,
    low: float = 0.06,
    high: float = 0.3,
    inner: int = 2,
    s_noise: float = 1.0,
) -> Table:
    """Restart sampling (Xu et al. 2023, algorithm 1): Heun in ρ, and ``repeats`` times back from ρ = low to high.

    At the knot nearest to ``low`` (of those below ``high``) the state is noised up to ``high`` and brought back by
    ``inner`` Heun steps, equal in ρ^(1/7); ``s_noise`` scales that noise. low, high and inner are the paper's for
    CIFAR-10, where its N_Restart = 3 counts the knots of two steps: 43 calls with n = 18. The noise contracts the error
    made before, at the price of the error of the new steps. If the nearest knot is the data itself, the way back ends
    in x̂_0 at t_min, the second call of the last step. Calls: 2n - 1 + 2 repeats inner (final "zero").

    >>> import scoresde
    >>> from scoresde.grids import make_grid
    >>> sde = scoresde.EDM()
    >>> restart(sde, make_grid("karras", sde, 18, "zero")).nfe
    43
    """
    for name, value in {"repeats": repeats, "inner": inner}.items():
        positive(name, value)
    check_s_noise(s_noise)
    bottom = _nearest_knot(sde, times, low, high)
    back = _back(sde, high, times[bottom], inner)
    up = forward_row(sde, times[bottom], back[0].t, s_noise)
    steps = heun_rows(sde, times[:-1], times[1:])
    steps[bottom - 1] = _one_interval([*steps[bottom - 1], *[up, *back] * repeats])
    return Table(sde, "x0", tuple(row for step in steps for row in step), exact=s_noise == 1)


def travel(sde: SDE, times: Times, *, jump: int | None = None, repeats: int = 9, variance: str = "learned") -> Table:
    """Time travel (RePaint: Lugmayr et al. 2022, algorithm 1 and appendix B): the chain, walked again and again.

    Every ``jump`` intervals, counted from the last call of the run upward, the state is noised ``jump`` knots back by
    q(x_s | x_t) and comes down again, ``repeats`` times: RePaint's j = 10 and r = 10 passes. Steps are those of `ddpm`.
    By default ``jump`` is 10, or n - 1 in a run of fewer than 11 steps, which then goes back to its start; one given
    must be below n, or there would be no way back. A run of one step has none.
    Alone it lets errors contract; its use is with conditions that the steps must come to agree with.
    Calls: n + repeats · jump · ⌊(n - 1)/jump⌋.

    >>> import scoresde
    >>> [(row.t, row.t_next) for row in travel(scoresde.EDM(), (80.0, 9.0, 1.0, 0.0), jump=2, repeats=1).rows]
    [(80.0, 9.0), (9.0, 1.0), (1.0, 80.0), (80.0, 9.0), (9.0, 1.0), (1.0, 0.0)]
    """
    n = len(times) - 1
    positive("repeats", repeats)
    if jump is None:
        jump = min(10, max(1, n - 1))
    elif positive("jump", jump) >= n > 1:
        raise BadInput(f"travel: jump = {jump} in {n} steps leaves no way back: it must be below the number of steps")
    table = ddpm(sde, times, variance=variance)
    rows: list[Row] = []
    for knot, row in enumerate(table.rows, start=1):
        rows.append(row)
        if jump <= knot < n and (n - 1 - knot) % jump == 0:
            up = forward_row(sde, times[knot], times[knot - jump])
            again = [up, *table.rows[knot - jump : knot]] * repeats
            rows[-1:] = _one_interval([row, *again])
    return replace(table, rows=tuple(rows))


def _one_interval(rows: list[Row]) -> list[Row]:
    """Rows that end an interval at the last of them only."""
    return [*(replace(row, ends=False) for row in rows[:-1]), replace(rows[-1], ends=True)]


def _nearest_knot(sde: SDE, times: Times, low: float, high: float) -> int:
    """The knot at which the excursions begin and end."""
    least, most = np.exp(-sde.knots([sde.t_min, sde.t_max]).lam).tolist()
    if not (0 < low < high and least < high <= most):
        rule = f"low < high, and high from {least:.4g} to {most:.4g}, the σ/α of {sde}"
        raise BadInput(f"restart: low = {low!r} and high = {high!r} must be noise levels with {rule}")
    rho = np.exp(-sde.knots(times).lam[1:])
    if not (below := rho < high).any():
        raise BadInput(f"restart: the grid ends at σ/α = {rho[-1]:.6g}, above high = {high!r}: raise high or end lower")
    return 1 + int(np.abs(np.where(below, rho, np.inf) - low).argmin())


def _back(sde: SDE, high: float, end: float, inner: int) -> list[Row]:
    """Heun steps from ρ = ``high`` to ``end``, equal in ρ^(1/7); into the data by x̂_0 at t_min."""
    last = end or sde.t_min
    bottom = float(np.exp(-sde.knots([last]).lam[0]))
    rho = np.linspace(high ** (1 / 7), bottom ** (1 / 7), inner + 1) ** 7
    path = [*sde.t_of_rho(torch.from_numpy(rho)).clamp(max=sde.t_max).tolist()[:-1], last]
    rows = [row for step in heun_rows(sde, path[:-1], path[1:]) for row in step]
    return rows if end else [*rows[:-1], Row(last, 0.0, 0.0, (1.0,))]
