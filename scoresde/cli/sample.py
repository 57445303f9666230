"""``scoresde sample``: draw, and write a picture, the numbers, and everything needed to draw them again."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any, NoReturn

import click

from scoresde.cli.files import DEFAULT_MODEL
from scoresde.cli.guide import guidance_options, read_guidance, warn
from scoresde.cli.options import SamplerCommand, flags_of, read_options
from scoresde.cli.params import (
    Number,
    Numbers,
    OneOf,
    Whole,
    device_option,
    find_device,
    read_run,
    run_options,
    weights_option,
)
from scoresde.errors import BadInput

DRAW = ("num", "class_", "start", "seed", "index")
GIVE_STEPS = ("steps", "nfe", "grid", "times", "sigmas", "logsnr", "start")


@click.command("sample", cls=SamplerCommand, short_help="Draw samples.")
@click.option(
    "--model",
    default=DEFAULT_MODEL,
    metavar="NAME|PATH",
    help=f"A shipped model (default: {DEFAULT_MODEL}) or a checkpoint: see `scoresde models`.",
)
@click.option(
    "--sampler", default="ode", metavar="NAME", help="See `scoresde samplers` (default: ode); auto: the best for --nfe."
)
@click.option("--num", type=Whole(), metavar="N", help="Samples (default: 64, or 60 for 10 classes: whole rows).")
@click.option(
    "--seed", type=Whole(0), default=0, metavar="N", help="Sample k of a seed is always the same (default: 0)."
)
@click.option(
    "--index",
    type=Whole(0),
    default=0,
    metavar="FIRST",
    help="Number of the first sample: --index 5 --num 1 is sample 5 alone.",
)
@click.option("--class", "class_", metavar="NAME|INDEX", help="One class, or none for no class (default: all in turn).")
@click.option(
    "--from-latent",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Start from the latents and classes of `scoresde encode` instead, and end at t_min.",
)
@guidance_options
@run_options
@click.option(
    "--adaptive", is_flag=True, help="The error decides the steps, as by default for ode: see --rtol, --atol."
)
@click.option(
    "--clip-x0",
    type=Numbers(2),
    metavar="LO,HI",
    help="Clip every estimate of the data, in the network's units: -1,1 for images.",
)
@click.option(
    "--threshold",
    type=Number(),
    metavar="Q",
    help="Dynamic thresholding: divide every estimate by the Q quantile of its size, if above 1: 0.995.",
)
@weights_option
@click.option(
    "--noise",
    type=OneOf("cpu", "brownian", "device"),
    default="cpu",
    metavar="NAME",
    help="cpu (default): the same on every device; brownian: also one path for all numbers of steps;"
    " device: faster on some, not reproducible elsewhere.",
)
@device_option
@click.option(
    "--dtype", type=OneOf("float32", "float64"), default="float32", metavar="NAME", help="float32 (default) or float64."
)
@click.option("--batch-size", type=Whole(), metavar="N", help="Samples at a time: memory and rounding.")
@click.option(
    "--save-every",
    type=Whole(),
    metavar="K",
    help="Also write the states after every K-th interval and the last: NAME-trajectory.npy and .png.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("samples"),
    metavar="DIR",
    help="Folder to write into (default: samples).",
)
@click.pass_context
def command(
    ctx: click.Context,
    model: str,
    sampler: str,
    num: int | None,
    seed: int,
    index: int,
    class_: str | None,
    from_latent: Path | None,
    clip_x0: tuple[float, float] | None,
    threshold: float | None,
    weights: str,
    noise: str,
    device: str,
    dtype: str,
    batch_size: int | None,
    adaptive: bool,
    save_every: int | None,
    out: Path,
    **run: Any,
) -> None:
    """Draw samples from a model, by any sampler.

    Writes three files: a picture (.png), the samples in the units of the data with their labels, and with
    the network calls and steps of each where they differ (.npz), and all that is needed to draw them again
    (.json), by `scoresde replay`.

    --steps counts the intervals of the time grid, --nfe limits the network calls; `ode` with neither is adaptive.
    An option that the chosen sampler cannot use is an error, and nothing is ever clipped unless asked for.

    \b
    Examples:
      scoresde sample --sampler ode --steps 10              the default model, every class
      scoresde sample --sampler ddim --eta 0.5 --steps 50   DDIM, half-way to ancestral sampling
      scoresde sample --sampler dpm++2m --nfe 15 --grid karras --class bag
      scoresde sample --sampler ddim --class 3 --guidance 2     more of the class than the model gives by itself
      scoresde sample --sampler unipc --guidance 3 --guidance-interval 0.3,3    half the cost elsewhere
      scoresde sample --sampler pc --steps 200 --correctors 2 --snr 0.1
      scoresde sample --sampler ode --rtol 1e-3 --atol 1e-3     adaptive, loose tolerances
      scoresde sample --sampler eab3 --sigmas 80,24,6,1.5,0.3,0.05,0
      scoresde sample --model runs/swiss --num 2000 --seed 3 --out plots
      scoresde sample --index 5 --num 1                     sample 5 of the default run, alone
      scoresde sample --sampler ddim --steps 12 --save-every 1   the states on the way as well
      scoresde sample --sampler auto --nfe 12               what is measured best for 12 calls
      scoresde sample --from-latent latents/ode-10-seed0-latent.npz --steps 100
    """  # noqa: D301 (click wants the \b)
    from scoresde.cli.draw import Request, Run, report
    from scoresde.model import load_model

    if adaptive:
        check_no_steps(run)
    if from_latent:
        check_no_draw(ctx)
    guidance = read_guidance(run, class_)
    options, device = read_options(sampler, run.pop("own"), flags_of(ctx)), find_device(device)
    loaded = load_model(model, weights, device)
    request = Request(
        model=model,
        sampler=sampler,
        how={**read_run(loaded.sde, run, loaded.start), **options},
        weights=weights,
        num=num,
        seed=seed,
        first=index,
        class_=class_,
        clip_x0=clip_x0,
        threshold=threshold,
        guidance=guidance,
        noise=noise,
        device=device,
        dtype=dtype,
        batch_size=batch_size,
        save_every=save_every,
        latent=from_latent,
    )
    ready = Run(request, loaded)
    if adaptive and not ready.adaptive:
        refuse_adaptive(sampler)
    warn(guidance, ready.sampler, ready.nfe)
    report(ready.draw(out, shlex.join(["scoresde", *ctx.obj])))


def check_no_steps(run: dict[str, Any]) -> None:
    """Refuse --adaptive beside an option that says which steps to take."""
    given = [f"--{name}" for name in GIVE_STEPS if run[name] is not None]
    if given:
        raise BadInput(
            f"--adaptive and {' and '.join(given)}: the error decides the steps of an adaptive run (--rtol, --atol):"
            " give one or the other"
        )


def check_no_draw(ctx: click.Context) -> None:
    """Refuse --from-latent beside an option that says which states to draw."""
    typed = [name for name in DRAW if (source := ctx.get_parameter_source(name)) and source.name == "COMMANDLINE"]
    if typed:
        given = " and ".join(f"--{name.rstrip('_')}" for name in typed)
        raise BadInput(f"--from-latent and {given}: states, their number and classes are those of the file: leave it")


def refuse_adaptive(sampler: str) -> NoReturn:
    """Say that a sampler has no adaptive run, and which have."""
    from scoresde.samplers import SAMPLERS

    able = [name for name, s in SAMPLERS.items() if s.adaptive and s.steps is None]
    raise BadInput(f"--adaptive: {sampler!r} takes a fixed number of steps only: choose from {', '.join(able)}")
