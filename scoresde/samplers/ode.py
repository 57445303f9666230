"""The probability-flow ODE through torchdiffeq (and scipy), in a variable in which it is bounded.

With y = x / sqrt(α² + σ²) and φ = atan(σ/α) the flow dx/dt = f x - g² s/2 (Song et al. 2021, eq. 13) becomes

    dy/dφ = (α ε̂ - σ x̂_0) / sqrt(α² + σ²),

bounded at both ends and for every SDE; where α² + σ² = 1 the right side is v̂ (Salimans & Ho 2022, appendix D).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scoresde.denoiser import AnyDenoiser
from scoresde.errors import BadInput, choose
from scoresde.grids import Times
from scoresde.noise import Noise
from scoresde.samplers.flow import Flow, largest_rms
from scoresde.samplers.limits import Stuck, check_limits, stuck
from scoresde.samplers.solver import Callback, Interval, Solution, Solver
from scoresde.sde import SDE

RUNGE_KUTTA = {"euler": 1, "midpoint": 2, "heun2": 2, "heun3": 3, "rk4": 4}  # calls per interval
ADAMS = {"explicit_adams": 1, "implicit_adams": 2}  # calls per interval, but 4 in each of the first two
FIXED = {**RUNGE_KUTTA, **ADAMS}
STEPPING = ("dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive_heun")
SCIPY = {"scipy-rk45": "RK45", "scipy-dop853": "DOP853", "scipy-lsoda": "LSODA", "scipy-bdf": "BDF",
         "scipy-radau": "Radau"}  # fmt: skip
ADAPTIVE = (*STEPPING, *SCIPY)


@dataclass(frozen=True)
class FlowODE(Solver):
    """One run of the probability flow: over the intervals of ``times`` with a fixed-step method, or adaptively.

    A fixed-step method takes its calls in each interval, and one into t = 0 where the last interval is the jump
    x = x̂_0: NFE(rk4, n) = 4 (n - 1) + 1. An adaptive method goes from times[0] to times[-1] (above 0) and keeps each
    sample's local error within atol + rtol |y|, for all samples with one step size: samples agree with runs alone to
    about ten times the tolerance. Times may rise (fixed-step or adaptive): that encodes.

    An adaptive run that makes ``max_nfe`` calls, or whose step falls below the state's precision, raises
    `SolverFailure`, or with ``on_limit`` "return" ends where it is: its last interval then has no length.
    """

    sde: SDE
    times: Times  # pyright: ignore[reportIncompatibleMethodOverride]
    method: str = "rk4"
    rtol: float = 1e-5
    atol: float = 1e-5
    max_nfe: int = 2000
    on_limit: str = "raise"

    def __post_init__(self) -> None:
        choose("ode method", self.method, (*FIXED, *ADAPTIVE))
        check_limits(self.rtol, self.atol, self.max_nfe, self.on_limit)
        if self.method in ADAPTIVE and not (len(self._knots) == 2 and self.times[0]):
            raise BadInput(f"{self.method}: an adaptive run goes from t_max to a time above 0, and may end with 0")
        if self.method in ADAMS:
            at = self.sde.knots(self._knots)
            steps = np.diff(np.arctan2(at.sigma, at.alpha))
            if len(steps) and np.ptp(steps) > 1e-6 * abs(steps[0]):
                raise BadInput(f"{self.method} needs equal steps in φ: grid 'phi'")

    @property
    def _knots(self) -> Times:
        """The times above 0, over which the flow is integrated."""
        return self.times[:-1] if self.times[-1] == 0 else self.times

    @property
    def _end(self) -> float:
        return self._knots[-1]

    @property
    def nfe(self) -> int | None:
        """Calls per sample of a fixed-step run; None where the error decides."""
        if self.method in ADAPTIVE:
            return None
        intervals, jump, each = len(self._knots) - 1, self.times[-1] == 0, FIXED[self.method]
        return each * intervals + jump + ((4 - each) * min(2, intervals) if self.method in ADAMS else 0)

    def iterate(
        self, denoiser: AnyDenoiser, x: Tensor, noise: Noise | None = None, *, x0: bool = True, **cond: Any
    ) -> Iterator[Interval]:
        """Integrate interval by interval; an adaptive run makes its own, known at its end, and so does Adams'."""
        return self._iterate(self._flow(denoiser, x, cond), x, True, None)

    def _flow(self, denoiser: AnyDenoiser, x: Tensor, cond: dict[str, Any]) -> Flow:
        if self.method in SCIPY and x.requires_grad and torch.is_grad_enabled():
            raise BadInput(f"{self.method} carries no gradient: use another method, or torch.no_grad()")
        ends = self.times[0], self._end
        denoiser.plan("v", ends, x, **cond)  # refuses, before the first call, what has no v there
        return Flow(denoiser, ends, self.rtol, self.max_nfe if self.method in ADAPTIVE else 10**9, cond)

    def _iterate(self, flow: Flow, x: Tensor, keep: bool, live: Callback | None) -> Iterator[Interval]:
        done, t, end = 0, self.times[0], self._end
        whole = self.method not in RUNGE_KUTTA and len(self._knots) > 1
        for interval in self._whole(flow, _Watch(self, flow, x, keep, live)) if whole else self._each(flow, x):
            x, done, t = interval.x, interval.i + 1, interval.t_next
            yield interval
        if self.times[-1] == 0 and t == end:
            x = flow.denoiser.predict("x0", x, t, **flow.cond)
            last = Interval(done, t, 0.0, x, x, flow.nfe + 1)
            if live:
                live(*last)
            yield last

    def _last(
        self, denoiser: AnyDenoiser, x: Tensor, noise: Noise | None, callback: Callback | None, **cond: Any
    ) -> Interval:
        """The last interval. What is one call of a library calls back while it runs."""
        if self.method in RUNGE_KUTTA:
            return super()._last(denoiser, x, noise, callback, **cond)
        *_, last = self._iterate(self._flow(denoiser, x, cond), x, False, callback)
        return last

    def solve(
        self, denoiser: AnyDenoiser, x: Tensor, noise: Noise | None = None, callback: Callback | None = None, **how: Any
    ) -> Solution:
        """The whole run, with the steps that an adaptive method took and refused, the same for all samples."""
        if self.method in FIXED:
            return super().solve(denoiser, x, noise, callback, **how)
        *_, last = self._iterate(flow := self._flow(denoiser, x, how), x, False, callback)
        steps = last.i + (last.t_next not in (0.0, last.t))  # the jump to the data is none, nor is a stop
        counts = last.t_next, last.nfe, steps, -1 if self.method in SCIPY else flow.rejected
        return Solution(last.x, *(np.full(len(x), count) for count in counts))

    def _phi(self, times: Times, x: Tensor) -> Tensor:
        return self.sde.phi(torch.tensor(times, dtype=torch.float64)).to(x.dtype).to(x.device)

    def _solve(self, f: Flow | _Watch, y: Tensor, t: float, t_next: float, **how: Any) -> Tensor:
        """The state x at t_next from the state y at t, by torchdiffeq."""
        from torchdiffeq import odeint  # here, since it loads a third of a second of scipy

        states = odeint(f, y, self._phi((t, t_next), y), **how)
        assert isinstance(states, Tensor)
        return self.sde.prior_std(t_next) * states[-1]

    def _each(self, flow: Flow, x: Tensor) -> Iterator[Interval]:
        """A one-step method, interval by interval."""
        options = {"grid_constructor": lambda f, y, phi: phi}  # pyright: ignore[reportUnknownVariableType]
        for i, (t, t_next) in enumerate(pairwise(self._knots)):
            x = self._solve(flow, x / self.sde.prior_std(t), t, t_next, method=self.method, options=options)
            yield Interval(i, t, t_next, x, flow.x0(), flow.nfe)

    def _whole(self, flow: Flow, watch: _Watch) -> Iterator[Interval]:
        """All intervals in one call of a library, which tells of each step."""
        try:
            if self.method in SCIPY:
                _scipy(self, flow, watch)
            else:
                y = watch.x / self.sde.prior_std(self.times[0])
                x = self._solve(watch, y, self.times[0], self._end, method=self.method, **self._how(flow, y))
                watch.add(self._end, x)
        except Stuck:
            if self.on_limit == "raise":
                raise
            watch.add(watch.t, watch.x)
        except AssertionError as error:  # torchdiffeq's own way to give up
            if flow.calling:  # the network's, then, not ours to explain
                raise
            why = f"ode: {self.method} gave up at t = {flow.t:.4g}, {str(error)[:60]}"
            raise stuck(why, *flow.step, self.rtol) from None
        yield from watch.intervals

    def _how(self, flow: Flow, y: Tensor) -> dict[str, Any]:
        """The arguments of torchdiffeq for all intervals in one call."""
        if self.method in STEPPING:  # in the state's precision the clock too, as not every device has float64
            options: dict[str, Any] = {"norm": largest_rms, "step_t": self._phi((self._end,), y), "dtype": y.dtype}
            if self.method == "dopri5" and self.times[1] > self.times[0]:
                options["first_step"] = self._first_step(flow, y)
            return {**self._tolerances(flow, y), "options": options}
        grid = self._phi(self._knots, y)  # and a tolerance that the first correction always meets
        return {
            "rtol": 1e30,
            "atol": 1e30,
            "options": {"grid_constructor": lambda f, y, phi: grid, "max_order": 5},
        }

    def _tolerances(self, flow: Flow, y: Tensor) -> dict[str, Any]:
        """rtol and atol; of integrals that a denoiser carries beside the coordinates, whose size is no scale of theirs,
        both as an absolute error."""
        count = int(getattr(flow.denoiser, "integrals", 0))
        if not count:
            return {"rtol": self.rtol, "atol": self.atol}
        rtol, atol = torch.full_like(y[0], self.rtol), torch.full_like(y[0], self.atol)
        rtol[-count:], atol[-count:] = 0.0, self.rtol + self.atol
        return {"rtol": rtol, "atol": atol}

    def _first_step(self, flow: Flow, y: Tensor) -> Tensor | None:
        """The first step up from the data where the slope is like c/φ, as that of log p can be; else None: its own.

        There a step of some φ meets the tolerance, and a rule for slopes that stay would make it far shorter; c is the
        share of the coordinates without noise of their own. 2.5 and 4, at tolerances of 0.01, were level.
        """
        phi = self._phi((self.times[0],), y)[0]
        c = phi * largest_rms(flow.begin(phi, y))
        return 2.5 * phi * (50 * (self.rtol + self.atol)) ** 0.2 if c > 0.2 else None


