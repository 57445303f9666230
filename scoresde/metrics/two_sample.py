"""Can a classifier tell samples from data? The test by nearest neighbours."""

from __future__ import annotations

import torch
from torch import Tensor

from scoresde.errors import BadInput
from scoresde.metrics.sets import Measured, checked_pair, distances


def two_sample_accuracy(real: Tensor, fake: Tensor) -> Measured:
    """How often the nearest neighbour among all other points, real and fake, is of a point's own set.

        accuracy = mean_i [label of the nearest z_j, j ≠ i, is that of z_i]          (z: both sets together)

    The leave-one-out accuracy of a 1-nearest-neighbour classifier as a two-sample test (Lopez-Paz & Oquab 2017, section
    3; the 1-NN of Xu et al. 2018). Near 1/2 for equal distributions, 1 for distant ones, and below 1/2 where samples
    copy the data one by one. Neighbours at equal distances count in equal parts, so no order matters.

    Raises BadInput for sets of different sizes, for which equal distributions would not give 1/2; other shapes; NaN.

    >>> import torch
    >>> x, y = torch.randn(2, 100, 2, generator=torch.Generator().manual_seed(0))
    >>> two_sample_accuracy(x, y + 100).value, two_sample_accuracy(x, x + 1e-6).value
    (1.0, 0.0)
    """
    real, fake = checked_pair(real, fake)
    if len(real) != len(fake):
        raise BadInput(f"two_sample_accuracy: {len(real)} real and {len(fake)} fake points: equal numbers are needed")
    pooled, n = torch.cat([real, fake]), len(real)
    own = torch.arange(2 * n) < n
    hits = 0.0
    for rows in torch.arange(2 * n).split(1024):
        away = distances(pooled[rows], pooled)
        away[torch.arange(len(rows)), rows] = torch.inf
        near = away == away.min(dim=1, keepdim=True).values
        hits += float(((near & (own[rows, None] == own)).sum(dim=1) / near.sum(dim=1)).double().sum())
    return Measured(hits / (2 * n), n, n)
