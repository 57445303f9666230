"""Spacings in a continuous variable: equal steps in t^(1/p), or in a function v of λ.

Each is a function (sde, first, n, to_zero, *, option) that returns n + 1 decreasing times, float64: from ``first`` to
t_min or, with ``to_zero``, to 0. Variables that are 0 at the data reach it in equal steps; λ is infinite there, and
Karras' σ is by custom spaced over positive levels, so those take n - 1 steps to t_min and jump from there.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from scoresde.errors import BadInput
from scoresde.sde import SDE

Spacing = Callable[..., np.ndarray]  # (sde, first, n, to_zero, *, option) -> n + 1 times
Variable = Callable[[Tensor], Tensor]


def uniform_t(sde: SDE, first: float, n: int, to_zero: bool, *, power: float = 1.0) -> np.ndarray:
    """Equal steps in t^(1/power): 1 the plain grid, 2 that of `quadratic_t` (Zhang & Chen 2023)."""
    above_zero("power", power)
    last = 0.0 if to_zero else sde.t_min
    return with_ends(np.linspace(first ** (1 / power), last ** (1 / power), n + 1) ** power, first, last)


def quadratic_t(sde: SDE, first: float, n: int, to_zero: bool) -> np.ndarray:
    """Equal steps in sqrt(t) (the quadratic spacing of DDIM, Song et al. 2021b, appendix D.2, and of DEIS)."""
    return uniform_t(sde, first, n, to_zero, power=2.0)


def beta(sde: SDE, first: float, n: int, to_zero: bool, *, alpha: float = 0.6) -> np.ndarray:
    """Equal steps in the distribution function of Beta(α, α) at t/t_max: dense at both ends (Lee et al. 2024)."""
    from scipy.special import betainc, betaincinv

    above_zero("alpha", alpha)
    last = 0.0 if to_zero else sde.t_min
    start, end = betainc(alpha, alpha, np.array([first, last]) / sde.t_max).tolist()
    return with_ends(sde.t_max * betaincinv(alpha, alpha, np.linspace(start, end, n + 1)), first, last)


def uniform_phi(sde: SDE, first: float, n: int, to_zero: bool, *, scale: float = 1.0) -> np.ndarray:
    """Equal steps in the angle φ = atan(ρ/scale), ρ = σ/α: with scale 1 the angle of the circle (α, σ).

    With the data's standard deviation as scale, what Sabour et al. 2024 find optimal for Gaussian data.
    """
    log_scale = math.log(above_zero("scale", scale))

    def phi(lam: Tensor) -> Tensor:
        return (-lam - log_scale).exp().atan()

    def lam(phi: Tensor) -> Tensor:
        return phi.cos().log() - phi.sin().log() - log_scale

    return _steps(sde, first, n, to_zero, phi, lam)


def shifted_flow(sde: SDE, first: float, n: int, to_zero: bool, *, shift: float = 3.0) -> np.ndarray:
    """Equal steps in ρ/(shift + ρ), ρ = σ/α: for rectified flow t' = shift t / (1 + (shift - 1) t) of equally spaced t.

    (Esser et al. 2024, eq. 23; they take 3 for 1024² pixels.) A larger shift takes more of the steps at high noise.
    """
    log_shift = math.log(above_zero("shift", shift))

    def share(lam: Tensor) -> Tensor:
        return torch.sigmoid(-lam - log_shift)

    def lam(share: Tensor) -> Tensor:
        return -torch.logit(share) - log_shift

    return _steps(sde, first, n, to_zero, share, lam)


def logit_normal(sde: SDE, first: float, n: int, to_zero: bool, *, scale: float = 1.0) -> np.ndarray:
    """Equal steps in the normal distribution function of log(ρ)/scale: as dense as the logit-normal training times.

    (Esser et al. 2024, eq. 19, with m = 0; for rectified flow log ρ is the logit of t.) A larger scale comes closer to
    equal λ; between the two, at 2 to 3, multistep solvers err least in a few steps.
    """
    above_zero("scale", scale)

    def below(lam: Tensor) -> Tensor:
        return 0.5 * torch.erfc(lam / (scale * math.sqrt(2)))

    def lam(below: Tensor) -> Tensor:
        return -scale * torch.special.ndtri(below)

    return _steps(sde, first, n, to_zero, below, lam)


def uniform_lambda(sde: SDE, first: float, n: int, to_zero: bool) -> np.ndarray:
    """Equal steps in λ, half the log-SNR (Lu et al. 2022a); the "exponential" noise levels of k-diffusion."""
    return polyexponential(sde, first, n, to_zero, rho=1.0)


def polyexponential(sde: SDE, first: float, n: int, to_zero: bool, *, rho: float = 1.0) -> np.ndarray:
    """λ = λ_end - (λ_end - λ_first) u^ρ for u from 1 to 0 in equal steps (k-diffusion); ρ = 1 is `uniform_lambda`."""
    above_zero("rho", rho)
    end = _some_signal(sde, first)[1]

    def u(lam: Tensor) -> Tensor:
        return (end - lam) ** (1 / rho)

    return to_data(lambda m: _steps(sde, first, m, False, u, lambda u: end - u**rho), n, to_zero)


def karras(sde: SDE, first: float, n: int, to_zero: bool, *, rho: float = 7.0) -> np.ndarray:
    """Equal steps in (σ/α)^(1/ρ), ρ = 7 (Karras et al. 2022, eq. 5); ρ = 1 takes equal steps in the noise level."""
    above_zero("rho", rho)
    _some_signal(sde, first)

    def root(lam: Tensor) -> Tensor:
        return (-lam / rho).exp()

    return to_data(lambda m: _steps(sde, first, m, False, root, lambda root: -rho * root.log()), n, to_zero)


def _steps(sde: SDE, first: float, n: int, to_zero: bool, v: Variable, lam: Variable) -> np.ndarray:
    """Equal steps in v(λ), whose inverse is ``lam``; v is 0 at the data."""
    start, end = v(torch.from_numpy(sde.knots([first, sde.t_min]).lam)).tolist()
    values = np.linspace(start, 0.0 if to_zero else end, n + 1)
    return with_ends(sde.t_of_lam(lam(torch.from_numpy(values))).numpy(), first, 0.0 if to_zero else sde.t_min)


def to_data(finite: Callable[[int], np.ndarray], n: int, to_zero: bool) -> np.ndarray:
    """A grid that does not reach the data in equal steps: n - 1 intervals to t_min, then one to 0."""
    return np.append(finite(n - 1), 0.0) if to_zero else finite(n)


def with_ends(times: np.ndarray, first: float, last: float) -> np.ndarray:
    """The times with their ends to the last bit, whatever variable they were spaced in; one time is ``first``."""
    times[-1] = last
    times[0] = first
    return times


def above_zero(name: str, value: float) -> float:
    """Return the option ``value`` if it is a positive number, else raise `BadInput`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise BadInput(f"{name} = {value!r}: the grid's {name} must be a positive number")
    return value


def _some_signal(sde: SDE, first: float) -> tuple[float, float]:
    """λ at the first time, where it must be finite, and at t_min."""
    start, end = sde.knots([first, sde.t_min]).lam.tolist()
    if not math.isfinite(start):
        raise BadInput(
            f"a grid in λ or in powers of σ/α needs some signal at t = {first:g}, where {sde} has none:"
            " choose 't', 't2', 'phi' or 'index'"
        )
    return start, end
