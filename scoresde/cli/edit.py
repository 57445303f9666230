"""``scoresde edit``: an image with noise up to a strength, and back by the model: image-to-image, variations."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click

from scoresde.cli.editing import draw_options, grid_options, model_options, name_of, prepare_task
from scoresde.cli.options import SamplerCommand
from scoresde.cli.output import output_folder
from scoresde.cli.params import Number


@click.command("edit", cls=SamplerCommand, short_help="An image again, by the model.")
@click.argument("image", type=click.Path(path_type=Path))
@click.option(
    "--strength",
    type=Number(),
    default=0.5,
    metavar="X",
    help="From 0, the image itself, to 1, a draw that knows nothing of it (default: 0.5).",
)
@click.option("--sampler", default="ode", metavar="NAME", help="See `scoresde samplers` (default: ode).")
@grid_options
@draw_options
@model_options
@click.pass_context
def command(ctx: click.Context, image: Path, strength: float, sampler: str, out: Path, **given: Any) -> None:
    """Noise IMAGE up to a strength and let the model take the noise away again (SDEdit, Meng et al. 2022).

    What is coarser than the noise stays, what is finer is drawn anew; with --num there are several variations. The
    strength is the share of the way from the data to the noise in the angle atan(sigma/alpha): at 0.5 image and noise
    weigh the same. All --steps are taken below it.

    Writes each result (.png), a sheet of before and after, and a record (.json).

    \b
    Examples:
      scoresde edit boot.png --strength 0.6
      scoresde edit boot.png --strength 0.3 --num 8 --steps 20      variations
      scoresde edit boot.png --strength 0.7 --class sneaker --sampler ddpm --steps 100
      scoresde edit photo.jpg --resize --model runs/flowers
    """  # noqa: D301 (click wants the \b)
    import numpy as np

    from scoresde.cli.image_files import read_image, sheet, to_pixels
    from scoresde.guidance import edit

    task = prepare_task(ctx, given, sampler, given["num"])
    picture = read_image(image, task.model, given["resize"])
    x = picture.x(task.model).expand(task.num, -1, -1, -1).to(task.device)
    how = {name: given[name] for name in ("steps", "nfe", "grid", "final", "seed")}
    run = partial(edit, task.model.denoiser, x, strength, sampler, cond=task.cond, batch_size=task.batch)
    with output_folder(out):
        result = task.sample(partial(run, **how, **task.options), given["steps"], sampler)
        pixels = to_pixels(task.model, result.x) if strength else np.repeat(picture.pixels[None], task.num, 0)
        pair = sheet([picture.pixels[None], pixels], ["before", f"edit {strength:g}"])
        name = name_of(task, image.stem, f"edit{strength:g}", result.settings)
        task.write(out, name, pixels, pair, {"edited": "edit", "image": picture.facts}, result)
