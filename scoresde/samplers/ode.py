"""The probability-flow ODE through torchdiffeq, in a variable in which it is bounded.

With y = x / sqrt(α² + σ²) and φ = atan(σ/α) the flow dx/dt = f x - g² s/2 (Song et al. 2021, eq. 13) becomes

    dy/dφ = (α ε̂ - σ x̂_0) / sqrt(α² + σ²),

bounded at both ends and for every SDE; where α² + σ² = 1 the right side is v̂ (Salimans & Ho 2022, appendix D).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from scoresde.denoiser import AnyDenoiser
from scoresde.errors import BadInput, SolverFailure, choose, positive
from scoresde.grids import Times
from scoresde.noise import Noise
from scoresde.samplers.solver import Callback, Interval, Solver
from scoresde.sde import SDE

FIXED = {"euler": 1, "midpoint": 2, "heun2": 2, "heun3": 3, "rk4": 4}  # calls per interval
ADAPTIVE = ("dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive_heun")


class _Flow:
    """dy/dφ as a function of (φ, y) on the host's clock, counting calls and refusing what is not finite."""

    def __init__(
        self, denoiser: AnyDenoiser, ends: tuple[float, float], rtol: float, max_nfe: int, cond: dict[str, Any]
    ):
        self.denoiser, self.cond, self.max_nfe, self.rtol = denoiser, cond, max_nfe, rtol
        self.low, self.high = min(ends), max(ends)
        self.nfe, self.t, self.calling = 0, ends[0], False
        self.last: tuple[Tensor, Tensor, float, float] | None = None

    def time(self, phi: Tensor) -> float:
        """t(φ) in float64, never beyond the ends of the run."""
        inside = phi.detach().cpu().double().clamp(0.0, 0.5 * math.pi)
        return min(max(float(self.denoiser.sde.t_of_phi(inside)), self.low), self.high)

    def __call__(self, phi: Tensor, y: Tensor) -> Tensor:
        if self.nfe >= self.max_nfe:
            raise SolverFailure(
                f"ode: {self.max_nfe} network calls reached at t = {self.t:.4g} with rtol = {self.rtol:g}:"
                " loosen --rtol/--atol, use --dtype float64, or raise --max-nfe"
            )
        self.nfe, self.t = self.nfe + 1, self.time(phi)
        at = self.denoiser.sde.knots([self.t])
        alpha, sigma = float(at.alpha[0]), float(at.sigma[0])
        size = math.hypot(alpha, sigma)
        self.calling = True
        v = self.denoiser.predict("v", size * y, self.t, **self.cond)
        self.calling = False
        if not bool(torch.isfinite(v).all()):
            raise SolverFailure(f"ode: the network returned NaN or infinity at t = {self.t:.4g} (call {self.nfe})")
        self.last = (size * y, v, alpha, sigma)
        return v / size

    def x0(self) -> Tensor:
        """x̂_0 of the last call."""
        assert self.last is not None
        x, v, alpha, sigma = self.last
        return (alpha * x - sigma * v) / (alpha**2 + sigma**2)


def _per_sample_rms(error: Tensor) -> Tensor:
    """The largest rms over the samples: each sample meets the tolerance, though all share one step size."""
    return error.flatten(1).square().mean(1).sqrt().max()


