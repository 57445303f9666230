"""Multistep DPM-Solver and DPM-Solver++ as published, in noise and data space, and their SDE forms.

In the terms of `multistep`: with r_0 = h_{i-1}/h_i, r_1 = h_{i-2}/h_i and the divided differences of the last outputs

    D¹_0 = (D_i - D_{i-1})/r_0,  D¹_1 = (D_{i-1} - D_{i-2})/r_1,  D² = (D¹_0 - D¹_1)/(r_0 + r_1),  D¹ = D¹_0 + r_0 D²,

these solvers put for the mean M[D]

    second order    D_i + D¹_0/2                 where the exact mean is D_i + M[u] D¹_0             (`eab2`)
    "third order"   D_i + M[u] D¹ + M[u²] D²/2   where the exact mean is D_i + M[u] D¹ + M[u²] D²    (`eab3`)

(Lu et al. 2022b, algorithm 2, and the released code of Lu et al. 2022a, b, whose φ-functions are these means.) 1/2 is
M[u] up to O(h), which keeps the second order. The factor 1/2 of the last term leaves an error of O(h²) in each mean:
multistep "third-order" solvers measure as second order too, with a smaller constant.
"""

from __future__ import annotations

import numpy as np

from scoresde.errors import BadInput, choose
from scoresde.grids import Times
from scoresde.samplers.multistep import Decay, Step, in_lambda, kernel, multistep
from scoresde.samplers.table import Table
from scoresde.sde import SDE


def _halved_slope(step: Step) -> np.ndarray:
    """D_i + D¹_0/2."""
    shift = -0.5 / step.nodes(step.at.lam)[1]
    return np.array([1 + shift, -shift])


def _halved_curvature(step: Step) -> np.ndarray:
    """D_i + M[u] D¹ + M[u²] D²/2: the exact mean less M[u²] D²/2."""
    u, density = kernel(step.z)
    a, b, c = step.nodes(step.at.lam)
    second = np.array([1 / ((a - b) * (a - c)), 1 / ((b - a) * (b - c)), 1 / ((c - a) * (c - b))])
    return in_lambda(step) - 0.5 * float(density @ u**2) * second


def _published(step: Step) -> np.ndarray:
    return _halved_slope(step) if step.k == 2 else _halved_curvature(step)


def _published_sde(step: Step) -> np.ndarray:
    return in_lambda(step) if step.k == 2 else _halved_curvature(step)


def dpm2m(sde: SDE, times: Times, past: Times = (), *, lower_order_final: bool = False) -> Table:
    """Multistep DPM-Solver-2 in noise space (the multistep form in the released code of Lu et al. 2022a).

    x_t = (α_t/α_s) x_s - σ_t (e^h - 1) ((1 + 1/(2 r_0)) ε̂_i - 1/(2 r_0) ε̂_{i-1}).

    ``lower_order_final`` ends on a step of order 1. Order 1 is `ddim`.
    """
    return multistep(sde, times, past, 2, _halved_slope, space="eps", order=2, lower_order_final=lower_order_final)


def dpm3m(sde: SDE, times: Times, past: Times = (), *, lower_order_final: bool = False) -> Table:
    """Multistep "DPM-Solver-3" in noise space as published: three outputs, measured order 2; `lms`, `deis` reach 3.

    ``lower_order_final`` ends on steps of orders 2 and 1.
    """
    return multistep(sde, times, past, 3, _published, space="eps", order=2, lower_order_final=lower_order_final)


def dpmpp_2m(sde: SDE, times: Times, past: Times = (), *, lower_order_final: bool = False) -> Table:
    """DPM-Solver++(2M) as published (Lu et al. 2022b, algorithm 2); its weights are the exact ones to second order.

    x_t = (σ_t/σ_s) x_s + α_t (1 - e^{-h}) ((1 + 1/(2 r_0)) D_i - 1/(2 r_0) D_{i-1}). ``lower_order_final`` ends on a
    step of order 1.

    >>> import scoresde
    >>> row = dpmpp_2m(scoresde.EDM(), (4.0, 2.0, 1.0)).rows[1]  # equal steps in λ: weights 3/2 and -1/2 of 1 - e^{-h}
    >>> [round(w, 12) for w in row.b]
    [0.75, -0.25]
    """
    return multistep(sde, times, past, 2, _halved_slope, order=2, lower_order_final=lower_order_final)


def dpmpp_3m(sde: SDE, times: Times, past: Times = (), *, lower_order_final: bool = False) -> Table:
    """DPM-Solver++(3M) as published: three outputs, measured order 2. `eab3` is the one of order 3.

    ``lower_order_final`` ends on steps of orders 2 and 1.
    """
    return multistep(sde, times, past, 3, _published, order=2, lower_order_final=lower_order_final)


def dpmpp_2m_sde(sde: SDE, times: Times, past: Times = (), *, solver: str = "midpoint", eta: float = 1.0) -> Table:
    """DPM++ 2M SDE: two outputs on the reverse SDE (Lu et al. 2022b, SDE form; k-diffusion's ``dpmpp_2m_sde``).

    x_t = (σ_t/σ_s) e^{-ηh} x_s + α_t (1 - e^{-(1+η)h}) (D_i + c D¹_0) + σ_t sqrt(1 - e^{-2ηh}) ξ, with c = 1/2 for the
    ``solver`` "midpoint" and c = M[u], the exact mean, for "heun", which is `eab2` at τ² = η. ``eta`` is k-diffusion's,
    the τ² of `multistep` and not DDIM's η: 1 is the reverse SDE, 0 the probability flow.
    """
    choose("solver", solver, ("midpoint", "heun"))
    weigh = _halved_slope if solver == "midpoint" else in_lambda
    return multistep(sde, times, past, 2, weigh, order=None if eta else 2, decay=_decay(eta))


def dpmpp_3m_sde(sde: SDE, times: Times, past: Times = (), *, eta: float = 1.0) -> Table:
    """DPM++ 3M SDE: three outputs on the reverse SDE (k-diffusion's ``dpmpp_3m_sde``), second order in its drift.

    M[D] ≈ D_i + M[u] D¹ + M[u²] D²/2, half of the exact last term, with z = (1+η)h; the exact one is `eab3` at
    τ² = η. The weights of D¹ and D² are z/2 and z/6 to leading order, so a step tends to the identity as h → 0; a port
    of this solver that is in use has the sign of one term changed, so that the weight of D² tends to -α_t instead.
    """
    return multistep(sde, times, past, 3, _published_sde, order=None if eta else 2, decay=_decay(eta))


def _decay(eta: float) -> Decay:
    if not 0 <= eta < np.inf:
        raise BadInput(f"eta = {eta!r}: eta must be a number of at least 0 (0: probability flow, 1: reverse SDE)")
    return lambda s, h: eta * h if eta else 0.0
