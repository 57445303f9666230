"""What a sampler's builder returns: a frozen value that carries a state over the intervals of a grid."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from scoresde.denoiser import AnyDenoiser
from scoresde.errors import BadInput
from scoresde.noise import Noise


class Interval(NamedTuple):
    """The end of one interval of the grid: its number, its times, the state and x̂_0 there, the calls so far."""

    i: int
    t: float
    t_next: float
    x: Tensor
    x0: Tensor
    nfe: int


class Solution(NamedTuple):
    """What a run came to: each sample's state, and on the host its time there, its calls, its steps taken and refused.

    These differ where every sample has its own steps.
    """

    x: Tensor
    t: np.ndarray
    nfe: np.ndarray
    accepted: np.ndarray
    rejected: np.ndarray


Callback = Callable[[int, float, float, Tensor, Tensor, int], None]  # takes an Interval's fields, once for each


@runtime_checkable
class Hook(Protocol):
    """What acts on the state x at time t after every row of a table: x goes on as what is returned.

    ``noise()`` is standard normal noise like x, new at each call, of the run's own source under draw numbers 1, 2, …
    that no table uses: seeds, batch sizes and ``first`` keep their meaning. It must keep nothing from call to call, for
    batches share it. One with data for each sample has a method ``rows(slice)``, itself for these samples.
    """

    def __call__(self, t: float, x: Tensor, noise: Callable[[], Tensor], /) -> Tensor: ...


def acted_on(hook: Hook, row: int, t: float, x: Tensor, noise: Noise | None) -> Tensor:
    """The state after the hook has acted on it at the end of a row."""
    draws = 0

    def draw() -> Tensor:
        nonlocal draws
        if noise is None:
            raise BadInput("this hook draws noise: pass noise=(step, draw, x) -> tensor, or use sample(..., seed=...)")
        draws += 1
        return noise(row, draws, x)

    out = hook(t, x, draw)
    if not isinstance(out, Tensor) or out.shape != x.shape or out.dtype != x.dtype:  # pyright: ignore[reportUnnecessaryIsInstance]
        given = f"{out.dtype} {tuple(out.shape)}" if isinstance(out, Tensor) else type(out).__name__  # pyright: ignore[reportUnnecessaryIsInstance]
        raise BadInput(f"hook: returned {given} for a state of {x.dtype} {tuple(x.shape)}: return the state's like")
    return out


class Solver:
    """Base of every solver, which holds no state of a run: it can run any number of times, from any thread."""

    takes_hook: ClassVar[bool] = False  # whether something can act between its steps

    if TYPE_CHECKING:  # a field in some, derived in others

        @property
        def times(self) -> tuple[float, ...]:
            """The grid: the start and every interval's end."""
            ...

    @property
    def nfe(self) -> int | None:
        """Denoiser calls per sample; None where the error decides."""
        raise NotImplementedError

    def iterate(
        self, denoiser: AnyDenoiser, x: Tensor, noise: Noise | None = None, *, x0: bool = True, **cond: Any
    ) -> Iterator[Interval]:
        """Run from the state x at the first time, stopping at the end of each interval.

        Without ``x0`` the estimate is not computed and an interval's x0 is its x.
        """
        raise NotImplementedError

    def run(
        self,
        denoiser: AnyDenoiser,
        x: Tensor,
        noise: Noise | None = None,
        callback: Callback | None = None,
        **how: Any,
    ) -> tuple[Tensor, int]:
        """All intervals: the last state and the calls made."""
        last = self._last(denoiser, x, noise, callback, **how)
        return last.x, last.nfe

    def solve(
        self,
        denoiser: AnyDenoiser,
        x: Tensor,
        noise: Noise | None = None,
        callback: Callback | None = None,
        **how: Any,
    ) -> Solution:
        """The same, with what each sample came to."""
        last, n = self._last(denoiser, x, noise, callback, **how), len(x)
        return Solution(last.x, *(np.full(n, value) for value in (last.t_next, last.nfe, last.i + 1, 0)))

    def _last(
        self, denoiser: AnyDenoiser, x: Tensor, noise: Noise | None, callback: Callback | None, **how: Any
    ) -> Interval:
        """The last interval."""
        interval = Interval(0, 0.0, 0.0, x, x, 0)
        for interval in self.iterate(denoiser, x, noise, x0=callback is not None, **how):
            if callback:
                callback(*interval)
        return interval


def cut(cond: Mapping[str, Any], rows: slice | Tensor, n: int) -> dict[str, Any]:
    """The rows of every conditioning tensor that has one for each of n samples; everything else untouched."""
    return {k: v[rows] if isinstance(v, Tensor) and v.ndim and len(v) == n else v for k, v in cond.items()}
