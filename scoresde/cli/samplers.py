"""``scoresde samplers``: the registry as a table, one sampler in full, and what others call them."""

from __future__ import annotations

import inspect
import math
import re
from typing import TYPE_CHECKING, Any

import click

from scoresde.cli.files import json_text
from scoresde.cli.options import spell, usage, word_kinds
from scoresde.cli.params import json_option
from scoresde.cli.text import align
from scoresde.errors import BadInput

if TYPE_CHECKING:
    from scoresde.samplers import Sampler, Table
    from scoresde.samplers.aliases import Alias


@click.command("samplers", short_help="Every sampler and when to use it.")
@click.argument("name", required=False)
@click.option("--aliases", is_flag=True, help="What k-diffusion, diffusers and others call them.")
@json_option
def command(name: str | None, aliases: bool, as_json: bool) -> None:
    """Every sampler: order, network calls for n steps, whether it draws noise, defaults, options, when to use it.

    With NAME, one of them in full: its equation and source, its options, other names, an example.

    \b
    Examples:
      scoresde samplers
      scoresde samplers ddim
      scoresde samplers auto              what it stands for, by the number of calls
      scoresde samplers --aliases
      scoresde samplers --json
      scoresde table eab2 --steps 5       the numbers of one of them
    """  # noqa: D301 (click wants the \b)
    from scoresde.samplers import SAMPLERS
    from scoresde.samplers.aliases import ALIASES
    from scoresde.samplers.registry import find_sampler

    if name and aliases:
        raise BadInput(f"--aliases and {name}: `scoresde samplers {name}` shows its other names")
    if aliases:
        click.echo(json_text([_alias(alias) for alias in ALIASES]) if as_json else alias_table(ALIASES))
    elif name == "auto":
        click.echo(json_text(budgets()) if as_json else by_budget(budgets()))
    elif name:
        found = find_sampler(name)
        click.echo(json_text(facts(found)) if as_json else in_full(found))
    else:
        every = list(SAMPLERS.values())
        click.echo(json_text([facts(sampler) for sampler in every]) if as_json else overview(every))


def overview(samplers: list[Sampler]) -> str:
    """All samplers, a line each, then their defaults."""
    rows = [("NAME", "ORDER", "NFE(n)", "NOISE", "EXACT", "USE WHEN")]
    for s in samplers:
        table = small_table(s)
        exact = "-" if table is None else "yes" if table.exact else "no"
        rows.append((s.name, str(s.order or "-"), s.nfe, "yes" if s.stochastic else "no", exact, s.use))
    defaults: list[tuple[str, str]] = []
    for s in samplers:
        if s.adaptive:
            defaults.append((f"  {s.name}, adaptive", spell(s.options(True))))
        if s.build:
            defaults.append((f"  {s.name}", spell(run_defaults(s))))
    notes = (
        "NFE(n): network calls per sample for n steps with the defaults, in n and the options named.\n"
        "Grid and final are those of the default number of steps; others may have others: scoresde samplers NAME.\n"
        "EXACT: exact on data that are a single point, proved by every table that declares it.\n"
        "One of them in full: scoresde samplers NAME. Other toolkits' names: scoresde samplers --aliases.\n"
        "auto  by budget: the measured best for --nfe N, see scoresde samplers auto"
    )
    return "\n".join((align(rows, right=(1,)), "\nDefaults:", align(defaults), "", notes))


def in_full(s: Sampler) -> str:
    """One sampler: everything about it."""
    from scoresde.samplers.aliases import of_sampler
    from scoresde.samplers.proofs import proofs

    table = small_table(s)
    order = str(s.order or "none claimed")
    if table and table.order != table.order_with_start:
        order += f", {table.order_with_start} with its first steps"
    rows: list[tuple[str, str]] = [
        ("use when", s.use),
        ("order", order),
        ("calls", f"{s.nfe} per sample for n steps" if s.build else s.nfe),
        ("noise", "yes" if s.stochastic else "no"),
    ]
    if table:
        exact = "yes, proved by every table that declares it" if table.exact else "no"
        rows += [("exact", f"{exact} (on data that are a single point)"), ("space", table.space)]
    if s.build:
        rows.append(("defaults", spell({"steps": s.steps or "N", **_where(s, s.steps or 1)})))
        for k, (n, grid, final) in enumerate(s.spans if s.by_steps else ()):
            steps = f"to {n} steps" if n else "more"
            rows.append(("" if k else "by steps", f"{steps}: {spell({'grid': grid, 'final': final})}"))
    rows += _options("options", s, False) if s.build else []
    rows += _options("adaptive", s, True) if s.adaptive else []
    rows.append(("encodes", "yes" if s.encode else "no"))
    for k, alias in enumerate(of_sampler(s.name)):
        rows.append(("" if k else "others", f"{alias.toolkit} {alias.name}: {alias.words}{_note(alias)}"))
    rows += [("" if k else "proved by", f"tests/{test}") for k, test in enumerate(proofs(s))]
    rows.append(("example", f"scoresde sample --sampler {s.name} {spell(_example(s))}".rstrip()))
    return f"{s.name}\n\n{equation(s)}\n\n{align(rows)}"


