"""A sampler is a table of numbers, checked when it is built, and one loop that runs any table.

One row is at most one network call and one linear update; all coefficients are Python floats, computed before the loop:

    D_i     = the denoiser's output at (x_i, t_i) in the table's space (x0, eps or v)
    x_{i+1} = a_i x_i + Σ_j b_ij D_{i-j} + Σ_j c_ij z_{i-j},        z ~ N(0, I)

Each row starts from the one before, so a single state is kept. Multistep methods use older D, Runge-Kutta stages are
extra rows, a Langevin corrector is a row that stays at its time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from scoresde.denoiser import AnyDenoiser
from scoresde.errors import BadInput, choose
from scoresde.noise import Noise
from scoresde.samplers.solver import Callback, Hook, Interval, Solver, acted_on
from scoresde.sde import SDE

SPACES = ("x0", "eps", "v")
TOLERANCE = 1e-12


@dataclass(frozen=True)
class Row:
    """One update from the state at ``t`` to the state at ``t_next``.

    ``a`` weighs the state, ``b`` the network outputs (this row's first, then older ones), ``c`` the noises likewise.
    ``ends`` marks the last row of a grid interval. ``calls`` is False for a row without a network call of its own.
    With ``c_max`` a denoiser that has learned its variance weighs this row's noise by c_0^(1-v) c_max^v, v in [0, 1]
    as it says (Nichol & Dhariwal 2021, eq. 15); any other by c_0.
    """

    t: float
    t_next: float
    a: float
    b: tuple[float, ...] = ()
    c: tuple[float, ...] = ()
    ends: bool = True
    calls: bool = True
    c_max: float | None = None


class _Rest(NamedTuple):
    """What a row does beside its own call: older outputs and noises by number, with weights, and which to free."""

    older: list[tuple[int, float]]
    draw: bool
    noises: list[tuple[int, float]]
    done: list[int]
    spent: list[int]


class _Step(NamedTuple):
    """A row as the loop reads it: its call's number, whether its output is needed later, its weights, and the rest.

    Where it ends an interval, ``end`` holds the interval's number, its two times and the calls made by then.
    """

    call: int | None
    kept: bool
    a: float
    b: float
    rest: _Rest | None
    end: tuple[int, float, float, int] | None


@dataclass(frozen=True)
class Table(Solver):
    """The rows of one run under one SDE. ``exact`` tables must pass the point-mass identity or they cannot exist.

    ``order`` is that of the recurrence, ``order_with_start`` that of a whole run including its first, lower-order rows
    (both for deterministic tables: global error O(h^order); None where no order is claimed).

    >>> import scoresde
    >>> table = scoresde.SAMPLERS["ddim"].build(scoresde.VPSDE(), (1.0, 0.5, 0.0))
    >>> table.nfe, table.defect < 1e-12
    (2, True)
    """

    takes_hook: ClassVar[bool] = True

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
            if not all(map(math.isfinite, values)):
                raise BadInput(
                    f"no finite coefficients for the step from t = {row.t:.6g} to {row.t_next:.6g} in {self.space}"
                    f" space under {self.sde}: use another grid or sampler"
                )
        size = max(sum(map(abs, row.b)) for row in self.rows)  # of the weights that have to cancel
        if self.exact and self.defect > TOLERANCE * max(1.0, size):
            raise BadInput(
                f"table breaks the point-mass identity by {self.defect:.3g}: wrong, or times too close together"
            )

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

        A run that starts from α_s x_0 + σ_s z must end every interval at α_t x_0 + σ_t z' in law. The coefficients of
        x_0, z and the noises are propagated through the rows; returned is the largest error of either part, relative to
        the scale sqrt(α_t² + σ_t²) of the state. In exact tables each interval starts anew, from its ideal state.
        """
        at = self.sde.knots([row.t for row in self.rows])
        end = self.sde.knots([row.t_next for row in self.rows])
        ends = [i for i, row in enumerate(self.rows) if row.ends]
        width = 2 + (max(b - a for a, b in pairwise([-1, *ends])) if self.exact else len(self.rows))
        if any(j > i - begin for begin, i, row in self._by_interval() for j, w in enumerate(row.c) if w):
            return math.inf  # noise of an earlier interval: not independent of the state
        data, fresh = np.eye(2, width)
        depth = _deepest(self.rows)
        # The outputs on a point mass before the first row, for tables that start with a history.
        calls = [] if self.space == "v" else [data if self.space == "x0" else fresh] * depth
        levels = list(zip(*(values.tolist() for values in (at.alpha, at.sigma, end.alpha, end.sigma)), strict=True))
        state, worst = levels[0][0] * data + levels[0][1] * fresh, 0.0
        for (begin, i, row), (alpha, sigma, alpha_t, sigma_t) in zip(self._by_interval(), levels, strict=True):
            if row.calls:
                output = data
                if self.space != "x0":
                    output = (state - alpha * data) / sigma
                if self.space == "v":
                    output = alpha * output - sigma * data
                calls = [output, *calls[: depth - 1]]
            state = row.a * state
            for weight, output in zip(row.b, calls, strict=False):
                state += weight * output
            for j, weight in enumerate(row.c):
                state[2 + i - j - begin] += weight
            if row.ends:
                scale, spread = math.hypot(alpha_t, sigma_t), math.sqrt(state[1:] @ state[1:])
                worst = max(worst, abs(float(state[0]) - alpha_t) / scale, abs(spread - sigma_t) / scale)
                if self.exact:
                    state = alpha_t * data + sigma_t * fresh
        return float(worst)

    def _by_interval(self) -> Iterator[tuple[int, int, Row]]:
        """Every row with its number, and that of the first row whose noise counts: its interval's, or the run's."""
        begin = 0
        for i, row in enumerate(self.rows):
            yield begin, i, row
            begin = i + 1 if row.ends and self.exact else begin

    @cached_property
    def resolved(self) -> list[_Step]:
        """The rows with every reference resolved: which older outputs and noises each uses, and when they are freed."""
        calls = np.cumsum([row.calls for row in self.rows]).tolist()
        uses = [{calls[i] - 1 - j: w for j, w in enumerate(row.b) if w} for i, row in enumerate(self.rows)]
        draws = [{i - j: w for j, w in enumerate(row.c) if w} for i, row in enumerate(self.rows)]
        last_use = {call: i for i, used in enumerate(uses) for call in used}
        last_draw = {row: i for i, used in enumerate(draws) for row in used}
        ends = [i for i, row in enumerate(self.rows) if row.ends]
        spans = {i: (k, *span, calls[i]) for k, (i, span) in enumerate(zip(ends, pairwise(self.times), strict=True))}
        steps: list[_Step] = []
        for i, row in enumerate(self.rows):
            own = calls[i] - 1 if row.calls else None
            older = [(call, w) for call, w in uses[i].items() if call != own]
            done = [call for call, _ in older if last_use[call] == i]
            spent = [at for at in draws[i] if last_draw[at] == i]
            rest = _Rest(older, i in last_draw, list(draws[i].items()), done, spent)
            kept = own is not None and last_use.get(own, i) > i
            weight = uses[i].get(own, 0.0) if own is not None else 0.0
            steps.append(_Step(own, kept, row.a, weight, rest if any(rest) else None, spans.get(i)))
        return steps

    def iterate(
        self,
        denoiser: AnyDenoiser,
        x: Tensor,
        noise: Noise | None = None,
        *,
        x0: bool = True,
        history: Sequence[Tensor] = (),
        hook: Hook | None = None,
        **cond: Any,
    ) -> Iterator[Interval]:
        """Run the rows, stopping at the end of each interval.

        ``history`` holds outputs before the first row, newest first, for a table whose rows reach back that far.
        ``hook`` acts on the state after every row.
        """
        return self._run_rows(denoiser, x, noise, x0, True, history, hook, cond)

    def _last(
        self,
        denoiser: AnyDenoiser,
        x: Tensor,
        noise: Noise | None,
        callback: Callback | None,
        *,
        history: Sequence[Tensor] = (),
        hook: Hook | None = None,
        **cond: Any,
    ) -> Interval:
        """The last interval, without a stop at the others where nobody looks."""
        if callback:
            return super()._last(denoiser, x, noise, callback, history=history, hook=hook, **cond)
        return next(self._run_rows(denoiser, x, noise, False, False, history, hook, cond))

    def _run_rows(
        self,
        denoiser: AnyDenoiser,
        x: Tensor,
        noise: Noise | None,
        x0: bool,
        every: bool,
        history: Sequence[Tensor],
        hook: Hook | None,
        cond: dict[str, Any],
    ) -> Iterator[Interval]:
        """The loop: nothing is read from the device, and no schedule is computed, between calls.

        It stops at ``every`` interval's end, or at the last alone.
        """
        if self.stochastic and noise is None:
            raise BadInput("this table draws noise: pass noise=(step, draw, x) -> tensor, or use sample(..., seed=...)")
        plan = denoiser.plan(self.space, [row.t for row in self.rows if row.calls], x, **cond)
        skips, scales, net, learned = plan
        outputs, noises = {-1 - j: output for j, output in enumerate(history)}, dict[int, Tensor]()
        estimate, spread, last = x, None, len(self.rows) - 1
        for i, (call, kept, a, b, rest, end) in enumerate(self.resolved):
            if call is None:
                x = torch.mul(x, a)
            else:
                if learned and self.rows[i].c_max is not None:
                    out, spread = learned(call, x)
                else:
                    out = net(call, x)
                skip, scale = skips[call], scales[call]
                if x0:
                    estimate = self._x0(x, torch.add(skip * x, out, alpha=scale), self.rows[i].t)
                if kept:
                    out = outputs[call] = torch.add(skip * x, out, alpha=scale)
                    x = torch.mul(x, a).add_(out, alpha=b)
                else:  # no other row uses this D = skip x + scale out: fold it into the update, one kernel less
                    x = torch.mul(x, a + b * skip).add_(out, alpha=b * scale)
            if rest:
                for k, weight in rest.older:
                    x.add_(outputs[k], alpha=weight)
                for k in rest.done:
                    del outputs[k]
                if rest.draw and noise:
                    noises[i] = noise(i, 0, x)
                    if spread is not None:
                        noises[i], spread = with_variance(noises[i], spread, self.rows[i]), None
                for k, weight in rest.noises:
                    x.add_(noises[k], alpha=weight)
                for k in rest.spent:
                    del noises[k]
            if hook:
                x = acted_on(hook, i, self.rows[i].t_next, x, noise)
            if end and (every or i == last):
                interval, start, stop, calls = end
                yield Interval(interval, start, stop, x, estimate if x0 else x, calls)

    def _x0(self, x: Tensor, output: Tensor, t: float) -> Tensor:
        """x̂_0 from an output in the table's space, for callbacks."""
        if self.space == "x0":
            return output
        at = self.sde.knots([t])
        alpha, sigma = float(at.alpha[0]), float(at.sigma[0])
        if self.space == "eps":
            return (x - sigma * output) / alpha
        return (alpha * x - sigma * output) / (alpha**2 + sigma**2)


def with_variance(z: Tensor, v: Tensor, row: Row) -> Tensor:
    """Noise that the row's c_0 weighs as the network wants it: z (c_max/c_0)^v."""
    assert row.c_max is not None
    return z * (v * math.log(row.c_max / row.c[0])).exp()


def _deepest(rows: Sequence[Row]) -> int:
    return max((len(row.b) for row in rows), default=0)
