"""Where to evaluate: n intervals are n + 1 strictly decreasing times, float64, from t_max to a named end.

``final`` names the end, the same word for every sampler:
    "zero"     the last interval jumps from the grid's last knot straight to the data, x = x̂_0
    "t_min"    the last interval lands on t_min
    "denoise"  as "t_min", and one more interval from t_min to the data (n + 1 intervals in all)
Grids in variables that are infinite at the data (λ, Karras' σ) end on t_min and, for "zero", jump from there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch

from scoresde.errors import BadInput, choose, positive
from scoresde.sde import SDE

FINALS = ("zero", "t_min", "denoise")
Times = tuple[float, ...]


def _times(inverse: Callable[[torch.Tensor], torch.Tensor], values: np.ndarray) -> np.ndarray:
    return inverse(torch.from_numpy(np.ascontiguousarray(values))).numpy()


def uniform_t(sde: SDE, n: int, to_zero: bool) -> np.ndarray:
    """Equal steps in t."""
    return np.linspace(sde.t_max, 0.0 if to_zero else sde.t_min, n + 1)


def quadratic_t(sde: SDE, n: int, to_zero: bool) -> np.ndarray:
    """Equal steps in sqrt(t) (the quadratic spacing of DDIM and DEIS)."""
    return np.linspace(math.sqrt(sde.t_max), 0.0 if to_zero else math.sqrt(sde.t_min), n + 1) ** 2


def uniform_phi(sde: SDE, n: int, to_zero: bool) -> np.ndarray:
    """Equal steps in the angle φ = atan(σ/α)."""
    at = sde.knots([sde.t_max, sde.t_min])
    start, end = np.arctan2(at.sigma, at.alpha)
    return _times(sde.t_of_phi, np.linspace(start, 0.0 if to_zero else end, n + 1))


def _to_data(finite: Callable[[int], np.ndarray], n: int, to_zero: bool) -> np.ndarray:
    """A grid in a variable without a finite value at the data: n - 1 intervals to t_min, then one to 0."""
    return np.append(finite(n - 1), 0.0) if to_zero else finite(n)


def uniform_lambda(sde: SDE, n: int, to_zero: bool) -> np.ndarray:
    """Equal steps in λ, half the log-SNR (Lu et al. 2022)."""
    start, end = sde.knots([sde.t_max, sde.t_min]).lam
    return _to_data(lambda m: _times(sde.t_of_lam, np.linspace(start, end, m + 1)), n, to_zero)


def karras(sde: SDE, n: int, to_zero: bool, rho: float = 7.0) -> np.ndarray:
    """Equal steps in (σ/α)^(1/ρ), ρ = 7 (Karras et al. 2022, eq. 5)."""
    start, end = np.exp(-sde.knots([sde.t_max, sde.t_min]).lam / rho)
    return _to_data(lambda m: _times(sde.t_of_lam, -rho * np.log(np.linspace(start, end, m + 1))), n, to_zero)


def trailing_index(sde: SDE, n: int, to_zero: bool) -> np.ndarray:
    """DDPM indices counted down from the last in equal strides, as times (i + 1)/N (Lin et al. 2024, table 2).

    Rounded to whole indices while there are enough of them, fractional beyond. N is the chain's, else 1000.
    """
    N = int(getattr(sde, "N", 1000))
    index = np.linspace(N, 0 if to_zero else 1, n + 1)
    if n <= (N if to_zero else N - 1):
        index = np.floor(index + 0.5)
    return index / N * sde.t_max


GRIDS: dict[str, Callable[[SDE, int, bool], np.ndarray]] = {
    "t": uniform_t,
    "t2": quadratic_t,
    "lambda": uniform_lambda,
    "phi": uniform_phi,
    "karras": karras,
    "index": trailing_index,
}


def make_grid(grid: str | Sequence[float], sde: SDE, n: int | None, final: str = "t_min") -> Times:
    """The times of a named grid with n intervals, or a given list of times, checked and used verbatim.

    >>> import scoresde
    >>> make_grid("t", scoresde.VPSDE(), 4, "zero")
    (1.0, 0.75, 0.5, 0.25, 0.0)
    """
    choose("final", final, FINALS)
    if not isinstance(grid, str):
        return check_times(grid, sde)
    make = GRIDS[choose("grid", grid, GRIDS)]
    if n is None:
        raise BadInput(f"grid {grid!r} needs a number of steps")
    positive("steps", n)
    with np.errstate(all="ignore"):
        times = make(sde, n, final == "zero")
        if final == "zero" and n > 1 and times[-2] < sde.t_min * (1 + 1e-9):
            if times[-2] < sde.t_min * (1 - 1e-9):  # steps so fine that one would fall below t_min
                times = _to_data(lambda m: make(sde, m, False), n, True)
            times[-2] = sde.t_min
    if not np.isfinite(times).all():
        raise BadInput(f"grid {grid!r} needs some signal at t_max = {sde.t_max}: choose 't', 't2', 'phi' or 'index'")
    ends = {0: sde.t_max, -1: 0.0 if final == "zero" else sde.t_min}
    for place, t in ends.items():  # the ends to the last bit, whatever variable the grid is uniform in
        times[place] = t
    if final == "denoise":
        times = np.append(times, 0.0)
    return check_times(times.tolist(), sde)


def check_times(times: Sequence[float], sde: SDE) -> Times:
    """A given list of times as floats: at least two, finite, strictly decreasing, within [0, t_max]."""
    values = tuple(float(t) for t in times)
    if len(values) < 2:
        raise BadInput(f"grid {values}: at least two times are needed")
    if not all(math.isfinite(t) for t in values) or any(a <= b for a, b in pairwise(values)):
        raise BadInput(f"grid {_show(values)}: times must be finite and strictly decreasing")
    if values[0] > sde.t_max * (1 + 1e-12) or values[-1] < 0:
        raise BadInput(f"grid {_show(values)}: times must lie within [0, {sde.t_max}]")
    return values


def from_sigmas(sde: SDE, sigmas: Sequence[float]) -> Times:
    """Times at which σ/α equals each given value (EDM's σ, k-diffusion's sigmas); a last 0 means the data.

    >>> import scoresde
    >>> from_sigmas(scoresde.EDM(), [80, 1.5, 0])
    (80.0, 1.5, 0.0)
    """
    values = np.asarray(list(sigmas), dtype=np.float64)
    if not np.isfinite(values).all() or (values < 0).any():
        raise BadInput(f"sigmas {_show(values.tolist())}: noise levels must be finite and not negative")
    return _levels(sde, values, values == 0, sde.t_of_rho, "σ/α", np.exp(-sde.knots([sde.t_max]).lam[0]))


def from_lambdas(sde: SDE, lams: Sequence[float]) -> Times:
    """Times at which λ equals each given value, rising; ∞ means the data."""
    values = np.asarray(list(lams), dtype=np.float64)
    if np.isnan(values).any() or np.isneginf(values).any():
        raise BadInput(f"λ {_show(values.tolist())}: levels must be numbers, the last one at most ∞")
    return _levels(sde, values, np.isposinf(values), sde.t_of_lam, "λ", sde.knots([sde.t_max]).lam[0])


def _levels(
    sde: SDE,
    values: np.ndarray,
    at_data: np.ndarray,
    inverse: Callable[[torch.Tensor], torch.Tensor],
    name: str,
    limit: float,
) -> Times:
    times = np.where(at_data, 0.0, _times(inverse, values))
    noisier = (values > limit * (1 + 1e-9)) if name != "λ" else (values < limit - 1e-9)
    if noisier.any():
        raise BadInput(f"{name} = {values[noisier][0]:.6g} is noisier than t_max of {sde}, where it is {limit:.6g}")
    if (lost := (times == 0) & ~at_data).any():
        raise BadInput(f"{name} = {values[lost][0]:.6g} is less noise than {sde} ever has before the data")
    return check_times(np.minimum(times, sde.t_max).tolist(), sde)


def _show(values: Sequence[float]) -> str:
    shown = ", ".join(f"{v:g}" for v in values[:4])
    return f"[{shown}{', …' if len(values) > 4 else ''}]"
