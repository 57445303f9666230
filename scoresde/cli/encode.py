"""``scoresde encode``: from samples to the noise that the probability flow would draw them from."""

from __future__ import annotations

import io
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scoresde.cli.files import DEFAULT_MODEL, free_name, json_text, plain
from scoresde.cli.options import SamplerCommand, flags_of, read_options
from scoresde.cli.output import output_folder, write_together
from scoresde.cli.params import Whole, device_option, find_device, weights_option
from scoresde.cli.text import duration

if TYPE_CHECKING:
    from torch import Tensor

    from scoresde.model import Model


@click.command("encode", cls=SamplerCommand, short_help="From samples to their latents.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--model",
    default=DEFAULT_MODEL,
    metavar="NAME|PATH",
    help=f"The model of the samples (default: {DEFAULT_MODEL}): see `scoresde models`.",
)
@click.option("--sampler", default="ode", metavar="NAME", help="One that encodes: see `scoresde samplers NAME`.")
@click.option("--steps", type=Whole(), metavar="N", help="Intervals of the grid (default: by tolerance, or 100).")
@click.option(
    "--grid", metavar="NAME", help="t, phi, lambda, karras:5, ... (default: phi, or lambda for multistep samplers)."
)
@click.option("--class", "class_", metavar="NAME|INDEX", help="One class, or none (default: the file's labels).")
@weights_option
@device_option
@click.option("--batch-size", type=Whole(), metavar="N", help="Samples at a time: changes memory and rounding.")
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="DIR", help="Folder to write into (default: that of FILE)."
)
@click.pass_context
def command(
    ctx: click.Context,
    file: Path,
    model: str,
    sampler: str,
    steps: int | None,
    grid: str | None,
    class_: str | None,
    weights: str,
    device: str,
    batch_size: int | None,
    out: Path | None,
    own: dict[str, str | None],
) -> None:
    """Encode the samples of FILE, the .npz of `scoresde sample`: carry them along the probability flow up to noise.

    Writes NAME-latent.npz with the arrays `latent`, the states at t_max, and `labels`, and a record (.json).
    `scoresde sample --from-latent` takes it back to the samples, by the command that is printed, or on to others: by
    another class or model.

    \b
    Examples:
      scoresde encode samples/ode-10-seed0.npz
      scoresde encode samples/ode-10-seed0.npz --steps 100 --out latents
      scoresde encode samples/swiss-ode-10-seed0.npz --model runs/swiss --sampler ode --rtol 1e-6
    """  # noqa: D301 (click wants the \b)
    from scoresde.cli.draw import choose_labels, told
    from scoresde.cli.latent import read_rows
    from scoresde.model import load_model
    from scoresde.samplers.plan import plan_encode
    from scoresde.samplers.registry import find_sampler

    options, found = read_options(sampler, own, flags_of(ctx)), find_sampler(sampler)
    device = find_device(device)
    loaded = load_model(model, weights, device)
    plan_encode(loaded.sde, found, steps, grid, options)  # every fault of the request, before any file is read
    rows = read_rows(file, "samples", loaded)
    labels = rows.labels if class_ is None else choose_labels(loaded, class_, len(rows.x), 0)
    with output_folder(out or file.parent) as folder:
        latent, record = run(loaded, rows.x, labels, device, batch_size, sampler, steps, grid, options)
        source = {"file": str(file), "sha256": rows.sha256}
        facts = {"command": shlex.join(["scoresde", *ctx.obj]), "model": model, "weights": weights, "encoded": source}
        record = plain({**facts, **record, "class": class_})
        name = free_name(folder, f"{file.stem}-latent", record)
        arrays = {".npz": pack(latent, labels), ".json": (json_text(record) + "\n").encode()}
        paths = write_together(folder, {f"{name}{end}": content for end, content in arrays.items()})
    for path in paths:
        click.echo(str(path))
    taken = f"{record['settings']['steps']} steps" if record["settings"]["steps"] else "adaptive"
    click.echo(
        f"{len(latent)} samples encoded by {model} ({weights} weights) and {sampler}, {taken}:"
        f" {record['nfe']} network calls per sample, {told(record)}{duration(record['seconds'])}"
    )
    click.echo(f"back to the samples: {way_back(paths[0], record, own)}")


def run(
    model: Model,
    x: Tensor,
    labels: Tensor | None,
    device: str,
    batch_size: int | None,
    sampler: str,
    steps: int | None,
    grid: str | None,
    options: dict[str, Any],
) -> tuple[Tensor, dict[str, Any]]:
    """The latents of samples in data units, and what the record says of the run."""

    import numpy as np
    import torch

    from scoresde.cli.draw import counts_of
    from scoresde.samplers import encode

    batch = batch_size or model.batch_size
    cond = {} if labels is None else {"y": labels.to(device)}
    start = time.perf_counter()
    scaled = model.scaler.encode(x).to(device)
    result = encode(model.denoiser, scaled, sampler, steps, grid=grid, batch_size=batch, cond=cond, **options)
    latent = result.x.float().cpu()  # also waits for the device, so that the time is true
    seconds = time.perf_counter() - start
    versions = {"device": device, "torch": torch.__version__, "numpy": np.__version__}
    return latent, {
        "sha256": model.info["sha256"],
        "step": model.info.get("step"),
        "settings": {**result.settings, **versions},
        "classes": model.classes,
        "num": len(latent),
        "batch_size": batch,
        "times": result.times,
        "nfe": result.nfe,
        "network_evals": result.network_evals,
        **counts_of(result),
        "seconds": round(seconds, 3),
    }


def way_back(latent: Path, record: dict[str, Any], own: dict[str, str | None]) -> str:
    """The command that undoes an encoding: the same sampler, steps, grid and options."""
    settings = record["settings"]
    words = ["scoresde", "sample", "--from-latent", str(latent)]
    if record["model"] != DEFAULT_MODEL:
        words += ["--model", record["model"]]
    if record["weights"] != "ema":
        words += ["--weights", record["weights"]]
    words += ["--sampler", settings["sampler"]]
    if settings["steps"]:
        words += ["--steps", str(settings["steps"]), "--grid", settings["grid"]]
    return shlex.join([*words, *(word or "" for pair in own.items() for word in pair)])


def pack(latent: Tensor, labels: Tensor | None) -> bytes:
    """The content of the .npz file."""
    import numpy as np

    buffer = io.BytesIO()
    arrays = {"latent": latent.numpy()} if labels is None else {"latent": latent.numpy(), "labels": labels.numpy()}
    np.savez_compressed(buffer, **arrays)  # pyright: ignore[reportArgumentType]
    return buffer.getvalue()
