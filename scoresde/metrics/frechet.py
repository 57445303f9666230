"""The Fréchet distance between Gaussians fitted to two sets of features."""

from __future__ import annotations

import torch
from torch import Tensor

from scoresde.errors import BadInput
from scoresde.metrics.sets import checked_pair

LEAST = 2048


def frechet_distance(real: Tensor, fake: Tensor, allow_small: bool = False) -> float:
    """FD = |μ_r - μ_f|² + tr(C_r + C_f - 2 (C_r^½ C_f C_r^½)^½), means μ and unbiased covariances C of two sets.

    The squared 2-Wasserstein distance between N(μ_r, C_r) and N(μ_f, C_f) (Dowson & Landau 1982); in Inception features
    it is the FID (Heusel et al. 2017, eq. 6), in others it is not comparable with one. In the features' units, squared.
    The estimate is biased upwards, the more so the smaller n (Bińkowski et al. 2018, section 4): compare only
    figures of equal n, and hold them against the FD of two real sets of that n. `kernel_distance` has no such bias.

    The last trace is computed as the nuclear norm of R_r R_fᵀ, where X - μ = √(n-1) Q R (QR), hence C = Rᵀ R: with
    the polar forms R = U C^½ it is |C_r^½ C_f^½|_*, the sum of the roots of the eigenvalues of C_r^½ C_f C_r^½. No
    covariance is squared and no square root taken of a rounded zero, so rank-deficient sets are safe and FD(X, X) ≈ 0.

    Raises:
        BadInput: fewer than 2048 points on a side without ``allow_small``; other shapes than (n, d) and (m, d); NaN.

    >>> import torch
    >>> x = torch.randn(2048, 3, generator=torch.Generator().manual_seed(0))
    >>> round(frechet_distance(x, x + torch.tensor([3.0, 4.0, 0.0])), 4)
    25.0
    """
    real, fake = checked_pair(real, fake)
    n = min(len(real), len(fake))
    if n < LEAST and not allow_small:
        raise BadInput(
            f"Fréchet distance of n = {n} points: biased below {LEAST}; pass allow_small=True and state n,"
            " or use kernel_distance (KID), which is unbiased"
        )
    (mean_r, root_r), (mean_f, root_f) = _moments(real), _moments(fake)
    cross = torch.linalg.svdvals(root_r @ root_f.T).sum()
    squares = root_r.square().sum() + root_f.square().sum() - 2 * cross
    return float((mean_r - mean_f).square().sum() + squares.clamp(min=0))


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """The mean, and R of the covariance Rᵀ R."""
    mean = x.mean(dim=0)
    return mean, torch.linalg.qr((x - mean) / (len(x) - 1) ** 0.5, mode="r").R
