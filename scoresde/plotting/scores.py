"""The field of arrows that a sampler follows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from scoresde.analytic import Distribution
from scoresde.denoiser import AnyDenoiser
from scoresde.errors import BadInput
from scoresde.pictures import FRAME
from scoresde.plotting.figure import colour, empty, line_colour, plain
from scoresde.sde import SDE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEVELS = (2.0, 0.5, -1.0)  # λ of the panels, unless times are given
DROPS = (-8.0, -6.0, -4.5, -3.0, -2.0, -1.0, -0.5)  # contours of the log density, below its largest value
FINE = 90


def plot_scores(
    source: Distribution | AnyDenoiser,
    sde: SDE | None = None,
    times: Sequence[float] | None = None,
    *,
    arrows: int = 17,
    extent: float = 2.6,
    device: torch.device | str = "cpu",
) -> Figure:
    """The score ∇ log p_t of data in the plane at several times, over contours of log p_t where that is known.

    ``source`` is an exact distribution with its ``sde``, or the denoiser of a model, which has its own, no density,
    and is called on ``device``. Default times: λ = 2, 0.5 and -1. Each panel reaches ``extent`` standard deviations,
    and its arrows have a scale of their own: the score grows as 1/σ.

    >>> import scoresde
    >>> data, sde = scoresde.GaussianMixture.example(2), scoresde.VPSDE()
    >>> figure = plot_scores(data, sde, [0.1, 0.5])
    >>> [ax.get_title() for ax in figure.axes]
    ['t = 0.1, σ = 0.32', 't = 0.5, σ = 0.96']
    """
    exact = isinstance(source, Distribution)
    if exact and sde is None:
        raise BadInput("plot_scores: a distribution needs an sde")
    family: SDE = sde if exact and sde is not None else source.sde  # pyright: ignore[reportAttributeAccessIssue]
    if exact and tuple(source.event_shape) != (2,):
        raise BadInput(f"plot_scores: data of event shape {tuple(source.event_shape)}, it must be (2,)")
    if times is None:
        times = [float(family.t_of_lam(torch.tensor(lam, dtype=torch.float64))) for lam in LEVELS]
    for t in times:
        if not family.t_min <= t <= family.t_max:
            raise BadInput(f"t = {t:g}: times of {family} lie in [{family.t_min:g}, {family.t_max:g}]")
    figure = empty(3.1 * len(times) + 0.5, 3.5, f"The score of p_t at t = {', '.join(f'{t:.3g}' for t in times)}.")
    axes: Any = figure.subplots(1, len(times), squeeze=False)[0]
    for ax, t in zip(axes, times, strict=True):
        at = family.knots([t])
        centre, half = _window(source, float(at.alpha[0]), float(at.sigma[0]), extent)
        if isinstance(source, Distribution):
            places, points = _lattice(centre, half, FINE)
            logs = source.log_prob(points, family, t).reshape(FINE, FINE).numpy()
            levels = logs.max() + np.array(DROPS)
            ax.contour(places[0], places[1], logs, levels, cmap="Blues", linewidths=1.1, linestyles="solid", zorder=1)
        places, points = _lattice(centre, half * (1 - 1 / arrows), arrows)
        s = source.score(points, family, t) if isinstance(source, Distribution) else _score(source, points, t, device)
        u, v = s.reshape(arrows, arrows, 2).numpy().transpose(2, 0, 1)
        unit = (
            np.quantile(np.hypot(u, v), 0.9) * arrows / (2.4 * half)
        )  # most arrows are as long as their cell, or less
        ax.quiver(
            *np.meshgrid(*places), u, v, angles="xy", scale_units="xy", scale=unit, color=line_colour(1), width=0.005
        )
        ax.set(title=f"t = {t:.3g}, σ = {at.sigma[0]:.2g}", xlabel="x₁", aspect="equal")
        ax.set(xlim=(centre[0] - half, centre[0] + half), ylim=(centre[1] - half, centre[1] + half))
        plain(ax, grid=False)
        ax.tick_params(color=colour(FRAME))
    axes[0].set_ylabel("x₂")
    return figure


def _window(source: Any, alpha: float, sigma: float, extent: float) -> tuple[np.ndarray, float]:
    """Middle and half width of a panel: of a model the data are taken as scaled, mean 0 and variance 1."""
    mean, var = np.zeros(2), 1.0
    if isinstance(source, Distribution):
        x = source.sample(4096).double().numpy()
        mean, var = x.mean(0), float(x.var(0).max())
    return alpha * mean, extent * float(np.hypot(alpha * var**0.5, sigma))


def _lattice(centre: np.ndarray, half: float, n: int) -> tuple[list[np.ndarray], torch.Tensor]:
    """n places along each axis, and the n² points, those of one x₂ after the other."""
    places = [np.linspace(c - half, c + half, n) for c in centre.tolist()]
    return places, torch.from_numpy(np.stack(np.meshgrid(*places), -1).reshape(-1, 2))


def _score(denoiser: Any, points: torch.Tensor, t: float, device: torch.device | str) -> torch.Tensor:
    with torch.no_grad():
        return denoiser.score(points.float().to(device), t).double().cpu()
