"""Figures of schedules, marginals, scores, samples and trajectories, as matplotlib figures or the bytes of a file.

matplotlib is imported by the functions that draw, and without pyplot: no window, no display, no global state.

    >>> import scoresde
    >>> from scoresde.plotting import plot_schedules, render
    >>> render(plot_schedules({"vp": scoresde.VPSDE()}), "png")[1:4]
    b'PNG'
"""

from scoresde.plotting.animation import animate, record
from scoresde.plotting.figure import FORMATS, render
from scoresde.plotting.marginals import plot_marginals
from scoresde.plotting.samples import plot_samples
from scoresde.plotting.schedules import plot_schedules
from scoresde.plotting.scores import plot_scores

__all__ = [
    "FORMATS",
    "animate",
    "plot_marginals",
    "plot_samples",
    "plot_schedules",
    "plot_scores",
    "record",
    "render",
]
