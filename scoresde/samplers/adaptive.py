"""Adaptive solvers with a step per sample: Dormand-Prince and DPM-Solver on the probability flow, and the reverse SDE.

Each is an embedded pair; `scoresde.samplers.per_sample` says how pairs are driven, and drives them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from scoresde.errors import BadInput, choose
from scoresde.grids import Times
from scoresde.samplers.per_sample import PerSample, Rule, Run, Trial, on, rms
from scoresde.sde import SDE

# Dormand & Prince 1980, table 2: nodes, stages (the last one is the fifth-order solution), fifth minus fourth order.
_NODES = (1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
_STAGES = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)


@dataclass(frozen=True)
class DormandPrince(PerSample):
    """The flow dy/dφ by Dormand and Prince's pair of orders 5 and 4: see `rk45`."""

    @property
    def rule(self) -> Rule:
        return Rule("rk45", "v", stages=6, power=1 / 5, first=0.05, bounds=(0.2, 5.0), longest=0.25)

    def clock(self, t: Tensor) -> Tensor:
        return self.sde.phi(t)

    def time(self, u: Tensor) -> Tensor:
        return self.sde.t_of_phi(u)

    def attempt(self, run: Run, u: Tensor) -> Trial:
        h, ks, y = on(u - run.u, run.y), [run.k], run.y
        for node, stage in zip(_NODES, _STAGES, strict=True):
            y = run.y + h * _sum(stage, ks)
            ks.append(run.call(y, torch.lerp(run.u, u, node)))
        size = self.atol + self.rtol * torch.maximum(run.y.abs(), y.abs())
        return Trial(y, y, rms(h * _sum(_ERROR, ks) / size), ks[-1])


@dataclass(frozen=True)
class DPMSolver(PerSample):
    """The exponential pairs DPM-Solver-12 and DPM-Solver-23 in λ: see `dpm_adaptive`."""

    order: int = 3
    space: str = "eps"

    def __post_init__(self) -> None:
        super().__post_init__()
        choose("space", self.space, ("eps", "x0"))
        if self.order not in (2, 3):
            raise BadInput(f"order = {self.order!r} must be 2 (DPM-Solver-12) or 3 (DPM-Solver-23)")

    @property
    def rule(self) -> Rule:
        return Rule("dpm-adaptive", self.space, stages=self.order - 1, power=1 / self.order, first=0.05)

    def clock(self, t: Tensor) -> Tensor:
        return self.sde.lam(t)

    def time(self, u: Tensor) -> Tensor:
        return self.sde.t_of_lam(u)

    def attempt(self, run: Run, u: Tensor) -> Trial:
        x, D = run.y, run.k
        if self.order == 2:
            lead, a, _ = self._weights(run, u, 1 / 2)
            change = run.call(lead * x + a * D, torch.lerp(run.u, u, 1 / 2)) - D
            lead, a, _ = self._weights(run, u, 1.0)
            low, more = lead * x + a * D, a * change
        else:
            lead, a, _ = self._weights(run, u, 1 / 3)
            first = run.call(lead * x + a * D, torch.lerp(run.u, u, 1 / 3)) - D
            lead, a, b = self._weights(run, u, 2 / 3)
            second = run.call(lead * x + a * D + 2 * b * first, torch.lerp(run.u, u, 2 / 3)) - D
            lead, a, b = self._weights(run, u, 1.0)
            low, more = lead * x + a * (D + 1.5 * first), 1.5 * (b * second - a * first)
        size = torch.maximum(low.abs(), run.before.abs()).mul(self.rtol).clamp(min=self.atol)
        return Trial(low + more, low, rms(more / size))

    def _weights(self, run: Run, u: Tensor, part: float) -> tuple[Tensor, Tensor, Tensor]:
        """Over ``part`` of the step h: the weights of x, of a constant output, and of one that grows from 0 to 1.

        With w = -1 in eps space, 1 in x0 space, and z = w h: 1 - e^{-z} and 1 - (1 - e^{-z})/z, times σ or α.
        """
        at, sign = torch.lerp(run.u, u, part), -1 if self.space == "eps" else 1
        carried = (logsigmoid(-2 * sign * at) - logsigmoid(-2 * sign * run.u)) / 2  # α²/(α²+σ²) = sigmoid(2λ)
        fed = logsigmoid(2 * sign * at) / 2
        z = sign * (at - run.u)
        share = -torch.expm1(-z)
        weights = carried.exp(), fed.exp() * share, fed.exp() * (1 - share / z)
        return on(weights[0], run.y), on(weights[1], run.y), on(weights[2], run.y)


