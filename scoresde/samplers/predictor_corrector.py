"""Predictor-corrector multistep samplers, one call per step: the corrector re-uses the call at the predicted state.

With x^p_{i+1} = keep x^c_i + gain Σ_j p_j D_{i-j} + noise ξ the prediction and D_{i+1} the output there, the corrector
replaces the weights p_j by c_j that include D_{i+1},

    x^c_{i+1} = keep x^c_i + gain (c_0 D_{i+1} + Σ_j c_{j+1} D_{i-j}) + noise ξ,

from the same state and with the same noise. The difference of the two is linear in the outputs alone,

    x^c_{i+1} - x^p_{i+1} = gain (c_0 D_{i+1} + Σ_j (c_{j+1} - p_j) D_{i-j}),

so correction and next prediction are one row of a table that acts on the predicted state. The last state is a
prediction, as in the papers: nothing is called there. With a predictor of order k and a corrector of order m the
recurrence has order min(k + 1, m): the output at the predicted state errs by O(h^{k+1}), in an integral over h.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np

from scoresde.errors import BadInput, choose
from scoresde.grids import Times
from scoresde.samplers.multistep import Step, Tau, Weigh, decay_of_tau, in_lambda, mean_weights, order_up_to, steps
from scoresde.samplers.table import Row, Table
from scoresde.sde import SDE


def _rows(found: Sequence[Step], predict: Weigh, correct: Weigh | None) -> tuple[Row, ...]:
    """One row for each step; ``correct`` weighs the output at a step's end, then those of the prediction."""
    rows, before, predicted = list[Row](), None, np.zeros(0)
    for step in found:
        b = own = step.outputs(predict)
        if correct and before and before.regular and step.regular:
            correction = _sum(before.weighed(correct), -np.append(0.0, predicted))
            b = _sum(b, step.keep * correction)
        rows.append(step.row(b))
        before, predicted = step, own
    return tuple(rows)


def _sum(*parts: np.ndarray) -> np.ndarray:
    """The sum of weights of different numbers of outputs, newest first."""
    total = np.zeros(max(map(len, parts)))
    for part in parts:
        total[: len(part)] += part
    return total


def _ahead(step: Step) -> np.ndarray:
    """The exact means of the Lagrange polynomials in λ with the output at the step's end first."""
    return mean_weights(step.z, np.append(1.0, step.nodes(step.at.lam)))


def unipc(
    sde: SDE,
    times: Times,
    past: Times = (),
    *,
    order: int = 3,
    variant: str = "bh2",
    corrector: bool = True,
    lower_order_final: bool = True,
    space: str = "x0",
) -> Table:
    """UniPC-p (Zhao et al. 2023, algorithms 1-2), p = ``order`` from 1 to 3: UniP-p of p outputs, UniC-p of p + 1.

    Predictor and corrector are the exact means of the interpolant in λ, but for two that the paper simplifies: two
    outputs D_i and D_j have the mean D_i + b/2 (D_j - D_i)/u_j, with b = 1 for the ``variant`` "bh2" and
    b = z/(1 - e^{-z}) for "bh1" (in all others b cancels: at order 3 the variants differ near the ends only). The
    recurrence has order p + 1, without ``corrector`` p. ``lower_order_final`` ends on steps with fewer outputs, as
    published; a run that ends on one of order 1 is of second order. ``space`` is "x0" or "eps", the paper's data and
    noise prediction.

    >>> import scoresde
    >>> table = unipc(scoresde.VPSDE(), (1.0, 0.7, 0.4, 0.1, 0.001))
    >>> table.nfe, table.order, [len(row.b) for row in table.rows]
    (4, 4, [1, 2, 3, 3])
    """
    k = order_up_to(3, order)
    bh1 = choose("variant", variant, ("bh1", "bh2")) == "bh1"
    found = steps(sde, times, past, k, choose("space", space, ("x0", "eps")), lower_order_final=lower_order_final)
    rows = _rows(found, partial(_unip, bh1), partial(_unic, bh1) if corrector else None)
    reached = k + 1 if corrector else k
    whole = 2 if lower_order_final or not corrector else 3
    return Table(sde, space, rows, exact=True, order=reached, order_with_start=min(whole, reached))