def _scipy(solver: FlowODE, flow: Flow, watch: _Watch) -> None:
    """Step through the run with one of scipy's solvers, on the host in float64."""
    from scipy import integrate

    x, begin = watch.x, solver.times[0]
    y = (x / solver.sde.prior_std(begin)).detach().cpu().double()
    at = solver.sde.knots((begin, solver.times[1]))
    phi = np.arctan2(at.sigma, at.alpha)

    def state(y: np.ndarray) -> Tensor:
        return torch.from_numpy(y).reshape(x.shape).to(x.dtype).to(x.device)

    def slope(phi: float, y: np.ndarray) -> np.ndarray:
        v = flow(torch.tensor(phi, dtype=torch.float64), state(y))
        return v.detach().cpu().double().numpy().reshape(-1)

    make = getattr(integrate, SCIPY[solver.method])
    run = make(slope, phi[0], y.numpy().reshape(-1), phi[1], rtol=solver.rtol, atol=solver.atol)
    while run.status == "running":
        message = run.step()
        t = solver.times[1] if run.status == "finished" else flow.time(torch.tensor(run.t))
        flow.step = watch.t, abs(t - watch.t)
        if run.status == "failed":
            raise stuck(f"ode: {solver.method} gave up, {str(message).rstrip('.')}", *flow.step, solver.rtol)
        watch.add(t, solver.sde.prior_std(t) * state(run.y))


