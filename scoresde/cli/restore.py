"""``scoresde restore``: measure a picture, then draw pictures that would have been measured so."""

from __future__ import annotations

from functools import partial
from math import inf, isfinite, log10
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scoresde.cli.editing import Task, draw_options, grid_options, model_options, name_of, prepare_task
from scoresde.cli.options import SamplerCommand
from scoresde.cli.output import output_folder
from scoresde.cli.params import Number, OneOf
from scoresde.errors import BadInput

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from scoresde.guidance import Linear
    from scoresde.guidance.inverse import Measured

STEPS = 50
METHODS = ("dps", "pigdm", "mcg", "ddnm", "diffpir")
ZETA = 5.0  # ζ' of dps and mcg: the best of 0.5 to 20 for small pictures and 40 steps


@click.command("restore", cls=SamplerCommand, short_help="Restore a degraded picture.")
@click.argument("image", type=click.Path(path_type=Path))
@click.option(
    "--operator",
    required=True,
    metavar="NAME[:NUMBER]",
    help="mask:SHARE, hole:SIDE, down:FACTOR, blur:SIGMA, fourier:ACCELERATION or radon:ANGLES.",
)
@click.option(
    "--method", type=OneOf(*METHODS), default="pigdm", metavar="NAME", help=f"{', '.join(METHODS)} (default: pigdm)."
)
@click.option(
    "--noise-std", type=Number(), default=0.0, metavar="X", help="Noise of the measurement, of 255 (default: 0)."
)
@click.option(
    "--strength", type=Number(), metavar="X", help="Of the method; of dps and mcg in units of ζ' = 5 (default: 1)."
)
@click.option("--sampler", default="ddpm", metavar="NAME", help="See `scoresde samplers` (default: ddpm, 50 steps).")
@grid_options
@draw_options
@model_options
@click.pass_context
def command(
    ctx: click.Context,
    image: Path,
    operator: str,
    method: str,
    noise_std: float,
    strength: float | None,
    sampler: str,
    out: Path,
    **given: Any,
) -> None:
    """Degrade the picture in IMAGE by an operator and noise, and restore it with a model as the prior.

    The methods are those of docs/inverse.md; --strength multiplies their guidance. Writes each result (.png), a sheet
    of before, measurement and after, and a record (.json). A measurement that is no picture is shown by its
    pseudo-inverse, which fills with zeros.

    \b
    Examples:
      scoresde restore shoe.png --operator blur:2
      scoresde restore shoe.png --operator down:4 --method ddnm --sampler ddim --steps 20 --eta 0.85
      scoresde restore shoe.png --operator mask:0.3 --noise-std 10 --num 4 --class sneaker
      scoresde restore shoe.png --operator radon:12 --method diffpir
    """  # noqa: D301 (click wants the \b)
    from scoresde.cli.image_files import read_image, sheet, to_pixels
    from scoresde.data import to_uint8
    from scoresde.guidance import parse_operator
    from scoresde.samplers import sample
    from scoresde.samplers.registry import find_sampler

    for flag, value in {"--noise-std": noise_std, "--strength": strength}.items():
        if value is not None and not (isfinite(value) and value >= 0):
            raise BadInput(f"{flag} {value:g}: a number of at least 0")
    task = prepare_task(ctx, given, sampler, given["num"])
    picture = read_image(image, task.model, given["resize"])
    measure = parse_operator(operator, task.model.event_shape)
    y = measured_with_noise(measure, picture.pixels, noise_std, given["seed"])
    how = {name: given[name] for name in ("steps", "nfe", "grid", "final")} | task.options
    if given["steps"] is given["nfe"] is None and find_sampler(sampler).build:
        how["steps"] = STEPS
    denoiser = guided(task, measure, y, method, noise_std, strength, sampler, how)
    shape = (task.num, *task.model.event_shape)
    run = partial(sample, denoiser, shape, sampler, seed=given["seed"], device=task.device, cond=task.cond)
    with output_folder(out):
        result = task.sample(partial(run, batch_size=task.batch, **how), how["steps"], method)
        pixels, seen = to_pixels(task.model, result.x), to_uint8(shown(measure, y)).numpy()
        facts = {"edited": "restore", "image": picture.facts, "operator": operator, "method": method}
        facts |= {"noise_std": noise_std, "strength": strength}
        facts |= {"psnr": [round(psnr(x, picture.pixels), 2) for x in pixels]}
        name = name_of(task, f"{image.stem}-{operator.replace(':', '')}", method, result.settings)
        columns = sheet([picture.pixels[None], seen, pixels], ["before", "measured", "restored"])
        task.write(out, name, pixels, columns, facts, result)
    of_mean = psnr(pixels.mean(0), picture.pixels)
    click.echo(
        f"PSNR {of_mean:.1f} dB{' of their mean' if task.num > 1 else ''}, of the measurement"
        f" {psnr(seen[0], picture.pixels):.1f} dB{'; each call with a backward pass' * denoiser.method.backward}"
    )


def measured_with_noise(operator: Linear, pixels: np.ndarray, noise_std: float, seed: int) -> Tensor:
    """The measurement (1, …) of a picture, with the noise of a seed."""
    import torch

    y = operator(torch.tensor(pixels)[None].float())
    return y + noise_std * torch.randn(y.shape, generator=torch.Generator().manual_seed(seed))


def guided(
    task: Task,
    operator: Linear,
    y: Tensor,
    method: str,
    noise_std: float,
    strength: float | None,
    sampler: str,
    how: dict[str, Any],
) -> Measured:
    """The model's denoiser given y, in the model's units; dps and mcg with the steps of the published chain."""
    from scoresde.guidance import chain_strength, measured
    from scoresde.samplers.plan import plan_run
    from scoresde.samplers.registry import find_sampler

    model, given = task.model, 1.0 if strength is None else strength
    own = {name: how[name] for name in ("steps", "nfe", "grid", "final")}
    solver, settings = plan_run(model.sde, find_sampler(sampler), **own, options=task.options)
    if method in ("dps", "mcg"):
        if settings["adaptive"]:
            raise BadInput(f"--method {method}: its steps have a length of their own: give a --sampler with --steps")
        given = chain_strength(model.sde, solver.times, ZETA * given)
    return measured(model.denoiser, y[0], operator, method, noise_std, given, scaler=model.scaler)


def shown(operator: Linear, y: Tensor) -> Tensor:
    """A measurement as pictures: itself if it has their shape, else its pseudo-inverse."""
    return y if tuple(y.shape[1:]) == operator.shape else operator.inverse(y)


def psnr(image: np.ndarray, truth: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of pictures in 0..255: 10 log10 of 255² over the mean squared error."""
    error = float(((image.astype(float) - truth.astype(float)) ** 2).mean())
    return 10 * log10(255**2 / error) if error else inf
