"""Lists of times: what a grid is in the end, read from whatever holds numbers and checked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from torch import Tensor

from scoresde.errors import BadInput
from scoresde.sde import SDE

Times = tuple[float, ...]
Numbers = Sequence[float] | np.ndarray | Tensor


def check_times(times: Numbers, sde: SDE) -> Times:
    """A given list of times as floats: at least two, finite, strictly decreasing, within [0, t_max].

    Below t_min too, where an exact denoiser serves as well as anywhere; a network does not, which the caller must know.
    """
    values = as_floats("grid", times)
    if len(values) < 2:
        raise BadInput(f"grid {values}: at least two times are needed")
    if not all(math.isfinite(t) for t in values) or any(a <= b for a, b in pairwise(values)):
        raise BadInput(f"grid {show(values)}: times must be finite and strictly decreasing")
    if values[0] > sde.t_max * (1 + 1e-12) or values[-1] < 0:
        raise BadInput(f"grid {show(values)}: times must lie within [0, {sde.t_max}]")
    return values


def as_floats(name: str, values: Numbers) -> Times:
    """A list, array or tensor of numbers in one dimension as floats."""
    try:
        listed = values.tolist() if isinstance(values, np.ndarray | Tensor) else list(values)
        return tuple(float(value) for value in listed)
    except (TypeError, ValueError):
        given = f"of shape {tuple(values.shape)}" if isinstance(values, np.ndarray | Tensor) else f"{values!r:.60}"
        raise BadInput(f"{name} {given}: give numbers, as a list or in one dimension") from None


def show(values: Sequence[float] | np.ndarray) -> str:
    """The first few numbers of a list, for a message."""
    shown = ", ".join(f"{v:g}" for v in values[:4])
    return f"[{shown}{', …' if len(values) > 4 else ''}]"
