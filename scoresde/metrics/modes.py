"""Does every component of a known mixture get samples?"""

from __future__ import annotations

import math

import torch
from scipy.special import chdtri
from torch import Tensor

from scoresde.analytic import GaussianMixture
from scoresde.errors import BadInput
from scoresde.metrics.sets import Measured

FLOOR = 0.1  # of a component's share
BEYOND = math.exp(-4.5)  # of a Gaussian in the plane, the share more than 3 standard deviations from its mean


def mode_coverage(samples: Tensor, mixture: GaussianMixture) -> Measured:
    """The share of components that get at least a tenth of the samples they should: 1 if no mode is missing.

        coverage = share of k with #{i: x_i is of high quality, k = argmax_l w_l N(x_i; μ_l, C_l)} >= w_k n / 10

    Counts of modes as in Srivastava et al. 2017 (VEEGAN): samples far from all modes, which are not of high quality
    (`high_quality_share`), count for none. Returns the value, the number of components as n, and that of samples as m.

    Raises BadInput for events of another shape, NaN, or a singular covariance.

    >>> import torch
    >>> mixture = GaussianMixture(torch.ones(2), torch.tensor([[-5.0], [5.0]]), torch.ones(2, 1, 1))
    >>> mode_coverage(mixture.sample(100), mixture).value, mode_coverage(torch.full((100, 1), 4.0), mixture).value
    (1.0, 0.5)
    """
    likeliest, near = _modes(samples, mixture, "mode_coverage")
    weights = mixture.weights.double() / mixture.weights.sum()
    covered = likeliest[near].bincount(minlength=len(weights)) >= FLOOR * weights * len(samples)
    return Measured(float(covered.double().mean()), len(weights), len(samples))


def high_quality_share(samples: Tensor, mixture: GaussianMixture) -> Measured:
    """The share of samples near their likeliest component: in the plane within 3 of its standard deviations.

        (x_i - μ_k)ᵀ C_k⁻¹ (x_i - μ_k) <= r²,       k = argmax_l w_l N(x_i; μ_l, C_l),       r = 3 for d = 2

    The "high-quality samples" of Srivastava et al. 2017, by the components' own covariances. In d dimensions r² is the
    quantile of χ²_d at which the same 98.9 % of a Gaussian are inside: about that for samples of the mixture itself.
    Returns the value, the number of components as n, and that of samples as m. Raises BadInput as `mode_coverage`.

    >>> import torch
    >>> mixture = GaussianMixture(torch.ones(2), torch.tensor([[-5.0, 0.0], [5.0, 0.0]]), torch.eye(2).expand(2, 2, 2))
    >>> high_quality_share(torch.tensor([[4.0, 1.0], [0.0, 0.0], [-7.9, 0.0], [-8.1, 0.0]]), mixture).value
    0.5
    """
    return Measured(
        float(_modes(samples, mixture, "high_quality_share")[1].double().mean()), len(mixture.means), len(samples)
    )


def _modes(samples: Tensor, mixture: GaussianMixture, name: str) -> tuple[Tensor, Tensor]:
    """The likeliest component of each sample, and whether the sample is near it."""
    if samples.shape[1:] != mixture.event_shape or not len(samples):
        raise BadInput(f"{name}: samples have shape {tuple(samples.shape)}, not (n, *{mixture.event_shape})")
    if not bool(torch.isfinite(samples).all()):
        raise BadInput(f"{name}: samples have a NaN or infinite value")
    x, weights = samples.detach().double().cpu().flatten(1), mixture.weights.double()
    root, failed = torch.linalg.cholesky_ex(mixture.covs.double())
    if bool(failed.any()):
        raise BadInput(f"{name}: the covariance of component {int(failed.nonzero()[0])} is singular")
    away = torch.linalg.solve_triangular(root, (x - mixture.means.double().flatten(1)[:, None]).mT, upper=False)
    squares, heights = away.square().sum(dim=1), weights.log() - root.diagonal(dim1=1, dim2=2).log().sum(dim=1)
    likeliest = (heights[:, None] - 0.5 * squares).argmax(dim=0)
    return likeliest, squares.gather(0, likeliest[None])[0] <= chdtri(x.shape[1], BEYOND)