@dataclass(frozen=True)
class FlowODE(Solver):
    """One run of the probability flow: over the intervals of ``times`` with a fixed-step method, or adaptively.

    A fixed-step method takes its calls in each interval, and one into t = 0 where the last interval is the jump
    x = x̂_0: NFE(rk4, n) = 4 (n - 1) + 1. An adaptive method goes from times[0] to times[-1] (above 0) and keeps each
    sample's local error within atol + rtol |y|, for all samples with one step size: samples agree with runs alone to
    about ten times the tolerance. Times may rise (fixed-step or adaptive): that encodes.
    """

    sde: SDE
    times: Times  # pyright: ignore[reportIncompatibleMethodOverride]
    method: str = "rk4"
    rtol: float = 1e-5
    atol: float = 1e-5
    max_nfe: int = 2000

    def __post_init__(self) -> None:
        choose("ode method", self.method, (*FIXED, *ADAPTIVE))
        for name in ("rtol", "atol"):
            if not 0 < getattr(self, name) < 1:
                raise BadInput(f"{name} = {getattr(self, name)!r} must be in (0, 1)")
        positive("max_nfe", self.max_nfe)

    @property
    def nfe(self) -> int | None:
        """Calls per sample of a fixed-step run; None where the error decides."""
        if self.method in ADAPTIVE:
            return None
        intervals, jump = len(self.times) - 1, self.times[-1] == 0
        return FIXED[self.method] * (intervals - jump) + jump

    def iterate(
        self, denoiser: AnyDenoiser, x: Tensor, noise: Noise | None = None, *, x0: bool = True, **cond: Any
    ) -> Iterator[Interval]:
        """Integrate interval by interval; an adaptive run makes its own, known at its end (without ``x0``: one)."""
        return self._iterate(denoiser, x, x0, None, cond)

    def _iterate(
        self, denoiser: AnyDenoiser, x: Tensor, each: bool, live: Callback | None, cond: dict[str, Any]
    ) -> Iterator[Interval]:
        ends = self.times[0], self.times[-2] if self.times[-1] == 0 else self.times[-1]
        denoiser.plan("v", ends, x, **cond)  # refuses, before the first call, what has no v there
        flow = _Flow(denoiser, ends, self.rtol, self.max_nfe if self.method in ADAPTIVE else 10**9, cond)
        done = 0
        for interval in self._adaptive(flow, x, each, live) if self.nfe is None else self._fixed(flow, x):
            x, done = interval.x, done + 1
            yield interval
        if self.times[-1] == 0:
            x = flow.denoiser.predict("x0", x, ends[1], **cond)
            last = Interval(done, ends[1], 0.0, x, x, flow.nfe + 1)
            if live and self.nfe is None:
                live(*last)
            yield last

    def run(
        self,
        denoiser: AnyDenoiser,
        x: Tensor,
        noise: Noise | None = None,
        callback: Callback | None = None,
        **cond: Any,
    ) -> tuple[Tensor, int]:
        """All intervals: the last state and the calls made. An adaptive run calls back while it goes."""
        if self.nfe is not None:
            return super().run(denoiser, x, noise, callback, **cond)
        *_, last = self._iterate(denoiser, x, callback is not None, callback, cond)
        return last.x, last.nfe

    def _phi(self, t: float, x: Tensor) -> Tensor:
        return self.sde.phi(torch.tensor(t, dtype=torch.float64)).to(x.dtype).to(x.device)

    def _solve(self, f: Callable[[Tensor, Tensor], Tensor], x: Tensor, t: float, t_next: float, **how: Any) -> Tensor:
        """The state at t_next from the state x at t, by torchdiffeq."""
        from torchdiffeq import odeint  # here, since it loads a third of a second of scipy

        phi = torch.stack([self._phi(t, x), self._phi(t_next, x)])
        y = odeint(f, x / self.sde.prior_std(t), phi, method=self.method, **how)
        assert isinstance(y, Tensor)
        return self.sde.prior_std(t_next) * y[-1]

    def _fixed(self, flow: _Flow, x: Tensor) -> Iterator[Interval]:
        times = self.times[:-1] if self.times[-1] == 0 else self.times
        for i, (t, t_next) in enumerate(pairwise(times)):
            x = self._solve(flow, x, t, t_next, options={"grid_constructor": lambda f, y, phi: phi})
            yield Interval(i, t, t_next, x, flow.x0(), flow.nfe)

    def _adaptive(self, flow: _Flow, x: Tensor, each: bool, live: Callback | None) -> Iterator[Interval]:
        start, end = self.times[0], self.times[-2] if self.times[-1] == 0 else self.times[-1]
        accepted = _Accepted(self, flow, start, live)
        options = {"norm": _per_sample_rms, "step_t": self._phi(end, x)[None]}
        try:
            driver = accepted if each else flow
            x = self._solve(driver, x, start, end, rtol=self.rtol, atol=self.atol, options=options)
        except AssertionError as error:  # torchdiffeq's own way to give up
            if flow.calling:  # the network's, then, not ours to explain
                raise
            raise SolverFailure(
                f"ode: {self.method} gave up at t = {flow.t:.4g} with rtol = {self.rtol:g} ({str(error)[:60]}):"
                " loosen --rtol/--atol, use --dtype float64, or a fixed number of --steps"
            ) from None
        accepted.add(end, x)
        yield from accepted.intervals


class _Accepted:
    """Keeps torchdiffeq's accepted steps, which it reports with the state before them, as intervals."""

    def __init__(self, solver: FlowODE, flow: _Flow, start: float, live: Callback | None) -> None:
        self.solver, self.flow, self.begin, self.live, self.first = solver, flow, start, live, True
        self.intervals: list[Interval] = []

    def __call__(self, phi: Tensor, y: Tensor) -> Tensor:
        return self.flow(phi, y)

    def callback_accept_step(self, phi: Tensor, y: Tensor, step: Tensor) -> None:
        if not self.first:
            t = self.flow.time(phi)
            self.add(t, self.solver.sde.prior_std(t) * y)
        self.first = False

    def add(self, t: float, x: Tensor) -> None:
        self.intervals.append(Interval(len(self.intervals), self.begin, t, x, self.flow.x0(), self.flow.nfe))
        self.begin = t
        if self.live:
            self.live(*self.intervals[-1])


def ode(sde: SDE, times: Times, *, method: str = "rk4") -> FlowODE:
    """The probability-flow ODE with a fixed-step method, one of `FIXED`, over the intervals of ``times``."""
    return FlowODE(sde, times, choose("fixed-step ode method", method, FIXED))


def ode_adaptive(
    sde: SDE, times: Times, *, method: str = "dopri5", rtol: float = 1e-5, atol: float = 1e-5, max_nfe: int = 2000
) -> FlowODE:
    """The probability-flow ODE with an adaptive method between the ends of ``times``; the error decides the steps."""
    return FlowODE(sde, times, choose("adaptive ode method", method, ADAPTIVE), rtol, atol, max_nfe)