def _slope(bh1: bool, z: float) -> float:
    """b/2."""
    return 0.5 * (z / -math.expm1(-z) if bh1 else 1.0)


def _unip(bh1: bool, step: Step) -> np.ndarray:
    if step.k != 2:
        return in_lambda(step)
    share = _slope(bh1, step.z) / step.nodes(step.at.lam)[1]
    return np.array([1 - share, share])


def _unic(bh1: bool, step: Step) -> np.ndarray:
    if step.k != 1:
        return _ahead(step)
    share = _slope(bh1, step.z)
    return np.array([share, 1 - share])


def ddim_inverse(sde: SDE, times: Times) -> Table:
    """The steps of `ddim` undone, for times that rise: the one from t down to s turns round to

        x_t = (α_t/α_s) x_s + (σ_t - σ_s α_t/α_s) ε̂(x_t, t),

    which holds x_t on both sides. It is solved at one call a step: a prediction, with ε̂ at the end extrapolated in λ
    from the last two outputs, and one correction. The way up and down again errs by O(h³). The usual inversion, with
    ε̂(x_s, s) for ε̂(x_t, t) (Song et al. 2021b, section 4.3), errs by O(h). To the flow both are of first order.

    >>> import scoresde
    >>> table = ddim_inverse(scoresde.VPSDE(), (0.2, 0.5, 0.8))
    >>> table.nfe, table.order, table.defect < 1e-12
    (2, 1, True)
    """
    found = steps(sde, times, (), 2, "eps")
    return Table(sde, "eps", _rows(found, _extrapolated, _at_the_end), exact=True, order=1, order_with_start=1)


def _extrapolated(step: Step) -> np.ndarray:
    """The line in λ through two outputs, at the step's end; one output is taken as it is."""
    slope = 0.0 if step.k < 2 else 1 / step.nodes(step.at.lam)[1]
    return np.array([1 - slope, slope])[: step.k]


def _at_the_end(_: Step) -> np.ndarray:
    return np.ones(1)


def sa_solver(
    sde: SDE,
    times: Times,
    past: Times = (),
    *,
    predictor_order: int = 3,
    corrector_order: int = 4,
    tau: Tau = 1.0,
    lower_order_final: bool = True,
) -> Table:
    """SA-Solver (Xue et al. 2023, algorithm 1): stochastic Adams predictor and corrector for the SDE of any τ(t).

    The predictor is `eab2`, `eab3`, … with ``predictor_order`` outputs (1 to 4); the corrector has
    ``corrector_order`` of them, the one at the predicted state included (1 to 4; 0: none). The integrals are the
    paper's (eq. 15 and 18), exact; its few-step code changes those of two outputs by O(h³). ``tau`` may be a function
    of t, held over each step at its value at the step's start. ``lower_order_final`` ends on steps with fewer outputs,
    as the authors' code does. At τ = 0 the order is min(predictor_order + 1, corrector_order).
    """
    p = _order("predictor_order", predictor_order, 1)
    c = _order("corrector_order", corrector_order, 0)
    found = steps(sde, times, past, max(p, c - 1), "x0", decay_of_tau(tau), lower_order_final)
    rows = _rows(found, partial(_predict, p), partial(_correct, c) if c else None)
    if tau:
        return Table(sde, "x0", rows, exact=True)
    reached = min(p + 1, c) if c else p
    whole = 2 if lower_order_final or not c else 3
    return Table(sde, "x0", rows, exact=True, order=reached, order_with_start=min(whole, reached))


def _predict(order: int, step: Step) -> np.ndarray:
    return in_lambda(step._replace(k=min(order, step.k)))


def _correct(order: int, step: Step) -> np.ndarray:
    return _ahead(step._replace(k=min(order - 1, step.k)))


def _order(name: str, value: int, lowest: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= 4:
        raise BadInput(f"{name} = {value!r}: {name} must be an integer from {lowest} to 4")
    return value
