"""One builder for most names: the linear part exactly, the network's output interpolated in λ over its last k values.

With h = λ_t - λ_s > 0, stochasticity τ ≥ 0 (0: probability flow, 1: reverse SDE) and P the Lagrange interpolant,

    x0 space:   x_t = (σ_t/σ_s) e^{-τ²h} x_s + α_t (1+τ²) ∫_0^h e^{-(1+τ²)(h-u)} P(λ_s+u) du + σ_t sqrt(1 - e^{-2τ²h}) z
    eps space:  x_t = (α_t/α_s) x_s - σ_t ∫_0^h e^{h-u} P(λ_s+u) du

(Lu et al. 2022b, eq. 9 and Zhang & Chen 2023 for τ = 0; Gonzalez et al. 2023 and Xue et al. 2023 for τ > 0.)
Both integrals are w ∫_0^h e^{-w(h-u)} P du, with w = 1+τ² and w = -1: `weights` computes them once for all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from scoresde.errors import BadInput
from scoresde.grids import Times
from scoresde.samplers.table import TOLERANCE, Row, Table
from scoresde.sde import SDE

_NODES, _GAUSS = (np.stack(np.polynomial.legendre.leggauss(48)) + np.array([[1.0], [0.0]])) / 2  # on [0, 1]


def weights(h: float, nodes: Sequence[float], w: float) -> tuple[float, ...]:
    """∫_0^h w e^{-w(h-u)} L_j(u) du for the Lagrange basis L_j on ``nodes`` (offsets λ_{i-j} - λ_s, the first 0).

    Gauss-Legendre on [0, h] in float64; the result is checked against the closed-form moments.
    """
    if len(nodes) == 1:
        return (-math.expm1(-w * h),)
    s, z = np.asarray(nodes) / h, w * h
    width = min(1.0, 40 / abs(z))  # where the kernel is above e^{-40} of its peak, which is at u = h (at 0 if w < 0)
    at = 1 - width * (1 - _NODES) if z > 0 else width * _NODES
    kernel = _GAUSS * width * z * np.exp(-z * (1 - at))
    basis = [np.prod([(at - s[m]) / (s[j] - s[m]) for m in range(len(s)) if m != j], axis=0) for j in range(len(s))]
    result = tuple(float(kernel @ b) for b in basis)
    for m in range(len(nodes)):
        moment, size = float(np.dot(result, s**m)), float(np.abs(result) @ np.abs(s**m))
        if abs(moment - kernel_moment(m, z)) > TOLERANCE * max(1.0, size):
            raise ArithmeticError(
                f"moment {m} of a multistep row is off by {moment - kernel_moment(m, z):.3g} (h = {h:.3g})"
            )
    return result


def kernel_moment(m: int, z: float) -> float:
    """z ∫_0^1 e^{-z(1-s)} s^m ds: what exact weights must give for s^m, in closed form (a φ-function).

    Σ_k (-z)^k m!/(m+k+1)! z for small |z|, else J_m = 1 - (m/z) J_{m-1} from J_0 = 1 - e^{-z}.
    """
    if abs(z) < 4:
        term, total, k = z / (m + 1), 0.0, 0
        while abs(term) > 1e-18 * max(1e-300, abs(total)) and k < 100:
            total += term
            k += 1
            term *= -z / (m + k + 1)
        return total
    moment = -math.expm1(-z)
    for j in range(1, m + 1):
        moment = 1 - j / z * moment
    return moment


def tau2_of_eta(eta: float, h: float) -> float:
    """τ² of DDIM's η: e^{-2τ²h} = 1 - η² (1 - e^{-2h}) (Song et al. 2021b, eq. 16, in λ)."""
    if eta == 1:
        return 1.0
    return -math.log1p(eta**2 * math.expm1(-2 * h)) / (2 * h)


