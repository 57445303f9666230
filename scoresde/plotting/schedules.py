"""Noise schedules side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from scoresde.errors import BadInput
from scoresde.pictures import INK
from scoresde.plotting.figure import colour, empty, line_colour, plain
from scoresde.sde import SDE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

POINTS = 400
WIDE = 20.0  # curves that reach further than this have a logarithmic axis
PANELS = {"α": "signal α", "σ": "noise σ", "λ": "λ = log α/σ", "−f": "decay −f(t)", "g²": "diffusion g²(t)"}


def plot_schedules(sdes: Mapping[str, SDE]) -> Figure:
    """α, σ, λ, and the rates −f and g² of dx = f x dt + g dw, over t, a curve for each SDE under its name.

    For a VP-SDE −2f = g² = β. Where the SDEs end at very different times, time is told as t / t_max. The points are
    denser at both ends, where schedules are steep.

    >>> import scoresde
    >>> figure = plot_schedules({"vp": scoresde.VPSDE(), "flow": scoresde.RectifiedFlow()})
    >>> [line.get_label() for line in figure.axes[0].lines], len(figure.axes)
    (['vp', 'flow'], 5)
    """
    if not sdes:
        raise BadInput("sdes: give at least one, by name: {'vp': VPSDE()}")
    figure = empty(12.5, 2.9, f"Noise schedules of {', '.join(sdes)}: {', '.join(PANELS)} over t.")
    axes = figure.subplots(1, len(PANELS))
    ends = [sde.t_max for sde in sdes.values()]
    alike = max(ends) < 1.05 * min(ends)
    for k, (name, sde) in enumerate(sdes.items()):
        t = times(sde)
        for ax, values in zip(axes, curves(sde, t), strict=True):
            shown = np.where(np.isfinite(values), values, np.nan)
            ax.plot(t / (1 if alike else sde.t_max), shown, color=line_colour(k), label=name, **style(k))
    for ax, symbol in zip(axes, PANELS, strict=True):
        ax.set(title=PANELS[symbol], xlabel="t" if alike else "t / t_max")
        ax.margins(x=0.02)
        if symbol != "λ" and max(np.nanmax(line.get_ydata()) for line in ax.lines) > WIDE:
            ax.set_yscale("asinh" if symbol == "−f" else "log")
            if symbol == "−f":
                ax.set_yticks([0, 1, 10, 100, 1000], ["0", "1", "10", "100", "1000"])
        plain(ax)
    lines = axes[0].lines
    figure.legend(
        lines,
        list(sdes),
        loc="outside lower center",
        ncols=8,
        frameon=False,
        labelcolor=colour(INK),
        fontsize=9,
    )
    return figure


def style(k: int) -> dict[str, Any]:
    """How the k-th curve is drawn: each thinner than the one beneath it, from the fifth on dashed.

    >>> style(0), style(4)["linestyle"]
    ({'linewidth': 2.4, 'linestyle': '-'}, '--')
    """
    return {"linewidth": max(1.0, 2.4 - 0.3 * k), "linestyle": "-" if k < 4 else "--"}


def times(sde: SDE) -> np.ndarray:
    """Times from t_min to t_max, denser at both ends, float64.

    >>> import scoresde
    >>> t = times(scoresde.VPSDE())
    >>> float(t[0]), float(t[-1]), bool((np.diff(t) > 0).all())
    (0.001, 1.0, True)
    """
    share = np.sin(np.linspace(0, np.pi / 2, POINTS)) ** 2
    return sde.t_min * (1 - share) + sde.t_max * share


def curves(sde: SDE, t: np.ndarray) -> tuple[np.ndarray, ...]:
    """α, σ, λ, −f and g² at these times, float64.

    >>> import scoresde
    >>> [float(value[0].round(3)) for value in curves(scoresde.RectifiedFlow(), np.array([0.5]))]
    [0.5, 0.5, 0.0, 2.0, 2.0]
    """
    at, time = sde.knots(t.tolist()), torch.from_numpy(t)
    return at.alpha, at.sigma, at.lam, -sde.f(time).numpy(), sde.g2(time).numpy()
