"""Does every component of a known mixture get samples?"""

from __future__ import annotations

import torch
from torch import Tensor

from scoresde.analytic import GaussianMixture
from scoresde.errors import BadInput
from scoresde.metrics.sets import Measured

FLOOR = 0.1  # of a component's share


def mode_coverage(samples: Tensor, mixture: GaussianMixture) -> Measured:
    """The share of components that get at least a tenth of the samples they should: 1 if no mode is missing.

        coverage = share of k with #{i: k = argmax_l w_l N(x_i; μ_l, C_l)} >= w_k n / 10

    Counts of modes as in Srivastava et al. 2017 (VEEGAN), with the mixture's own weights and covariances
    in the place of a fixed radius; a sample far from all modes counts for the likeliest. Returns the value, the number
    of components as n, and that of samples as m.

    Raises BadInput for events of another shape, NaN, or a singular covariance.

    >>> import torch
    >>> mixture = GaussianMixture(torch.ones(2), torch.tensor([[-5.0], [5.0]]), torch.ones(2, 1, 1))
    >>> mode_coverage(mixture.sample(100), mixture).value, mode_coverage(torch.full((100, 1), 4.0), mixture).value
    (1.0, 0.5)
    """
    if samples.shape[1:] != mixture.event_shape or not len(samples):
        raise BadInput(f"mode_coverage: samples have shape {tuple(samples.shape)}, not (n, *{mixture.event_shape})")
    if not bool(torch.isfinite(samples).all()):
        raise BadInput("mode_coverage: samples have a NaN or infinite value")
    x, weights = samples.detach().double().cpu().flatten(1), mixture.weights.double() / mixture.weights.sum()
    root, failed = torch.linalg.cholesky_ex(mixture.covs.double())
    if bool(failed.any()):
        raise BadInput(f"mode_coverage: the covariance of component {int(failed.nonzero()[0])} is singular")
    away = torch.linalg.solve_triangular(root, (x - mixture.means.double().flatten(1)[:, None]).mT, upper=False)
    heights = weights.log() - root.diagonal(dim1=1, dim2=2).log().sum(dim=1)
    counts = (heights[:, None] - 0.5 * away.square().sum(dim=1)).argmax(dim=0).bincount(minlength=len(weights))
    covered = counts >= FLOOR * weights * len(x)
    return Measured(float(covered.double().mean()), len(weights), len(x))
