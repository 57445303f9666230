"""`compare`: samplers within budgets of network calls, all from the same noise."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from scoresde.comparison.flow import Flow, calls_of, converged_flow
from scoresde.comparison.plan import Draw, Planned, plan
from scoresde.comparison.quality import Ruler
from scoresde.metrics import Interval
from scoresde.model import Model
from scoresde.samplers import sample


@dataclass(frozen=True, eq=False)
class Run:
    """A sampler within a budget: what it cost, and how far it ended from the flow (RMS) and from the data."""

    planned: Planned
    x: Tensor
    calls: int
    seconds: float
    distance: float
    quality: Interval | None
    settings: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Comparison:
    """All runs, by budgets and then by samplers, what they share, and the flow that they are held against."""

    draw: Draw
    runs: list[Run]
    flow: Flow
    flow_quality: Interval | None
    ruler: Ruler | None

    @property
    def budgets(self) -> list[int]:
        """The budgets, from the smallest."""
        return list(dict.fromkeys(run.planned.budget for run in self.runs))

    @property
    def samplers(self) -> list[str]:
        """The samplers, in the order they were given."""
        return list(dict.fromkeys(run.planned.sampler for run in self.runs))

    def best(self, budget: int) -> tuple[Run | None, Run | None]:
        """The run nearest to the flow, of those that draw no noise, and the one nearest to the data."""
        runs = [run for run in self.runs if run.planned.budget == budget]
        to_flow = [run for run in runs if not run.planned.stochastic]
        to_data = [(run.quality.value, k) for k, run in enumerate(runs) if run.quality]
        return (
            min(to_flow, key=lambda run: run.distance) if to_flow else None,
            runs[min(to_data)[1]] if to_data else None,
        )


def compare(
    model: Model,
    samplers: Sequence[str],
    budgets: Sequence[int],
    *,
    num: int = 64,
    seed: int = 0,
    labels: Tensor | None = None,
    real: Tensor | None = None,
    device: str = "cpu",
    batch_size: int | None = None,
    done: Callable[[int], None] = lambda calls: None,
) -> Comparison:
    """Run every sampler within every budget of network calls from one noise, and hold it against the converged flow.

    labels   the class of each sample, for a model that knows classes
    real     events in the data's own units: with them every run has its distance to the data, see `Ruler`
    done     told of network calls once they are made, `total_calls` in all

    Seconds are those of `scoresde.sample` for all samples, on the threads that torch has; the flow runs first, so no
    run pays for a first call. Faults of the request are BadInput, before any call.

    >>> import scoresde
    >>> found = compare(scoresde.load_model("datasaurus"), ["ddim", "ode"], [8, 40], num=5)
    >>> [run.calls for run in found.runs], found.best(40)[0].planned.sampler
    ([8, 8, 40, 40], 'ode')
    """
    draw = Draw(model, num, seed, labels, device, batch_size)
    planned = plan(draw, samplers, budgets)
    ruler = Ruler(real, num, model, seed) if real is not None else None
    flow = converged_flow(draw, done)
    runs: list[Run] = []
    for each in planned:
        start = time.perf_counter()
        out = sample(**each.arguments(), batch_size=draw.batch)
        seconds = time.perf_counter() - start
        distance, quality = flow.distance(out.x, out.times[-1]), ruler(out.x) if ruler else None
        runs.append(Run(each, out.x, out.nfe, seconds, distance, quality, dict(out.settings)))
        done(each.calls * draw.rounds())
    return Comparison(draw, runs, flow, ruler(flow.at_data) if ruler else None, ruler)


def total_calls(draw: Draw, planned: Sequence[Planned]) -> int:
    """The network calls of a comparison, those of the flow with them."""
    return calls_of(draw) + sum(each.calls for each in planned) * draw.rounds()
