"""Respaced chains: the steps of a DDPM chain that a shorter run visits, by the notation of improved DDPM.

A network trained on N steps is run on a subset of them (Nichol & Dhariwal 2021, section 4), written as a number of
steps in an integer stride, "ddim50", or as counts per section, "10,15,20": the chain is cut into that many sections of
equal length (the first N mod m of m one longer), and each is given its count of steps, spread from its first to its
last. The ancestral chain on these times is the one of the betas 1 - ᾱ_i/ᾱ_{i'} between kept steps i' < i.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, repeat

from scoresde.errors import BadInput, positive
from scoresde.grids.times import Times, check_times
from scoresde.sde import SDE


def respace(N: int, spec: str | Sequence[int]) -> tuple[int, ...]:
    """The steps of a chain 0 … N-1 that ``spec`` keeps, ascending, as in Nichol & Dhariwal's code.

    "ddim50": the multiples of the smallest stride with just 50 of them below N (it starts from step 0, so the last step
    may be missing). "10,15,20" or [10, 15, 20]: that many evenly spread steps in each of three sections, with both ends
    of a section from two steps on, and its first step for one.

    >>> respace(10, "ddim4")
    (0, 3, 6, 9)
    >>> respace(10, "3,2")
    (0, 2, 4, 5, 9)
    """
    positive("N", N)
    if isinstance(spec, str) and spec.startswith("ddim"):
        return _strided(N, _count(spec.removeprefix("ddim"), spec), spec)
    counts = [_count(part, spec) for part in (spec.split(",") if isinstance(spec, str) else spec)]
    if not 0 < len(counts) <= N:
        raise BadInput(f"respacing {spec!r}: {len(counts)} sections of a chain of {N} steps")
    steps: list[int] = []
    start = 0
    for k, count in enumerate(counts):
        size = N // len(counts) + (k < N % len(counts))
        if count > size:
            raise BadInput(f"respacing {spec!r}: section {k + 1} has {size} steps, not {count}")
        stride = (size - 1) / (count - 1) if count > 1 else 0.0
        # Strides are added up and rounded as published, half to even: the very steps that published results used.
        steps += [start + round(place) for place in accumulate(repeat(stride, count - 1), initial=0.0)]
        start += size
    return tuple(steps)


def respaced_times(sde: SDE, spec: str | Sequence[int]) -> Times:
    """The steps of `respace` as a grid for any sampler: times (i + 1)/N t_max, falling, then 0.

    On a DDPM chain "ddim50" and "respaced:10,15,20" are also names of grids: ``sample(..., grid="ddim50")``.

    N is the chain's; 1000 for an SDE that is none, whose t_min stands for anything below it.

    >>> import scoresde
    >>> respaced_times(scoresde.DDPM.named("cosine", 10), "ddim4")
    (1.0, 0.7, 0.4, 0.1, 0.0)
    """
    N = sde.label_steps
    kept = [max(sde.t_min, (i + 1) / N * sde.t_max) for i in reversed(respace(N, spec))]
    return check_times([*kept, 0.0], sde)


def _count(part: str | int, spec: str | Sequence[int]) -> int:
    """A number of steps, written out or not."""
    try:
        return positive("steps", int(part) if isinstance(part, str) else part)
    except ValueError:
        raise BadInput(
            f'respacing {spec!r}: give a number of steps, "ddim50", or numbers for equal sections, "10,15,20"'
        ) from None


def _strided(N: int, count: int, spec: str) -> tuple[int, ...]:
    """Every k-th step, for the smallest k that gives ``count`` of them."""
    able = {len(steps): steps for stride in range(max(1, N - 1), 0, -1) if (steps := range(0, N, stride))}
    if count not in able:
        near = sorted(able, key=lambda n: abs(n - count))[:2]
        raise BadInput(f"respacing {spec!r}: no stride takes {count} of {N} steps; take {' or '.join(map(str, near))}")
    return tuple(able[count])
