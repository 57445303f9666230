"""One page about a run, for a browser, with nothing to fetch: its losses, what it draws, its settings."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

from scoresde.checkpoint import load_checkpoint, write_atomically
from scoresde.page import axes, image, logarithmic, svg, whole
from scoresde.train.keep import MODEL
from scoresde.train.log import read_log

REPORT = "report.html"
STYLE = "td:first-child { color: #808080; }"


def write_report(out: Path, samples: bytes) -> Path:
    """Write report.html into a run's folder, from its log, its model and a picture of samples (PNG)."""
    lines, (_, info) = read_log(out), load_checkpoint(out / MODEL)
    config = info["config"]
    title = f"{info['data']['name']}: {info['step']} steps"
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        image(samples, "samples of the averaged weights") if samples else "",
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
    write_atomically(out / REPORT, whole(title, parts, STYLE))
    return out / REPORT


def curves(lines: list[dict[str, Any]]) -> str:
    """Loss, gradient norm and samples per second over the steps."""
    figure, panels = axes(3, 9.6)
    names = {"loss": "loss", "gradient": "gradient norm", "per_second": "samples/s"}
    for ax, (name, label) in zip(panels, names.items(), strict=True):
        at = [(line["step"], line[name]) for line in lines if name in line]
        ax.plot([step for step, _ in at], [value for _, value in at], linewidth=1.2)
        ax.set(title=label, xlabel="step")
    for ax in panels[:2]:
        logarithmic(ax)
    return svg(figure, "loss, gradient norm and samples per second over the steps")


def levels(lines: list[dict[str, Any]], what: str = "loss") -> str:
    """The losses, or the accuracy, by noise level over the steps."""
    from matplotlib import colormaps

    figure, (ax,) = axes()
    key = "by_level" if what == "loss" else f"{what}_by_level"
    for part in range(len(lines[0][key]) if lines else 0):
        at = [(line["step"], line[key][part]) for line in lines if line[key][part] is not None]
        ax.plot([s for s, _ in at], [v for _, v in at], color=colormaps["viridis"](part / 8), linewidth=1.2)
    ax.set(xlabel="step", ylabel=what)
    if what == "loss":
        logarithmic(ax)
    return svg(figure, f"the {what} in eight parts of the noise levels, over the steps")


def table(info: dict[str, Any], config: dict[str, Any]) -> str:
    """Data and config, whole, as rows of a table."""
    data = info["data"]
    rows = {"trained on": f"{data['name']}, {data['rows']} events of shape {tuple(info['event_shape'])}"}
    for key, value in config.items():
        options = [f"{name}: {json.dumps(each)}" for name, each in value.items()] if isinstance(value, dict) else None
        rows[key] = json.dumps(value) if options is None else ", ".join(options)
    rows["weights"] = info["sha256"]
    cells = "".join(f"<tr><td>{key}</td><td><code>{html.escape(value)}</code></td></tr>" for key, value in rows.items())
    return f"<table>{cells}</table>"
