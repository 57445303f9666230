"""Two distances of distributions from distances of points: the energy distance and the MMD of a Gaussian kernel."""

from __future__ import annotations

import torch
from torch import Tensor

from scoresde.errors import BadInput
from scoresde.metrics.sets import Measured, checked_pair, distances


def energy_distance(real: Tensor, fake: Tensor) -> Measured:
    """D² = 2 E|x - y| - E|x - x'| - E|y - y'| (Székely & Rizzo 2013), without bias.

    x ≠ x' and y ≠ y' in the last two means (a U-statistic), so the expectation is the true D² at any n, 0 exactly for
    equal distributions, and single values may be negative. In the units of the points, not squared. In one dimension
    it is 2 ∫ (F - G)² dx.

    >>> import torch
    >>> energy_distance(torch.zeros(3, 1), torch.ones(4, 1))
    Measured(value=2.0, n=3, m=4)
    """
    real, fake = checked_pair(real, fake)
    within = _mean_of_pairs(distances(real, real)) + _mean_of_pairs(distances(fake, fake))
    return Measured(float(2 * distances(real, fake).mean() - within), len(real), len(fake))


def gaussian_mmd(real: Tensor, fake: Tensor, bandwidth: float | None = None) -> Measured:
    """MMD² = E k(x, x') + E k(y, y') - 2 E k(x, y), k(x, y) = exp(-|x - y|² / 2h²), h = ``bandwidth``, without bias.

    The U-statistic of Gretton et al. 2012 (eq. 3): 0 in expectation for equal distributions, at most 2. h is by default
    the median distance of the pooled points (section 8 there); compare only values of one h.

    Raises BadInput for a bandwidth that is not positive, as the median is if most points are equal; other shapes; NaN.

    >>> import torch
    >>> x, y = torch.randn(2, 300, 2, generator=torch.Generator().manual_seed(0))
    >>> abs(gaussian_mmd(x, y).value) < 0.01 < gaussian_mmd(x, y + 1).value
    True
    """
    real, fake = checked_pair(real, fake)
    h = median_distance(real, fake) if bandwidth is None else bandwidth
    if not h > 0:
        raise BadInput(f"bandwidth = {h!r} must be positive: give one, if the median distance is 0")

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return (-0.5 * (distances(x, y) / h).square()).exp()

    within = _mean_of_pairs(kernel(real, real)) + _mean_of_pairs(kernel(fake, fake))
    return Measured(float(within - 2 * kernel(real, fake).mean()), len(real), len(fake))


def median_distance(real: Tensor, fake: Tensor) -> float:
    """The median of |z_i - z_j|, i ≠ j, over both sets together: the bandwidth that `gaussian_mmd` takes.

    >>> import torch
    >>> median_distance(torch.tensor([[0.0], [3.0]]), torch.tensor([[1.0], [3.0]]))
    2.0
    """
    pooled = torch.cat(checked_pair(real, fake))
    row, column = torch.triu_indices(len(pooled), len(pooled), offset=1)
    return float(distances(pooled, pooled)[row, column].median())


def _mean_of_pairs(k: Tensor) -> Tensor:
    """The mean over pairs of different points."""
    return (k.sum() - k.diagonal().sum()) / (len(k) * (len(k) - 1))
