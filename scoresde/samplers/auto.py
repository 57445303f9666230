"""``sampler="auto"``: the sampler, its options and its grid that were measured best for a budget of network calls.

Chosen by `benchmarks/choose.py`: on ten exact mixtures (2, 16 and 64 dimensions under VP, EDM and flow, 2 under cosine)
the choice of a budget has the least worst ratio of its error to that of the best candidate without an analytic start.
At 6 calls two grids are level there, and the image model decided; at 30 rk4 and unipc are. With these grids an analytic
start gained nothing that held on every problem, so none is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Choice(NamedTuple):
    """What to use up to a number of calls."""

    calls: float
    sampler: str
    grid: str
    options: Mapping[str, Any]


AUTO = (
    Choice(6, "ipndm", "logitnormal:2.5", {"order": 3}),
    Choice(15, "ipndm", "logitnormal:2", {"order": 3}),
    Choice(40, "unipc", "logitnormal:2", {"order": 3}),
    Choice(99, "phi-ab", "logitnormal:2.5", {"order": 4}),
    Choice(float("inf"), "rk4", "phi", {}),
)
BUDGET = 20  # calls, where none are given


def choose_for(calls: int, pure_noise: bool = False) -> Choice:
    """The measured best for a budget of ``calls``; from ``pure_noise`` (α = 0 at t_max) one that starts in data space.

    >>> choose_for(10).sampler
    'ipndm'
    """
    able = [choice for choice in AUTO if choice.sampler != "ipndm"] if pure_noise else AUTO
    return next(choice for choice in able if calls <= choice.calls)
