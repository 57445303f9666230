"""``scoresde restore``: measure a picture, then draw pictures that would have been measured so."""

from __future__ import annotations

import re
import shlex
import time
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scoresde.cli.files import DEFAULT_MODEL, free_name, json_text, plain
from scoresde.cli.options import SamplerCommand, flags_of, read_options
from scoresde.cli.output import output_folder, write_together
from scoresde.cli.params import Number, Whole, device_option, find_device, weights_option
from scoresde.cli.progress import sampling_bar
from scoresde.cli.text import duration
from scoresde.errors import BadInput, choose

if TYPE_CHECKING:
    from torch import Tensor

    from scoresde.guidance import Linear
    from scoresde.guidance.inverse import Measured
    from scoresde.model import Model

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
@click.option("--method", default="pigdm", metavar="NAME", help=f"{', '.join(METHODS)} (default: pigdm).")
@click.option("--model", default=DEFAULT_MODEL, metavar="NAME|PATH", help=f"The prior (default: {DEFAULT_MODEL}).")
@click.option("--sampler", default="ddpm", metavar="NAME", help="See `scoresde samplers` (default: ddpm).")
@click.option("--steps", type=Whole(), metavar="N", help=f"Intervals of the grid (default: {STEPS}).")
@click.option(
    "--noise-std", type=Number(), default=0.0, metavar="X", help="Noise of the measurement, of 255 (default: 0)."
)
@click.option(
    "--strength", type=Number(), metavar="X", help="Of the method; of dps and mcg in units of ζ' = 5 (default: 1)."
)
@click.option("--class", "class_", metavar="NAME|INDEX", help="One class (default: none, the model's null class).")
@click.option("--seed", type=Whole(0), default=0, metavar="N", help="Of the noise, of both kinds (default: 0).")
@click.option("--num", type=Whole(), default=1, metavar="N", help="Pictures drawn from the posterior (default: 1).")
@weights_option
@click.option("--resize", is_flag=True, help="Take the middle of an image, in the size and colours of the model.")
@device_option
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("samples"), metavar="DIR", help="Folder (default: samples)."
)
@click.pass_context
def command(
    ctx: click.Context,
    image: Path,
    operator: str,
    method: str,
    model: str,
    sampler: str,
    steps: int | None,
    noise_std: float,
    strength: float | None,
    class_: str | None,
    seed: int,
    num: int,
    weights: str,
    resize: bool,
    device: str,
    out: Path,
    own: dict[str, str | None],
) -> None:
    """Degrade the picture in IMAGE by an operator and noise, and restore it with a model as the prior.

    Writes a sheet (.png): the picture before, the measurement, the restored ones; each of these as a picture; and a
    record (.json). A measurement that is no picture is shown by its pseudo-inverse, which fills with zeros. The methods
    are those of docs/inverse.md; --strength multiplies their guidance.

    \b
    Examples:
      scoresde restore shoe.png --operator blur:2
      scoresde restore shoe.png --operator down:4 --method ddnm --sampler ddim --steps 20 --eta 0.85
      scoresde restore shoe.png --operator mask:0.3 --noise-std 10 --num 4 --class sneaker
      scoresde restore shoe.png --operator radon:12 --method diffpir
    """  # noqa: D301 (click wants the \b)
    import torch

    from scoresde.cli.draw import choose_labels
    from scoresde.cli.image_files import read_image
    from scoresde.guidance import parse_operator
    from scoresde.model import load_model
    from scoresde.samplers.registry import find_sampler

    choose("method", method, METHODS)
    for name, value in {"noise-std": noise_std, "strength": 0.0 if strength is None else strength}.items():
        if not (isfinite(value) and value >= 0):
            raise BadInput(f"--{name} {value:g}: a number of at least 0")
    options, device = read_options(sampler, own, flags_of(ctx)), find_device(device)
    loaded = load_model(model, weights, device)
    picture = torch.tensor(read_image(image, loaded, resize).pixels)
    measure = parse_operator(operator, loaded.event_shape)
    labels = choose_labels(loaded, class_ or "none", num, 0) if loaded.classes else None
    start = time.perf_counter()
    y = add_noise(measure(picture[None].float()), noise_std, seed)
    steps = STEPS if steps is None and find_sampler(sampler).build else steps
    how: dict[str, Any] = {"sampler": sampler, "steps": steps, **options}
    denoiser = guided(loaded, measure, y, method, noise_std, strength, how)
    with output_folder(out) as folder:
        restored, record = run(loaded, denoiser, num, seed, labels, device, how)
        facts = {"command": shlex.join(["scoresde", *ctx.obj]), "model": model, "weights": weights, "class": class_}
        asked = {
            "edited": "restore",
            "image": str(image),
            "resize": resize,
            "operator": operator,
            "method": method,
            "noise_std": noise_std,
        }
        seconds = round(time.perf_counter() - start, 3)
        record = plain({**facts, **asked, "strength": strength, "num": num, **record, "seconds": seconds})
        words = (image.stem, operator, method, f"seed{seed}")
        name = free_name(folder, "-".join(re.sub(r"[^\w.+]+", "-", word).strip("-") for word in words), record)
        files = render(picture, shown(measure, y), restored)
        files[".json"] = (json_text(record) + "\n").encode()
        paths = write_together(folder, {f"{name}{end}": content for end, content in files.items()})
    for path in paths:
        click.echo(str(path))
    near = f"PSNR {psnr(restored.mean(0), picture):.1f} dB" + (" of their mean" if num > 1 else "")
    click.echo(
        f"{num} restored by {method} and {sampler}, {record['nfe']} network calls"
        f"{' with a backward pass each' if denoiser.method.backward else ''}: {near},"
        f" of the measurement {psnr(shown(measure, y)[0], picture):.1f} dB, {duration(seconds)}"
    )