def budgets() -> list[dict[str, Any]]:
    """What `auto` stands for, up to each number of calls."""
    from scoresde.samplers.auto import AUTO

    return [{"calls": c.calls, "sampler": c.sampler, "grid": c.grid, "options": dict(c.options)} for c in AUTO]


def by_budget(choices: list[dict[str, Any]]) -> str:
    """`auto`: a line for each budget."""
    from scoresde.samplers.auto import BUDGET

    rows = [("UP TO CALLS", "SAMPLER", "GRID", "OPTIONS")]
    for choice in choices:
        limit = f"{choice['calls']:g}" if math.isfinite(choice["calls"]) else "any"
        rows.append((limit, choice["sampler"], choice["grid"], spell(choice["options"])))
    return (
        f"auto\n\n  The measured best for a budget of network calls, {BUDGET} where none is given.\n"
        "  The grid may change with the SDE: `scoresde table auto --nfe N` shows all numbers.\n\n"
        f"{align(rows, right=(0,))}\n\nexample  scoresde sample --sampler auto --nfe 12"
    )


def _options(title: str, s: Sampler, adaptive: bool) -> list[tuple[str, str]]:
    kinds = word_kinds(s)
    lines = [usage(name, kinds[name], default) for name, default in s.options(adaptive).items()]
    return [("" if k else title, line) for k, line in enumerate(lines or ["none"])]


def _example(s: Sampler) -> dict[str, Any]:
    """Arguments of a typical run."""
    return {"steps": s.steps or 10, **s.options()} if s.build else s.options(True)


def equation(s: Sampler) -> str:
    """The text of its builders: equation, source, options; without its examples."""
    texts = [inspect.getdoc(build) or "" for build in (s.build, s.adaptive) if build]
    text = "\n\n".join(re.split(r"\n\s*>>>", text)[0].rstrip() for text in texts)
    return "\n".join(f"  {line}".rstrip() for line in text.replace("``", "").splitlines())


def run_defaults(s: Sampler) -> dict[str, Any]:
    """Steps, grid, final and own options of a run with fixed steps."""
    return {"steps": s.steps or "N", **_where(s, s.steps or 1), **s.options()}


def _where(s: Sampler, n: int) -> dict[str, str]:
    """Grid and ending of n steps."""
    return dict(zip(("grid", "final"), s.defaults(n), strict=True))


def small_table(s: Sampler) -> Table | None:
    """A few steps of a sampler by its defaults; None if it is not a table."""
    from scoresde.families import VPSDE
    from scoresde.grids import make_grid
    from scoresde.samplers import Table

    sde = VPSDE()
    grid, final = s.defaults(5)
    solver = s.build(sde, make_grid(grid, sde, 5, final)) if s.build else None
    return solver if isinstance(solver, Table) else None


def facts(s: Sampler) -> dict[str, Any]:
    """One sampler as JSON."""
    from scoresde.samplers.aliases import of_sampler
    from scoresde.samplers.proofs import proofs

    table = small_table(s)
    return {
        "name": s.name,
        "order": s.order,
        "order_with_start": table and table.order_with_start,
        "nfe": s.nfe,
        "stochastic": s.stochastic,
        "exact": table and table.exact,
        "space": table and table.space,
        "steps": s.steps,
        **_where(s, s.steps or 1),
        "by_steps": [{"to": n, "grid": grid, "final": final} for n, grid, final in s.spans],
        "options": s.options() if s.build else None,
        "adaptive_options": s.options(True) if s.adaptive else None,
        "encodes": s.encode is not None,
        "revision": s.revision,
        "use": s.use,
        "proofs": [f"tests/{test}" for test in proofs(s)],
        "aliases": [_alias(alias) for alias in of_sampler(s.name)],
    }


def alias_table(aliases: tuple[Alias, ...]) -> str:
    """Other toolkits' names, and what they are here."""
    rows = [("TOOLKIT", "NAME", "HERE: --sampler", "IF")]
    rows += [(alias.toolkit, alias.name, alias.words, alias.note) for alias in aliases]
    return align(rows) + "\n\nWithout --grid or --final here, the other toolkit takes them from its caller."


def _alias(alias: Alias) -> dict[str, Any]:
    return {**alias._asdict(), "options": dict(alias.options), "command": f"scoresde sample --sampler {alias.words}"}


def _note(alias: Alias) -> str:
    return f" (with {alias.note})" if alias.note else ""
