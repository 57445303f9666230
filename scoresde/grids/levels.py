"""Grids given as noise levels: times at which σ/α or λ has given values, and levels for another number of steps."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from scoresde.errors import BadInput, positive
from scoresde.grids.times import Numbers, Times, as_floats, check_times, show
from scoresde.sde import SDE


def from_sigmas(sde: SDE, sigmas: Numbers) -> Times:
    """Times at which σ/α equals each given value (EDM's σ, k-diffusion's sigmas); a last 0 means the data.

    >>> import scoresde
    >>> from_sigmas(scoresde.EDM(), [80, 1.5, 0])
    (80.0, 1.5, 0.0)
    """
    values = np.asarray(as_floats("sigmas", sigmas))
    if not np.isfinite(values).all() or (values < 0).any():
        raise BadInput(f"sigmas {show(values)}: noise levels must be finite and not negative")
    for high, low in pairwise(values.tolist()):
        if low >= high:
            raise BadInput(f"sigmas {show(values)}: noise levels must be strictly decreasing, {low:g} follows {high:g}")
    return _levels(sde, values, values == 0, sde.t_of_rho, "σ/α", np.exp(-sde.knots([sde.t_max]).lam[0]))


def from_lambdas(sde: SDE, lams: Numbers) -> Times:
    """Times at which λ equals each given value, rising; ∞ means the data."""
    values = np.asarray(as_floats("λ", lams))
    if np.isnan(values).any() or np.isneginf(values).any():
        raise BadInput(f"λ {show(values)}: levels must be numbers, the last one at most ∞")
    for low, high in pairwise(values.tolist()):
        if high <= low:
            raise BadInput(f"λ {show(values)}: levels rise as times are strictly decreasing, {high:g} follows {low:g}")
    return _levels(sde, values, np.isposinf(values), sde.t_of_lam, "λ", sde.knots([sde.t_max]).lam[0])


def _levels(
    sde: SDE, values: np.ndarray, at_data: np.ndarray, inverse: Callable[[Tensor], Tensor], name: str, limit: float
) -> Times:
    times = np.where(at_data, 0.0, inverse(torch.from_numpy(values)).numpy())
    noisier = (values > limit * (1 + 1e-9)) if name != "λ" else (values < limit - 1e-9)
    if noisier.any():
        raise BadInput(f"{name} = {values[noisier][0]:.6g} is noisier than t_max of {sde}, where it is {limit:.6g}")
    if (lost := (times == 0) & ~at_data).any():
        raise BadInput(f"{name} = {values[lost][0]:.6g} is less noise than {sde} has at any time above 0")
    return check_times(np.minimum(times, sde.t_max), sde)


def loglinear(levels: Numbers, n: int) -> tuple[float, ...]:
    """Noise levels for n steps from a list for another number of steps, by linear interpolation of their logarithms.

    As Sabour et al. 2024 take the lists that they publish for 10 steps to other numbers; a last 0 stays the last step.
    ``from_sigmas(sde, loglinear(levels, n))`` is the grid.

    >>> loglinear([80, 0.8, 0.008], 4)
    (80.0, 8.0, 0.8, 0.08, 0.008)
    """
    values = as_floats("levels", levels)
    jump = len(values) > 0 and values[-1] == 0
    known = np.asarray(values[:-1] if jump else values)
    if len(known) < 2 or not (np.isfinite(known) & (known > 0)).all() or (np.diff(known) >= 0).any():
        raise BadInput(
            f"levels {show(np.asarray(values))}: give at least two positive, falling noise levels, then 0 if any"
        )
    steps = positive("steps", n) - jump
    at = np.linspace(0, len(known) - 1, steps + 1)
    new = np.exp(np.interp(at, np.arange(len(known)), np.log(known)))
    whole = at == np.round(at)  # these are kept to the last bit
    new[whole] = known[at[whole].astype(int)]
    return (*new.tolist(), *([0.0] if jump else []))
