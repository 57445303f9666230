"""``scoresde samplers``: the registry as a table."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from scoresde.cli.params import json_option
from scoresde.cli.text import align

if TYPE_CHECKING:
    from scoresde.samplers import Sampler


@click.command("samplers", short_help="Every sampler and when to use it.")
@json_option
def command(as_json: bool) -> None:
    """Every sampler: order, network calls for n steps, whether it draws noise, defaults, options, when to use it.

    \b
    Examples:
      scoresde samplers
      scoresde samplers --json
      scoresde table eab2 --steps 5       the numbers of one of them
    """  # noqa: D301 (click wants the \b)
    from scoresde.samplers import SAMPLERS

    if as_json:
        click.echo(json.dumps([facts(sampler) for sampler in SAMPLERS.values()], indent=1, ensure_ascii=False))
        return
    rows = [("NAME", "ORDER", "NFE(n)", "NOISE", "USE WHEN")]
    rows += [(s.name, str(s.order or "-"), s.nfe, "yes" if s.stochastic else "no", s.use) for s in SAMPLERS.values()]
    click.echo(align(rows, right=(1,)))
    click.echo("\nDefaults:")
    defaults: list[tuple[str, str]] = []
    for s in SAMPLERS.values():
        if s.adaptive:
            defaults.append((f"  {s.name}, adaptive", spell(s.options(True))))
        steps = {"steps": s.steps or "N"}
        defaults.append((f"  {s.name}", spell({**steps, "grid": s.grid, "final": s.final, **s.options()})))
    click.echo(align(defaults))
    click.echo("\nNFE(n): network calls per sample for n steps with the defaults; m: --correctors, --repeats.")


def facts(s: Sampler) -> dict[str, Any]:
    """One sampler as JSON."""
    return {
        "name": s.name,
        "order": s.order,
        "nfe": s.nfe,
        "stochastic": s.stochastic,
        "steps": s.steps,
        "grid": s.grid,
        "final": s.final,
        "options": s.options(),
        "adaptive_options": s.options(True) if s.adaptive else None,
        "encodes": s.encode is not None,
        "revision": s.revision,
        "use": s.use,
    }


def spell(options: dict[str, Any]) -> str:
    """Options as they are typed."""
    return " ".join(f"--{name.replace('_', '-')} {value}" for name, value in options.items())