class Path:
    """A Brownian path for each sample, remembered where a refused step has looked ahead.

    A step is refused for its noise. To draw that afresh would favour noises that cancel the drift, at any tolerance: in
    two dimensions the output's variance comes out 1.3 to 4 times too large. A shorter step takes the Brownian bridge
    between the known points instead, and later steps meet the values seen (rejection sampling with memory, Rackauckas
    & Nie 2017).
    """

    def __init__(self, x: Tensor) -> None:
        self.known = torch.zeros(len(x), 1, dtype=torch.float64)  # times since the start, in no order
        self.values = torch.zeros_like(x).unsqueeze(1)

    def increment(self, now: Tensor, then: Tensor, z: Tensor) -> Tensor:
        """B(then) - B(now), ``now`` a known time and ``then`` a later one, made with the standard normal z."""
        each, since, at = torch.arange(len(now)), now.unsqueeze(1), then.unsqueeze(1)
        a, left = self.known.where(self.known <= at, -math.inf).max(1)
        b, right = self.known.where(self.known > at, math.inf).min(1)
        share = torch.where(b.isinf(), 0.0, (then - a) / (b - a))
        low, high = self.values[each, left], self.values[each, right]
        value = low + on(share, z) * (high - low) + on(((then - a) * (1 - share)).sqrt(), z) * z
        increment = value - self.values[each, (self.known == since).int().argmax(1)]
        if not bool((self.known < since).any(1).all()):  # no room in the past of some sample
            self.known = torch.cat([self.known, torch.full_like(at, -math.inf)], 1)
            self.values = torch.cat([self.values, torch.zeros_like(z).unsqueeze(1)], 1)
        slot = (self.known < since).int().argmax(1)
        self.known[each, slot], self.values[each, slot] = then, value
        return increment

    def keep(self, stay: Tensor) -> None:
        self.known, self.values = self.known[stay], self.values[stay]


