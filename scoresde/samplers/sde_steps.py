"""First-order steps of the reverse SDE, one call each, as tables in x0 space; and the forward transition as a row.

The score is s = (α x̂_0 - x)/σ², so every step that is linear in the score is a row.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch

from scoresde.errors import BadInput, choose
from scoresde.grids import Times
from scoresde.samplers.multistep import ddim
from scoresde.samplers.table import Row, Table
from scoresde.sde import SDE


def forward_row(sde: SDE, s: float, t: float, s_noise: float = 1.0) -> Row:
    """Up from s to t > s without a call: x_t = (α_t/α_s) x_s + s_noise σ_t sqrt(1 - e^{-2(λ_s - λ_t)}) z.

    With ``s_noise = 1`` it is the transition q(x_t | x_s) of `SDE.transition`, exact; s = 0 is the data.
    """
    at = sde.knots([s, t])
    spread = -math.expm1(-2 * float(at.lam[0] - at.lam[1]))
    std = float(at.sigma[1]) * math.sqrt(spread)
    return Row(s, t, float(at.alpha[1] / at.alpha[0]), c=(s_noise * std,), ends=False, calls=False)


def ddpm(sde: SDE, times: Times, *, variance: str = "learned") -> Table:
    """Ancestral sampling (Ho et al. 2020, algorithm 2) on any grid and SDE: x_s ~ q(x_s | x_t, x̂_0).

    ``variance`` is "posterior" (β̃, exact for a point mass), "upper" (β, exact under VP for unit-variance Gaussian data)
    or "learned": between the two as the network says (Nichol & Dhariwal 2021, eq. 15), the posterior's for a network
    that has learned none. With h = λ_s - λ_t they are σ_s² (1 - e^{-2h}) and σ_t² (1 - e^{-2h}). No noise into t = 0.
    """
    choose("variance", variance, ("learned", "posterior", "upper"))
    table = ddim(sde, times, eta=1.0)
    if variance == "posterior":
        return table
    sigma = sde.knots(times).sigma
    rows: list[Row] = []
    for row, s, t in zip(table.rows, sigma[1:].tolist(), sigma[:-1].tolist(), strict=True):
        if not row.c:
            rows.append(row)
        elif variance == "upper":
            rows.append(replace(row, c=(row.c[0] * t / s,)))
        else:
            rows.append(replace(row, c_max=row.c[0] * t / s))
    return replace(table, rows=tuple(rows), exact=variance == "learned")


def em(sde: SDE, times: Times) -> Table:
    """Euler-Maruyama on the reverse SDE (Song et al. 2021, eq. 6): x + (f x - g² s) dt + g sqrt(|dt|) z, dt < 0.

    Into t = 0, where the score's factor 1/σ² has no Euler step, the row is x = x̂_0.
    """
    at = sde.knots(times)
    t = torch.tensor(times[:-1], dtype=torch.float64)
    rows: list[Row] = []
    for i, (f, g2) in enumerate(zip(sde.f(t).tolist(), sde.g2(t).tolist(), strict=True)):
        dt, alpha, sigma2 = times[i + 1] - times[i], float(at.alpha[i]), float(at.sigma[i]) ** 2
        if times[i + 1] == 0:
            rows.append(Row(times[i], 0.0, 0.0, (1.0,)))
        else:
            a, b = 1 + (f + g2 / sigma2) * dt, -g2 * alpha / sigma2 * dt
            rows.append(Row(times[i], times[i + 1], a, (b,), (math.sqrt(-g2 * dt),)))
    return Table(sde, "x0", tuple(rows))


def reverse_diffusion(sde: SDE, times: Times) -> Table:
    """Reverse diffusion sampling (Song et al. 2021, appendix E, eq. 46): the forward chain's own step, run backward.

    If q(x_t | x_s) = N(A x_s, S²) between knots, s < t, then x_s = (2 - A) x_t + S² score + S z: the forward change
    (A - 1) x is taken back at x_t. For a DDPM chain A = sqrt(1 - β) and S² = β, for VE A = 1 and S² = σ_t² - σ_s².
    First order as `em`, without its derivatives of the schedule. Into t = 0 the row is x = x̂_0.

    >>> import scoresde
    >>> reverse_diffusion(scoresde.EDM(), (5.0, 3.0)).rows  # x - 16 (x - x̂_0)/25 + 4 z
    (Row(t=5.0, t_next=3.0, a=0.36, b=(0.64,), c=(4.0,), ends=True, calls=True, c_max=None),)
    """
    at = sde.knots(times)
    A = at.alpha[:-1] / at.alpha[1:]
    share = -np.expm1(-2 * np.diff(at.lam))  # S²/σ_t²
    rows: list[Row] = []
    for i, (scale, part) in enumerate(zip(A.tolist(), share.tolist(), strict=True)):
        alpha, sigma = float(at.alpha[i]), float(at.sigma[i])
        if times[i + 1] == 0:
            rows.append(Row(times[i], 0.0, 0.0, (1.0,)))
        else:
            std = sigma * math.sqrt(part)
            rows.append(Row(times[i], times[i + 1], 2 - scale - part, (part * alpha,), (std,)))
    return Table(sde, "x0", tuple(rows))


def cas(sde: SDE, times: Times, *, power: float = 1.5, step: float | None = None) -> Table:
    """Consistent annealed sampling (Jolicoeur-Martineau et al. 2021a, algorithm 2), with its last denoising step.

    In y = x/α, whose score is (x̂_0 - y)/ρ², from noise level ρ to γ ρ: y + η (x̂_0 - y) + β γ ρ z with
    β² = 1 - (1 - η)²/γ², the noise that makes the next level exactly γ ρ on a point mass. The paper's η = ε/σ_L² is
    one number, ``step``, from 1 - γ (no noise: DDIM) up to 1 + γ; with it each level has a bias of order η that
    finer grids do not remove. ``power`` is the form of Serrà et al. 2021, 1 - η = γ^power, from 1 (DDIM) over 2
    (ancestral) upward, right on any grid and in the limit: it is the SDE with τ² = power - 1. The paper's η for
    CIFAR-10, 0.056 at γ = 0.9638, is power = 1.56.
    """
    if not 1 <= power < math.inf:
        raise BadInput(f"power = {power!r} must be a number of at least 1")
    if step is not None and power != 1.5:
        raise BadInput(f"power = {power!r} and step = {step!r}: give one")
    at = sde.knots(times)
    rows: list[Row] = []
    for i, h in enumerate(np.diff(at.lam).tolist()):
        (alpha, sigma_s), sigma = (float(at.alpha[i + 1]), float(at.sigma[i])), float(at.sigma[i + 1])
        if times[i + 1] == 0:
            rows.append(Row(times[i], 0.0, 0.0, (1.0,)))
            continue
        eta, kept, spread = _level(h, power) if step is None else _fixed_level(h, step, times[i : i + 2])
        noise = (sigma * math.sqrt(spread),) if spread else ()
        rows.append(Row(times[i], times[i + 1], sigma / sigma_s * kept, (alpha * eta,), noise))
    order = None if any(row.c for row in rows) else 1
    return Table(sde, "x0", tuple(rows), exact=True, order=order, order_with_start=order)


def _level(h: float, power: float) -> tuple[float, float, float]:
    """η, the share (1 - η)/γ of the old noise in the new level, and 1 minus its square, for γ = e^{-h}."""
    more = (power - 1) * h if power > 1 else 0.0
    return -math.expm1(-power * h), math.exp(-more), -math.expm1(-2 * more)


def _fixed_level(h: float, step: float, times: Times) -> tuple[float, float, float]:
    """The same for a given η."""
    least = -math.expm1(-h)
    if not least <= step <= 2 - least:
        raise BadInput(
            f"step = {step!r} cannot go from t = {times[0]:.6g} to {times[1]:.6g}: that needs {least:.4g} to"
            f" {2 - least:.4g}, so use more steps or power"
        )
    kept = (1 - step) * math.exp(h)
    return step, kept, (1 - kept) * (1 + kept)
