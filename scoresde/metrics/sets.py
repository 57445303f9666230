"""What all figures share: two checked sets of points in float64, their distances, a figure with its error or its n."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from scoresde.errors import BadInput

_ROWS = 1024  # rows of a distance matrix at a time


class Estimate(NamedTuple):
    """A figure and its standard error."""

    value: float
    standard_error: float


class Measured(NamedTuple):
    """A figure and the sizes of the two sets it was taken on: n real and m fake points."""

    value: float
    n: int
    m: int


def checked_pair(real: Tensor, fake: Tensor, least: int = 2) -> tuple[Tensor, Tensor]:
    """Two sets of points (n, d) and (m, d) as float64 on the CPU, or a BadInput that says what is wrong.

    >>> import torch
    >>> a, b = checked_pair(torch.zeros(3, 2), torch.ones(4, 2))
    >>> a.dtype, len(b)
    (torch.float64, 4)
    """
    for name, points in (("real", real), ("fake", fake)):
        if points.ndim != 2:
            raise BadInput(f"{name}: features must have shape (n, d), not {tuple(points.shape)}")
        if len(points) < least:
            raise BadInput(f"{name}: n = {len(points)} points are too few; at least {least} are needed")
        bad = ~torch.isfinite(points).all(dim=1)
        if bool(bad.any()):
            raise BadInput(f"{name}: row {int(bad.nonzero()[0])} (counted from 0) has a NaN or infinite value")
    if real.shape[1] != fake.shape[1]:
        raise BadInput(f"real has {real.shape[1]} features and fake {fake.shape[1]}: both need the same feature space")
    return real.detach().double().cpu(), fake.detach().double().cpu()


def distances(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    """Euclidean distances |a_i - b_j| by differences, so that equal points are at exactly 0.

    >>> import torch
    >>> distances(torch.zeros(1, 2), torch.tensor([[3.0, 4.0]]))
    tensor([[5.]])
    """
    return torch.cat([torch.cdist(rows, b, compute_mode="donot_use_mm_for_euclid_dist") for rows in a.split(_ROWS)])
