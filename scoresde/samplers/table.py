"""A sampler is a table of numbers, checked when it is built, and one loop that runs any table.

One row is at most one network call and one linear update; all coefficients are Python floats, computed before the loop:

    D_i     = the denoiser's output at (x_i, t_i) in the table's space (x0, eps or v)
    x_{i+1} = a_i x_i + Σ_j b_ij D_{i-j} + Σ_j c_ij z_{i-j},        z ~ N(0, I)

Each row starts from the one before, so a single state is kept. Multistep methods use older D, Runge-Kutta stages are
extra rows, a Langevin corrector is a row that stays at its time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scoresde.denoiser import Denoises
from scoresde.errors import BadInput, choose
from scoresde.noise import Noise
from scoresde.sde import SDE

SPACES = ("x0", "eps", "v")
TOLERANCE = 1e-12

# callback(i, t, t_next, x, x0_hat, nfe), once per interval of the grid, in order.
Callback = Callable[[int, float, float, Tensor, Tensor, int], None]


@dataclass(frozen=True)
class Row:
    """One update from the state at ``t`` to the state at ``t_next``.

    ``a`` weighs the state, ``b`` the network outputs (this row's first, then older ones), ``c`` the noises likewise.
    ``ends`` marks the last row of a grid interval. ``calls`` is False for a row without a network call of its own.
    """

    t: float
    t_next: float
    a: float
    b: tuple[float, ...] = ()
    c: tuple[float, ...] = ()
    ends: bool = True
    calls: bool = True


@dataclass(frozen=True)
class Table:
    """The rows of one run under one SDE. ``exact`` tables must pass the point-mass identity or they cannot exist.

    ``order`` is that of the recurrence, ``order_with_start`` that of a whole run including its first, lower-order rows
    (both for deterministic tables: global error O(h^order); None where no order is claimed).

    >>> import scoresde
    >>> table = scoresde.SAMPLERS["ddim"].build(scoresde.VPSDE(), (1.0, 0.5, 0.0))
    >>> table.nfe, table.defect < 1e-12
    (2, True)
    """

    sde: SDE
    space: str
    rows: tuple[Row, ...]
    exact: bool = False
    order: int | None = None
    order_with_start: int | None = None

    def __post_init__(self) -> None:
        choose("space", self.space, SPACES)
        numbers = [(row.a, *row.b, *row.c) for row in self.rows]
        for row, values in zip(self.rows, numbers, strict=True):
            if not all(map(np.isfinite, values)):
                raise BadInput(
                    f"no finite coefficients for the step from t = {row.t:.6g} to {row.t_next:.6g} in {self.space}"
                    f" space under {self.sde}: use another grid or sampler"
                )
        if self.exact and self.defect > TOLERANCE:
            raise ArithmeticError(f"table breaks the point-mass identity by {self.defect:.3g}")

    @property
    def nfe(self) -> int:
        """Denoiser calls per sample."""
        return sum(row.calls for row in self.rows)

    @property
    def times(self) -> tuple[float, ...]:
        """The grid: the start and every interval's end."""
        return (self.rows[0].t, *(row.t_next for row in self.rows if row.ends))

    @property
    def stochastic(self) -> bool:
        return any(any(row.c) for row in self.rows)

    @cached_property
    def defect(self) -> float:
        """How far the table is from exact on a point mass: data that are one known x_0.

        Starting from α_T x_0 + σ_T z, every interval must end at α_t x_0 + σ_t z in law. The coefficients of x_0 and of
        all noises are propagated through the rows; returned is the largest error of either, relative to the scale
        sqrt(α_t² + σ_t²) of the state.
        """
        at = self.sde.knots([row.t for row in self.rows])
        end = self.sde.knots([row.t_next for row in self.rows])
        state = np.zeros(2 + len(self.rows))  # coefficients of x_0, the start's noise, and each row's noise
        state[:2] = at.alpha[0], at.sigma[0]
        ideal = np.zeros_like(state)  # the output on a point mass, for tables that start with a history
        ideal[0 if self.space == "x0" else 1] = 1.0
        calls = [ideal] * (0 if self.space == "v" else _deepest(self.rows))
        worst = 0.0
        for i, row in enumerate(self.rows):
            alpha, sigma = at.alpha[i], at.sigma[i]
            if row.calls:
                data = np.zeros_like(state)
                data[0] = 1.0
                if self.space == "x0":
                    output = data
                else:
                    eps = (state - alpha * data) / sigma
                    output = eps if self.space == "eps" else alpha * eps - sigma * data
                calls.insert(0, output)
            state = row.a * state
            for weight, output in zip(row.b, calls, strict=False):
                state = state + weight * output
            for j, weight in enumerate(row.c):
                state[2 + i - j] += weight
            if row.ends:
                scale = np.hypot(end.alpha[i], end.sigma[i])
                spread = float(np.linalg.norm(state[1:]))
                worst = max(worst, abs(state[0] - end.alpha[i]) / scale, abs(spread - end.sigma[i]) / scale)
        return worst

    @cached_property
    def _memory(self) -> tuple[list[bool], list[int], set[int]]:
        """Whether a later row uses a row's D, how many outputs to hold after each row, and which rows draw noise."""
        upto = np.cumsum([row.calls for row in self.rows]).tolist()
        last_use: dict[int, int] = {}  # call -> the last row that uses its output
        for i, row in enumerate(self.rows):
            last_use.update({upto[i] - 1 - j: i for j, weight in enumerate(row.b) if weight})
        later = [row.calls and last_use.get(upto[i] - 1, i) > i for i, row in enumerate(self.rows)]
        held = []
        for i, calls in enumerate(upto):
            alive = [call for call in range(calls - 1 - _deepest(self.rows), calls) if last_use.get(call, i) > i]
            held.append(calls - min(alive) if alive else 0)
        draws = {i - j for i, row in enumerate(self.rows) for j, weight in enumerate(row.c) if weight}
        return later, held, draws

    def run(
        self,
        denoiser: Denoises,
        x: Tensor,
        noise: Noise | None = None,
        callback: Callback | None = None,
        history: Sequence[Tensor] = (),
        **cond: Any,
    ) -> tuple[Tensor, int]:
        """Run the rows from the state x at the first time; returns the last state and the calls made.

        ``history`` holds outputs before the first row, newest first, for a table whose rows reach back that far.
        Nothing is read from the device, and no schedule is computed, between calls.
        """
        if self.stochastic and noise is None:
            raise BadInput("this table draws noise: pass noise=(step, draw, x) -> tensor, or use sample(..., seed=...)")
        plan = denoiser.plan(self.space, [row.t for row in self.rows if row.calls], x, **cond)
        later, held, draws = self._memory
        outputs, noises = list(history), list[Tensor]()
        call = interval = 0
        start, x0 = self.rows[0].t, x
        for i, row in enumerate(self.rows):
            a, b = row.a, row.b
            if row.calls:
                out, skip, scale = plan.net(call, x), plan.skip[call], plan.scale[call]
                call += 1
                if callback:
                    x0 = self._x0(x, torch.add(skip * x, out, alpha=scale), row.t)
                if later[i]:
                    out = torch.add(skip * x, out, alpha=scale)
                else:  # no other row uses this D = skip x + scale out: fold it into the update, one kernel less
                    a, b = a + b[0] * skip, (b[0] * scale, *b[1:])
                outputs.insert(0, out)
            x = torch.mul(x, a)
            for out, weight in zip(outputs, b, strict=False):
                if weight:
                    x.add_(out, alpha=weight)
            del outputs[held[i] :]
            if draws:
                noises.insert(0, noise(i, 0, x) if noise and i in draws else x)
                for z, weight in zip(noises, row.c, strict=False):
                    if weight:
                        x.add_(z, alpha=weight)
                del noises[3:]
            if row.ends:
                if callback:
                    callback(interval, start, row.t_next, x, x0, call)
                interval, start = interval + 1, row.t_next
        return x, call

    def _x0(self, x: Tensor, output: Tensor, t: float) -> Tensor:
        """x̂_0 from an output in the table's space, for callbacks."""
        if self.space == "x0":
            return output
        at = self.sde.knots([t])
        alpha, sigma = float(at.alpha[0]), float(at.sigma[0])
        if self.space == "eps":
            return (x - sigma * output) / alpha
        return (alpha * x - sigma * output) / (alpha**2 + sigma**2)


def _deepest(rows: Sequence[Row]) -> int:
    return max((len(row.b) for row in rows), default=0)
