"""``scoresde interpolate``: the way from one image to another through the noise that they come from."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scoresde.cli.editing import grid_options, model_options, name_of, prepare_task
from scoresde.cli.options import SamplerCommand
from scoresde.cli.output import output_folder
from scoresde.cli.params import OneOf, Whole
from scoresde.errors import BadInput

if TYPE_CHECKING:
    from scoresde.samplers import Result


@click.command("interpolate", cls=SamplerCommand, short_help="From one image to another.")
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
@click.option("--num", type=Whole(), default=8, metavar="N", help="Images, both ends among them (default: 8).")
@click.option(
    "--path", type=OneOf("slerp", "lerp"), default="slerp", metavar="NAME", help="slerp (default), by angle; or lerp."
)
@click.option("--sampler", default="ode", metavar="NAME", help="One that encodes: see `scoresde samplers NAME`.")
@grid_options
@model_options
@click.pass_context
def command(ctx: click.Context, a: Path, b: Path, path: str, sampler: str, out: Path, **given: Any) -> None:
    """Carry A and B along the probability flow to their noise, and back from noises between (Song et al. 2021).

    The ends come back up to the sampler's error, which is told. Without --steps or --grid both ways take those of
    `scoresde encode`: by tolerance, or 100 on its grid. Writes each image (.png), a sheet with A and B beside
    them, and a record (.json).

    \b
    Examples:
      scoresde interpolate boot.png bag.png
      scoresde interpolate boot.png bag.png --num 12 --steps 50
      scoresde interpolate boot.png shoe.png --class "ankle boot" --sampler heun --steps 40
    """  # noqa: D301 (click wants the \b)
    import numpy as np
    import torch

    from scoresde.cli.image_files import read_image, sheet, to_pixels
    from scoresde.likelihood import interpolate
    from scoresde.samplers import encode, sample
    from scoresde.samplers.plan import plan_encode, plan_run
    from scoresde.samplers.registry import find_sampler

    if given["num"] < 2:
        raise BadInput(f"--num {given['num']}: both ends are among them, so at least 2")
    task = prepare_task(ctx, given, sampler, given["num"])
    found, sde = find_sampler(sampler), task.model.sde
    # Every fault before the first call, and both ways on one grid
    _, way = plan_encode(sde, found, given["steps"], given["grid"], task.options)
    run = {"steps": way["steps"], "grid": way["grid"], **task.options}
    plan_run(sde, found, way["steps"], None, way["grid"], "t_min", task.options)
    ends = [read_image(file, task.model, given["resize"]) for file in (a, b)]
    x = torch.cat([end.x(task.model) for end in ends]).to(task.device)
    cond = {name: value[:2] for name, value in task.cond.items()}
    with output_folder(out):
        encoded = encode(task.model.denoiser, x, sampler, cond=cond, **run)
        between = interpolate(encoded.x[:1], encoded.x[1:], task.num, path)[:, 0]
        decode = partial(sample, task.model.denoiser, between.shape, sampler, x=between, final="t_min", cond=task.cond)
        result = task.sample(partial(decode, batch_size=task.batch, **run), way["steps"], sampler)
        pixels = to_pixels(task.model, result.x)
        off = float((result.x[[0, -1]] - x).abs().max()) * task.model.scaler.scale[0]
        shares = [f"{k / (task.num - 1):.2g}" for k in range(task.num)]
        columns = sheet([ends[0].pixels[None], *pixels[:, None], ends[1].pixels[None]], ["A", *shares, "B"])
        name = name_of(task, a.stem, f"to-{b.stem}", result.settings, path)
        facts = {"edited": "interpolate", "images": [end.facts for end in ends], "path": path}
        facts |= {"ends_off": round(off, 3), "encoding": cost_of(encoded)}
        task.write(out, name, np.asarray(pixels), columns, facts, result, f" and {encoded.nfe} for each of A and B")
    click.echo(f"the ends come back to within {off:.3g} of 255 grey levels")


def cost_of(encoded: Result) -> dict[str, Any]:
    """For a record: what it took to carry A and B to their noise, each."""
    from scoresde.cli.draw import counts_of

    return {"nfe": encoded.nfe, "network_evals": encoded.network_evals, **counts_of(encoded)}