@dataclass(frozen=True)
class StochasticEuler(PerSample):
    """The reverse SDE by Euler-Maruyama and stochastic improved Euler: see `sde_adaptive`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.times[1] > self.times[0]:
            raise BadInput("sde-adaptive: the times must fall: a reverse SDE does not encode")

    @property
    def rule(self) -> Rule:
        first = 0.01 * (self.times[0] - self.times[1])
        return Rule("sde-adaptive", "x0", stages=1, power=0.9, first=first, noise=True)

    def clock(self, t: Tensor) -> Tensor:
        finite = (self.sde.log_alpha(t) + self.sde.f(t)).isfinite()
        return torch.where(finite, t, math.nan)

    def time(self, u: Tensor) -> Tensor:
        return u

    def scale(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def memory(self, x: Tensor) -> Path:
        return Path(x)

    def attempt(self, run: Run, u: Tensor) -> Trial:
        assert isinstance(run.memory, Path)
        noise = run.memory.increment(run.start - run.u, run.start - u, run.draw())
        first = self._change(run.y, run.k, run.u, run.u - u, noise)
        low = run.y + first
        second = self._change(low, run.call(low, u), u, run.u - u, noise)
        size = torch.maximum(low.abs(), run.before.abs()).mul(self.rtol).clamp(min=self.atol)
        return Trial(run.y + 0.5 * (first + second), low, rms(0.5 * (second - first) / size))

    def _change(self, x: Tensor, x0: Tensor, t: Tensor, h: Tensor, noise: Tensor) -> Tensor:
        """-h (f x - g² s) + g ΔB with the score s = (α x̂_0 - x)/σ² at time t."""
        f, growth = self.sde.rates(t)
        ratio = 2 * (growth - f)  # g²/σ²
        sigma = self.sde.sigma(t)
        a, b = on(-h * (f + ratio), x), on(h * ratio * self.sde.alpha(t), x)
        return a * x + b * x0 + on(sigma * ratio.sqrt(), x) * noise


def _sum(weights: Sequence[float], ks: Sequence[Tensor]) -> Tensor:
    return sum((w * k for w, k in zip(weights[1:], ks[1:], strict=True) if w), weights[0] * ks[0])


def rk45(
    sde: SDE, times: Times, *, rtol: float = 1e-5, atol: float = 1e-5, max_nfe: int = 2000, on_limit: str = "raise"
) -> DormandPrince:
    """The probability-flow ODE dy/dφ of `scoresde.samplers.ode` by Dormand & Prince (1980), with a step per sample.

    E is the sample's rms of (y_5 - y_4) / (atol + rtol max(|y|, |y_5|)); the next step in φ is 0.9 E^{-1/5} of this,
    between 0.2 and 5, and at most 0.25: a longer one can miss where the flow parts between two modes, unseen by E. The
    last stage is the next step's first: 6 calls a step and 1 in all, so at least 43. torchdiffeq's dopri5 shares its
    steps over the batch, which costs easy samples more calls and gives them more accuracy than was asked for. Times
    may rise: that encodes.
    """
    return DormandPrince(sde, times, rtol, atol, max_nfe, on_limit)


def dpm_adaptive(
    sde: SDE,
    times: Times,
    *,
    order: int = 3,
    space: str = "eps",
    rtol: float = 0.05,
    atol: float = 0.0078,
    max_nfe: int = 2000,
    on_limit: str = "raise",
) -> DPMSolver:
    """DPM-Solver-12 (``order`` 2) or -23 (3) with adaptive steps in λ (Lu et al. 2022a, appendix C), a step per sample.

    Steps of orders ``order`` - 1 and ``order`` as published (r = 1/2, or 1/3 and 2/3), with E the sample's rms of their
    difference over max(atol, rtol max(|x_low|, |x_low before|)); h = 0.05 at first, then 0.9 h E^{-1/order}. Published
    for VP in eps space, and so it is here, but that the authors' code shares the steps over the batch. Under other SDEs
    it runs on x/√(α²+σ²), so that E means the same for all; "x0" is the pair in DPM-Solver++'s space. ``order`` calls a
    step; a refused one costs one less, as the first output is kept. Times may rise: that encodes.
    """
    return DPMSolver(sde, times, rtol, atol, max_nfe, on_limit, order, space)


def sde_adaptive(
    sde: SDE, times: Times, *, rtol: float = 0.02, atol: float = 0.0078, max_nfe: int = 2000, on_limit: str = "raise"
) -> StochasticEuler:
    """The reverse SDE with adaptive steps in t (Jolicoeur-Martineau et al. 2021b, algorithm 1), a step per sample.

    Euler-Maruyama gives x'; with the same noise and the coefficients and score of the step's end it gives x̃, and
    x'' = (x' + x̃)/2. E is the sample's rms of (x' - x'') / max(atol, rtol max(|x'|, |x' before|)); E ≤ 1 goes on from
    x''. h is 0.01 of the run at first, then 0.9 h E^{-0.9}. 2 calls a step, 1 for a refused one. Where the paper's code
    draws new noise after a refusal, a shorter step here keeps to the Brownian path that was seen, which alone has the
    right law (`Path`).
    """
    return StochasticEuler(sde, times, rtol, atol, max_nfe, on_limit)
