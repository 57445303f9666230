"""Multistep samplers: one call per step, the linear part exactly, the rest a mean of the network's last outputs.

Over a step from s to t, with h = λ_t - λ_s and stochasticity τ ≥ 0 (0: probability flow, 1: reverse SDE), exactly

    x0 space:   x_t = (σ_t/σ_s) e^{-τ²h} x_s + α_t (1 - e^{-z}) M[x̂_0] + σ_t sqrt(1 - e^{-2τ²h}) ξ,     z = (1 + τ²) h
    eps space:  x_t = (α_t/α_s) x_s + σ_t (1 - e^{-z}) M[ε̂],                                            z = -h
    v space:    x_t = (r_t/r_s) x_s + r_t (φ_t - φ_s) M[v̂/r],      r = sqrt(α² + σ²),                    z = 0

with ξ ~ N(0, I) and M the mean over the step's fraction 0 < u < 1 with a density ∝ e^{-z(1-u)}; u runs evenly in λ in
the first two spaces and in φ = atan(σ/α) in the third (Lu et al. 2022b, eq. 9 and Zhang & Chen 2023 for τ = 0;
Gonzalez et al. 2023 and Xue et al. 2023 for τ > 0). Only M is unknown, and a sampler is a choice of weights of sum 1,

    M[D] ≈ Σ_j c_j D_{i-j},

so that all are exact on a point mass in x0 and eps space, where D is constant. Here the c_j are the exact means of the
Lagrange polynomials in λ; `adams` has other variables, `dpm_solver` the weights of its papers, and
`predictor_corrector` adds the output at the step's end. For τ > 0 the law of a run's end errs by O(h) with one output
and by O(h²) with more (measured on Gaussian data, where its mean is exact).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import permutations
from typing import Any, NamedTuple

import numpy as np

from scoresde.errors import BadInput, choose, positive
from scoresde.grids import Times
from scoresde.samplers.table import SPACES, TOLERANCE, Row, Table
from scoresde.schedule import Knots
from scoresde.sde import SDE

Decay = Callable[[float, float], float]  # (s, h) -> τ²h of the step of length h from time s
Tau = float | Callable[[float], float]

_NODES, _GAUSS = (np.stack(np.polynomial.legendre.leggauss(48)) + np.array([[1.0], [0.0]])) / 2  # on [0, 1]


class Step(NamedTuple):
    """One step, from knot i to knot i + 1: x_{i+1} = keep x_i + gain Σ_j c_j D_{i-j} + noise ξ, j < k."""

    at: Knots
    i: int
    k: int
    keep: float
    gain: float
    noise: float
    z: float

    @property
    def h(self) -> float:
        """λ_t - λ_s."""
        return float(self.at.lam[self.i + 1] - self.at.lam[self.i])

    @property
    def regular(self) -> bool:
        """Neither into the data nor from pure noise, where h = ∞, nor between times too close to tell apart."""
        return math.isfinite(self.h) and self.h != 0

    def past(self, values: np.ndarray) -> np.ndarray:
        """What ``values``, one for each knot, are at the knots of the outputs, newest first."""
        return values[self.i :: -1][: self.k]

    def nodes(self, values: np.ndarray) -> np.ndarray:
        """The same as fractions of their change over the step: 0, then negative numbers."""
        return (self.past(values) - values[self.i]) / (values[self.i + 1] - values[self.i])

    def weighed(self, weigh: Weigh) -> np.ndarray:
        """gain c_j."""
        with np.errstate(all="ignore"):  # times too close to tell apart: the table refuses what comes of them
            return self.gain * weigh(self)

    def outputs(self, weigh: Weigh) -> np.ndarray:
        """The same, but a single output is its own mean whatever the method: into the data and from pure noise too."""
        return self.weighed(weigh) if self.k > 1 else np.array([self.gain])

    def row(self, b: np.ndarray) -> Row:
        """The table's row with weights ``b`` of the outputs."""
        t, t_next = self.at.t[self.i : self.i + 2].tolist()
        return Row(t, t_next, self.keep, tuple(b.tolist()), (self.noise,) if self.noise else ())


Weigh = Callable[[Step], np.ndarray]  # the c_j of a step


def steps(
    sde: SDE,
    times: Times,
    past: Times,
    order: int,
    space: str = "x0",
    decay: Decay | None = None,
    lower_order_final: bool = False,
) -> list[Step]:
    """The steps between ``times``, each with as many of the last ``order`` outputs as exist.

    ``past`` are times before the first, newest first, whose outputs the caller of the table supplies as ``history``.
    One output is used into the data and from pure noise, where h = ∞; with ``lower_order_final``, in the m-th step
    from the end at most m.
    """
    choose("space", space, SPACES)
    at = sde.knots([*reversed(past), *times])
    last, found = len(at.t) - 1, list[Step]()
    finite = np.cumsum(np.isfinite(at.lam)).tolist()
    for i in range(len(past), last):
        h = float(at.lam[i + 1] - at.lam[i])
        a = decay(float(at.t[i]), h) if decay else 0.0
        k = min(order, finite[i], last - i) if lower_order_final else min(order, finite[i])
        step = Step(at, i, k, *_lead(space, at, i, h, a))
        found.append(step if step.regular else step._replace(k=1))
    return found


