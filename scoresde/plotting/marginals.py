"""From data to noise and back in one dimension: the density of every time, and paths through it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from scoresde.analytic import Distribution
from scoresde.errors import BadInput, positive
from scoresde.pictures import INK
from scoresde.plotting.animation import record
from scoresde.plotting.figure import colour, empty, line_colour, plain
from scoresde.sde import SDE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS, ROWS = 240, 301  # of the image: times and places
REACH = 3.4  # the image ends at this many standard deviations
FAR = 3.0  # from this standard deviation of the noise on, x is shown as x / sqrt(α² + σ²)


def plot_marginals(
    data: Distribution,
    sde: SDE,
    paths: int = 6,
    *,
    samplers: tuple[str, str] = ("ddpm", "ode"),
    steps: int = 400,
    seed: int = 0,
) -> Figure:
    """The density p_t(x) of one-dimensional data as an image, and over it ways back from noise to data.

    Left image: paths of the reverse SDE; right image: the probability flow from the same starts (Song et al. 2021,
    figure 2). At both sides stand the exact densities at t_min and t_max, there beside the prior, dashed. Where the
    noise grows far beyond the data, all is shown in x / sqrt(α² + σ²). ``data`` has event shape (1,).

    >>> import scoresde
    >>> figure = plot_marginals(scoresde.GaussianMixture.example(1), scoresde.VPSDE(), paths=3, steps=10)
    >>> [ax.get_title() for ax in figure.axes]
    ['data', 'reverse SDE', 'probability flow', 'noise']
    """
    from matplotlib.colors import PowerNorm

    if tuple(data.event_shape) != (1,):
        raise BadInput(f"plot_marginals: data of event shape {tuple(data.event_shape)}, it must be (1,)")
    positive("paths", paths)
    far = sde.prior_std() > FAR
    symbol = "x / √(α² + σ²)" if far else "x"
    t, early = columns(sde)
    y = extent(data, sde, t, far)
    p = density(data, sde, t, y, far)
    about = (
        f"Density of {symbol} from t_min to t_max under {sde}, with {paths} paths of the reverse SDE and of the flow."
    )
    figure = empty(10.5, 3.6, about)
    axes: Any = figure.subplots(1, 4, sharey=True, width_ratios=(1, 4, 4, 1))
    for ax, k in ((axes[0], 0), (axes[3], -1)):
        ax.fill_betweenx(y, p[:, k], color=line_colour(0), alpha=0.25, linewidth=0)
        ax.plot(p[:, k], y, color=line_colour(0), linewidth=1.4, label="p_t")
    std = 1.0 if far else sde.prior_std()
    prior = np.exp(-0.5 * (y / std) ** 2) / (std * math.sqrt(2 * math.pi))
    axes[3].plot(prior, y, color=colour(INK), linewidth=1, linestyle="--", label="prior")
    denoiser, grid = data.denoiser(sde), columns(sde, positive("steps", steps) + 1)[0][::-1].tolist()
    for ax, sampler, hue in zip(axes[1:3], samplers, (1, 2), strict=True):
        ax.pcolormesh(t, y, p, cmap="Blues", norm=PowerNorm(0.5, 0, float(p.max())), shading="nearest", rasterized=True)
        at, states = record(denoiser, (paths, 1), sampler, grid=grid, seed=seed, dtype=torch.float64)
        states = states[:, :, 0] / (_spread(sde, at)[:, None] if far else 1)
        ax.plot(at, states, color=line_colour(hue), linewidth=0.9)
        ax.plot([at[0]] * paths, states[0], "o", color=line_colour(hue), markersize=3, clip_on=False, zorder=3)
        if early:
            ax.set_xscale("log")
    titles = ("data", "reverse SDE", "probability flow", "noise")
    for ax, title in zip(axes, titles, strict=True):
        ends = title in ("data", "noise")
        ax.set(title=title, xlabel="p(x)" if ends else "t", ylim=(y[0], y[-1]))
        if ends:
            ax.set_xlim(left=0)
            ax.xaxis.set_major_formatter("{x:g}")
            ax.locator_params(axis="x", nbins=3)
        else:
            ax.set_xlim(t[0], t[-1])
        plain(ax, grid=ends)
    axes[0].set_ylabel(symbol)
    axes[0].invert_xaxis()
    return figure


def columns(sde: SDE, n: int = COLUMNS) -> tuple[np.ndarray, bool]:
    """n times from t_min to t_max, evenly spaced; evenly spaced in log t where most of the way lies at small t.

    >>> import scoresde
    >>> columns(scoresde.VPSDE())[1], columns(scoresde.EDM())[1]
    (False, True)
    """
    middle = float(sde.t_of_lam(torch.zeros((), dtype=torch.float64)))
    if sde.t_min > 0 and middle < 0.05 * sde.t_max:
        return np.geomspace(sde.t_min, sde.t_max, n), True
    return np.linspace(sde.t_min, sde.t_max, n), False


def extent(data: Distribution, sde: SDE, t: np.ndarray, far: bool) -> np.ndarray:
    """The places of the image, evenly spaced: `REACH` standard deviations around the mean, at all times.

    >>> import scoresde
    >>> y = extent(scoresde.GaussianMixture.example(1), scoresde.VPSDE(), np.array([0.001, 1.0]), False)
    >>> len(y), bool(y[0] < -3), bool(y[-1] > 3)
    (301, True, True)
    """
    x = data.sample(4096)[:, 0]
    mean, var, at = float(x.mean()), float(x.var()), sde.knots(t.tolist())
    scale = _spread(sde, t) if far else 1.0
    middle, half = at.alpha * mean / scale, REACH * np.sqrt(at.alpha**2 * var + at.sigma**2) / scale
    return np.linspace(float((middle - half).min()), float((middle + half).max()), ROWS)


def density(data: Distribution, sde: SDE, t: np.ndarray, y: np.ndarray, far: bool = False) -> np.ndarray:
    """p_t at places y and times t, (places, times): of x_t, or of x_t / sqrt(α² + σ²) if ``far``.

    >>> import scoresde
    >>> y = np.linspace(-6, 6, 200)
    >>> p = density(scoresde.GaussianMixture.example(1), scoresde.VPSDE(), np.array([0.1, 0.9]), y)
    >>> np.trapezoid(p, y, axis=0).round(6).tolist()
    [1.0, 1.0]
    """
    scale = _spread(sde, t) if far else np.ones_like(t)
    x = torch.from_numpy((y[:, None] * scale).reshape(-1, 1))
    logs = data.log_prob(x, sde, torch.from_numpy(np.tile(t, len(y)))).reshape(len(y), len(t)).numpy()
    return np.exp(logs) * scale


def _spread(sde: SDE, t: np.ndarray) -> np.ndarray:
    at = sde.knots(t.tolist())
    return np.hypot(at.alpha, at.sigma)
