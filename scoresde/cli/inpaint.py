"""``scoresde inpaint``: what a mask hides, drawn so that it fits the rest of an image."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click

from scoresde.cli.editing import draw_options, grid_options, model_options, name_of, prepare_task
from scoresde.cli.options import SamplerCommand
from scoresde.cli.output import output_folder
from scoresde.cli.params import OneOf

GREY = 160  # of hidden pixels on a sheet


@click.command("inpaint", cls=SamplerCommand, short_help="What a mask hides, drawn to fit.")
@click.argument("image", type=click.Path(path_type=Path))
@click.option(
    "--mask", type=click.Path(path_type=Path), required=True, metavar="FILE", help="An image: white is painted."
)
@click.option(
    "--method",
    type=OneOf("replacement", "repaint", "score-sde"),
    default="repaint",
    metavar="NAME",
    help="repaint (default), replacement: fewer calls, more bias; score-sde: with Langevin steps.",
)
@click.option(
    "--sampler", metavar="NAME", help="Instead of the method's: for replacement any, for others one of a table."
)
@grid_options
@draw_options
@model_options
@click.pass_context
def command(
    ctx: click.Context, image: Path, mask: Path, method: str, sampler: str | None, out: Path, **given: Any
) -> None:
    """Draw what the white of a mask hides in IMAGE so that it fits the rest, whose pixels come back as they are.

    replacement tells the network what is known (ddpm, 100 steps); repaint draws the known part anew at each noise
    level and walks the levels again and again (travel, 50 steps and 410 calls: --jump, --repeats); score-sde does so
    with Langevin steps at each level (pc, 100 steps and 199 calls: --correctors, --snr).

    Writes each result (.png), a sheet of before, mask and after, and a record (.json).

    \b
    Examples:
      scoresde inpaint boot.png --mask half.png
      scoresde inpaint boot.png --mask half.png --method repaint --steps 25 --repeats 4 --num 4
      scoresde inpaint boot.png --mask half.png --method replacement --sampler dpm++2m --steps 20
      scoresde inpaint boot.png --mask half.png --method score-sde --correctors 2 --class "ankle boot"
    """  # noqa: D301 (click wants the \b)
    import numpy as np
    import torch

    from scoresde.cli.image_files import read_image, read_mask, sheet, to_pixels
    from scoresde.guidance import INPAINTING, inpaint

    task = prepare_task(ctx, given, sampler or INPAINTING[method].sampler, given["num"])
    picture = read_image(image, task.model, given["resize"])
    hidden = read_mask(mask, task.model, given["resize"])
    x = picture.x(task.model).expand(task.num, -1, -1, -1).to(task.device)
    paint = torch.from_numpy(hidden.pixels > 0).to(task.device)
    how = {name: given[name] for name in ("steps", "nfe", "grid", "final", "seed")}
    run = partial(inpaint, task.model.denoiser, x, paint, method, sampler, cond=task.cond, batch_size=task.batch)
    with output_folder(out):
        result = task.sample(partial(run, **how, **task.options), given["steps"], method)
        pixels = np.where(hidden.pixels > 0, to_pixels(task.model, result.x), picture.pixels)
        given_to_it = np.where(hidden.pixels > 0, np.uint8(GREY), picture.pixels)[None]
        columns = [picture.pixels[None], given_to_it, pixels]
        name = name_of(task, image.stem, method, result.settings)
        facts = {"edited": "inpaint", "image": picture.facts, "mask": hidden.facts}
        task.write(out, name, pixels, sheet(columns, ["before", "mask", "after"]), facts, result)
