"""Precision, recall, density, coverage: how two sets overlap, judged by balls to the k-th nearest neighbour."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from scoresde.errors import BadInput, positive
from scoresde.metrics.sets import checked_pair, distances


class PRDC(NamedTuple):
    """Precision and density say whether fakes look real, recall and coverage whether all that is real is drawn."""

    precision: float
    recall: float
    density: float
    coverage: float


def prdc(real: Tensor, fake: Tensor, k: int = 5) -> PRDC:
    """Overlap of real points X_1 … X_n and fake points Y_1 … Y_m in a feature space.

    With B(X_i) the closed ball around X_i that reaches its k-th nearest neighbour among the other X, B(Y_j) likewise:

        precision = share of j with Y_j in some B(X_i)          recall   = share of i with X_i in some B(Y_j)
        density   = Σ_j #{i: Y_j in B(X_i)} / (k m)             coverage = share of i with some Y_j in B(X_i)

    Precision and recall: Kynkäänniemi et al. 2019, eqs. 1–2 (k = 3 there). Density and coverage: Naeem et al. 2020,
    section 3 (k = 5 there), which a single outlier among the X cannot raise. For equal distributions density has mean 1
    (it may exceed 1) and coverage the mean of `expected_coverage`. All depend on n and m: use n = m, and state it.

    Raises BadInput unless k is a positive integer below both n and m; for other shapes; for NaN.

    >>> import torch
    >>> x = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
    >>> prdc(x, x).coverage, prdc(x, x + 100)
    (1.0, PRDC(precision=0.0, recall=0.0, density=0.0, coverage=0.0))
    """
    real, fake = checked_pair(real, fake)
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k < min(len(real), len(fake)):
        raise BadInput(f"k = {k!r} must be an integer from 1 to {min(len(real), len(fake)) - 1}, below both n and m")
    between = distances(real, fake)
    in_real, in_fake = between <= _radii(real, k)[:, None], between <= _radii(fake, k)
    return PRDC(
        precision=_share(in_real.any(dim=0)),
        recall=_share(in_fake.any(dim=1)),
        density=float(in_real.sum()) / (k * len(fake)),
        coverage=_share(in_real.any(dim=1)),
    )


def expected_coverage(n: int, m: int, k: int = 5) -> float:
    """The mean coverage of n real by m fake points of the same continuous distribution: 1 - Π_{j<k} (n-1-j)/(n+m-1-j).

    X_i is not covered exactly if its k nearest among the other n - 1 real and m fake points are all real; these
    n + m - 1 points are exchangeable, which gives the product. It tends to 1 - 2^-k for large n = m (Naeem et al.
    2020, section 3).

    >>> round(expected_coverage(1000, 1000, 5), 4)
    0.9690
    """
    if not (positive("k", k) < positive("n", n) and positive("m", m)):
        raise BadInput(f"expected coverage: k = {k} nearest of n = {n} points: n must be larger")
    missed = 1.0
    for j in range(k):
        missed *= (n - 1 - j) / (n + m - 1 - j)
    return 1 - missed


def _radii(x: Tensor, k: int) -> Tensor:
    """The distance of each point to its k-th nearest among the others: itself, at 0, is the first of k + 1."""
    return distances(x, x).kthvalue(k + 1, dim=1).values


def _share(hits: Tensor) -> float:
    return float(hits.double().mean())