class _Watch:
    """The flow as torchdiffeq's solvers see it; told of each step that they begin, with the state before it.

    A new state is the end of an interval; without ``keep`` only the last one is kept. A step that the clock cannot
    resolve is the end of the run.
    """

    def __init__(self, solver: FlowODE, flow: Flow, x: Tensor, keep: bool, live: Callback | None) -> None:
        self.solver, self.flow, self.keep, self.live = solver, flow, keep, live
        self.t, self.x, self.phi = solver.times[0], x, math.nan
        self.knots = iter(solver.times) if solver.method in ADAMS else None
        self.direction = 1.0 if solver.times[1] > solver.times[0] else -1.0
        self.shortest = 0.0 if self.knots else 4 * math.pi * torch.finfo(x.dtype).eps
        self.intervals: list[Interval] = []

    def __call__(self, phi: Tensor, y: Tensor) -> Tensor:
        return self.flow(phi, y)

    def callback_step(self, phi: Tensor, y: Tensor, step: Tensor) -> None:
        h, before, self.phi = float(step.detach()), self.phi, float(phi.detach())
        t = next(self.knots) if self.knots else self.flow.time(phi)
        if self.phi == before:
            self.flow.rejected += 1
        elif not math.isnan(before):
            self.add(t, self.solver.sde.prior_std(t) * y)
        self.flow.step = self.t, abs(self.flow.time(phi + self.direction * h) - self.t)
        if not h > self.shortest:
            raise stuck(f"ode: the step is too small for {y.dtype}", *self.flow.step, self.solver.rtol)

    def add(self, t: float, x: Tensor) -> None:
        """The run has come to the state x at t."""
        i = self.intervals[-1].i + 1 if self.intervals else 0
        self.intervals = self.intervals if self.keep else []
        self.intervals.append(Interval(i, self.t, t, x, self.flow.x0(), self.flow.nfe))
        self.t, self.x = t, x
        if self.live:
            self.live(*self.intervals[-1])


