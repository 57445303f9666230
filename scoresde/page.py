"""A page for a browser with nothing to fetch: its frame, pictures and curves in it, in light and dark."""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Sequence
from typing import Any

GREY = "#808080"  # in a figure: what takes the colour of the page's text
STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
img, svg { max-width: 100%; height: auto; }
table { border-collapse: collapse; } td { padding: 0.1rem 1rem 0.1rem 0; vertical-align: top; }
code { font-size: 0.9rem; } h1, p, li, code { overflow-wrap: anywhere; }
"""
FETCH = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def whole(title: str, parts: Sequence[str], style: str = "", script: str = "") -> bytes:
    """A page of these parts, which are HTML; the title is text. A browser is told to load nothing from anywhere.

    >>> b"<title>a &lt; b</title>" in whole("a < b", ["<p>text</p>"])
    True
    """
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{FETCH}">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}{style}</style>'
        f"<main>{''.join(parts)}</main>{f'<script>{script}</script>' if script else ''}</html>\n"
    ).encode()


def source(png: bytes) -> str:
    """A picture as the address of itself."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def image(png: bytes, alt: str) -> str:
    """A picture, and what it shows in words.

    >>> image(b"", 'a "b"')
    '<img alt="a &quot;b&quot;" src="data:image/png;base64,">'
    """
    return f'<img alt="{html.escape(alt)}" src="{source(png)}">'


def axes(count: int = 1, width: float = 6.4, height: float = 3.2) -> tuple[Any, list[Any]]:
    """A figure of axes side by side, ``width`` inches in all, in the colour of the page's text."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    found = list(figure.subplots(1, count, squeeze=False)[0])
    for ax in found:
        ax.patch.set_alpha(0)
        ax.tick_params(which="both", colors=GREY)
        for part in (*ax.spines.values(), ax.xaxis.label, ax.yaxis.label, ax.title):
            part.set_color(GREY)
    return figure, found


def logarithmic(ax: Any, which: str = "y") -> None:
    """A logarithmic axis with plain numbers, where the values span more than a factor of 5."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = getattr(ax.dataLim, f"interval{which}")
    if low <= 0 or high < 5 * low:
        return
    getattr(ax, f"set_{which}scale")("log")
    axis = getattr(ax, f"{which}axis")
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def svg(figure: Any, alt: str) -> str:
    """A figure as a part of a page, and what it shows in words."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    drawing = re.sub(r"<style.*?</style>", "", buffer.getvalue(), flags=re.S)  # which would hold for all of the page
    drawing = drawing[drawing.index("<svg") :].replace(GREY, "currentColor")
    return drawing.replace("<svg", f'<svg role="img" stroke-linejoin="round" aria-label="{html.escape(alt)}"', 1)