def exponential_multistep(
    sde: SDE,
    times: Times,
    order: int = 1,
    space: str = "x0",
    eta: float = 0.0,
    past: Times = (),
    midpoint: bool = False,
) -> Table:
    """The table of the formulas above on ``times``; the order rises 1, 2, … at the start and is 1 into t = 0.

    ``eta`` is DDIM's (0: probability flow, 1: reverse SDE). ``past`` are times before the first, newest first, whose
    outputs the caller supplies as ``history``; then the full order holds from the first row. ``midpoint`` puts the
    published DPM-Solver++(2M) weights (1 + h/(2 h'), -h/(2 h')) in place of the second-order integrals. In eps space
    (η = 0) the times may also rise: that encodes.
    """
    if not 0 <= eta <= 1:
        raise BadInput(f"eta = {eta!r} must be in [0, 1]")
    if space != "x0" and eta:
        raise BadInput(f"eta = {eta} needs x0 space")
    at = sde.knots([*reversed(past), *times])
    rows: list[Row] = []
    for i in range(len(past), len(at.t) - 1):
        (alpha_s, alpha), (sigma_s, sigma) = at.alpha[i : i + 2].tolist(), at.sigma[i : i + 2].tolist()
        h = float(at.lam[i + 1] - at.lam[i])
        known = [0.0]
        if math.isfinite(h):  # else to the data, or from pure noise: first order
            known = [float(v) for v in at.lam[i::-1][:order] - at.lam[i] if math.isfinite(v)]
        lead, b, c = _lead(space, eta, h, alpha_s, alpha, sigma_s, sigma)
        if len(known) > 1:
            w = -1.0 if space == "eps" else 1.0 + (tau2_of_eta(eta, h) if eta else 0.0)
            scale = sigma if space == "eps" else alpha
            if midpoint and len(known) == 2:
                shift = 0.5 * h / -known[1]
                b = (b[0] * (1 + shift), -b[0] * shift)
            else:
                b = tuple(scale * value for value in weights(h, known, w))
        rows.append(Row(float(at.t[i]), float(at.t[i + 1]), lead, b, (c,) if c else ()))
    claimed = None if eta else order
    return Table(
        sde, space, tuple(rows), exact=not midpoint, order=claimed, order_with_start=claimed and min(2, claimed)
    )


def _lead(
    space: str, eta: float, h: float, alpha_s: float, alpha: float, sigma_s: float, sigma: float
) -> tuple[float, tuple[float, ...], float]:
    """(weight of x, weight of one constant output, weight of the noise); finite for h = ∞ and into the data."""
    if space == "eps":
        if not (alpha and alpha_s):
            raise BadInput("eps space has no step to or from pure noise (α = 0): use x0 space or another grid")
        return alpha / alpha_s, (sigma - alpha / alpha_s * sigma_s,), 0.0
    share = -math.expm1(-2 * h)  # 1 - e^{-2h}
    keep = sigma / sigma_s * math.sqrt(1 - eta**2 * share)
    if eta == 0 and math.isfinite(h):
        return keep, (-alpha * math.expm1(-h),), 0.0
    return keep, (alpha - keep * alpha_s,), eta * sigma * math.sqrt(share)


def ddim(sde: SDE, times: Times, *, eta: float = 0.0) -> Table:
    """DDIM (Song et al. 2021b, eq. 12): η = 0 the probability flow to first order, η = 1 ancestral DDPM."""
    return exponential_multistep(sde, times, eta=eta)


def dpmpp_2m(sde: SDE, times: Times) -> Table:
    """DPM-Solver++(2M) as published (Lu et al. 2022b, algorithm 2); its weights are the exact ones to second order."""
    return exponential_multistep(sde, times, order=2, midpoint=True)


def eab2(sde: SDE, times: Times, *, eta: float = 0.0) -> Table:
    """Exact exponential Adams-Bashforth of order 2 in λ (RES of Zhang et al. 2023 in multistep form)."""
    return exponential_multistep(sde, times, order=2, eta=eta)


def eab3(sde: SDE, times: Times, *, eta: float = 0.0) -> Table:
    """Exact exponential Adams-Bashforth of order 3 in λ: what "third-order" DPM-Solver++ multistep codes aim at."""
    return exponential_multistep(sde, times, order=3, eta=eta)