def _lead(space: str, at: Knots, i: int, h: float, a: float) -> tuple[float, float, float, float]:
    """(keep, gain, noise, z) of the module's formulas with a = τ²h; finite into the data and from pure noise."""
    (alpha_s, alpha), (sigma_s, sigma) = at.alpha[i : i + 2].tolist(), at.sigma[i : i + 2].tolist()
    if space == "eps":
        if not (alpha and alpha_s):
            raise BadInput("eps space has no step to or from pure noise (α = 0): use x0 space or another grid")
        return alpha / alpha_s, sigma - alpha / alpha_s * sigma_s, 0.0, -h
    if space == "v":
        r_s, r = math.hypot(alpha_s, sigma_s), math.hypot(alpha, sigma)
        if sigma == 0:  # x̂_0 = (α x - σ v̂)/r²
            return alpha_s / r_s**2, -sigma_s / r_s, 0.0, 0.0
        return r / r_s, r * (math.atan2(sigma, alpha) - math.atan2(sigma_s, alpha_s)), 0.0, 0.0
    keep, noise = sigma / sigma_s * math.exp(-a), sigma * math.sqrt(-math.expm1(-2 * a))
    return keep, -alpha * math.expm1(-h - a), noise, h + a


def multistep(
    sde: SDE,
    times: Times,
    past: Times,
    outputs: int,
    weigh: Weigh,
    *,
    space: str = "x0",
    order: int | None,
    decay: Decay | None = None,
    lower_order_final: bool = False,
) -> Table:
    """The table whose steps weigh their last ``outputs`` outputs by ``weigh``; ``order`` is what it claims.

    The first step has one output, the second two, …: a whole run is of second order at most, as one step of first order
    errs by O(h²).
    """
    found = steps(sde, times, past, outputs, space, decay, lower_order_final)
    rows = tuple(step.row(step.outputs(weigh)) for step in found)
    return Table(sde, space, rows, exact=True, order=order, order_with_start=order and min(2, order))


# ------------------------------------------------------------------------------------------------------------- means


def kernel(z: float) -> tuple[np.ndarray, np.ndarray]:
    """The mean over 0 < u < 1 with density ∝ e^{-z(1-u)}: 48 Gauss-Legendre points and their weights, of sum 1.

    The points lie where the density is above e^{-40} of its peak, which is at u = 1, or at u = 0 if z < 0.
    """
    far = _NODES * (min(1.0, 40 / abs(z)) if z else 1.0)
    density = _GAUSS * np.exp(-abs(z) * far)
    return (1 - far if z > 0 else far), density / density.sum()


def lagrange(nodes: np.ndarray, points: np.ndarray) -> np.ndarray:
    """L_j(points), one row for each node: the polynomials that are 1 at node j and 0 at the others.

    >>> import numpy as np
    >>> lagrange(np.array([0.0, -1.0]), np.array([0.5])).tolist()
    [[1.5], [-0.5]]
    """
    basis, to = np.ones((len(nodes), len(points))), points - nodes[:, None]
    for j, m in permutations(range(len(nodes)), 2):
        basis[j] *= to[m] / (nodes[j] - nodes[m])
    return basis


def mean_weights(z: float, nodes: np.ndarray) -> np.ndarray:
    """c_j = M[L_j] for the Lagrange polynomials on ``nodes``, fractions of the step in the variable of the mean.

    By quadrature in float64, checked against the closed-form moments: Σ_j c_j u_j^m = M[u^m] for m below the order.
    """
    points, density = kernel(z)
    c = lagrange(nodes, points) @ density
    terms, exact = c.tolist(), kernel_moments(len(nodes) - 1, z) if z else [1 / (m + 1) for m in range(len(nodes))]
    for m in range(1, len(nodes)):
        terms = [term * node for term, node in zip(terms, nodes.tolist(), strict=True)]
        moment, size = sum(terms), sum(map(abs, terms))
        if abs(moment - exact[m] / exact[0]) > TOLERANCE * max(1.0, size):
            raise ArithmeticError(f"moment {m} of a multistep row is {moment:.3g} (z = {z:.3g})")
    return c


def kernel_moments(highest: int, z: float) -> list[float]:
    """z ∫_0^1 e^{-z(1-s)} s^m ds, m = 0, …, ``highest``: what exact weights must give for s^m, in closed form.

    (φ-functions.) J_m = 1 - (m/z) J_{m-1}: upward from J_0 = 1 - e^{-z} or, for small |z|, downward from the last by
    its series Σ_k (-z)^k m!/(m+k+1)! z.
    """
    if abs(z) < 4:
        term, moments, k = z / (highest + 1), [0.0], highest + 1
        while abs(term) > 1e-18 * abs(moments[0]) and k < 100:
            moments[0] += term
            k += 1
            term *= -z / k
        for m in range(highest, 0, -1):
            moments.insert(0, z / m * (1 - moments[0]))
        return moments
    moments = [-math.expm1(-z)]
    for m in range(1, highest + 1):
        moments.append(1 - m / z * moments[-1])
    return moments


