"""Singlestep exponential integrators: two or three calls within each step in λ, none kept for the next step.

From s, with span H in λ to the step's end and D_0 the output at s, a stage that lands the fraction c further is

    x0 space:   x_c = (σ_c/σ_s) x_s + α_c (1 - e^{-cH}) M_c[x̂_0]
    eps space:  x_c = (α_c/α_s) x_s + σ_c (1 - e^{cH}) M_c[ε̂]

with M_c the exact mean over the stage of `multistep`; a method weighs the outputs so far, with sum 1, in its place.
With m = M_c[u] the mean of the stage's own fraction u,

    order 2   D_0 at r_1,  then D_0 + (D_1 - D_0)/(2 r_1)
    order 3   D_0 at 1/3,  D_0 + 2 m (D_1 - D_0) at 2/3,  then D_0 + (3/2) m (D_2 - D_0)

(Lu et al. 2022a, algorithms 1 and 2, in noise space; 2022b, algorithm 1, in data space). All are exact on a point
mass. A step into t = 0 is one call of first order, and so is one from pure noise in data space. An ancestral step
with noise η goes on to less noise than it lands on, ρ_down < ρ_t, and adds the rest as noise: the flow to ρ_down
and the forward transition from there are both exact in law, so the law of the output is of the order of the flow's
step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch

from scoresde.errors import BadInput
from scoresde.grids import Times
from scoresde.samplers.multistep import decay_of_eta, exponential_multistep, kernel_moments
from scoresde.samplers.runge_kutta import Stage, step_rows
from scoresde.samplers.table import Row, Table
from scoresde.schedule import Knots
from scoresde.sde import SDE

Method = Sequence[tuple[float, Callable[[float], Sequence[float]]]]  # each stage: c, and m -> weights of D_0, D_1, …

# In eps space the stages of a longer step in λ cancel so far on a point mass that float64 cannot show the identity.
_LONGEST = 12.0

_THIRD: Method = (
    (1 / 3, lambda m: [1.0]),
    (2 / 3, lambda m: [1 - 2 * m, 2 * m]),
    (1.0, lambda m: [1 - 1.5 * m, 0.0, 1.5 * m]),
)


def _second(r1: float) -> Method:
    if not 0 < r1 < 1:
        raise BadInput(f"r1 = {r1!r} must be in (0, 1)")
    return (r1, lambda m: [1.0]), (1.0, lambda m: [1 - 0.5 / r1, 0.5 / r1])


def _intervals(
    sde: SDE, times: Times, fractions: Sequence[float], eta: float, onward: bool
) -> list[tuple[Knots, float] | None]:
    """Each interval's knots (its start, the points at ``fractions`` of its span in λ, its end) and its τ²h.

    The span is h, or h + τ²h with ``onward``. None where it is infinite.
    """
    at, decay = sde.knots(times), decay_of_eta(eta)
    with np.errstate(invalid="ignore"):
        h = np.diff(at.lam)
        a = np.array([decay(t, float(step)) for t, step in zip(times, h, strict=False)])
        lam = at.lam[:-1, None] + np.outer(h + a if onward else h, fractions)
    inner = np.repeat(at.t[:-1, None], len(fractions), axis=1)
    finite = np.isfinite(lam)
    inner[finite] = sde.t_of_lam(torch.from_numpy(lam[finite])).numpy()
    start, end = at.t[:-1, None], at.t[1:, None]
    grid = np.hstack([start, np.clip(inner, np.minimum(start, end), np.maximum(start, end)), end])
    found = Knots(*(values.reshape(grid.shape) for values in sde.knots(grid.ravel().tolist())))
    return [
        (Knots(*(values[i] for values in found)), float(a[i])) if math.isfinite(h[i]) else None for i in range(len(h))
    ]


def _stages(method: Method, space: str, at: Knots, a: float) -> list[Stage]:
    """The stages of the formulas above on one interval; with τ²h = a > 0 down to ρ_t e^{-a}, then the noise back up."""
    sigma, span = at.sigma.copy(), at.lam - at.lam[0]
    sigma[-1] *= math.exp(-a)
    span[-1] += a
    stages: list[Stage] = []
    for k, (_, weigh) in enumerate(method, start=1):
        if space == "x0":
            z, keep, gain = span[k], sigma[k] / sigma[0], -at.alpha[k] * math.expm1(-span[k])
        else:
            z, keep = -span[k], at.alpha[k] / at.alpha[0]
            gain = sigma[k] - keep * sigma[0]
        whole, first = kernel_moments(1, float(z)) if z else (1.0, 0.5)
        stages.append(Stage(float(at.t[k]), float(keep), [float(gain) * w for w in weigh(first / whole)]))
    noise = float(at.sigma[-1]) * math.sqrt(-math.expm1(-2 * a))
    return [*stages[:-1], stages[-1]._replace(c=[0.0] * (len(method) - 1) + [noise])]


def _singlestep(sde: SDE, times: Times, method: Method, space: str, order: int, eta: float = 0.0) -> Table:
    inner = [c for c, _ in method[:-1]]
    steps = [found and _stages(method, space, *found) for found in _intervals(sde, times, inner, eta, onward=True)]
    return _table(sde, times, steps, space, None if eta else order, eta)


def _table(
    sde: SDE, times: Times, steps: Sequence[list[Stage] | None], space: str, order: int | None, eta: float
) -> Table:
    """The rows of every interval's stages; one call of first order where there are none."""
    rows: list[Row] = []
    span = np.diff(sde.knots(times).lam)
    exact = space == "x0" or bool((np.abs(span[np.isfinite(span)]) < _LONGEST).all())
    for i, stages in enumerate(steps):
        if stages:
            rows += step_rows(times[i], stages)
        else:
            rows += exponential_multistep(sde, times[i : i + 2], space=space, eta=eta if space == "x0" else 0.0).rows
    return Table(sde, space, tuple(rows), exact=exact, order=order, order_with_start=order)


