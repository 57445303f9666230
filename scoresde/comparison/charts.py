"""The curves of a comparison: how near each sampler comes to the flow and to the data, by calls and by seconds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from scoresde.comparison.run import Comparison, Run
from scoresde.page import GREY, axes, logarithmic, svg
from scoresde.pictures import COLOURS

MARKS = "osD^vPX*"
X: dict[str, Callable[[Run], float]] = {"network calls": lambda run: run.calls, "seconds": lambda run: run.seconds}


def charts(found: Comparison) -> list[str]:
    """Distance to the flow against network calls and seconds, and the distance to the data, where there is one."""
    drawn = [_chart(found, along, to_data=False) for along in X]
    return drawn + [_chart(found, along, to_data=True) for along in X if found.ruler]


def _chart(found: Comparison, along: str, to_data: bool) -> str:
    figure, (ax,) = axes(1, 3.9, 3.4)
    what = found.ruler.name if to_data and found.ruler else "RMS distance to the flow"
    told: list[str] = []
    for k, sampler in enumerate(found.samplers):
        runs = [run for run in found.runs if run.planned.sampler == sampler]
        noisy = runs[0].planned.stochastic and not to_data
        x = [X[along](run) for run in runs]
        y = [run.quality.value if to_data and run.quality else run.distance for run in runs]
        style: dict[str, Any] = {"color": tuple(c / 255 for c in COLOURS[k % len(COLOURS)]), "linewidth": 1.4}
        style |= {"marker": MARKS[k % len(MARKS)], "linestyle": ":" if noisy else "-", "markersize": 4.5}
        label = f"{sampler} (stochastic)" if noisy else sampler
        ax.plot(x, y, label=label, **style)
        if to_data:
            ends = [(run.quality.low, run.quality.high) for run in runs if run.quality]
            ax.fill_between(x, *zip(*ends, strict=True), color=style["color"], alpha=0.1, linewidth=0)
        told.append(f"{label} " + ", ".join(f"{b:.3g} at {a:.3g}" for a, b in zip(x, y, strict=True)))
    if to_data and found.flow_quality:
        ax.axhline(found.flow_quality.value, color=GREY, linewidth=1, linestyle="--", label="converged flow")
    ax.set(xlabel=along, ylabel=what)
    logarithmic(ax, "x")
    logarithmic(ax)
    if along == "network calls" and len(found.budgets) <= 6:
        ax.set_xticks(found.budgets)
    legend = figure.legend(loc="outside upper left", ncols=3, frameon=False, fontsize=9)
    for text in legend.get_texts():
        text.set_color(GREY)
    return svg(figure, f"{what} against {along}. {'. '.join(told)}.")
