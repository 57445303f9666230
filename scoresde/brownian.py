"""Noise that stays the same when the steps change: every sample's z are increments of one Brownian path.

The noise term of the reverse SDE over a step is σ_t e^{-λ_t} ∫ sqrt(2) e^λ dW_λ, an increment of a Brownian motion B in
the clock u = e^{2λ}. So with

    z = (B(u_end) - B(u_start)) / sqrt(u_end - u_start)

a run on another grid follows the same path, and runs converge path by path as their steps shrink.

B is kept as Y(λ) = e^{-λ} B(e^{2λ}), the stationary Ornstein-Uhlenbeck process of covariance e^{-|λ-λ'|}, whose values
are N(0, 1) at every λ while u spans e^{-64} to e^{64}. Between two known values a distance L apart it has a bridge,

    Y = [sinh(q) Y_left + sinh(p) Y_right] / sinh(L) + sqrt(2 sinh(p) sinh(q) / sinh(L)) ξ,        p + q = L,

which at the middle is (Y_left + Y_right) / (2 cosh(L/2)) + sqrt(tanh(L/2)) ξ. Halving [-32, 32] down to leaves of 2^-20
makes a tree of such values (Gaines & Lyons 1997), and the last bridge ends at the point itself. Each ξ is a function of
(seed, sample, node): nothing is stored, and B at a point depends on no other point that was asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from scoresde.errors import BadInput
from scoresde.noise import SeededNoise, check_seed

if TYPE_CHECKING:
    from scoresde.samplers.table import Row, Table

SPAN, DEPTH = 32, 26  # the tree covers λ in [-SPAN, SPAN] and is halved DEPTH times
LEAF = 2 * SPAN / 2**DEPTH
_TREE = 2**62  # the step number of the tree's draws, which no table reaches

Span = tuple[float, float]  # from λ_start to λ_end


@dataclass(frozen=True)
class BrownianNoise:
    """Standard normal noise for the samples ``indices`` of ``seed`` from one Brownian path for each.

    ``clock`` has an entry per table row: the λ interval its noise covers, or None for a draw of its own, which is then
    that of `SeededNoise`, as the start's is. Disjoint intervals give independent z, and all laws are exact while no
    interval is shorter than `LEAF` in λ; BadInput for shorter ones, and for finite λ beyond ±`SPAN`.

    >>> import torch
    >>> noise, x = BrownianNoise(0, [5], ((-1.0, 0.0), None)), torch.zeros(1, 2)
    >>> coarse, fine = noise.between(-1.0, 1.0, x), [noise(0, 0, x), noise.between(0.0, 1.0, x)]
    >>> u = [torch.tensor(2 * lam).exp() for lam in (-1.0, 0.0, 1.0)]
    >>> parts = fine[0] * (u[1] - u[0]).sqrt() + fine[1] * (u[2] - u[1]).sqrt()
    >>> bool(torch.allclose(coarse * (u[2] - u[0]).sqrt(), parts))
    True
    """

    seed: int
    indices: Sequence[int]
    clock: tuple[Span | None, ...]

    def __post_init__(self) -> None:
        check_seed(self.seed)
        for span in self.clock:
            if span is not None:
                _check(*span)

    def __call__(self, step: int, draw: int, x: Tensor) -> Tensor:
        if step >= len(self.clock):
            raise BadInput(f"noise was asked for row {step} of a table of {len(self.clock)} rows")
        span = self.clock[step] if step >= 0 and not draw else None
        if span is None:
            return SeededNoise(self.seed, self.indices)(step, draw, x)
        return self.between(*span, x)

    def between(self, start: float, end: float, x: Tensor) -> Tensor:
        """z of the λ interval from ``start`` (-∞: from B = 0) to ``end``, like x; the other way round it is -z."""
        _check(start, end)
        low, high = min(start, end), max(start, end)
        blank, seeded = torch.empty(x.shape, dtype=torch.float64), SeededNoise(self.seed, self.indices)

        @cache  # both ends of the interval pass through the same nodes above it
        def draw(node: int) -> Tensor:
            return seeded(_TREE, node, blank)

        z = _value(high, draw)
        if math.isfinite(low):
            z = (z - math.exp(low - high) * _value(low, draw)) / math.sqrt(-math.expm1(2 * (low - high)))
        z = (z if start < end else -z).to(x.dtype)
        return z if x.device.type == "cpu" else z.pin_memory().to(x.device, non_blocking=True)


def _check(start: float, end: float) -> None:
    low, high = min(start, end), max(start, end)
    if not (abs(high) <= SPAN and (abs(low) <= SPAN or low == -math.inf)):
        raise BadInput(f"Brownian noise from λ = {start:.6g} to {end:.6g}: paths are kept for λ in [-{SPAN}, {SPAN}]")
    if high - low < LEAF:
        raise BadInput(
            f"Brownian noise over {high - low:.3g} in λ, at λ = {low:.6g}: paths are resolved to {LEAF:.3g};"
            " take fewer steps, or noise that is drawn for each"
        )


def _value(lam: float, draw: Callable[[int], Tensor]) -> Tensor:
    """Y(λ) by descent of the tree; ``draw`` gives the ξ of a node, the number of its point in leaves from -SPAN."""
    low, high = 0, 2**DEPTH
    left, right = draw(low), draw(high)  # their covariance e^{-64} is below float64
    place = (lam + SPAN) / LEAF
    while high - low > 1:
        middle, half = (low + high) // 2, 0.5 * (high - low) * LEAF
        value = (left + right) / (2 * math.cosh(half)) + math.sqrt(math.tanh(half)) * draw(middle)
        if place < middle:
            high, right = middle, value
        else:
            low, left = middle, value
    p = (place - low) * LEAF
    sinh_p, sinh_q, sinh_leaf = math.sinh(p), math.sinh(LEAF - p), math.sinh(LEAF)
    bridge = (sinh_q * left + sinh_p * right) / sinh_leaf
    return bridge + math.sqrt(max(0.0, 2 * sinh_p * sinh_q / sinh_leaf)) * draw(2**DEPTH + 1 + low)


def brownian(seed: int, indices: Sequence[int], table: Table) -> BrownianNoise:
    """The Brownian noise for a table: which stretch of the path each row's noise is.

    The noises that are left in the state at the end of a grid interval share it, in their order and each over a part of
    u in proportion to its squared weight there: together they are then the path's increment over the interval, however
    a step distributes noise over its stages. Drawn by themselves are the noises that a step removes again (all but a
    part below `LEAF`), those of an interval that goes up or over ground the run has covered in earlier intervals, and
    those of rows that stay at their time (Langevin), but for rows at the end of an interval that has no other noise
    (ancestral steps of two stages). An excursion within an interval shares that interval's increment.

    All z stay independent N(0, I). Runs converge path by path where the noise of an interval varies smoothly with its
    place and vanishes with its length: not under Langevin correctors, Restart or time travel. BadInput for a table
    without noise along its way, to which a path would mean nothing.

    >>> import scoresde
    >>> table = scoresde.SAMPLERS["ddpm"].build(scoresde.EDM(), (4.0, 2.0, 1.0, 0.0))
    >>> [span and [round(lam, 3) for lam in span] for span in brownian(0, range(8), table).clock]
    [[-1.386, -0.693], [-0.693, -0.0], None]
    """
    from scoresde.samplers.table import Table  # here, since samplers may import this file

    if not isinstance(table, Table):
        raise BadInput(f"{type(table).__name__} is no table of rows: its noise cannot follow a Brownian path")
    times = sorted({t for row in table.rows for t in (row.t, row.t_next)})
    lam = dict(zip(times, table.sde.knots(times).lam.tolist(), strict=True))
    clock: dict[int, Span] = {}
    used: set[int] = set()
    first, covered = 0, -math.inf
    for last, row in enumerate(table.rows):
        if row.ends:
            start, end = lam[table.rows[first].t], lam[row.t_next]
            weights = _weights(table.rows, first, last, used)
            if covered <= start < end < math.inf:
                following = _following(table.rows, weights, row.t_next, end - start)
                clock |= _shared(start, end, following) if following else {}
            used |= weights.keys()
            first, covered = last + 1, max(covered, end)
    if not clock:
        raise BadInput("Brownian noise needs a sampler that draws noise on its way to the data: this table draws none")
    return BrownianNoise(seed, indices, tuple(map(clock.get, range(len(table.rows)))))


def _weights(rows: Sequence[Row], first: int, last: int, used: set[int]) -> dict[int, float]:
    """The weights with which noises first used in rows ``first`` to ``last`` stand in the state after them."""
    weights: dict[int, float] = {}
    for i in range(first, last + 1):
        weights = {k: rows[i].a * weight for k, weight in weights.items()}
        for j, c in enumerate(rows[i].c):
            if c and i - j not in used:
                weights[i - j] = weights.get(i - j, 0.0) + c
    return weights


def _following(rows: Sequence[Row], weights: dict[int, float], end: float, h: float) -> dict[int, float]:
    """Those of an interval's noises that follow the path, in their order."""
    # A part of less than a leaf, at the end of the interval where u runs fastest, is too short to follow.
    least = min(1.0, -2.1 * LEAF / math.expm1(-2 * h)) * sum(weight**2 for weight in weights.values())
    left = {k: weight for k, weight in sorted(weights.items()) if 0 < least <= weight**2}
    moving = {k: weight for k, weight in left.items() if rows[k].t != rows[k].t_next}
    return moving or {k: weight for k, weight in left.items() if rows[k].t == end}


def _shared(start: float, end: float, weights: dict[int, float]) -> dict[int, Span]:
    """The λ interval cut into one part for each noise; a negative weight runs through its part backward.

    With a share s of e^{2λ} done, λ = λ_end + log(s + (1-s) e^{-2h})/2.
    """
    total = sum(weight**2 for weight in weights.values())
    share = [done / total for done in accumulate(weight**2 for weight in weights.values())][:-1]
    rest = math.exp(2 * (start - end))
    inner = [end + 0.5 * math.log(s + (1 - s) * rest) for s in share]
    spans: dict[int, Span] = {}
    for (k, weight), low, high in zip(weights.items(), [start, *inner], [*inner, end], strict=True):
        spans[k] = (low, high) if weight > 0 else (high, low)
    return spans