def ode(sde: SDE, times: Times, *, method: str = "rk4") -> FlowODE:
    """The probability-flow ODE with a fixed-step method, one of `FIXED`, over the intervals of ``times``.

    Adams' methods need equal steps in φ; both start with two steps of rk4. explicit_adams is Adams-Bashforth of order 4
    (measured 3.9): of order 11, torchdiffeq's default, it is unstable. implicit_adams predicts with it and corrects
    once with Adams-Moulton of order 5 (measured 5.0); torchdiffeq alone would repeat the correction until a tolerance
    is met, here the calls are fixed: NFE(n) = n + 6 and 2n + 4 for n ≥ 2.
    """
    return FlowODE(sde, times, choose("fixed-step ode method", method, FIXED))


def ode_adaptive(
    sde: SDE,
    times: Times,
    *,
    method: str = "dopri5",
    rtol: float = 1e-5,
    atol: float = 1e-5,
    max_nfe: int = 2000,
    on_limit: str = "raise",
) -> FlowODE:
    """The probability-flow ODE with an adaptive method between the ends of ``times``; the error decides the steps.

    The scipy methods are scipy's own: they control the rms error over the whole batch, not each sample's; state and
    output pass through the host at every call, and no gradient flows. bdf, radau and lsoda make dense Jacobians, of a
    call for each number in the batch: for small problems.
    """
    return FlowODE(sde, times, choose("adaptive ode method", method, ADAPTIVE), rtol, atol, max_nfe, on_limit)
