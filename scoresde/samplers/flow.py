"""The probability flow as a function of (φ, y), for solvers: it counts calls and refuses what is not finite."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from scoresde.denoiser import AnyDenoiser
from scoresde.errors import SolverFailure
from scoresde.samplers.limits import stuck
from scoresde.schedule import per_sample


class Flow:
    """dy/dφ as a function of (φ, y) on the host's clock, counting calls and refusing what is not finite."""

    def __init__(
        self, denoiser: AnyDenoiser, ends: tuple[float, float], rtol: float, max_nfe: int, cond: dict[str, Any]
    ):
        self.denoiser, self.cond, self.max_nfe, self.rtol = denoiser, cond, max_nfe, rtol
        self.low, self.high = min(ends), max(ends)
        self.nfe, self.rejected, self.t, self.calling = 0, 0, ends[0], False
        self.step = ends[0], math.nan  # where the current step began and, where it is known, its length in t
        self.last: tuple[Tensor, Tensor, float, float] | None = None
        self.kept: tuple[Tensor, Tensor] | None = None

    def time(self, phi: Tensor) -> float:
        """t(φ) in float64, never beyond the ends of the run."""
        inside = phi.detach().cpu().double().clamp(0.0, 0.5 * math.pi)
        return min(max(float(self.denoiser.sde.t_of_phi(inside)), self.low), self.high)

    def begin(self, phi: Tensor, y: Tensor) -> Tensor:
        """The slope at the start, kept for the solver's first call, which asks for it again."""
        self.kept = (y, self(phi, y))
        return self.kept[1]

    def __call__(self, phi: Tensor, y: Tensor) -> Tensor:
        if self.kept and y is self.kept[0]:
            (_, slope), self.kept = self.kept, None
            return slope
        if self.nfe >= self.max_nfe:
            raise stuck(f"ode: {self.max_nfe} network calls reached at t = {self.t:.4g}", *self.step, self.rtol)
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


def largest_rms(error: Tensor) -> Tensor:
    """The largest rms over the samples: each sample meets the tolerance, though all share one step size."""
    return per_sample(error).square().mean(1).sqrt().max()
