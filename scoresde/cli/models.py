"""``scoresde models``: what is shipped."""

from __future__ import annotations

import json
from typing import Any

import click

from scoresde.cli.params import json_option
from scoresde.cli.text import align, size_of

HEADLINES = ("accuracy", "agreement", "coverage", "kid", "w2")


@click.command("models", short_help="The models that come with scoresde.")
@json_option
def command(as_json: bool) -> None:
    """The models that come with scoresde: data, SDE, what the network predicts, parameters, size, measured figures.

    \b
    Examples:
      scoresde models
      scoresde models --json
      scoresde sample --model NAME
    """  # noqa: D301 (click wants the \b)
    from scoresde.cli.describe import describe
    from scoresde.model import CLASSIFIER, card, shipped, shipped_classifiers

    known = shipped() | shipped_classifiers()
    names = [each for name in shipped() for each in (name, name + CLASSIFIER) if each in known]
    facts: list[dict[str, Any]] = [{**describe(name), "card": card(name)} for name in names]
    if as_json:
        click.echo(json.dumps(facts, indent=1, ensure_ascii=False))
        return
    if not facts:
        click.echo("no model is shipped with this copy of scoresde: train one, scoresde train --help")
        return
    rows = [("NAME", "DATA", "SDE", "PREDICTS", "PARAMETERS", "SIZE", "FIGURES")]
    for fact in facts:
        parameters = fact["weights"].get("ema", {"parameters": 0})["parameters"]
        data = (fact["data"] or {}).get("name", "")
        size, figures = size_of(fact["bytes"]), headline(fact["card"])
        rows.append((fact["name"], data, fact["sde"]["name"], fact["prediction"], f"{parameters:,}", size, figures))
    click.echo(align(rows, right=(4, 5)))


def headline(card: dict[str, Any]) -> str:
    """The best-known figures of the first run on a card: ode-10: agreement 0.94, coverage 0.71."""
    for part, figures in card.get("figures", {}).items():
        if part != "floor":
            found = {name: value for name in HEADLINES if (value := _find(figures, name)) is not None}
            return f"{part}: " + ", ".join(f"{name} {value:.3g}" for name, value in found.items()) if found else ""
    return ""


def _find(node: Any, name: str) -> float | None:
    """The first number of this name, at any depth; of a list, which goes by growing n, the last."""
    if isinstance(node, dict) and isinstance(node.get(name), int | float):
        return node[name]
    children = list(node.values()) if isinstance(node, dict) else node[::-1] if isinstance(node, list) else []
    return next((value for child in children if (value := _find(child, name)) is not None), None)
