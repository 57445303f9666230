"""The kernel distance (KID): an unbiased maximum mean discrepancy with a polynomial kernel."""

from __future__ import annotations

import torch
from torch import Tensor

from scoresde.metrics.sets import Estimate, checked_pair


def kernel_distance(real: Tensor, fake: Tensor, degree: int = 3) -> Estimate:
    """MMD² = E k(x, x') + E k(y, y') - 2 E k(x, y), kernel k(x, y) = (x·y/d + 1)^degree, without bias.

    The U-statistic of Gretton et al. 2012 (eq. 3) with the kernel of the Kernel Inception Distance (Bińkowski et al.
    2018, section 4): x ≠ x' in the first two means, so its expectation is the true MMD² at any n, 0 for equal
    distributions, and single values may be negative. Degree 3 compares the first three moments.

    The standard error is the two-sample jackknife: var = Σ over both sets of (n-1)/n Σ_i (U_{-i} - mean)². It needs no
    random blocks and no order of the points. It is right for different distributions and up to √2 too large for equal
    ones (Efron & Stein 1981: what depends on pairs is counted twice), so it errs on the side of caution.

    Returns Estimate(value, standard_error). Raises BadInput for fewer than 3 points, other shapes, NaN.

    >>> import torch
    >>> x = torch.randn(500, 4, generator=torch.Generator().manual_seed(0))
    >>> kid = kernel_distance(x[:250], x[250:])
    >>> abs(kid.value) < 3 * kid.standard_error
    True
    """
    real, fake = checked_pair(real, fake, least=3)

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return (x @ y.T / x.shape[1] + 1) ** degree

    between = kernel(real, fake)
    (mean_r, out_r), (mean_f, out_f) = _within(kernel(real, real)), _within(kernel(fake, fake))
    value = mean_r + mean_f - 2 * between.mean()
    variance = torch.zeros((), dtype=torch.float64)
    for out, rows in ((out_r, between.mean(dim=1)), (out_f, between.mean(dim=0))):
        n = len(out)
        left_out = out - 2 * (n * between.mean() - rows) / (n - 1)  # the value without point i, up to a constant
        variance = variance + (n - 1) / n * (left_out - left_out.mean()).square().sum()
    return Estimate(float(value), float(variance.sqrt()))


def _within(k: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of k over pairs of different points, and the same with each point left out in turn."""
    n, rows = len(k), k.sum(dim=1) - k.diagonal()
    return rows.sum() / (n * (n - 1)), (rows.sum() - 2 * rows) / ((n - 1) * (n - 2))
