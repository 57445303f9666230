"""What is to be compared: every run of every sampler within every budget, each fault found before the first call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from torch import Tensor

from scoresde.errors import BadInput, positive
from scoresde.model import Model
from scoresde.samplers.plan import Job, prepare
from scoresde.samplers.registry import find_sampler
from scoresde.samplers.solver import cut

AT_ONCE = 2**18  # numbers in the states of one batch, unless told otherwise


@dataclass(frozen=True, eq=False)
class Draw:
    """What all runs share: the model, how many samples from which noise, of which classes, where."""

    model: Model
    num: int
    seed: int = 0
    labels: Tensor | None = None
    device: str = "cpu"
    batch_size: int | None = None

    def __post_init__(self) -> None:
        positive("num", self.num)
        if self.labels is not None and len(self.labels) != self.num:
            raise BadInput(f"labels: {len(self.labels)} of them for num = {self.num} samples")

    @property
    def cond(self) -> dict[str, Any]:
        """What the network is told."""
        return {} if self.labels is None else {"y": self.labels.to(self.device)}

    @property
    def batch(self) -> int:
        """Samples at a time."""
        return self.batch_size or max(1, AT_ONCE // prod(self.model.event_shape))

    def rounds(self, first: int | None = None) -> int:
        """The batches of all samples, or of the ``first`` of them."""
        return -(-min(self.num, first or self.num) // self.batch)

    def arguments(self, sampler: str, nfe: int, first: int | None = None, **how: Any) -> dict[str, Any]:
        """Of `scoresde.sample`: a run of all samples, or of the ``first`` of them."""
        n = min(self.num, first or self.num)
        return {
            "denoiser": self.model.denoiser,
            "shape": (n, *self.model.event_shape),
            "sampler": sampler,
            "nfe": nfe,
            "seed": self.seed,
            "device": self.device,
            "cond": cut(self.cond, slice(0, n), self.num),
            **how,
        }

    def batches(self, x: Tensor) -> Iterator[tuple[Tensor, dict[str, Any]]]:
        """Rows of x with their conditioning, as many as go at once."""
        for begin in range(0, self.num, self.batch):
            rows = slice(begin, begin + self.batch)
            yield x[rows], cut(self.cond, rows, self.num)


@dataclass(frozen=True, eq=False)
class Planned:
    """One run: a sampler and the network calls that it makes of a budget."""

    sampler: str
    budget: int
    calls: int
    stochastic: bool
    arguments: dict[str, Any]

    def job(self, first: int) -> Job:
        """The run of the first samples alone."""
        shape = (first, *self.arguments["shape"][1:])
        cond = cut(self.arguments["cond"], slice(0, first), self.arguments["shape"][0])
        return prepare(**{**self.arguments, "shape": shape, "cond": cond})


def plan(draw: Draw, samplers: Sequence[str], budgets: Sequence[int]) -> list[Planned]:
    """The runs, in the order of budgets and then of samplers.

    Raises BadInput for no or repeated samplers and budgets, samplers that are unknown or choose their own steps, and
    budgets below the calls of one step.
    """
    for what, values in (("samplers", samplers), ("nfe", budgets)):
        if not values:
            raise BadInput(f"{what}: give at least one")
        if twice := [value for value in dict.fromkeys(values) if list(values).count(value) > 1]:
            raise BadInput(f"{what}: {twice[0]} is there twice")
    noisy: dict[str, bool] = {}
    for name in samplers:
        if name != "auto" and not find_sampler(name).build:
            raise BadInput(f"{name!r} chooses its own steps by rtol and atol: a comparison needs steps for each budget")
        noisy[name] = name != "auto" and find_sampler(name).stochastic
    runs: list[Planned] = []
    for budget in sorted(budgets):
        for name in samplers:
            arguments = draw.arguments(name, budget)
            runs.append(Planned(name, budget, prepare(**arguments).solver.nfe or 0, noisy[name], arguments))
    return runs
