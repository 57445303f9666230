"""Smallest and largest value, mean and standard deviation of data, read once and in pieces."""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from scoresde.data.dataset import Dataset, piece_size
from scoresde.errors import BadInput

_PART = 2**16  # numbers in float64 at a time: they stay in a processor's cache


class Statistics(NamedTuple):
    """Of some numbers: the smallest, the largest, the mean and the standard deviation (the 1/N one)."""

    low: float
    high: float
    mean: float
    std: float


class _Encoder(Protocol):
    def encode(self, x: Tensor) -> Tensor: ...


class Moments:
    """Running figures of d variables in float64, joined piece by piece.

    n = n₁ + n₂, δ = m₂ − m₁, m = m₁ + δ n₂/n, M = M₁ + M₂ + δ² n₁n₂/n (T. Chan, G. Golub, R. LeVeque 1979).

    Example:
        >>> moments = Moments()
        >>> moments.add(torch.tensor([[1.0, 2.0]]))
        >>> moments.add(torch.tensor([[6.0]]))
        >>> moments.mean.tolist(), moments.total()
        ([3.0], Statistics(low=1.0, high=6.0, mean=3.0, std=2.160...))
    """

    def __init__(self) -> None:
        self.count = 0
        self.low = self.high = self.mean = self.squares = torch.zeros(0, dtype=torch.float64)

    def add(self, values: Tensor) -> None:
        """Take in (d, n) numbers."""
        for part in values.split(max(1, _PART // len(values)), dim=1):
            self._add(part)

    def _add(self, values: Tensor) -> None:
        n, first = values.shape[1], not self.count
        low, high = values.amin(dim=1).double(), values.amax(dim=1).double()  # which pass NaN on
        values = values.double()
        mean = values.mean(dim=1)
        squares = (values - mean[:, None]).square_().sum(dim=1)
        self.count += n
        if first:
            self.low, self.high, self.mean, self.squares = low, high, mean, squares
            return
        step = mean - self.mean
        self.low, self.high = torch.minimum(self.low, low), torch.maximum(self.high, high)
        self.mean = self.mean + step * (n / self.count)
        self.squares = self.squares + squares + step.square() * (n * (self.count - n) / self.count)

    @property
    def std(self) -> Tensor:
        """The standard deviation of each variable."""
        return (self.squares / self.count).sqrt()

    def each(self) -> list[Statistics]:
        """The figures of each variable."""
        figures = (self.low, self.high, self.mean, self.std)
        return [Statistics(*row) for row in torch.stack(figures, dim=1).tolist()]

    def total(self) -> Statistics:
        """The figures of all variables together."""
        mean = self.mean.mean()
        variance = (self.squares / self.count + (self.mean - mean).square()).mean()
        return Statistics(float(self.low.min()), float(self.high.max()), float(mean), float(variance.sqrt()))


def measure(data: Dataset | Tensor, axis: int | None = None, scaler: _Encoder | None = None) -> Moments:
    """The moments of data (N, *event), one variable for each place along `axis`, or one for all numbers.

    Args:
        data: a data set, read in pieces, or a tensor.
        axis: 1 for the coordinates of points and the channels of images and series; None puts all together.
        scaler: measure encode(x) instead of x.

    Example:
        >>> measure(torch.tensor([[0.0, 5.0], [2.0, 9.0]]), axis=1).mean.tolist()
        [1.0, 7.0]
    """
    moments = Moments()
    for piece in _pieces(data):
        x = scaler.encode(piece) if scaler else piece
        moments.add(x.reshape(1, -1) if axis is None else x.movedim(axis, 0).reshape(x.shape[axis], -1))
    return moments


def statistics(data: Dataset | Tensor, scaler: _Encoder | None = None) -> Statistics:
    """The figures of all numbers of the data, or of encode(x), a piece at a time.

    Example:
        >>> statistics(torch.tensor([[1.0, 2.0], [3.0, 6.0]]))
        Statistics(low=1.0, high=6.0, mean=3.0, std=1.870...)
    """
    return measure(data, scaler=scaler).total()


def check_trainable(data: Dataset) -> None:
    """Refuse data from which nothing can be learnt: those whose numbers are all the same.

    It reads as far as the first number that differs.

    Raises:
        BadInput: constant data.

    Example:
        >>> check_trainable(Dataset(torch.zeros(3, 2), name="nothing"))
        Traceback (most recent call last):
        scoresde.errors.BadInput: data set 'nothing' is constant: all its 3 events are 0 everywhere, ...
    """
    first: float | None = None
    for piece in _pieces(data):
        low, high = float(piece.min()), float(piece.max())
        first = low if first is None else first
        if (low, high) != (first, first):
            return
    raise BadInput(
        f"data set {data.name!r} is constant: all its {len(data)} events are {first:g} everywhere, "
        "and there is nothing to learn"
    )


def _pieces(data: Dataset | Tensor) -> Iterator[Tensor]:
    if isinstance(data, Tensor):
        yield from data.split(piece_size(tuple(data.shape[1:])))
    else:
        yield from data.pieces(piece_size(data.event_shape))