# ----------------------------------------------------------------------------------------------------- deterministic


def dpm2s(sde: SDE, times: Times, *, r1: float = 0.5) -> Table:
    """DPM-Solver-2 (Lu et al. 2022a, algorithm 1): two calls a step in noise space, the second ``r1`` of the way in λ.

    With r1 = 1/2, the paper's, it is x_t = (α_t/α_s) x + (σ_t - (α_t/α_s) σ_s) D_1: the midpoint method in ρ = σ/α with
    the midpoint geometric, which is what k-diffusion calls DPM2. The times may also rise: that encodes.

    >>> import scoresde
    >>> [(row.t, row.t_next) for row in dpm2s(scoresde.EDM(), (4.0, 1.0, 0.0)).rows]
    [(4.0, 2.0), (2.0, 1.0), (1.0, 0.0)]
    """
    return _singlestep(sde, times, _second(r1), "eps", 2)


def dpm3s(sde: SDE, times: Times) -> Table:
    """DPM-Solver-3 (Lu et al. 2022a, algorithm 2): three calls a step in noise space, a third of the way apart in λ.

    Third order needs the last call at 2/3, and so has no such option. The times may also rise: that encodes.

    >>> import scoresde
    >>> dpm3s(scoresde.VPSDE(), (1.0, 0.5, 0.1, 0.0)).nfe
    7
    """
    return _singlestep(sde, times, _THIRD, "eps", 3)


def dpmpp_2s(sde: SDE, times: Times, *, r1: float = 0.5) -> Table:
    """DPM-Solver++(2S) (Lu et al. 2022b, algorithm 1): two calls a step in data space, at 0 and ``r1`` of the way in λ.

    >>> import scoresde
    >>> row = dpmpp_2s(scoresde.EDM(), (4.0, 1.0)).rows[0]  # to the middle: (2/4) x + (1 - 2/4) D_0
    >>> row.t_next, row.a, [round(w, 12) for w in row.b]
    (2.0, 0.5, [0.5])
    """
    return _singlestep(sde, times, _second(r1), "x0", 2)


