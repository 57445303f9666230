"""A comparison as numbers and words: for JSON, as a table of text for CSV, a terminal and a page, and what to note."""

from __future__ import annotations

import csv
import io
import platform
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from scoresde import __version__
from scoresde.comparison.flow import CHECKED
from scoresde.comparison.run import Comparison, Run
from scoresde.metrics import Interval

COLUMNS = ("NFE", "sampler", "calls", "seconds", "to the flow")
HOW = ("steps", "grid", "final", "options", "revision")  # of a run's settings


class Line(NamedTuple):
    """A run in words, by the columns of `head`, and which of them are the best of its budget."""

    cells: tuple[str, ...]
    best: tuple[bool, ...]


def head(found: Comparison) -> tuple[str, ...]:
    """The names of a line's columns."""
    return (*COLUMNS, found.ruler.name) if found.ruler else COLUMNS


def lines(found: Comparison) -> list[Line]:
    """A line for every run: with * at the best of a budget, and in brackets where the flow is no target."""
    return [_line(found, run) for run in found.runs]


def _line(found: Comparison, run: Run) -> Line:
    planned, (near_flow, near_data) = run.planned, (run is best for best in found.best(run.planned.budget))
    to_flow = f"({run.distance:.3g}) stochastic" if planned.stochastic else f"{run.distance:.3g}{' *' * near_flow}"
    cells = (str(planned.budget), planned.sampler, str(run.calls), f"{run.seconds:.2f}", to_flow)
    best = (False,) * 4 + (near_flow,)
    if run.quality is None:
        return Line(cells, best)
    return Line((*cells, with_interval(run.quality) + " *" * near_data), (*best, near_data))


def with_interval(figure: Interval) -> str:
    """0.0123 [0.01, 0.02].

    >>> with_interval(Interval(0.0123, 0.01, 0.02))
    '0.0123 [0.01, 0.02]'
    """
    return f"{figure.value:.3g} [{figure.low:.3g}, {figure.high:.3g}]"


def notes(found: Comparison) -> list[str]:
    """How the figures are to be read."""
    flow, ruler, draw = found.flow, found.ruler, found.draw
    said = [
        f"to the flow: RMS distance, sample by sample in the network's units, to where ode with {flow.calls} calls"
        f" ends from the same noise; with half of those calls it ends {flow.error:.1e} away (first"
        f" {min(CHECKED, draw.num)} samples)"
    ]
    if any(run.planned.stochastic for run in found.runs):
        said.append("stochastic: these draw noise on the way: the flow is no target for them, the distance no error")
    if any(run.distance < flow.error for run in found.runs):
        said.append(f"distances below {flow.error:.1e} may be the flow's own error")
    if ruler and found.flow_quality:
        perfect = f"; {draw.num} other events of the data have {with_interval(ruler.floor)}" if ruler.floor else ""
        said.append(
            f"{ruler.name}: {draw.num} samples against {ruler.n} events of the data ({ruler.space}), with the interval"
            f" of 95 %; 0 in the mean for equal distributions. The converged flow has"
            f" {with_interval(found.flow_quality)}{perfect}"
        )
        if tied := [budget for budget in found.budgets if _tied(found, budget)]:
            some = ", ".join(map(str, tied))
            said.append(f"at NFE {some} the best {ruler.name} is in the intervals of others: raise --num to rank them")
    count = torch.get_num_threads()
    threads = f", {count} thread{'s' * (count > 1)}" if draw.device == "cpu" else ""
    return [*said, f"seconds: of all {draw.num} samples, on {draw.device}{threads}", "*: the best of its NFE"]


def _tied(found: Comparison, budget: int) -> bool:
    best = found.best(budget)[1]
    others = [run.quality for run in found.runs if run.planned.budget == budget and run is not best and run.quality]
    return any(best and best.quality and other.low <= best.quality.value for other in others)


def facts(found: Comparison, command: str, about: dict[str, Any]) -> dict[str, Any]:
    """All numbers and settings; ``about`` is what the caller knows of the data and the weights."""
    draw, ruler, info = found.draw, found.ruler, found.draw.model.info
    to_data = ruler and {
        "name": ruler.name,
        "space": ruler.space,
        "sha256": ruler.sha256,
        "events": ruler.n,
        "flow": found.flow_quality and found.flow_quality._asdict(),
        "real_to_real": ruler.floor and ruler.floor._asdict(),
    }
    return {
        "command": command,
        "model": draw.model.name,
        "sha256": info["sha256"],
        **about,
        "num": draw.num,
        "seed": draw.seed,
        "batch_size": draw.batch,
        "device": draw.device,
        "threads": torch.get_num_threads(),
        "versions": {"scoresde": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "flow": {"sampler": "ode", "calls": found.flow.calls, "moved_by_half_the_calls": found.flow.error},
        "to_data": to_data,
        "runs": [_run(found, run) for run in found.runs],
        "notes": notes(found),
    }


def _run(found: Comparison, run: Run) -> dict[str, Any]:
    near_flow, near_data = (run is best for best in found.best(run.planned.budget))
    return {
        "nfe": run.planned.budget,
        "sampler": run.planned.sampler,
        "calls": run.calls,
        "seconds": round(run.seconds, 4),
        "stochastic": run.planned.stochastic,
        "to_flow": run.distance,
        "to_data": run.quality and run.quality._asdict(),
        "nearest_to_flow": near_flow,
        "nearest_to_data": near_data,
        "used": run.settings["sampler"],
        **{name: run.settings.get(name) for name in HOW},
    }


def as_csv(runs: Sequence[dict[str, Any]]) -> bytes:
    """The runs of `facts` as a table with one line each."""
    flat = [{**run, **{f"to_data_{k}": v for k, v in (run["to_data"] or {}).items()}} for run in runs]
    names = [name for name in flat[0] if name not in ("to_data", "options")]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, names, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return buffer.getvalue().encode()
