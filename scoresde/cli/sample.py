"""``scoresde sample``: draw, and write a picture, the numbers, and everything needed to draw them again."""

from __future__ import annotations

import io
import json
import re
import shlex
import time
from itertools import count
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from scoresde.cli.output import output_folder, write_together
from scoresde.cli.params import Numbers, OneOf, Whole, device_option, find_device, read_run, run_options
from scoresde.cli.progress import sampling_bar
from scoresde.cli.text import duration
from scoresde.errors import BadInput, SolverFailure, choose

if TYPE_CHECKING:
    from torch import Tensor

    from scoresde.model import Model
    from scoresde.samplers import Result

DEFAULT_MODEL = "fashion-mnist"
NUM = 64
PASSING = ("command", "seconds", "batch_size")  # what may differ between two runs that draw the same samples
AT_ONCE = 2**18  # numbers in the states of one batch, unless --batch-size says otherwise


@click.command("sample", short_help="Draw samples.")
@click.option(
    "--model",
    default=DEFAULT_MODEL,
    metavar="NAME|PATH",
    help=f"A shipped model (default: {DEFAULT_MODEL}) or a checkpoint: see `scoresde models`.",
)
@click.option("--sampler", default="ode", metavar="NAME", help="See `scoresde samplers` (default: ode).")
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
@run_options
@click.option(
    "--clip-x0",
    type=Numbers(2),
    metavar="LO,HI",
    help="Clip every estimate of the data, in the network's units: -1,1 for images.",
)
@click.option(
    "--weights",
    type=OneOf("ema", "raw"),
    default="ema",
    metavar="NAME",
    help="ema (default): averaged over training; raw: the last.",
)
@click.option(
    "--noise",
    type=OneOf("cpu", "device"),
    default="cpu",
    metavar="NAME",
    help="cpu (default): the same on every device; device: faster on some, not reproducible elsewhere.",
)
@device_option
@click.option(
    "--dtype", type=OneOf("float32", "float64"), default="float32", metavar="NAME", help="float32 (default) or float64."
)
@click.option(
    "--batch-size", type=Whole(), metavar="N", help="Samples at a time: changes memory and rounding, nothing else."
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
    clip_x0: tuple[float, float] | None,
    weights: str,
    noise: str,
    device: str,
    dtype: str,
    batch_size: int | None,
    out: Path,
    **run: Any,
) -> None:
    """Draw samples from a model, by any sampler.

    Writes three files: a picture (.png), the samples in the units of the data with their labels (.npz), and
    all that is needed to draw them again (.json).

    --steps counts the intervals of the time grid, --nfe limits the network calls; `ode` with neither is adaptive.
    An option that the chosen sampler cannot use is an error, and nothing is ever clipped unless asked for.

    \b
    Examples:
      scoresde sample --sampler ode --steps 10              the default model, every class
      scoresde sample --sampler ddim --eta 0.5 --steps 50   DDIM, half-way to ancestral sampling
      scoresde sample --sampler dpm++2m --nfe 15 --grid karras --class bag
      scoresde sample --sampler pc --steps 200 --correctors 2 --snr 0.1
      scoresde sample --sampler ode --rtol 1e-3 --atol 1e-3     adaptive, loose tolerances
      scoresde sample --sampler eab3 --sigmas 80,24,6,1.5,0.3,0.05,0
      scoresde sample --model runs/swiss --num 2000 --seed 3 --out plots
      scoresde sample --index 5 --num 1                     sample 5 of the default run, alone
    """  # noqa: D301 (click wants the \b)
    import torch

    from scoresde import transforms
    from scoresde.model import load_model
    from scoresde.samplers import plan_run, sample
    from scoresde.samplers.registry import find_sampler

    # Everything that can be wrong with a request is found here, before the folder is made and the network is called.
    found, device = find_sampler(sampler), find_device(device)
    loaded = load_model(model, weights, device)
    request, options = read_run(loaded.sde, run)
    solver, settings = plan_run(loaded.sde, found, **request, options=options)
    intervals = None if settings["adaptive"] else len(solver.times) - 1
    labels = choose_labels(loaded, class_, num, index)
    size = len(labels) if labels is not None else num or NUM
    batch = batch_size or max(1, AT_ONCE // prod(loaded.event_shape))
    if dtype == "float64":
        cast(torch.nn.Module, loaded.denoiser.network).double()
    denoiser = transforms.clip(loaded.denoiser, *clip_x0) if clip_x0 else loaded.denoiser
    with output_folder(out):
        start = time.perf_counter()
        with sampling_bar(sampler, intervals, -(-size // batch)) as callback:
            result = sample(
                denoiser,
                (size, *loaded.event_shape),
                sampler,
                **request,
                seed=seed,
                noise=noise,
                dtype=getattr(torch, dtype),
                device=device,
                batch_size=batch,
                first=index,
                callback=callback,
                cond={} if labels is None else {"y": labels.to(device)},
                **options,
            )
            finite = bool(torch.isfinite(result.x).all())  # also waits for the device, so that the time is true
        seconds = time.perf_counter() - start
        if not finite:
            raise SolverFailure(f"{sampler}: the samples are not finite; nothing was written")
        record = {
            "command": shlex.join(["scoresde", *ctx.obj]),
            "model": model,
            "weights": weights,
            "sha256": loaded.info["sha256"],
            "step": loaded.info.get("step"),
            "settings": dict(result.settings),
            "class": class_ or ("in turn" if loaded.classes else None),
            "classes": loaded.classes,
            "clip_x0": clip_x0,
            "num": size,
            "batch_size": batch,
            "times": result.times,
            "nfe": result.nfe,
            "network_evals": result.network_evals,
            "seconds": round(seconds, 3),
        }
        files = render(loaded, result, labels, class_ is None)
        text = (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode()
        name = free_name(out, name_files(model, result, class_), record)
        written = write_together(out, {f"{name}{end}": content for end, content in {**files, ".json": text}.items()})
    for path in written:
        click.echo(str(path))
    evals = f" ({result.network_evals} network evaluations)" if result.network_evals != result.nfe else ""
    steps = f"{intervals} steps" if intervals else "adaptive"
    click.echo(
        f"{size} samples of {model} ({weights} weights) by {sampler}, {steps}:"
        f" {result.nfe} network calls per sample{evals}, {duration(seconds)}"
    )


def choose_labels(model: Model, wanted: str | None, num: int | None, first: int) -> Tensor | None:
    """The class of each sample: class k mod classes for sample k, or the one that is wanted; None: no class."""
    import torch

    classes = len(model.classes)
    if wanted is None and classes:
        size = num or max(classes, NUM - NUM % classes)
        return (first + torch.arange(size)) % classes
    if wanted is None or (wanted == "none" and classes):
        return None
    if not classes:
        raise BadInput(f"--class {wanted}: model {model.name!r} has no classes")
    by_name = {name.casefold(): k for k, name in enumerate(model.classes)}
    if wanted.casefold() in by_name:
        k = by_name[wanted.casefold()]
    elif re.fullmatch(r"[+-]?\d+", wanted):
        k = int(wanted)
        if not 0 <= k < classes:
            raise BadInput(f"--class {wanted}: classes are numbered 0 to {classes - 1}")
    else:
        k = model.classes.index(choose("--class", wanted, [*model.classes, "none"]))
    return torch.full((num or NUM,), k)


def name_files(model: str, result: Result, class_: str | None) -> str:
    """ode-10-seed0, and in front the model, behind the class and the first index, where they are not the default."""
    settings, path = result.settings, Path(model).resolve()
    own = ("model.safetensors", "checkpoint.safetensors")  # of a run, which is known by its folder
    stem = path.parent.name if path.name in own else path.name.removesuffix(".safetensors")
    parts = [
        *([stem] if model != DEFAULT_MODEL else []),
        settings["sampler"],
        str(settings.get("steps", "adaptive")),
        f"seed{settings['seed']}",
        *([class_] if class_ is not None else []),
        *([f"index{settings['first']}"] if settings["first"] else []),
    ]
    return "-".join(re.sub(r"[^\w.+]+", "-", part).strip("-") for part in parts)


def free_name(out: Path, name: str, record: dict[str, Any]) -> str:
    """The name, or name-2, name-3, … where another run's files have it already; the same run takes its own again."""

    def same(path: Path) -> bool:
        try:
            other = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        own = json.loads(json.dumps(record))
        return {**other, **dict.fromkeys(PASSING)} == {**own, **dict.fromkeys(PASSING)}

    names = (name if k == 1 else f"{name}-{k}" for k in count(1))
    return next(n for n in names if not (out / f"{n}.json").exists() or same(out / f"{n}.json"))


def render(model: Model, result: Result, labels: Tensor | None, by_class: bool) -> dict[str, bytes]:
    """The content of the picture and of the arrays, by the ending of their names."""
    import numpy as np

    from scoresde.data import to_uint8
    from scoresde.pictures import picture

    x = model.scaler.decode(result.x.cpu())
    if model.info["config"]["data"]["scaler"] == "image":
        x = to_uint8(x)
    arrays = {"samples": x.numpy()} if labels is None else {"samples": x.numpy(), "labels": labels.numpy()}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # pyright: ignore[reportArgumentType]
    return {".png": picture(arrays["samples"], arrays.get("labels") if by_class else None), ".npz": buffer.getvalue()}