def dpmpp_3s(sde: SDE, times: Times) -> Table:
    """DPM-Solver++(3S), of Lu et al.'s released code: the stages of DPM-Solver-3 in data space, three calls a step."""
    return _singlestep(sde, times, _THIRD, "x0", 3)


# -------------------------------------------------------------------------------------------------------- stochastic


def dpm2a(sde: SDE, times: Times, *, eta: float = 1.0) -> Table:
    """DPM2 ancestral (k-diffusion): the flow from ρ_s to ρ_down by `dpm2s`, then noise of variance ρ_up² in x/α.

    ρ_up² = η² ρ_t² (1 - ρ_t²/ρ_s²) and ρ_down² = ρ_t² - ρ_up². η = 1, the default, makes ρ_down = ρ_t²/ρ_s and puts the
    second call at the time of landing; η = 0 is `dpm2s`.

    >>> import scoresde
    >>> [(row.t, row.t_next, row.c) for row in dpm2a(scoresde.EDM(), (4.0, 2.0, 0.0)).rows[:2]]
    [(4.0, 2.0, ()), (2.0, 2.0, (1.7320508075688772,))]
    """
    return _singlestep(sde, times, _second(0.5), "eps", 2, eta)


def dpmpp_2sa(sde: SDE, times: Times, *, eta: float = 1.0) -> Table:
    """DPM++ 2S ancestral (k-diffusion): as `dpm2a`, with the flow followed in data space, by `dpmpp_2s`."""
    return _singlestep(sde, times, _second(0.5), "x0", 2, eta)


def dpmpp_sde(sde: SDE, times: Times, *, eta: float = 1.0, r1: float = 0.5) -> Table:
    """DPM++ SDE (k-diffusion): the stages of `dpmpp_2s`, each on the SDE of ``eta`` with its noise, in data space.

    x_c = ancestral step with D_0 to ``r1`` of the way, then one to the end with (1 - 1/(2 r_1)) D_0 + D_1/(2 r_1), its
    factors those of ρ_down. The two noises are increments of one Brownian motion from ρ_s, with ρ for its clock as
    published: their correlation is sqrt((ρ_s - ρ_c)/(ρ_s - ρ_t)). It makes the law of the output converge at second
    order, as measured. η = 0 is `dpmpp_2s`.

    >>> import scoresde
    >>> dpmpp_sde(scoresde.VPSDE(), (1.0, 0.5, 0.1, 0.0)).nfe
    5
    """
    _, (_, weigh) = _second(r1)
    decay = decay_of_eta(eta)

    def stages(at: Knots) -> list[Stage]:
        made: list[Stage] = []
        for k, weights in ((1, [1.0]), (2, weigh(0.5))):
            h = float(at.lam[k] - at.lam[0])
            a = decay(float(at.t[0]), h)
            keep = float(at.sigma[k] / at.sigma[0]) * math.exp(-a)
            gain, noise = -float(at.alpha[k]) * math.expm1(-h - a), float(at.sigma[k]) * math.sqrt(-math.expm1(-2 * a))
            made.append(Stage(float(at.t[k]), keep, [gain * w for w in weights], [noise]))
        first, last = made
        shared = math.expm1(at.lam[0] - at.lam[1]) / math.expm1(at.lam[0] - at.lam[2])
        noise = [last.c[0] * math.sqrt(shared), last.c[0] * math.sqrt(1 - shared)]
        return [first, last._replace(c=noise)]

    steps = [found and stages(found[0]) for found in _intervals(sde, times, [r1], eta, onward=False)]
    return _table(sde, times, steps, "x0", None if eta else 2, eta)
