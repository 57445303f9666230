"""Spacings in the index of a DDPM chain: index i = 1 … N is time i t_max / N (Lin et al. 2024, table 2).

N is the chain's own, else 1000. Indices are whole while there are enough of them, fractional beyond. In code that
counts from 0 the index is one less.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from scoresde.errors import BadInput
from scoresde.grids.spacings import Spacing, to_data, with_ends
from scoresde.sde import SDE


class _Range(NamedTuple):
    """The chain's length, and the indices of a grid's first time and of the last that a network is asked at."""

    N: int
    high: float
    low: float


def _range(sde: SDE, first: float) -> _Range:
    N = sde.label_steps
    high, t_min = first / sde.t_max * N, sde.t_min / sde.t_max * N
    return _Range(N, high, 1.0 if t_min <= 1 < high else t_min)


def _whole(high: float, low: float, n: int) -> np.ndarray:
    """n equal strides from one index to another, rounded to whole indices if none then meets the next."""
    index = np.linspace(high, low, n + 1)
    return np.floor(index + 0.5) if n <= high - low else index


def whole_indices(spacing: Spacing, sde: SDE, first: float, n: int, to_zero: bool) -> np.ndarray:
    """Another spacing with its inner times moved to the nearest whole indices, no two alike.

    A network that was trained on a chain's steps is then asked at no time between them. Where there are fewer indices
    than steps the spacing is left as it is.
    """
    N, high, low = _range(sde, first)
    times = np.asarray(spacing(sde, first, n, to_zero), dtype=np.float64)
    last = times[-1] / sde.t_max * N
    floor = low if to_zero else last + 1  # the lowest inner index
    if n - 1 > high - floor:
        return times
    index = np.floor(times[1:-1] / sde.t_max * N + 0.5)
    for i in range(n - 1):  # below the one before
        index[i] = min(index[i], (high if i == 0 else index[i - 1]) - 1)
    for i in reversed(range(n - 1)):  # and above the one after
        index[i] = max(index[i], floor if i == n - 2 else index[i + 1] + 1)
    return with_ends(np.array([high, *index, last]) / N * sde.t_max, first, times[-1])


def trailing_index(sde: SDE, first: float, n: int, to_zero: bool) -> np.ndarray:
    """Indices counted down from the last in equal strides, N, N - N/n, …: the "trailing" of Lin et al. 2024."""
    N, high, low = _range(sde, first)
    last = 0.0 if to_zero else sde.t_min
    return with_ends(_whole(high, 0.0 if to_zero else low, n) / N * sde.t_max, first, last)


def linspace_index(sde: SDE, first: float, n: int, to_zero: bool) -> np.ndarray:
    """Network calls at indices in equal strides from the last to 1, both included: the "linspace" of Lin et al. 2024.

    As they were spaced by Nichol & Dhariwal 2021. Landing on t_min, where no call is made, it is `trailing_index`.
    """
    N, high, low = _range(sde, first)
    last = low / N * sde.t_max if to_zero else sde.t_min
    return to_data(lambda m: with_ends(_whole(high, low, m) / N * sde.t_max, first, last), n, to_zero)


def leading_index(sde: SDE, first: float, n: int, to_zero: bool, *, offset: int = 0) -> np.ndarray:
    """Indices counted up from 1 + offset in strides of ⌊N/n⌋: the "leading" of Lin et al. 2024; SD has offset 1.

    It begins below t_max, at index 1 + offset + (n - 1)⌊N/n⌋, though a sample starts there from the same prior: the
    mismatch that they report. Landing on t_min with offset 0, the time landed on is one of n + 1 such indices.
    """
    N, _, low = _range(sde, first)
    if isinstance(offset, bool) or not isinstance(offset, int) or not 0 <= offset < N - 1:
        raise BadInput(f"offset = {offset!r}: the offset of a leading grid must be an integer from 0 to {N - 2}")
    if first != sde.t_max:
        raise BadInput(
            "a leading grid begins where its stride says: choose another grid, as 'index', to start below t_max"
        )
    calls = n if to_zero or offset else n + 1
    stride = min(float(max(N // calls, 1)), (N - low - offset) / max(calls - 1, 1))  # never beyond the last index
    times = np.clip((low + offset + stride * np.arange(calls)[::-1]) / N * sde.t_max, sde.t_min, sde.t_max)
    if calls == n:
        return np.append(times, 0.0 if to_zero else sde.t_min)
    times[-1] = sde.t_min
    return times
