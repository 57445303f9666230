"""The page of a comparison: figures, curves, samples, the way of each run, settings, in one file."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from html import escape
from importlib import resources
from typing import Any

from scoresde.comparison.charts import charts
from scoresde.comparison.facts import HOW, head, lines
from scoresde.comparison.flow import planned_flow
from scoresde.comparison.run import Comparison
from scoresde.comparison.views import Images, Points, Way, walked, way
from scoresde.page import whole


def render(found: Comparison, facts: dict[str, Any], done: Callable[[int], None] = lambda runs: None) -> bytes:
    """The page, by the comparison and its `facts`; ``done`` is told when the way of a run has been walked."""
    model = found.draw.model
    view = Images(model) if len(model.event_shape) > 1 else Points(model, found.flow.at_data.cpu())
    title = f"Samplers of {model.name}, compared"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{found.draw.num} samples by each sampler, all from the noise of seed {found.draw.seed}, within"
        f" {_and(found.budgets)} network calls (NFE).</p>",
        "<h2>Figures</h2>",
        _figures(found, facts["notes"]),
        "<h2>Curves</h2>",
        f'<div class="charts">{"".join(charts(found))}</div>',
        "<h2>Samples</h2>",
        "<p>The same seeds at the same places, down and across; the first row is the converged flow.</p>",
        _matrix(found, view),
        "<h2>On the way</h2>",
        _walk(found, view, done),
        "<h2>Settings</h2>",
        _settings(facts),
        f"<h2>Made by</h2><pre><code>{escape(facts['command'])}</code></pre>",
    ]
    style, script = (_own(f"page.{kind}") for kind in ("css", "js"))
    return whole(title, parts, style, script)


def _own(name: str) -> str:
    return (resources.files("scoresde.comparison") / name).read_text(encoding="utf-8")


def _figures(found: Comparison, notes: Sequence[str]) -> str:
    kinds = ["" if name == "sampler" else " class=number" for name in head(found)]
    top = "".join(f"<th scope=col{kind}>{escape(name)}</th>" for name, kind in zip(head(found), kinds, strict=True))
    bodies: dict[str, str] = {}
    for cells, marks in lines(found):
        shown = [f"<b>{escape(c)}</b>" if best else escape(c) for c, best in zip(cells, marks, strict=True)]
        row = "".join(f"<td{kind}>{cell}</td>" for cell, kind in zip(shown, kinds, strict=True))
        bodies[cells[0]] = f"{bodies.get(cells[0], '')}<tr>{row}</tr>"
    body = "".join(f"<tbody>{rows}</tbody>" for rows in bodies.values())
    said = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f"{_wide('figures', f'<table><thead><tr>{top}</tr></thead>{body}</table>')}<ul>{said}</ul>"


def _matrix(found: Comparison, view: Images | Points) -> str:
    top = "".join(f"<th scope=col>NFE {budget}</th>" for budget in found.budgets)
    flow = view.cell(found.flow.at_data.cpu(), "samples of the converged flow")
    rows = [f"<tr><th scope=row>flow</th>{f'<td>{flow}</td>' * len(found.budgets)}</tr>"]
    for sampler in found.samplers:
        runs = [run for run in found.runs if run.planned.sampler == sampler]
        alts = [f"samples of {sampler} within {run.planned.budget} network calls" for run in runs]
        cells = "".join(f"<td>{view.cell(run.x.cpu(), alt)}</td>" for run, alt in zip(runs, alts, strict=True))
        rows.append(f"<tr><th scope=row>{escape(sampler)}</th>{cells}</tr>")
    table = f'<table class="matrix"><thead><tr><td></td>{top}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    return _wide("samples", table)


def _walk(found: Comparison, view: Images | Points, done: Callable[[int], None]) -> str:
    first = min(view.first, found.draw.num)
    ways: list[Way] = []
    options: dict[str, str] = {}
    flow = planned_flow(found.draw, found.flow.calls)
    for k, planned in enumerate([*(run.planned for run in found.runs), flow]):
        group = planned.sampler if planned is not flow else "converged flow"
        label = f"{group}, {planned.calls} calls"
        ways.append(way(planned, label, first))
        options[group] = options.get(group, "") + f'<option value="{k}">{escape(label)}</option>'
        done(1)
    data = json.dumps({"kind": view.kind, "runs": walked(ways, found.draw.model, view)}, separators=(",", ":"))
    choices = "".join(f'<optgroup label="{escape(group)}">{each}</optgroup>' for group, each in options.items())
    what = {"x": "x_t, the state", "x0": "x̂₀, the estimate of the data"}
    panels = ""
    for part, words in what.items():
        if view.kind == "images":
            panel = f'<img id="{part}" data-what="{words}" alt="{words}">'
        else:
            inside = '<path class="trail"/><path class="now"/>'
            panel = f'<svg id="{part}" data-what="{words}" role="img" viewBox="0 0 1000 1000">{inside}</svg>'
        panels += f"<figure>{panel}<figcaption>{words}</figcaption></figure>"
    some = "the first sample" if view.kind == "images" else f"the first {first} samples"
    return (
        f"<p>Of {some}, at the scale of the data: x_t / √(α² + σ²), and what the network makes of it.</p>"
        f'<div class="controls"><label for="run">Run</label><select id="run">{choices}</select>'
        '<label for="step">From noise to data: <output id="place" for="step"></output></label>'
        '<input id="step" type="range" min="0" max="1" step="1" value="0"></div>'
        f'<div class="walk">{panels}</div>'
        f'<script type="application/json" id="walks">{data.replace("<", chr(92) + "u003c")}</script>'
    )


def _settings(facts: dict[str, Any]) -> str:
    shown = {key: value for key, value in facts.items() if key not in ("command", "runs", "notes")}
    rows = [(key, value if isinstance(value, str) else _json(value)) for key, value in shown.items()]
    runs: list[tuple[str, str]] = []
    for run in facts["runs"]:
        settings = ", ".join(f"{name} {run[name] if isinstance(run[name], str) else _json(run[name])}" for name in HOW)
        used = "" if run["used"] == run["sampler"] else f"{run['used']}, "
        runs.append((f"{run['sampler']}, NFE {run['nfe']}", f"{used}{settings}"))
    return f"{_pairs(rows)}<details><summary>Of each run</summary>{_pairs(runs)}</details>"


def _pairs(rows: Sequence[tuple[str, str]]) -> str:
    cells = (f"<tr><th scope=row>{escape(key)}</th><td><code>{escape(text)}</code></td></tr>" for key, text in rows)
    return f'<table class="settings">{"".join(cells)}</table>'


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _wide(what: str, content: str) -> str:
    """What may be wider than a phone scrolls by itself, with keys too."""
    return f'<div class="wide" role="region" aria-label="{what}" tabindex="0">{content}</div>'


def _and(numbers: Sequence[int]) -> str:
    *others, last = map(str, numbers)
    return f"{', '.join(others)} and {last}" if others else last
