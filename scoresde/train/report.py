"""One page about a run, for a browser, with nothing to fetch: its losses, what it draws, its settings."""

from __future__ import annotations

import base64
import html
import io
import json
from pathlib import Path
from typing import Any

from scoresde.checkpoint import load_checkpoint, write_atomically
from scoresde.train.keep import MODEL
from scoresde.train.log import read_log

REPORT = "report.html"
GREY = "#808080"  # readable on white and on black
STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
img, svg { max-width: 100%; height: auto; }
table { border-collapse: collapse; } td { padding: 0.1rem 1rem 0.1rem 0; vertical-align: top; }
td:first-child { color: #808080; } code { font-size: 0.9rem; }
"""


def write_report(out: Path, samples: bytes) -> Path:
    """Write report.html into a run's folder, from its log, its model and a picture of samples (PNG)."""
    lines, (_, info) = read_log(out), load_checkpoint(out / MODEL)
    config = info["config"]
    title = f"{info['data']['name']}: {info['step']} steps"
    image = (
        f'<img alt="samples of the averaged weights" src="data:image/png;base64,{base64.b64encode(samples).decode()}">'
    )
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        image if samples else "",
        "<h2>Loss</h2>",
        curves(lines),
        "<h2>Loss by noise level</h2>",
        "<p>Eight equal parts of λ = log α/σ, from noise (dark) to data (light).</p>",
        levels(lines),
        *(
            ["<h2>Accuracy by noise level</h2>", "<p>In the same parts.</p>", levels(lines, "accuracy")]
            if config.get("task") == "classifier"
            else []
        ),
        "<h2>Settings</h2>",
        table(info, config),
    ]
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style>'
        f"{''.join(parts)}</html>\n"
    )
    write_atomically(out / REPORT, page.encode())
    return out / REPORT


def curves(lines: list[dict[str, Any]]) -> str:
    """Loss, gradient norm and samples per second over the steps."""
    figure, axes = _axes(3)
    for ax, name, label in zip(
        axes, ("loss", "gradient", "per_second"), ("loss", "gradient norm", "samples/s"), strict=True
    ):
        at = [(line["step"], line[name]) for line in lines if name in line]
        ax.plot([step for step, _ in at], [value for _, value in at], linewidth=1.2)
        ax.set(title=label, xlabel="step")
    for ax in axes[:2]:
        _logarithmic(ax)
    return _svg(figure, "loss, gradient norm and samples per second over the steps")


def levels(lines: list[dict[str, Any]], what: str = "loss") -> str:
    """The losses, or the accuracy, by noise level over the steps."""
    from matplotlib import colormaps

    figure, (ax,) = _axes(1)
    key = "by_level" if what == "loss" else f"{what}_by_level"
    for part in range(len(lines[0][key]) if lines else 0):
        at = [(line["step"], line[key][part]) for line in lines if line[key][part] is not None]
        ax.plot([s for s, _ in at], [v for _, v in at], color=colormaps["viridis"](part / 8), linewidth=1.2)
    ax.set(xlabel="step", ylabel=what)
    if what == "loss":
        _logarithmic(ax)
    return _svg(figure, f"the {what} in eight parts of the noise levels, over the steps")


def table(info: dict[str, Any], config: dict[str, Any]) -> str:
    """Data and config as rows of a table."""
    data = info["data"]
    rows = {"data": f"{data['name']}, {data['rows']} events of shape {tuple(info['event_shape'])}"}
    for section in ("sde", "network", "train"):
        values = config.get(section, {})
        rows[section] = ", ".join(f"{key}: {json.dumps(value)}" for key, value in values.items())
    rows |= {"predicts": f"{config['prediction']}, told {config['time']}", "weights": info["sha256"]}
    cells = "".join(f"<tr><td>{key}</td><td><code>{html.escape(value)}</code></td></tr>" for key, value in rows.items())
    return f"<table>{cells}</table>"


def _axes(count: int) -> tuple[Any, list[Any]]:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.2 * count if count > 1 else 6.4, 3.2), layout="constrained")
    FigureCanvasSVG(figure)
    axes = list(figure.subplots(1, count, squeeze=False)[0])
    for ax in axes:
        ax.patch.set_alpha(0)
        ax.tick_params(which="both", colors=GREY)
        for part in (*ax.spines.values(), ax.xaxis.label, ax.yaxis.label, ax.title):
            part.set_color(GREY)
    return figure, axes


def _logarithmic(ax: Any) -> None:
    """A logarithmic axis with plain numbers, where the values span more than a factor of 5."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = ax.get_ylim()
    if low <= 0 or high < 5 * low:
        return
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())


def _svg(figure: Any, alt: str) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    drawing = buffer.getvalue()
    return drawing[drawing.index("<svg") :].replace("<svg", f'<svg role="img" aria-label="{html.escape(alt)}"', 1)