def add_noise(y: Tensor, noise_std: float, seed: int) -> Tensor:
    """The measurement with the noise of a seed."""
    import torch

    return y + noise_std * torch.randn(y.shape, generator=torch.Generator().manual_seed(seed))


def guided(
    model: Model,
    operator: Linear,
    y: Tensor,
    method: str,
    noise_std: float,
    strength: float | None,
    how: dict[str, Any],
) -> Measured:
    """The model's denoiser given y, in the model's units; dps and mcg with the steps of the published chain."""
    from scoresde.guidance import chain_strength, measured
    from scoresde.samplers.plan import plan_run
    from scoresde.samplers.registry import find_sampler

    rest = {key: value for key, value in how.items() if key not in ("sampler", "steps")}
    solver, settings = plan_run(model.sde, find_sampler(how["sampler"]), how["steps"], options=rest)
    given: Any = 1.0 if strength is None else strength
    if method in ("dps", "mcg"):
        if settings["adaptive"]:
            raise BadInput(f"--method {method}: its steps have a length of their own: give a --sampler with --steps")
        given = chain_strength(model.sde, solver.times, ZETA * given)
    return measured(model.denoiser, y[0], operator, method, noise_std, given, scaler=model.scaler)


def run(
    model: Model, denoiser: Measured, num: int, seed: int, labels: Tensor | None, device: str, how: dict[str, Any]
) -> tuple[Tensor, dict[str, Any]]:
    """The restored pictures in data units (num, *event), and what the record says of the run."""
    from scoresde.samplers import sample

    cond = {} if labels is None else {"y": labels.to(device)}
    with sampling_bar(how["sampler"], how["steps"], 1) as callback:
        result = sample(
            denoiser, (num, *model.event_shape), seed=seed, device=device, cond=cond, callback=callback, **how
        )
    record = {"sha256": model.info["sha256"], "settings": dict(result.settings), "nfe": result.nfe}
    return model.scaler.decode(result.x.cpu()), record


def shown(operator: Linear, y: Tensor) -> Tensor:
    """A measurement as pictures: itself if it has their shape, else its pseudo-inverse."""
    return y if tuple(y.shape[1:]) == operator.shape else operator.inverse(y)


def render(picture: Tensor, measurement: Tensor, restored: Tensor) -> dict[str, bytes]:
    """The sheet and the restored pictures, by the ending of their names."""
    import numpy as np

    from scoresde.cli.image_files import png
    from scoresde.data import to_uint8
    from scoresde.pictures import film

    columns = [picture, to_uint8(measurement[0]), *to_uint8(restored)]
    titles = ["before", "measured", "restored", *[""] * (len(restored) - 1)]
    sheet = film(np.stack([column.cpu().numpy()[None] for column in columns]), titles)
    names = ["-restored.png"] if len(restored) == 1 else [f"-restored-{k}.png" for k in range(len(restored))]
    return {".png": sheet, **{name: png(image) for name, image in zip(names, to_uint8(restored).numpy(), strict=True)}}


def psnr(image: Tensor, truth: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of pictures in 0..255: 10 log10 of 255² over the mean squared error."""
    from math import inf, log10

    error = float((image.clamp(0, 255) - truth.float()).square().mean())
    return 10 * log10(255**2 / error) if error else inf
