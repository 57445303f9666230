"""``scoresde table``: the rows of a sampler, all numbers of a run before it is run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from scoresde.cli.files import json_text
from scoresde.cli.options import SamplerCommand, flags_of, read_options, spell
from scoresde.cli.params import json_option, read_run, run_options
from scoresde.cli.text import align
from scoresde.errors import BadInput, choose

if TYPE_CHECKING:
    from scoresde.samplers import Table


@click.command("table", cls=SamplerCommand, short_help="The rows of a sampler.")
@click.argument("sampler")
@click.option(
    "--sde", metavar="NAME", help="vp (default), subvp, cosine, sigmoid, ve, edm, flow or ddpm, with their defaults."
)
@click.option("--model", metavar="NAME|PATH", help="The SDE of a model instead.")
@run_options
@json_option
@click.pass_context
def command(ctx: click.Context, sampler: str, sde: str | None, model: str | None, as_json: bool, **run: Any) -> None:
    """The rows of a sampler: every coefficient of a run, and how far the table is from exact.

    One row is one network call and one update, D the network's output in the named space and z noise:

    \b
        x(t_next) = a x(t) + b0 D + b1 (D of the row before) + ... + c0 z + ...

    The defect is the largest error on data that are a single point; 0 (to rounding) for exact tables.

    \b
    Examples:
      scoresde table ddim --steps 5
      scoresde table eab3 --steps 8 --grid karras --sde cosine
      scoresde table dpm++2m --sigmas 80,24,6,1.5,0.3,0.05,0 --sde edm
      scoresde table pc --steps 3 --correctors 2 --json
      scoresde table auto --nfe 8
    """  # noqa: D301 (click wants the \b)
    from scoresde.analytic_start import AnalyticStart
    from scoresde.samplers import SAMPLERS, Table, plan_run
    from scoresde.samplers.registry import find_sampler

    found = None if sampler == "auto" else find_sampler(sampler)
    options = read_options(sampler, run.pop("own"), flags_of(ctx))
    family = find_sde(sde, model)
    request = read_run(family, run, lambda shift: AnalyticStart(0.0, 1.0, shift))  # its law is not in the rows
    if found is None:
        table, settings = plan_auto(family, request, options)
    else:
        table, settings = plan_run(family, found, **request, options=options)
    if not isinstance(table, Table):
        tables = [name for name, s in SAMPLERS.items() if s.build and s.adaptive is None]
        others = f": choose from {', '.join(tables)}" if sampler not in tables else " with these options"
        raise BadInput(f"{sampler!r} is not a table, it finds its numbers as it runs{others}")
    click.echo(json_text(as_dict(table, settings)) if as_json else as_text(table, settings))


def plan_auto(sde: Any, request: dict[str, Any], options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """What "auto" means for a request, as the library itself resolves it: for a denoiser that is never called."""
    import torch

    from scoresde.analytic import Gaussian
    from scoresde.samplers.job import prepare

    job = prepare(Gaussian(torch.zeros(1), torch.eye(1)).denoiser(sde), (1, 1), "auto", **request, **options)
    run = ("sampler", "adaptive", "steps", "grid", "final", "start", "options")
    return job.solver, {name: job.settings[name] for name in run if name in job.settings}


def find_sde(name: str | None, model: str | None) -> Any:
    """The SDE by its own name or by that of a model."""
    if model is not None:
        if name is not None:
            raise BadInput("--sde and --model: give one")
        from scoresde.model import load_model

        return load_model(model).sde
    from scoresde.sdes import SDES

    return SDES[choose("sde", name or "vp", SDES)]()


def as_dict(table: Table, settings: dict[str, Any]) -> dict[str, Any]:
    """All numbers in full precision."""
    rows = [
        {"t": r.t, "t_next": r.t_next, "a": r.a, "b": r.b, "c": r.c, "calls": r.calls, "ends": r.ends}
        for r in table.rows
    ]
    keys = ("space", "nfe", "order", "order_with_start", "exact", "stochastic", "times")
    facts = {key: getattr(table, key) for key in keys}
    return {**settings, **facts, "defect": float(table.defect), "rows": rows}


def as_text(table: Table, settings: dict[str, Any]) -> str:
    """The rows aligned, then what holds for all of them."""
    from scoresde.samplers import SAMPLERS

    b, c = (max((len(getattr(row, name)) for row in table.rows), default=0) for name in "bc")
    rows: list[tuple[str, ...]] = [
        ("row", "t", "t_next", "a", *(f"b{j}" for j in range(b)), *(f"c{j}" for j in range(c)))
    ]
    for i, row in enumerate(table.rows):
        weights = [f"{w:.8g}" for w in row.b] if row.calls else ["no call"]
        weights += [""] * (b - len(weights))
        rows.append((str(i), *(f"{v:.8g}" for v in (row.t, row.t_next, row.a)), *weights, *(f"{w:.8g}" for w in row.c)))
    sampler = SAMPLERS[settings["sampler"]]
    weak = f"weak order {sampler.order}" if sampler.stochastic and sampler.order else "no order claimed"
    order = weak if table.order is None else f"order {table.order}"
    if table.order != table.order_with_start:
        order += f" ({table.order_with_start} with its first steps)"
    chosen = spell(settings["options"])
    return "\n".join(
        (
            f"{settings['sampler']} {chosen}".rstrip() + f" in {table.space} space under {table.sde}",
            align(rows, right=range(len(rows[0]))),
            f"{settings['steps']} steps, {table.nfe} network calls, {order}"
            f", {'noise' if table.stochastic else 'no noise'}"
            f", defect {float(table.defect):.1e}{' (exact)' if table.exact else ''}",
        )
    )
