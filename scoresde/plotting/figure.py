"""An empty figure in the style of this library, and its file."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from scoresde.errors import choose
from scoresde.pictures import COLOURS, FRAME, GUIDE, INK

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = ("png", "svg", "pdf")
DPI = 150


def colour(rgb: Sequence[int]) -> tuple[float, ...]:
    """A colour of `scoresde.pictures` as matplotlib takes it.

    >>> colour((255, 0, 51))
    (1.0, 0.0, 0.2)
    """
    return tuple(round(part / 255, 4) for part in rgb)


def line_colour(k: int) -> tuple[float, ...]:
    """The colour of the k-th curve.

    >>> line_colour(0) == line_colour(8), line_colour(0) == line_colour(1)
    (True, False)
    """
    return colour(COLOURS[k % len(COLOURS)])


def empty(width: float, height: float, about: str, dpi: int = DPI) -> Figure:
    """A white figure of this size in inches; ``about`` says in words what it shows, for those who cannot see it.

    >>> empty(3, 2, "nothing yet").get_label()
    'nothing yet'
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=dpi, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    figure.set_label(about)
    return figure


def plain(ax: Any, grid: bool = True) -> None:
    """Dark grey text, a light frame, and guides behind the curves.

    >>> ax = empty(3, 2, "").subplots()
    >>> plain(ax)
    """
    ax.set_facecolor("white")
    ax.tick_params(which="both", color=colour(FRAME), labelcolor=colour(INK), labelsize=8)
    for spine in ax.spines.values():
        spine.set(color=colour(FRAME), linewidth=0.8)
    for text in (ax.xaxis.label, ax.yaxis.label, ax.title):
        text.set(color=colour(INK), fontsize=10)
    if grid:
        ax.grid(color=colour(GUIDE), linewidth=0.8)
        ax.set_axisbelow(True)


def render(figure: Figure, kind: str = "png") -> bytes:
    """A figure as the content of a file: png, svg or pdf; what it shows is told in words in the file's description.

    >>> render(empty(1, 1, ""), "pdf")[:4]
    b'%PDF'
    """
    choose("format", kind, FORMATS)
    key = {"png": "Description", "svg": "Description", "pdf": "Subject"}[kind]
    metadata: dict[str, Any] = {key: figure.get_label()}
    if kind != "png":
        metadata[{"svg": "Date", "pdf": "CreationDate"}[kind]] = None
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi="figure", metadata=metadata)
    return buffer.getvalue()
