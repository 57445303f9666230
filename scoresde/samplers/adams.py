"""Adams-Bashforth samplers: the network's output integrated as a polynomial in a variable of the method's choice.

In noise space the flow is x_t/α_t = x_s/α_s + ∫ ε̂ dρ, a plain mean in ρ = σ/α. The last k outputs are interpolated

    in ρ                        `lms`             linear multistep of k-diffusion, the ρAB of Zhang & Chen 2023
    in t                        `deis`            the tAB of Zhang & Chen 2023
    in the number of the step   `ipndm`           the fixed weights of Adams, as if ρ were linear in it
                                `plms`, `pndm`    the same after a start of several calls (Liu et al. 2022)

(in λ: `exponential_multistep` in eps space). In v space it is y_t = y_s + ∫ v̂/r dφ with y = x/r, r = sqrt(α² + σ²),
φ = atan(σ/α) (see `ode`), and `phi_ab` interpolates in φ. The literature counts differently: tAB-q uses q + 1 outputs;
here ``order`` = k is the number of outputs and, but for fixed weights, the order of convergence.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import accumulate, pairwise

import numpy as np
import torch

from scoresde.grids import Times
from scoresde.samplers.multistep import Step, kernel, lagrange, mean_weights, multistep, order_up_to, steps
from scoresde.samplers.table import Row, Table
from scoresde.sde import SDE


def _in_rho(step: Step) -> np.ndarray:
    return mean_weights(0.0, step.nodes(np.exp(-step.at.lam)))


def _in_t(sde: SDE, step: Step) -> np.ndarray:
    points, density = kernel(step.z)
    lam = torch.from_numpy(step.at.lam[step.i] + step.h * points)
    return lagrange(step.past(step.at.t), sde.t_of_lam(lam).numpy()) @ density


def _in_number(step: Step) -> np.ndarray:
    return mean_weights(0.0, -np.arange(float(step.k)))


def _in_phi(step: Step) -> np.ndarray:
    return mean_weights(0.0, step.nodes(np.arctan2(step.at.sigma, step.at.alpha)))


def lms(sde: SDE, times: Times, past: Times = (), *, order: int = 4) -> Table:
    """Linear multistep in ρ = σ/α: k-diffusion's LMS, the ρAB of Zhang & Chen 2023.

    x_t/α_t = x_s/α_s + Σ_j ε̂_{i-j} ∫ L_j(ρ) dρ, the integrals exact. ``order`` is the number of outputs, 1 to 4.

    >>> import scoresde
    >>> row = lms(scoresde.EDM(), (4.0, 3.0, 2.0), order=2).rows[1]  # equal steps: Adams' weights 3/2, -1/2 times -1
    >>> [round(w, 12) for w in row.b]
    [-1.5, 0.5]
    """
    k = order_up_to(4, order)
    return multistep(sde, times, past, k, _in_rho, space="eps", order=k)


def deis(sde: SDE, times: Times, past: Times = (), *, order: int = 3) -> Table:
    """tAB-DEIS (Zhang & Chen 2023, eq. 14-15): ε̂ is interpolated in t, x_t/α_t = x_s/α_s + Σ_j ε̂_{i-j} ∫ L_j(t) dρ.

    ``order`` is the number of outputs, 1 to 4: what the paper calls tAB-(order - 1), the default tAB2. The integrals
    are taken over λ, in which dρ = -e^{-λ} dλ, by Gauss-Legendre: to rounding, and to 2e-5 on a DDPM chain, whose t(λ)
    has a kink at each of its steps.
    """
    k = order_up_to(4, order)
    return multistep(sde, times, past, k, partial(_in_t, sde), space="eps", order=k)


def ipndm(sde: SDE, times: Times, past: Times = (), *, order: int = 3) -> Table:
    """iPNDM (Zhang & Chen 2023, after Liu et al. 2022): Adams' fixed weights in DDIM's step, of lower order at first.

    x_t/α_t = x_s/α_s + (ρ_t - ρ_s) Σ_j w_j ε̂_{i-j} with w = (1), (3, -1)/2, (23, -16, 5)/12 or (55, -59, 37, -9)/24 for
    ``order`` = 1 to 4 outputs. These are the integrals where all steps in ρ are equal, and it is then of that order; on
    other grids of second order.
    """
    k = order_up_to(4, order)
    return multistep(sde, times, past, k, _in_number, space="eps", order=min(2, k))


def phi_ab(sde: SDE, times: Times, past: Times = (), *, order: int = 3) -> Table:
    """Adams-Bashforth in the angle: y_t = y_s + Σ_j (v̂/r)_{i-j} ∫ L_j(φ) dφ on any grid, y = x/r, r = sqrt(α² + σ²).

    ``order`` is the number of outputs, 1 to 4. Everything is bounded at both ends, where λ and ρ are not. On a point
    mass v̂/r turns with φ: no identity holds, and the defect vanishes with a run's order.
    """
    k = order_up_to(4, order)
    found = steps(sde, times, past, k, "v")
    rows = (
        step.row(step.outputs(_in_phi) / np.hypot(step.past(step.at.alpha), step.past(step.at.sigma))) for step in found
    )
    return Table(sde, "v", tuple(rows), order=k, order_with_start=min(2, k))


# ------------------------------------------------------------------------------ fixed weights with a start of their own


def plms(sde: SDE, times: Times) -> Table:
    """PLMS: `ipndm` with four outputs, whose first step is a pseudo improved Euler step of two calls.

    (The pseudo linear multistep method of Liu et al. 2022 with the start of latent diffusion's PLMS: x' by DDIM, then
    DDIM with the mean of the outputs at x and x'.) n + 1 calls; into the data one, x = x̂_0.
    """
    return _started(sde, times, _improved_euler, 1)


def pndm(sde: SDE, times: Times) -> Table:
    """PNDM (Liu et al. 2022, algorithm 2): `ipndm` with four outputs, three pseudo Runge-Kutta steps of 4 calls before.

    n + 9 calls from three steps on; into the data one, x = x̂_0. The half steps go to the mean of two times: between
    the labels of a DDPM chain unless its strides are even.
    """
    return _started(sde, times, _runge_kutta, 3)


Start = Callable[[SDE, float, float], list[Row]]  # the rows of one interval, the first called at its beginning


def _transfer(sde: SDE, t: float, t_next: float) -> tuple[float, float]:
    """DDIM's step in eps space: x_t = keep x_s + gain ε̂."""
    step = steps(sde, (t, t_next), (), 1, "eps")[0]
    return step.keep, step.gain


def _improved_euler(sde: SDE, t: float, t_next: float) -> list[Row]:
    keep, gain = _transfer(sde, t, t_next)
    return [Row(t, t_next, keep, (gain,), ends=False), Row(t_next, t_next, 1.0, (gain / 2, -gain / 2))]


def _runge_kutta(sde: SDE, t: float, t_next: float) -> list[Row]:
    """Each stage is DDIM's step from the same x with another output; written from the stage before, whose is undone."""
    middle = (t + t_next) / 2
    (keep, half), (on, _), (_, gain) = (_transfer(sde, *pair) for pair in ((t, middle), (middle, t_next), (t, t_next)))
    return [
        Row(t, middle, keep, (half,), ends=False),
        Row(middle, middle, 1.0, (half, -half), ends=False),
        Row(middle, t_next, on, (gain, -on * half), ends=False),
        Row(t_next, t_next, 1.0, (gain / 6, gain / 3 - gain, gain / 3, gain / 6)),
    ]


def _started(sde: SDE, times: Times, start: Start, intervals: int) -> Table:
    """`ipndm` of order 4 whose history is the first output of each of the opening ``intervals``."""
    m = min(intervals, len(times) - 1 - (times[-1] == 0))
    opening = [start(sde, *pair) for pair in pairwise(times[: m + 1])]
    number = list(accumulate(map(len, opening), initial=0))  # of the first call at each knot
    rows = [row for interval in opening for row in interval]
    for knot, row in enumerate(ipndm(sde, times[m:], times[:m][::-1], order=4).rows if m + 1 < len(times) else (), m):
        number += [number[-1] + 1] if knot > m else []
        b = np.zeros(number[knot] - number[knot - len(row.b) + 1] + 1)
        for j, weight in enumerate(row.b):
            b[number[knot] - number[knot - j]] = weight
        rows.append(Row(row.t, row.t_next, row.a, tuple(b.tolist())))
    # Exact on a point mass, but a long step of several calls amplifies rounding beyond the check of an exact table.
    return Table(sde, "eps", tuple(rows), order=2, order_with_start=2)
