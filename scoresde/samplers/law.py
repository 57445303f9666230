"""The law of a sampler's output, exactly: with an affine denoiser a run is affine in its start and its noises."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from scoresde.analytic import Gaussian
from scoresde.denoiser import AnyDenoiser
from scoresde.samplers.solver import Solver
from scoresde.samplers.table import Table


def responses(
    solver: Solver, denoiser: AnyDenoiser, units: Float[Tensor, "m d"], **cond: Any
) -> tuple[Float[Tensor, "d"], Float[Tensor, "draws m d"]]:
    """The end of a run from 0 without noise, and what a start or one row's noise of each of the ``units`` adds to it.

    x_end = offset + G_0 x_T + Σ_k G_k z_k for a denoiser affine in x, as that of Gaussian data is. One batch of
    1 + (1 + K) m rows gives the offset (d,) and the gains (1 + K, m, d), G_0 first, of a table with K rows that draw.
    Units are the rows of the identity, or a single row of ones where no coordinate depends on another. ``cond`` goes to
    the denoiser as it is, so the same for all rows.

    >>> import torch, scoresde
    >>> from scoresde.samplers.law import responses
    >>> data, sde = scoresde.Gaussian(torch.zeros(1), torch.eye(1)), scoresde.VPSDE()
    >>> table = scoresde.SAMPLERS["ddpm"].build(sde, scoresde.make_grid("phi", sde, 50))
    >>> responses(table, data.denoiser(sde), torch.ones(1, 1, dtype=torch.float64))[1].shape
    torch.Size([51, 1, 1])
    """
    rows = solver.resolved if isinstance(solver, Table) else []
    drawing = [i for i, row in enumerate(rows) if row.rest and row.rest.draw]
    m, d = units.shape
    place = {step: slice(1 + (1 + k) * m, 1 + (2 + k) * m) for k, step in enumerate(drawing)}

    def unit(step: int, draw: int, x: Tensor) -> Tensor:
        z = torch.zeros_like(x)
        z[place[step]] = units
        return z

    x = units.new_zeros(1 + (1 + len(drawing)) * m, d)
    x[1 : 1 + m] = units
    with torch.no_grad():
        out, _ = solver.run(denoiser, x, unit, **cond)
    return out[0], (out[1:] - out[0]).reshape(-1, m, d)


def output_law(
    solver: Solver, denoiser: AnyDenoiser, start: Gaussian, **cond: Any
) -> tuple[Float[Tensor, "d"], Float[Tensor, "d d"]]:
    """Mean and covariance of what is drawn from x_T = α_T x_0 + σ_T z, x_0 of the law ``start``: without Monte Carlo.

    So a sampler's error in law is a number: an exact one would have the mean and the covariance of the data. The
    denoiser must be affine in x: that of a `Gaussian`, or of one guided to a Gaussian posterior.

    >>> import torch, scoresde
    >>> from scoresde.samplers.law import output_law
    >>> one, sde = torch.ones(1, 1, dtype=torch.float64), scoresde.VPSDE()
    >>> data = scoresde.Gaussian(one[0], one)
    >>> for n in (50, 500):
    ...     table = scoresde.SAMPLERS["ddpm"].build(sde, scoresde.make_grid("phi", sde, n))
    ...     mean, cov = output_law(table, data.denoiser(sde), data)
    ...     print(f"{float(mean):.3f} {float(cov):.3f}")  # weak order 1
    1.000 0.915
    1.000 0.991
    """
    begin = denoiser.sde.knots([solver.times[0]])
    alpha, sigma = float(begin.alpha[0]), float(begin.sigma[0])
    eye = torch.eye(len(start.mean), dtype=start.mean.dtype, device=start.mean.device)
    offset, gains = responses(solver, denoiser, eye, **cond)
    spreads = gains.mT @ gains
    spreads[0] = gains[0].mT @ (alpha**2 * start.cov + sigma**2 * eye) @ gains[0]
    return offset + alpha * start.mean @ gains[0], spreads.sum(0)