def in_lambda(step: Step) -> np.ndarray:
    """The exact means of the Lagrange polynomials in λ."""
    return mean_weights(step.z, step.nodes(step.at.lam))


# ----------------------------------------------------------------------------------------------------- stochasticity


def decay_of_tau(tau: Tau) -> Decay:
    """τ²h of a τ ≥ 0, or of a τ(t) that is held over each step at its value at the step's start."""
    if callable(tau):
        return lambda s, h: _product(_squared(tau(s), f" at t = {s:.6g}"), h)
    square = _squared(tau)
    return lambda s, h: _product(square, h)


def _squared(tau: Any, where: str = "") -> float:
    number = isinstance(tau, int | float) or getattr(tau, "ndim", None) == 0
    if not number or not 0 <= float(tau) < math.inf:
        raise BadInput(
            f"tau = {tau!r}{where}: tau must be a number of at least 0 (0: probability flow, 1: reverse SDE)"
        )
    return float(tau) ** 2


def _product(rate: float, h: float) -> float:
    return rate * h if rate else 0.0  # where h = ∞ too


def decay_of_eta(eta: float) -> Decay:
    """τ²h of DDIM's η: e^{-2τ²h} = 1 - η² (1 - e^{-2h}) (Song et al. 2021b, eq. 16, in λ)."""
    if not 0 <= eta <= 1:
        raise BadInput(f"eta = {eta!r} must be in [0, 1]")
    return lambda s, h: h if eta == 1 else -0.5 * math.log1p(eta**2 * math.expm1(-2 * h))


# ---------------------------------------------------------------------------------------------------------- samplers


def order_up_to(highest: int, order: int) -> int:
    """Return ``order`` if it is an integer from 1 to ``highest``, else raise `BadInput`."""
    if positive("order", order) > highest:
        raise BadInput(f"order = {order}: order must be an integer from 1 to {highest}")
    return order


def exponential_multistep(
    sde: SDE,
    times: Times,
    past: Times = (),
    *,
    order: int = 1,
    space: str = "x0",
    eta: float = 0.0,
    tau: Tau = 0.0,
) -> Table:
    """The exact table of any order: Lagrange interpolation in λ of the last ``order`` outputs, in x0 or eps space.

    ``eta`` (DDIM's, 0 to 1) or ``tau`` (any value or function of t) makes it stochastic, in x0 space. In eps space the
    times may also rise: that encodes.
    """
    choose("space", space, ("x0", "eps"))
    if eta and tau:
        raise BadInput(f"eta = {eta} and tau = {tau}: give one")
    if space != "x0" and (eta or tau):
        raise BadInput(f"{'eta' if eta else 'tau'} = {eta or tau} needs x0 space")
    decay = decay_of_eta(eta) if eta else decay_of_tau(tau)
    claimed = None if eta or tau else order
    return multistep(sde, times, past, positive("order", order), in_lambda, space=space, order=claimed, decay=decay)


def ddim(sde: SDE, times: Times, *, eta: float = 0.0) -> Table:
    """DDIM (Song et al. 2021b, eq. 12): η = 0 the probability flow to first order, η = 1 ancestral DDPM.

    >>> import scoresde
    >>> [round(w, 4) for w in ddim(scoresde.RectifiedFlow(), (0.5, 0.25)).rows[0].b]  # α_t - σ_t α_s/σ_s
    [0.5]
    """
    return exponential_multistep(sde, times, eta=eta)


def eab2(sde: SDE, times: Times, past: Times = (), *, space: str = "x0", tau: Tau = 0.0) -> Table:
    """Exact exponential Adams-Bashforth of order 2 in λ: the multistep form of RES (Zhang et al. 2023).

    ``space`` is what is interpolated, "x0" or "eps" (Zhang & Chen 2023: tAB-DEIS with λ for t). In x0 space
    ``tau`` ≥ 0 makes it a solver of the SDEs that share the marginals, 1 of the reverse SDE (Xue et al. 2023, prop.
    4.1); a function of t is held over each step at its value at the step's start.

    >>> import scoresde
    >>> eab2(scoresde.VPSDE(), (1.0, 0.5, 0.1, 0.0), tau=1.0).defect < 1e-12
    True
    """
    return exponential_multistep(sde, times, past, order=2, space=space, tau=tau)


def eab3(sde: SDE, times: Times, past: Times = (), *, space: str = "x0", tau: Tau = 0.0) -> Table:
    """Exact exponential Adams-Bashforth of order 3 in λ: what "third-order" DPM-Solver++ multistep codes aim at."""
    return exponential_multistep(sde, times, past, order=3, space=space, tau=tau)


def eab4(sde: SDE, times: Times, past: Times = (), *, space: str = "x0", tau: Tau = 0.0) -> Table:
    """Exact exponential Adams-Bashforth of order 4 in λ."""
    return exponential_multistep(sde, times, past, order=4, space=space, tau=tau)
