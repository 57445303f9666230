"""What is to be compared: every run of every sampler within every budget, each fault found before the first call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from scoresde.errors import BadInput, positive
from scoresde.model import Model
from scoresde.samplers.job import Job, prepare
from scoresde.samplers.registry import find_sampler
from scoresde.samplers.solver import cut


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
        if self.batch_size is not None:
            positive("batch_size", self.batch_size)
        if self.labels is not None and len(self.labels) != self.num:
            raise BadInput(f"labels: {len(self.labels)} of them for num = {self.num} samples")

    @property
    def cond(self) -> dict[str, Any]:
        """What the network is told."""
        return {} if self.labels is None else {"y": self.labels.to(self.device)}

    @property
    def batch(self) -> int:
        """Samples at a time."""
        return self.batch_size or self.model.batch_size

    def rounds(self, first: int | None = None) -> int:
        """The batches of all samples, or of the ``first`` of them."""
        return -(-min(self.num, first or self.num) // self.batch)

    def batches(self, x: Tensor) -> Iterator[tuple[Tensor, dict[str, Any]]]:
        """Rows of x with their conditioning, as many as go at once."""
        for begin in range(0, self.num, self.batch):
            rows = slice(begin, begin + self.batch)
            yield x[rows], cut(self.cond, rows, self.num)


@dataclass(frozen=True, eq=False)
class Planned:
    """One run: a sampler and the network calls that it makes of a budget."""

    draw: Draw
    sampler: str
    budget: int
    calls: int = 0
    stochastic: bool = False
    final: str | None = None

    def arguments(self, first: int | None = None) -> dict[str, Any]:
        """Of `scoresde.sample`: for all samples, or the ``first`` of them."""
        draw, n = self.draw, min(self.draw.num, first or self.draw.num)
        return {
            "denoiser": draw.model.denoiser,
            "shape": (n, *draw.model.event_shape),
            "sampler": self.sampler,
            "nfe": self.budget,
            "final": self.final,
            "seed": draw.seed,
            "device": draw.device,
            "cond": cut(draw.cond, slice(0, n), draw.num),
        }

    def job(self, first: int | None = None) -> Job:
        """The same as a job, with every fault found."""
        return prepare(**self.arguments(first))


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
    runs = [Planned(draw, name, budget, stochastic=noisy[name]) for budget in sorted(budgets) for name in samplers]
    return [replace(run, calls=run.job().solver.nfe or 0) for run in runs]
