"""Are samples copies of training images? Distances to the nearest one, held against those of held-out images."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from scoresde.errors import BadInput

_NUMBERS = 2**26  # entries of a distance matrix at a time


class Memorisation(NamedTuple):
    """Nearest training images of samples (s) and of held-out images (h): distances d_s and d_h.

    median         median d_s / median d_h: about 1 for samples as new as held-out images
    smallest       min d_s / median d_h: 0 for an exact copy
    smallest_real  min d_h / median d_h: how near a held-out image, which is none, comes to being one
    closer         share of samples nearer than the 1 % quantile of d_h: about 0.01 without memorisation
    """

    median: float
    smallest: float
    smallest_real: float
    closer: float


def nearest(x: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """min_j |x_i - r_j| over all pixels and the j that attains it: distances (n,) float64, indices (n,) int64.

    The index is found in float32 through |x|² - 2 x·r + |r|², the distance then computed by the difference.

    >>> import torch
    >>> nearest(torch.tensor([[0.0, 1.0]]), torch.tensor([[9.0, 9.0], [0.0, 3.0]]))
    (tensor([2.], dtype=torch.float64), tensor([1]))
    """
    if x.shape[1:] != reference.shape[1:] or not len(x) or not len(reference):
        raise BadInput(f"nearest: {tuple(x.shape)} and {tuple(reference.shape)} are not two sets of equal events")
    flat, others = x.flatten(1).float(), reference.flatten(1).float()
    if not bool(flat.isfinite().all() & others.isfinite().all()):
        raise BadInput("nearest: some numbers are not finite")
    squares = others.square().sum(dim=1)
    rows = flat.split(max(1, _NUMBERS // len(others)))
    index = torch.cat([(squares - 2 * part @ others.T).argmin(dim=1) for part in rows])
    return (flat.double() - others[index].double()).square().sum(dim=1).sqrt(), index


def memorisation(samples: Tensor, train: Tensor, held_out: Tensor) -> Memorisation:
    """Distances of samples to their nearest training images in pixel space, relative to those of held-out images.

    A model that has learnt the distribution draws images as far from the training set as unseen ones are; one that has
    stored the set draws nearer ones (Meehan, Chaudhuri & Dasgupta 2020, "data-copying"). Smoother samples are a little
    nearer too, since pixel noise adds to every distance; a copy is far below all of them.

    >>> import torch
    >>> train, test = torch.randn(2, 200, 5, generator=torch.Generator().manual_seed(0))
    >>> memorisation(train[:50], train, test).median
    0.0
    """
    (ours, _), (real, _) = nearest(samples, train), nearest(held_out, train)
    typical = real.median()
    if typical == 0:
        raise BadInput("memorisation: most held-out images are in the training set; they must be other images")
    return Memorisation(
        median=float(ours.median() / typical),
        smallest=float(ours.min() / typical),
        smallest_real=float(real.min() / typical),
        closer=float((ours < real.quantile(0.01)).double().mean()),
    )
